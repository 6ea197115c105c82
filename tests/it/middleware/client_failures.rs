//! The errors of failed calls: each keeps what is known about the failure.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures_util::StreamExt;
use h2::Reason;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use throughline::{ClientLayer, Code, Context, Error, ReplyReserve, SendWith};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tonic::Status;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::support::{PATIENCE, Traced, client, serve, text};

type BoxError = Box<dyn StdError + Send + Sync>;

fn under<B>(ctx: &Context, mut request: Request<B>) -> Request<B> {
    request.extensions_mut().insert(ctx.clone());
    request
}

/// The error of a call to a service that fails with `failure`.
async fn fails_with(failure: impl Into<BoxError>) -> Error {
    let mut failure = Some(failure.into());
    let failing = service_fn(move |_: Request<()>| {
        let failure = failure.take().expect("it is called once");
        std::future::ready(Err::<Response<Body>, BoxError>(failure))
    });
    client().layer(failing).oneshot(Request::new(())).await.unwrap_err()
}

fn hanging() -> impl Service<Request<()>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone {
    service_fn(|_: Request<()>| std::future::pending())
}

#[tokio::test]
async fn a_timeout_of_reqwest_is_deadline_exceeded() {
    let address = serve(Router::new().route("/", get(std::future::pending::<()>))).await;
    let slow = reqwest::Client::new().get(format!("http://{address}/")).timeout(Duration::from_millis(50));
    let error = slow.send_with(&Context::background(), &client()).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_timeout_of_reqwest_limits_the_callee_too() {
    let echo = async |headers: http::HeaderMap| {
        let left = throughline::propagation::deadline::extract(&headers).expect("the time left is sent");
        left.as_millis().to_string()
    };
    let address = serve(Router::new().route("/", get(echo))).await;
    let limit = PATIENCE * 2;
    for ctx in [Context::background(), Context::background().with_timeout(limit * 2)] {
        let request = reqwest::Client::new().get(format!("http://{address}/")).timeout(limit);
        let left = request.send_with(&ctx, &client()).await.unwrap().text().await.unwrap();
        assert!(left.parse::<u128>().unwrap() <= limit.as_millis(), "{left}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_a_layer_inside_or_of_the_connection_is_deadline_exceeded() {
    let layered = ServiceBuilder::new().layer(client()).timeout(Duration::from_secs(1)).service(hanging());
    assert_eq!(layered.oneshot(Request::new(())).await.unwrap_err().code(), Code::DeadlineExceeded);
    let elapsed = timeout(Duration::ZERO, std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(fails_with(elapsed).await.code(), Code::DeadlineExceeded);
    assert_eq!(fails_with(io::Error::from(io::ErrorKind::TimedOut)).await.code(), Code::DeadlineExceeded);
    let wrapped = io::Error::other(io::Error::from(io::ErrorKind::TimedOut));
    assert_eq!(fails_with(wrapped).await.code(), Code::DeadlineExceeded);
    assert_eq!(fails_with(io::Error::from(io::ErrorKind::ConnectionRefused)).await.code(), Code::Unavailable);
}

#[tokio::test]
async fn an_error_of_an_inner_service_is_kept() {
    let denied = || Error::new(Code::PermissionDenied, "no card of yours").with_retryable(false);
    let error = fails_with(io::Error::other(denied())).await;
    assert_eq!(
        (error.code(), error.message(), error.retryable()),
        (Code::PermissionDenied, "no card of yours", Some(false))
    );
    assert_eq!(fails_with(Status::permission_denied("no")).await.code(), Code::PermissionDenied);

    struct Refusing;
    impl Service<Request<()>> for Refusing {
        type Response = Response<Body>;
        type Error = Error;
        type Future = std::future::Ready<Result<Response<Body>, Error>>;

        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Error>> {
            std::task::Poll::Ready(Err(Error::new(Code::ResourceExhausted, "too many calls")))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            unreachable!("it is never ready")
        }
    }
    let error = client().layer(Refusing).oneshot(Request::new(())).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::ResourceExhausted, "too many calls"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_within_the_reply_reserve_is_deadline_exceeded() {
    let reserve = ReplyReserve { min: Duration::from_secs(2), percent: 0, max: Duration::MAX };
    for (after, code) in [(7, Code::Unavailable), (8, Code::DeadlineExceeded)] {
        for is_head in [true, false] {
            let reset = move || io::Error::from(io::ErrorKind::ConnectionReset);
            let failing = service_fn(async |_: Request<()>| {
                if is_head {
                    tokio::time::advance(Duration::from_secs(after)).await;
                    return Err(reset());
                }
                let cut = futures_util::stream::once(async move {
                    tokio::time::advance(Duration::from_secs(after)).await;
                    Err::<Bytes, _>(reset())
                });
                Ok(Response::new(Body::from_stream(cut)))
            });
            let ctx = Context::background().with_timeout(Duration::from_secs(10));
            let call = client().reserve(reserve).layer(failing).oneshot(under(&ctx, Request::new(())));
            let error = match call.await {
                Ok(response) => response.into_body().collect().await.unwrap_err(),
                Err(error) => error,
            };
            assert_eq!(error.code(), code, "after {after} s, head: {is_head}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_already_in_the_request_gets_no_further_reserve() {
    let failing = service_fn(async |_: Request<()>| {
        tokio::time::advance(Duration::from_secs(1)).await;
        Err::<Response<Body>, _>(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    let request = Request::get("http://cards/").header("grpc-timeout", "1S").body(()).unwrap();
    let ctx = Context::background().with_timeout(Duration::from_secs(10));
    let error = client().layer(failing).oneshot(under(&ctx, request)).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

/// An HTTP/2 server that resets each stream with `reason`.
///
/// The reset comes after the head of the response, or instead of it.
async fn resetting(reason: Reason, is_after_head: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            if is_after_head {
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                body.send_data(Bytes::from("half"), false).unwrap();
                // The reset must not overtake the head and the data.
                connection = h2_flush(connection).await;
                body.send_reset(reason);
            } else {
                respond.send_reset(reason);
            }
        }
    });
    url
}

type Connection = h2::server::Connection<tokio::net::TcpStream, Bytes>;

/// Writes what the connection has to write.
async fn h2_flush(mut connection: Connection) -> Connection {
    for _ in 0..8 {
        let polled = std::future::poll_fn(|cx| {
            let _ = connection.poll_closed(cx);
            std::task::Poll::Ready(())
        });
        polled.await;
        tokio::task::yield_now().await;
    }
    connection
}

fn hyper() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

fn http2() -> reqwest::Client {
    reqwest::Client::builder().http2_prior_knowledge().build().unwrap()
}

#[tokio::test]
async fn a_reset_gets_the_code_of_the_grpc_table() {
    for (reason, code, retryable) in [
        (Reason::NO_ERROR, Code::Internal, None),
        (Reason::PROTOCOL_ERROR, Code::Internal, None),
        (Reason::INTERNAL_ERROR, Code::Internal, None),
        (Reason::FLOW_CONTROL_ERROR, Code::Internal, None),
        (Reason::FRAME_SIZE_ERROR, Code::Internal, None),
        (Reason::REFUSED_STREAM, Code::Unavailable, Some(true)),
        (Reason::CANCEL, Code::Cancelled, None),
        (Reason::COMPRESSION_ERROR, Code::Internal, None),
        (Reason::CONNECT_ERROR, Code::Internal, None),
        (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted, None),
        (Reason::INADEQUATE_SECURITY, Code::PermissionDenied, None),
        (Reason::HTTP_1_1_REQUIRED, Code::Internal, None),
    ] {
        let url = resetting(reason, false).await;
        let request = Request::get(&url).body(Body::empty()).unwrap();
        let error = client().layer(hyper()).oneshot(request).await.unwrap_err();
        assert_eq!((error.code(), error.retryable()), (code, retryable), "hyper, {reason}");

        let url = resetting(reason, false).await;
        let error = http2().get(&url).send_with(&Context::background(), &client()).await.unwrap_err();
        assert_eq!((error.code(), error.retryable()), (code, retryable), "reqwest, {reason}");
        let url = resetting(reason, false).await;
        let error = Error::from(http2().get(&url).send().await.unwrap_err());
        assert_eq!((error.code(), error.retryable()), (code, retryable), "reqwest by itself, {reason}");
    }
    let caller = Traced::new("api");
    let ctx = Context::background().with_tracer(caller.telemetry.tracer());
    let url = resetting(Reason::ENHANCE_YOUR_CALM, true).await;
    let response = http2().get(&url).send_with(&ctx, &client()).await.unwrap();
    assert_eq!(Error::from(response.text().await.unwrap_err()).code(), Code::ResourceExhausted);
    assert_eq!(text(&caller.span().await, "error.type"), Some("RESOURCE_EXHAUSTED"));
}

/// An HTTP/2 server that reads the head of a request, sends these bytes, and closes the connection.
async fn raw_http2(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        // SETTINGS. The peer sends the preface, its SETTINGS, and then a HEADERS frame.
        stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        while !has_headers(&read) {
            stream.read_buf(&mut read).await.unwrap();
        }
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        // Reads what the peer still sends: unread bytes would reset the connection.
        let _ = stream.read_to_end(&mut read).await;
    });
    url
}

fn has_headers(read: &[u8]) -> bool {
    const PREFACE: usize = 24;
    let mut rest = read.get(PREFACE..).unwrap_or_default();
    while let [a, b, c, kind, ..] = *rest {
        if kind == 1 {
            return true;
        }
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    false
}

#[tokio::test]
async fn a_goaway_before_the_request_was_processed_is_retryable_and_a_lost_connection_is_undecided() {
    // The last stream that was processed is 0: the request is above it.
    const UNPROCESSED: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
    for (bytes, retryable) in [(UNPROCESSED, Some(true)), (&[], None)] {
        let url = raw_http2(bytes).await;
        // Hyper only: reqwest itself sends such a request again.
        let error = client().layer(hyper()).oneshot(Request::get(&url).body(Body::empty()).unwrap()).await.unwrap_err();
        assert_eq!((error.code(), error.retryable()), (Code::Unavailable, retryable), "{error:?}");
    }
}

#[tokio::test]
async fn the_origin_of_a_foreign_error_is_the_host_that_was_called() {
    let app = Router::new().route("/", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "db is down") }));
    let address = serve(app).await;
    for layer in [client(), ClientLayer::external()] {
        let request = reqwest::Client::new().get(format!("http://{address}/"));
        let error = request.send_with(&Context::background(), &layer).await.unwrap_err();
        assert_eq!(error.origin(), Some("127.0.0.1"));
        assert_eq!(error.through_service(Some("r-int")).path().collect::<Vec<_>>(), ["127.0.0.1", "r-int"]);
    }
}

#[tokio::test]
async fn the_body_of_an_external_error_is_left_for_the_caller() {
    let endless = || async {
        let first = futures_util::stream::once(async { Ok::<_, Infallible>("{") });
        let body = Body::from_stream(first.chain(futures_util::stream::pending()));
        (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "7")], body)
    };
    let declined = || async { (StatusCode::PAYMENT_REQUIRED, axum::Json(serde_json::json!({"decline": "expired"}))) };
    let app = Router::new().route("/endless", get(endless)).route("/declined", get(declined));
    let address = serve(app).await;
    let request = |path: &str| reqwest::Client::new().get(format!("http://{address}{path}"));
    let caller = Traced::new("api");
    let (ctx, external) = (Context::background().with_tracer(caller.telemetry.tracer()), ClientLayer::external());
    let sent = request("/endless").send_with(&ctx, &external);
    let error = timeout(PATIENCE, sent).await.expect("no body is read").unwrap_err();
    assert_eq!((error.code(), error.retry_after()), (Code::Unavailable, Some(Duration::from_secs(7))));

    let response = request("/declined").response_with(&ctx, &external).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED);
    assert_eq!(response.json::<serde_json::Value>().await.unwrap()["decline"], "expired");
    let spans = caller.spans(2).await;
    assert_eq!([text(&spans[0], "error.type"), text(&spans[1], "error.type")], [Some("UNAVAILABLE"), Some("402")]);
}

#[tokio::test]
async fn below_a_buffer_a_call_takes_its_context_from_the_request() {
    let caller = Traced::new("api");
    let ctx = Context::background().with_tracer(caller.telemetry.tracer()).span("ask").start();
    let responding = service_fn(|_: Request<()>| std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty()))));
    let buffered = ServiceBuilder::new().buffer(1).layer(client()).service(responding);
    drop(buffered.oneshot(under(&ctx, Request::new(()))).await.unwrap());
    assert_eq!(caller.span().await.parent_span_id, ctx.span_context().map(|parent| parent.span_id()));
}
