//! Failed gRPC calls: their status in tonic clients, and their span.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use throughline::trace::Status as SpanStatus;
use throughline::{Cause, ClientLayer, Code, Context, Error, ReplyReserve};
use tonic::Status;
use tower::{Layer, ServiceExt, service_fn};

use crate::support::grpc::{Raw, call_grpc, serve_grpc};
use crate::support::{Traced, client, text};

const METHOD: &str = "/cards.Cards/Get";

fn under<B>(ctx: &Context, mut request: Request<B>) -> Request<B> {
    request.extensions_mut().insert(ctx.clone());
    request
}

fn grpc_response() -> http::response::Builder {
    Response::builder().header("content-type", "application/grpc")
}

/// Calls a service through the layer with a tonic client. The service returns `response`.
async fn call(layer: &ClientLayer, ctx: &Context, response: Response<Body>) -> Result<Bytes, Status> {
    let mut response = Some(response);
    let responding = service_fn(move |_: Request<tonic::body::Body>| {
        let response = response.take().expect("it is called once");
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let origin = http::Uri::from_static("http://db.internal:5432");
    let mut grpc = tonic::client::Grpc::with_origin(layer.layer(responding), origin);
    grpc.ready().await.unwrap();
    let request = under_tonic(ctx);
    grpc.unary(request, PathAndQuery::from_static(METHOD), Raw).await.map(tonic::Response::into_inner)
}

fn under_tonic(ctx: &Context) -> tonic::Request<Bytes> {
    let mut request = tonic::Request::new(Bytes::new());
    request.extensions_mut().insert(ctx.clone());
    request
}

#[tokio::test]
async fn a_body_that_is_not_grpc_does_not_reach_a_grpc_client() {
    for (status, code) in [
        (502, Code::Unavailable),
        (503, Code::Unavailable),
        (429, Code::Unavailable),
        (404, Code::Unimplemented),
        (400, Code::Internal),
        (200, Code::Unknown),
    ] {
        let caller = Traced::new("api");
        let ctx = Context::background().with_tracer(caller.telemetry.tracer());
        let page = Response::builder().status(status).header("content-type", "text/html");
        let error =
            call(&client(), &ctx, page.body(Body::from("<html>Bad Gateway</html>")).unwrap()).await.unwrap_err();
        assert_eq!(error.code(), code.into(), "{status}: {error:?}");
        assert!(error.message().contains(&status.to_string()), "{error:?}");
        let span = caller.span().await;
        assert_eq!(text(&span, "rpc.status_code"), Some(code.as_str()), "{status}");
        assert!(
            matches!(&span.status, SpanStatus::Error(message) if message.contains(&status.to_string())),
            "{span:?}"
        );
    }
}

#[tokio::test]
async fn a_grpc_response_that_ends_without_a_status_is_an_error_on_the_span() {
    let message = || Frame::data(Bytes::from_static(b"\0\0\0\0\x01x"));
    let no_status = HeaderMap::from_iter([(http::header::ETAG, "1".parse().unwrap())]);
    let bodies: [Vec<Frame<Bytes>>; 3] = [vec![message()], vec![], vec![message(), Frame::trailers(no_status)]];
    for frames in bodies {
        for is_read in [true, false] {
            let caller = Traced::new("api");
            let ctx = Context::background().with_tracer(caller.telemetry.tracer());
            let frames = frames.iter().map(|frame| match frame.data_ref() {
                Some(data) => Frame::data(data.clone()),
                None => Frame::trailers(frame.trailers_ref().unwrap().clone()),
            });
            let frames = futures_util::stream::iter(frames.map(Ok::<_, Infallible>).collect::<Vec<_>>());
            let response = grpc_response().body(Body::new(StreamBody::new(frames))).unwrap();
            if is_read {
                let status = call(&client(), &ctx, response).await.unwrap_err();
                assert_eq!(status.code(), tonic::Code::Unknown, "{status:?}");
            } else {
                let mut response = Some(response);
                let responding =
                    service_fn(move |_: Request<()>| std::future::ready(Ok::<_, Infallible>(response.take().unwrap())));
                let request = Request::post(METHOD).header("content-type", "application/grpc").body(()).unwrap();
                let body = client().layer(responding).oneshot(under(&ctx, request)).await.unwrap().into_body();
                let _ = body.collect().await;
            }
            let span = caller.span().await;
            assert_eq!(text(&span, "error.type"), Some("UNKNOWN"));
            assert!(matches!(span.status, SpanStatus::Error(_)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_without_a_status_within_the_reply_reserve_is_deadline_exceeded() {
    let ctx = Context::background().with_timeout(Duration::from_secs(10));
    let reserve = ReplyReserve { min: Duration::from_secs(2), percent: 0, max: Duration::MAX };
    let cut = futures_util::stream::once(async {
        tokio::time::advance(Duration::from_secs(8)).await;
        Ok::<_, Infallible>(Bytes::from_static(b"\0\0\0\0\x01x"))
    });
    let response = grpc_response().body(Body::from_stream(cut)).unwrap();
    let status = call(&client().reserve(reserve), &ctx, response).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn a_tonic_status_has_the_code_of_a_deadline_or_a_cancellation() {
    let late = Context::background().with_timeout(Duration::ZERO);
    let stopped = Context::background().with_cancel();
    stopped.cancel_with(Cause::Shutdown);
    let ending = Context::background().with_timeout(Duration::from_secs(1));
    let endless = || {
        let message = futures_util::stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"\0\0\0\0\x01x")) });
        grpc_response().body(Body::from_stream(message.chain(futures_util::stream::pending()))).unwrap()
    };
    for (ctx, code, message) in [
        (&late, Code::DeadlineExceeded, "deadline exceeded"),
        (stopped.context(), Code::Cancelled, "shutting down"),
        (&ending, Code::DeadlineExceeded, "deadline exceeded"),
    ] {
        let status = call(&client(), ctx, endless()).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code.into(), message));
        let error = Error::from_grpc_status(status);
        assert_eq!((error.code(), error.message(), error.origin()), (code, message, None));
    }
    let failing = service_fn(|_: Request<tonic::body::Body>| {
        std::future::ready(Err::<Response<Body>, _>(io::Error::from(io::ErrorKind::ConnectionReset)))
    });
    let mut grpc = tonic::client::Grpc::new(client().layer(failing));
    let sent = grpc.unary(under_tonic(&Context::background()), PathAndQuery::from_static(METHOD), Raw).await;
    let status = sent.map(tonic::Response::into_inner).unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let error = Error::from_grpc_status(status);
    let sources = std::iter::successors(error.source(), |error| (*error).source());
    assert!(sources.into_iter().any(|error| error.is::<io::Error>()), "{error:?}");
}

#[tokio::test]
async fn the_span_of_a_failed_grpc_call_has_the_message_and_the_origin_of_the_error() {
    let own = Error::new(Code::Aborted, "100 % of row 7").through_service(Some("cards"));
    for (status, layer, message, origin) in [
        (Status::from(own.clone()), client(), "100 % of row 7", "cards"),
        (Status::aborted("row 7"), client(), "row 7", "db.internal"),
        (Status::from(own), ClientLayer::external(), "aborted", "db.internal"),
    ] {
        for is_trailer in [true, false] {
            let caller = Traced::new("api");
            let ctx = Context::background().with_tracer(caller.telemetry.tracer());
            let mut headers = HeaderMap::new();
            status.add_header(&mut headers).unwrap();
            let frames = is_trailer.then(|| Ok::<_, Infallible>(Frame::<Bytes>::trailers(headers.clone())));
            let body = Body::new(StreamBody::new(futures_util::stream::iter(frames)));
            let mut response = grpc_response().body(body).unwrap();
            if !is_trailer {
                response.headers_mut().extend(headers);
            }
            call(&layer, &ctx, response).await.unwrap_err();
            let span = caller.span().await;
            assert_eq!(span.status, SpanStatus::Error(message.into()));
            assert_eq!(text(&span, "throughline.error.origin"), Some(origin));
            assert_eq!(text(&span, "error.type"), Some("ABORTED"));
        }
    }
}

#[tokio::test]
async fn the_origin_of_a_foreign_status_is_the_host_that_was_called() {
    let down = || Status::unavailable("db is down").into_http::<Body>();
    for (layer, read) in [
        (client(), Error::from_grpc_status as fn(Status) -> Error),
        (ClientLayer::external(), Error::from_external_grpc_status),
    ] {
        let status = call(&layer, &Context::background(), down()).await.unwrap_err();
        let error = read(status);
        assert_eq!((error.code(), error.origin()), (Code::Unavailable, Some("db.internal")));
        assert_eq!(error.through_service(Some("r-int")).path().collect::<Vec<_>>(), ["db.internal", "r-int"]);
    }
}

#[tokio::test]
async fn a_relay_of_a_foreign_status_is_not_its_origin_and_an_edge_names_no_host() {
    let service = Traced::new("r-int");
    for (layer, origin, message) in
        [(service.internal(), "db.internal", "db is down"), (service.edge(), "127.0.0.1", "unavailable")]
    {
        let relay = serve_grpc(layer, |_| async {
            call(&client(), &Context::current(), Status::unavailable("db is down").into_http()).await
        });
        let status = call_grpc(&client(), &Context::background(), relay.await, METHOD, "").await;
        let error = Error::from_grpc_status(status.unwrap_err());
        assert_eq!((error.code(), error.origin(), error.message()), (Code::Unavailable, Some(origin), message));
    }
    // The origin that an external host names is ignored.
    let mut claim = Status::unavailable("db is down").into_http::<Body>();
    claim.headers_mut().insert("throughline-origin", "balance".parse().unwrap());
    let status = call(&ClientLayer::external(), &Context::background(), claim).await.unwrap_err();
    assert_eq!(Error::from_external_grpc_status(status).origin(), Some("db.internal"));
}
