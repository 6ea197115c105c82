package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"
)

// A hop is the next service of a chain.
type hop struct {
	To string `json:"to"`
	// Wait until no more than this is left, and then call.
	LeftMS int64 `json:"left_ms,omitempty"`
	// Forward the header of the caller, as a proxy does.
	Verbatim bool `json:"verbatim,omitempty"`
}

// A seen is what a service of a chain sees of its request.
type seen struct {
	Service string `json:"service"`
	Trace   string `json:"trace"`
	Tenant  string `json:"tenant"`
	LeftUS  int64  `json:"left_us"`
	Error   string `json:"error,omitempty"`
}

var client = http.Client{Transport: otelhttp.NewTransport(Transport{http.DefaultTransport})}

// A proxy's client does not know the deadline. The key has the caller's header.
var proxy = http.Client{Transport: otelhttp.NewTransport(forwarding{})}

type callersTimeout struct{}

type forwarding struct{}

func (forwarding) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Grpc-Timeout", r.Context().Value(callersTimeout{}).(string))
	return http.DefaultTransport.RoundTrip(r)
}

// relay describes the request, and those of the rest of its chain.
func relay(ctx context.Context, hops []hop) []seen {
	deadline, _ := ctx.Deadline()
	span := trace.SpanContextFromContext(ctx)
	own := seen{Service: "go", Trace: span.TraceID().String(), LeftUS: time.Until(deadline).Microseconds(),
		Tenant: baggage.FromContext(ctx).Member("tenant").Value()}
	if len(hops) == 0 {
		return []seen{own}
	}
	next, rest := hops[0], hops[1:]
	if next.LeftMS > 0 {
		time.Sleep(time.Until(deadline) - time.Duration(next.LeftMS)*time.Millisecond)
	}
	body, err := json.Marshal(rest)
	if err != nil {
		panic(err)
	}
	var response []byte
	if address, isGRPC := strings.CutPrefix(next.To, "grpc://"); isGRPC {
		response, err = invoke(ctx, address, "/interop.Peer/Relay", body)
	} else {
		response, err = post(ctx, next, body)
	}
	var others []seen
	if err == nil {
		err = json.Unmarshal(response, &others)
	}
	if err != nil {
		own.Error = err.Error()
	}
	return append([]seen{own}, others...)
}

func withTenant(ctx context.Context) context.Context {
	tenant, err := baggage.NewMember("tenant", "acme")
	if err != nil {
		panic(err)
	}
	list, err := baggage.New(tenant)
	if err != nil {
		panic(err)
	}
	return baggage.ContextWithBaggage(ctx, list)
}

func post(ctx context.Context, next hop, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, "POST", next.To, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	sender := &client
	if next.Verbatim {
		sender = &proxy
	}
	response, err := sender.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if problem := ReadProblem(response); problem != nil {
		return nil, problem
	}
	return io.ReadAll(response.Body)
}

func handlers() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /relay", func(w http.ResponseWriter, r *http.Request) {
		var hops []hop
		if err := json.NewDecoder(r.Body).Decode(&hops); err != nil {
			(&Problem{Status: 400, Code: "INVALID_ARGUMENT", Detail: err.Error()}).Write(w)
			return
		}
		// To its end, or the server does not see that the client disconnects.
		io.Copy(io.Discard, r.Body)
		ctx := context.WithValue(r.Context(), callersTimeout{}, r.Header.Get("Grpc-Timeout"))
		json.NewEncoder(w).Encode(relay(ctx, hops))
	})
	mux.HandleFunc("GET /hold/{id}", func(w http.ResponseWriter, r *http.Request) {
		if hold(r.Context(), r.PathValue("id")) {
			panic(http.ErrAbortHandler)
		}
		if r.Context().Err() == context.DeadlineExceeded {
			(&Problem{Status: 504, Code: "DEADLINE_EXCEEDED", Detail: "too slow", Origin: "go"}).Write(w)
		}
	})
	mux.HandleFunc("POST /fail", func(w http.ResponseWriter, r *http.Request) {
		problem := &Problem{}
		if err := json.NewDecoder(r.Body).Decode(problem); err != nil {
			problem = &Problem{Status: 400, Code: "INVALID_ARGUMENT", Detail: err.Error()}
		}
		problem.Write(w)
	})
	return mux
}

func protocols(http1, http2 bool) *http.Protocols {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(http1)
	protocols.SetUnencryptedHTTP2(http2)
	return protocols
}

// callHTTP calls over a connection of its own. It returns the problem, or the kind of the failure.
func callHTTP(ctx context.Context, c command) any {
	base := &http.Transport{Protocols: protocols(c.Kind == "http1", c.Kind == "http2")}
	defer base.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, "GET", c.To, nil)
	if err != nil {
		panic(err)
	}
	client := http.Client{Transport: otelhttp.NewTransport(Transport{base})}
	response, err := client.Do(request)
	if err != nil {
		return map[string]string{"code": describe(err), "detail": err.Error()}
	}
	defer response.Body.Close()
	if problem := ReadProblem(response); problem != nil {
		return problem
	}
	io.Copy(io.Discard, response.Body)
	return map[string]string{"code": "OK"}
}
