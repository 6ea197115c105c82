// A Go service beside Throughline: net/http with otelhttp, and grpc-go with otelgrpc.
//
// It reads commands from stdin and writes events to stdout, one line of JSON each.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
)

// A command says what to do. Which of the other fields it has depends on that.
type command struct {
	Do        string
	ID        string
	Kind      string
	To        string
	TimeoutMS int64
	Hops      []hop
	Message   string
}

// An event of the request or the call with this ID.
type event struct {
	ID    string `json:"id"`
	Event string `json:"event"`
	At    int64  `json:"at"`
	What  any    `json:"what,omitempty"`
}

var (
	output sync.Mutex
	spans  = tracetest.NewInMemoryExporter()
	// The functions that cancel this service's calls, and the channels that abort its handlers.
	cancels, aborts sync.Map
)

// emit writes an event, with the time at which it happened.
func emit(id, name string, what any) { emitAt(time.Now(), id, name, what) }

func emitAt(at time.Time, id, name string, what any) { write(event{id, name, at.UnixNano(), what}) }

func write(value any) {
	output.Lock()
	defer output.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(value); err != nil {
		panic(err)
	}
}

// hold waits until the request is cancelled, or until the command "abort". It returns whether it
// was the latter.
func hold(ctx context.Context, id string) bool {
	abort := make(chan struct{})
	aborts.Store(id, abort)
	defer aborts.Delete(id)
	emit(id, "called", nil)
	select {
	case <-ctx.Done():
		emit(id, "done", ctx.Err().Error())
		return false
	case <-abort:
		return true
	}
}

func run(c command) {
	switch c.Do {
	case "cancel":
		if cancel, ok := cancels.LoadAndDelete(c.ID); ok {
			at := time.Now()
			cancel.(context.CancelFunc)()
			emitAt(at, c.ID, "cancelled", nil)
		}
	case "abort":
		if abort, ok := aborts.LoadAndDelete(c.ID); ok {
			emit(c.ID, "aborted", nil)
			close(abort.(chan struct{}))
		}
	case "call":
		ctx, cancel := context.WithCancel(context.Background())
		if c.TimeoutMS > 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(c.TimeoutMS)*time.Millisecond)
		}
		cancels.Store(c.ID, cancel)
		go func() {
			result := call(ctx, c)
			emit(c.ID, "result", result)
			cancel()
			cancels.Delete(c.ID)
		}()
	case "relay":
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.TimeoutMS)*time.Millisecond)
			defer cancel()
			ctx, span := otel.Tracer("peer").Start(withTenant(ctx), "chain")
			result := relay(ctx, c.Hops)
			span.End()
			emit(c.ID, "result", result)
		}()
	case "spans":
		ended := []map[string]string{}
		for _, span := range spans.GetSpans().Snapshots() {
			parent := ""
			if span.Parent().IsValid() {
				parent = span.Parent().SpanID().String()
			}
			ended = append(ended, map[string]string{"trace": span.SpanContext().TraceID().String(),
				"span": span.SpanContext().SpanID().String(), "parent": parent, "kind": span.SpanKind().String()})
		}
		spans.Reset()
		emit(c.ID, "spans", ended)
	default:
		panic("no such command: " + c.Do)
	}
}

func call(ctx context.Context, c command) any {
	if c.Kind == "http1" || c.Kind == "http2" {
		return callHTTP(ctx, c)
	}
	return callGRPC(ctx, c)
}

func describe(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "DEADLINE_EXCEEDED"
	case errors.Is(err, context.Canceled):
		return "CANCELLED"
	}
	return "UNAVAILABLE"
}

func listen() (net.Listener, int) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return listener, listener.Addr().(*net.TCPAddr).Port
}

func main() {
	otel.SetTracerProvider(trace.NewTracerProvider(trace.WithSyncer(spans)))
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))

	onHTTP, portHTTP := listen()
	server := http.Server{Handler: otelhttp.NewHandler(Deadline(handlers()), "peer"), Protocols: protocols(true, true)}
	go server.Serve(onHTTP)
	onGRPC, portGRPC := listen()
	go serverGRPC().Serve(onGRPC)

	write(fmt.Sprintf("grpc-go %s, otelhttp %s, OpenTelemetry-Go %s", grpc.Version, otelhttp.Version, otel.Version()))
	write(map[string]int{"http": portHTTP, "grpc": portGRPC})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			panic(err)
		}
		run(c)
	}
}
