package main

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// raw is a codec for messages that are bytes, so that no code is generated.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// A failure is what the method Fail fails with.
type failure struct {
	Code                    uint32
	Message, Reason, Domain string
	Metadata                map[string]string
	RetryMS                 int64
}

func (f failure) status() error {
	failed := status.New(codes.Code(f.Code), f.Message)
	failed, err := failed.WithDetails(&errdetails.ErrorInfo{Reason: f.Reason, Domain: f.Domain, Metadata: f.Metadata},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Duration(f.RetryMS) * time.Millisecond)})
	if err != nil {
		panic(err)
	}
	return failed.Err()
}

// unary is a method that generated code would define.
func unary(name string, method func(context.Context, []byte) ([]byte, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var request []byte
		if err := read(&request); err != nil {
			return nil, err
		}
		response, err := method(ctx, request)
		return &response, err
	}}
}

// streaming is a method that holds after its first message: from the client, and to it if the
// server streams.
func streaming(name string, fromClient, fromServer bool) grpc.StreamDesc {
	return grpc.StreamDesc{StreamName: name, ClientStreams: fromClient, ServerStreams: fromServer,
		Handler: func(_ any, stream grpc.ServerStream) error {
			var id []byte
			if err := stream.RecvMsg(&id); err != nil {
				return err
			}
			if fromServer {
				if err := stream.SendMsg(&id); err != nil {
					return err
				}
			}
			return held(stream.Context(), string(id))
		}}
}

func held(ctx context.Context, id string) error {
	if hold(ctx, id) {
		return status.Error(codes.Aborted, "the handler gave up")
	}
	return status.FromContextError(ctx.Err()).Err()
}

func serverGRPC() *grpc.Server {
	server := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.StatsHandler(otelgrpc.NewServerHandler()))
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "interop.Peer", Methods: []grpc.MethodDesc{
		unary("Relay", func(ctx context.Context, request []byte) ([]byte, error) {
			var hops []hop
			if err := json.Unmarshal(request, &hops); err != nil {
				return nil, status.Error(codes.InvalidArgument, err.Error())
			}
			return json.Marshal(relay(ctx, hops))
		}),
		unary("Fail", func(_ context.Context, request []byte) ([]byte, error) {
			var f failure
			if err := json.Unmarshal(request, &f); err != nil {
				return nil, status.Error(codes.InvalidArgument, err.Error())
			}
			return nil, f.status()
		}),
		unary("Unary", func(ctx context.Context, id []byte) ([]byte, error) { return nil, held(ctx, string(id)) }),
	}, Streams: []grpc.StreamDesc{
		streaming("ClientStream", true, false), streaming("ServerStream", false, true), streaming("Bidi", true, true),
	}}, nil)
	return server
}

// The connections of relays, by address.
var connections sync.Map

func dial(address string) *grpc.ClientConn {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})))
	if err != nil {
		panic(err)
	}
	return connection
}

func invoke(ctx context.Context, address, method string, request []byte) ([]byte, error) {
	connection, known := connections.Load(address)
	if !known {
		fresh := dial(address)
		if connection, known = connections.LoadOrStore(address, fresh); known {
			fresh.Close()
		}
	}
	var response []byte
	err := connection.(*grpc.ClientConn).Invoke(ctx, method, &request, &response)
	return response, err
}

// callGRPC calls over a connection of its own, and returns the status.
func callGRPC(ctx context.Context, c command) any {
	connection := dial(c.To)
	defer connection.Close()
	message := []byte(c.Message)
	var err error
	switch c.Kind {
	case "unary":
		err = connection.Invoke(ctx, "/interop.Peer/Unary", &message, &[]byte{})
	case "client":
		err = stream(ctx, connection, "ClientStream", true, false, message)
	case "server":
		err = stream(ctx, connection, "ServerStream", false, true, message)
	case "bidi":
		err = stream(ctx, connection, "Bidi", true, true, message)
	default:
		err = connection.Invoke(ctx, c.Kind, &message, &[]byte{})
	}
	failed := status.Convert(err)
	result := map[string]any{"code": code.Code(failed.Code()).String(), "detail": failed.Message()}
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			result["info"] = map[string]any{"reason": detail.Reason, "domain": detail.Domain, "metadata": detail.Metadata}
		case *errdetails.RetryInfo:
			result["retry_ms"] = detail.RetryDelay.AsDuration().Milliseconds()
		}
	}
	return result
}

// stream sends one message, and then reads until the stream ends. Only a client that does not
// stream says that it has sent all.
func stream(ctx context.Context, connection *grpc.ClientConn, method string, fromClient, fromServer bool, message []byte) error {
	desc := &grpc.StreamDesc{ClientStreams: fromClient, ServerStreams: fromServer}
	stream, err := connection.NewStream(ctx, desc, "/interop.Peer/"+method)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&message); err != nil {
		return err
	}
	if !fromClient {
		stream.CloseSend()
	}
	for err == nil {
		err = stream.RecvMsg(&message)
	}
	return err
}
