//! How gRPC requests end early: deadlines, shutdown, disconnects and panics.

use std::convert::Infallible;
use std::sync::mpsc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use throughline::{Cause, ClientLayer, Code, Context, ContextLayer, Error, OnDisconnect};
use tokio::time::timeout;
use tonic::Status;
use tower::{Layer, Service, ServiceExt, service_fn};

use super::grpc::{grpc_request, status_code};
use crate::support::grpc::{call_grpc, call_grpc_stream, serve_grpc, serve_grpc_by, serve_grpc_stream};
use crate::support::{PATIENCE, Traced, client, text};

const METHOD: &str = "/cards.Cards/Watch";

#[tokio::test]
async fn a_stream_that_stalls_ends_with_the_status_in_trailers() {
    let service = Traced::new("cards");
    for layer in [service.internal(), service.edge()] {
        let is_edge = format!("{layer:?}").contains("edge");
        let address = serve_grpc_stream(layer.max_timeout(Duration::from_millis(50)), "one").await;
        let mut messages = call_grpc_stream(address, METHOD).await;
        assert_eq!(messages.message().await.unwrap().unwrap(), "one");
        let status = timeout(PATIENCE, messages.message()).await.unwrap().unwrap_err();
        assert_eq!((status.code(), status.message()), (tonic::Code::DeadlineExceeded, "the response has stalled"));
        let origin = if is_edge { None } else { Some("cards") };
        assert_eq!(Error::from_grpc_status(status).origin(), origin);
    }
    for span in service.spans(2).await {
        assert_eq!(span.name, "cards.Cards/Watch");
        assert_eq!(text(&span, "rpc.status_code"), Some("DEADLINE_EXCEEDED"));
        assert_eq!(text(&span, "error.type"), Some("DEADLINE_EXCEEDED"));
        assert!(text(&span, "throughline.cancel.cause").is_some());
    }
}

#[tokio::test]
async fn a_stream_that_a_shutdown_ends_is_retryable_unavailable() {
    for cause in
        [Cause::Shutdown, Cause::Canceled, Cause::Error(std::sync::Arc::new(std::io::Error::other("the disk is full")))]
    {
        let (service, process) = (Traced::new("cards"), Context::background().with_cancel());
        let address = serve_grpc_stream(service.internal().base(&process), "one").await;
        let mut messages = call_grpc_stream(address, METHOD).await;
        assert_eq!(messages.message().await.unwrap().unwrap(), "one");
        process.cancel_with(cause);
        let status = timeout(PATIENCE, messages.message()).await.unwrap().unwrap_err();
        let error = Error::from_grpc_status(status);
        assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)));
        assert!(!format!("{error:#}").contains("disk"), "{error:#}");
        assert_eq!(text(&service.span().await, "rpc.status_code"), Some("UNAVAILABLE"));
    }
}

#[tokio::test]
async fn a_body_that_fails_with_its_context_ends_with_trailers_too() {
    let process = Context::background().with_cancel();
    let layer = ContextLayer::internal().base(&process);
    let failing = service_fn(async |request: Request<Body>| {
        let ctx = request.extensions().get::<Context>().unwrap().clone();
        let failure = async move {
            ctx.done().await;
            Err::<Vec<u8>, _>(std::io::Error::other("stopped"))
        };
        let mut response = Response::new(Body::from_stream(futures_util::stream::once(failure)));
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        Ok::<_, Infallible>(response)
    });
    let request = Request::post(METHOD).version(http::Version::HTTP_2).header("content-type", "application/grpc");
    let response = layer.layer(failing).call(request.body(Body::empty()).unwrap()).await.unwrap();
    process.cancel();
    let trailers = response.into_body().collect().await.unwrap().trailers().cloned().unwrap();
    assert_eq!(Status::from_header_map(&trailers).unwrap().code(), tonic::Code::Unavailable);
}

/// An outer layer drops the response future when its own timer has fired. The response must be
/// ready then.
#[test]
fn a_detached_handler_that_has_not_seen_its_deadline_does_not_delay_the_response() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _entered = runtime.enter();
    // The only worker is busy, so the handler's task is not polled.
    let (release, released) = mpsc::channel::<()>();
    let (busy, is_busy) = mpsc::channel();
    runtime.spawn(async move {
        busy.send(()).unwrap();
        released.recv().unwrap_err();
    });
    is_busy.recv().unwrap();
    let service = Traced::new("cards");
    let (sender, receiver) = mpsc::channel();
    let hanging = service_fn(move |request: Request<Body>| {
        sender.send(request.extensions().get::<Context>().unwrap().clone()).unwrap();
        std::future::pending::<Result<Response<Body>, Infallible>>()
    });
    let mut layered = service.internal().on_disconnect(OnDisconnect::Detach).layer(hanging);
    let request = Request::get("/").header("grpc-timeout", "20m").body(Body::empty()).unwrap();
    let mut response = Box::pin(layered.call(request));
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    assert!(response.as_mut().poll(cx).is_pending());
    let ctx = receiver.recv().unwrap();
    while !ctx.is_done() {
        std::thread::yield_now();
    }
    let std::task::Poll::Ready(Ok(response)) = response.as_mut().poll(cx) else { panic!("it is ready") };
    assert_eq!(response.status(), 504);
    drop((response, release));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_method_is_deadline_exceeded_beside_tonics_own_timer() {
    // Long enough for a busy machine to poll each request once before.
    let limit = Duration::from_millis(400);
    let layer = ContextLayer::internal().on_disconnect(OnDisconnect::Detach).max_timeout(limit);
    let server = tonic::transport::Server::builder().timeout(limit);
    let address = serve_grpc_by(server, layer, |_| std::future::pending()).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let calls = (0..50).map(|_| {
        let mut client = tonic::client::Grpc::with_origin(channel.clone(), endpoint.uri().clone());
        async move {
            client.ready().await.unwrap();
            let request = tonic::Request::new(bytes::Bytes::new());
            let path = http::uri::PathAndQuery::from_static(METHOD);
            client.unary(request, path, crate::support::grpc::Raw).await.unwrap_err()
        }
    });
    for status in futures_util::future::join_all(calls).await {
        assert_eq!((status.code(), status.message()), (tonic::Code::DeadlineExceeded, "deadline exceeded"));
    }
}

#[tokio::test]
async fn the_response_of_a_detached_handler_is_on_the_span_after_a_disconnect() {
    let service = Traced::new("cards");
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let released = std::sync::Mutex::new(Some(released));
    let handler = service_fn(move |_: Request<Body>| {
        let released = released.lock().unwrap().take().unwrap();
        async move {
            released.await.unwrap();
            Ok::<_, Infallible>(Response::builder().status(201).body(Body::from("created")).unwrap())
        }
    });
    let mut layered = service.internal().on_disconnect(OnDisconnect::Detach).layer(handler);
    let mut response = Box::pin(layered.call(Request::new(Body::empty())));
    assert!(futures_util::poll!(&mut response).is_pending());
    drop(response);
    release.send(()).unwrap();
    let span = service.span().await;
    assert_eq!(crate::support::number(&span, "http.response.status_code"), Some(201.0));
    assert!(text(&span, "throughline.cancel.cause").is_some());
}

#[tokio::test]
async fn a_panic_in_a_handler_is_internal_to_its_caller_and_the_connection_stays_open() {
    let (service, caller) = (Traced::new("cards"), Traced::new("api"));
    let panicking = |request: tonic::Request<Bytes>| async move {
        assert!(request.get_ref().is_empty(), "a handler that panics");
        Ok(Bytes::from("next"))
    };
    let layer = client().tracer(caller.telemetry.tracer().clone());
    for (served_by, message, origin) in
        [(service.internal(), "the handler panicked", "cards"), (service.edge(), "internal error", "127.0.0.1")]
    {
        let address = serve_grpc(served_by, panicking).await;
        let status = call_grpc(&layer, &Context::background(), address, METHOD, "now").await.unwrap_err();
        let error = Error::from_grpc_status(status);
        assert_eq!((error.code(), error.message(), error.origin()), (Code::Internal, message, Some(origin)));
        assert_eq!(call_grpc(&layer, &Context::background(), address, METHOD, "").await.unwrap(), "next");
    }
    for span in service.spans(4).await.iter().step_by(2) {
        assert_eq!(
            (text(span, "error.type"), text(span, "throughline.cancel.cause")),
            (Some("panic"), Some("panicked"))
        );
        assert_eq!(status_code(span), Some("INTERNAL"));
    }
}

#[tokio::test]
async fn a_panic_in_the_body_of_a_stream_is_internal_in_its_trailers() {
    for detach in [false, true] {
        let service = Traced::new("cards");
        let panicking = service_fn(|_: Request<Body>| {
            let frames = futures_util::stream::iter([1, 0]).map(|left| {
                assert!(left > 0, "a body that panics");
                Ok::<_, Infallible>(Frame::data(Bytes::from("one")))
            });
            let response = Response::builder().header("content-type", "application/grpc");
            std::future::ready(Ok::<_, Infallible>(response.body(StreamBody::new(frames)).unwrap()))
        });
        let layer = service.internal();
        let layer =
            if detach { layer.on_disconnect(throughline::middleware::server::OnDisconnect::Detach) } else { layer };
        let request = grpc_request(METHOD).body(Body::empty()).unwrap();
        let collected = layer.layer(panicking).oneshot(request).await.unwrap().into_body().collect().await.unwrap();
        let status = Status::from_header_map(collected.trailers().unwrap()).unwrap();
        assert_eq!((status.code(), status.message()), (tonic::Code::Internal, "the handler panicked"));
        assert_eq!(collected.to_bytes(), "one");
        assert_eq!(text(&service.span().await, "error.type"), Some("panic"));
    }
}

#[tokio::test]
async fn a_timeout_of_the_channel_itself_is_deadline_exceeded() {
    // The timeout that is sent is shorter than the caller's. tonic's channel applies it, too.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ctx = Context::background().with_timeout(Duration::from_millis(100));
    let reserve = throughline::ReplyReserve { min: Duration::ZERO, percent: 50, max: Duration::MAX };
    let layer = ClientLayer::internal().reserve(reserve);
    let status = call_grpc(&layer, &ctx, silent.local_addr().unwrap(), METHOD, "").await.unwrap_err();
    assert_eq!(Error::from_grpc_status(status).code(), Code::DeadlineExceeded);
}
