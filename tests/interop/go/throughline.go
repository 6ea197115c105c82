package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"
)

// Deadline gives each request the time that its caller has left.
func Deadline(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if left, ok := parseTimeout(r.Header.Get("Grpc-Timeout")); ok {
			ctx, cancel := context.WithTimeout(r.Context(), left)
			defer cancel()
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}

// Transport sends the time that the request's context has left, less a reserve for the response.
type Transport struct{ Base http.RoundTripper }

func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())     // a RoundTripper must not change its request
	r.Header.Del("Grpc-Timeout") // a forwarded request has the header of its own caller
	if deadline, ok := r.Context().Deadline(); ok {
		left := max(time.Until(deadline), 0)
		left -= min(max(left/100, 5*time.Millisecond), 50*time.Millisecond, left/2)
		r.Header.Set("Grpc-Timeout", formatTimeout(left))
	}
	return t.Base.RoundTrip(r)
}

var units = map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second,
	'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond}

// parseTimeout reads 1 to 8 digits and a unit. Anything else counts as absent.
func parseTimeout(header string) (time.Duration, bool) {
	last := len(header) - 1
	if last < 1 || last > 8 {
		return 0, false
	}
	unit, known := units[header[last]]
	count, err := strconv.ParseUint(header[:last], 10, 32)
	if !known || err != nil {
		return 0, false
	}
	if int64(count) > math.MaxInt64/int64(unit) {
		return math.MaxInt64, true
	}
	return time.Duration(count) * unit, true
}

// formatTimeout rounds down. The callee refuses a request without any time left.
func formatTimeout(left time.Duration) string {
	if left < 100*time.Second {
		return fmt.Sprintf("%du", left.Microseconds())
	}
	return fmt.Sprintf("%dm", min(left.Milliseconds(), 99_999_999))
}

// Problem is a problem document (RFC 9457) with Throughline's members.
type Problem struct {
	Type      string           `json:"type,omitempty"`
	Title     string           `json:"title,omitempty"`
	Status    int              `json:"status"`
	Detail    string           `json:"detail,omitempty"`
	Instance  string           `json:"instance,omitempty"`
	Code      string           `json:"code,omitempty"`      // one of gRPC's 16 codes: "NOT_FOUND"
	Retryable *bool            `json:"retryable,omitempty"` // nil: the service does not say
	Origin    string           `json:"origin,omitempty"`    // the service where the error began
	Path      []string         `json:"path,omitempty"`      // the services it passed through, origin first
	Details   []map[string]any `json:"details,omitempty"`   // each with an "@type"
}

func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// Write responds with the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// ReadProblem returns the problem of a 4xx or 5xx response, and nil for other responses.
func ReadProblem(r *http.Response) *Problem {
	if r.StatusCode < 400 {
		return nil
	}
	p := &Problem{}
	if json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(p) != nil {
		p = &Problem{Detail: r.Status} // not a problem document: only the status counts
	}
	p.Status = r.StatusCode
	return p
}
