//! Streams under the limits of a layer and under the deadline of a caller, on virtual time.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use throughline::trace::Status;
use throughline::{Cause, Code, Context, ContextLayer, Ctx, Error, StreamCtx};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use crate::support::{Traced, events, number, text};

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(60);

/// Sends `count` chunks, one every `interval`, and then nothing more.
fn chunks(count: usize, interval: Duration) -> impl Stream<Item = Result<&'static str, Infallible>> {
    stream::iter(0..count).then(move |_| async move {
        sleep(interval).await;
        Ok("chunk")
    })
}

fn serving<S>(layer: ContextLayer, body: impl Fn() -> S + Clone + Send + Sync + 'static) -> Router
where
    S: Stream<Item = Result<&'static str, Infallible>> + Send + 'static,
{
    Router::new().route("/", get(move || async move { Response::new(Body::from_stream(body())) })).layer(layer)
}

async fn ask(app: &Router, headers: &[(&str, &str)]) -> Response<Body> {
    let request = headers.iter().fold(Request::get("/"), |request, (name, value)| request.header(*name, *value));
    app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

/// Reads a body to its end. Returns the number of its frames, and the code of its error.
async fn read(response: Response<Body>) -> (usize, Option<Code>) {
    let (mut body, mut frames) = (response.into_body(), 0);
    loop {
        match body.frame().await {
            Some(Ok(_)) => frames += 1,
            Some(Err(e)) => return (frames, code_of(&e)),
            None => return (frames, None),
        }
    }
}

/// The code of the layer's error, which is a source of the one of axum's body.
fn code_of(error: &(dyn std::error::Error + 'static)) -> Option<Code> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<Error>() {
            return Some(error.code());
        }
        next = error.source();
    }
    None
}

#[tokio::test(start_paused = true)]
async fn a_stream_lives_longer_than_the_limit_if_each_frame_comes_within_it() {
    let service = Traced::new("feed");
    let app = serving(service.edge(), || chunks(5, Duration::from_secs(50)));
    let start = Instant::now();
    assert_eq!(read(ask(&app, &[]).await).await, (5, None));
    assert_eq!(start.elapsed(), Duration::from_secs(250), "over four times the limit");
    let span = service.span().await;
    assert_eq!((&span.status, text(&span, "throughline.cancel.cause")), (&Status::Unset, None));
    assert_eq!(number(&span, "throughline.deadline.remaining_ms"), Some(60_000.0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_frame_for_as_long_as_the_limit_ends_with_an_error() {
    let service = Traced::new("feed");
    let app = serving(service.edge(), || chunks(2, Duration::from_secs(50)).chain(stream::pending()));
    let (mut body, start) = (ask(&app, &[]).await.into_body(), Instant::now());
    for _ in 0..2 {
        body.frame().await.unwrap().unwrap();
    }
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_secs(50 + 50 + 60));
    assert_eq!(code_of(&error), Some(Code::DeadlineExceeded));
    drop(body);
    let span = service.span().await;
    assert_eq!(text(&span, "error.type"), Some("DEADLINE_EXCEEDED"));
    assert_eq!(text(&span, "throughline.cancel.cause"), Some("deadline_exceeded"));
    assert_eq!(span.status, Status::Error("the response has stalled".into()));
    assert_eq!(events(&span), ["throughline.cancelled"]);
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_a_client_takes_no_frame_is_not_a_stall() {
    let (sender, receiver) = mpsc::unbounded_channel();
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(Some(receiver)));
    let body = move || {
        let mut receiver: mpsc::UnboundedReceiver<_> = receiver.lock().unwrap().take().unwrap();
        stream::poll_fn(move |cx| receiver.poll_recv(cx))
    };
    let mut body = ask(&serving(ContextLayer::edge(), body), &[]).await.into_body();
    sender.send(Ok("one")).unwrap();
    body.frame().await.unwrap().unwrap();
    sleep(LIMIT * 10).await;
    // The client waits again. The time for the next frame begins here.
    let late = async {
        sleep(LIMIT - SECOND).await;
        sender.send(Ok("two")).unwrap();
    };
    let (frame, ()) = tokio::join!(body.frame(), late);
    frame.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_deadline_that_a_caller_has_sent_covers_the_whole_stream() {
    let service = Traced::new("feed");
    let endless = || chunks(1000, Duration::from_secs(40));
    for layer in [service.internal(), service.internal().max_timeout(LIMIT), service.edge()] {
        let (start, app) = (Instant::now(), serving(layer, endless));
        let mut body = ask(&app, &[("grpc-timeout", "100S")]).await.into_body();
        for _ in 0..2 {
            body.frame().await.unwrap().unwrap();
        }
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!((code_of(&error), start.elapsed()), (Some(Code::DeadlineExceeded), Duration::from_secs(100)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_still_ends_a_request_without_a_head() {
    let service = Traced::new("feed");
    let hanging = || std::future::pending::<()>();
    let app = Router::new().route("/", get(hanging)).layer(service.edge());
    for headers in [&[][..], &[("grpc-timeout", "100S")]] {
        let start = Instant::now();
        let response = ask(&app, headers).await;
        assert_eq!((response.status(), start.elapsed()), (StatusCode::GATEWAY_TIMEOUT, LIMIT));
    }
    for span in service.spans(2).await {
        assert_eq!(text(&span, "throughline.cancel.cause"), Some("deadline_exceeded"));
    }
}

#[tokio::test(start_paused = true)]
async fn server_sent_events_go_on_by_the_context_of_the_stream() {
    async fn ticks(StreamCtx(ctx): StreamCtx) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
        let (sender, mut receiver) = mpsc::channel(1);
        // The usual form: a task below the context feeds the stream.
        let task = ctx.clone();
        ctx.spawn(async move {
            for _ in 0..10 {
                task.run(sleep(Duration::from_secs(30))).await.unwrap();
                assert!(!task.is_done());
                let _ = sender.send(Ok(Event::default().data("tick"))).await;
            }
        });
        Sse::new(stream::poll_fn(move |cx| receiver.poll_recv(cx)))
    }
    let app = Router::new().route("/", get(ticks)).layer(ContextLayer::edge());
    let start = Instant::now();
    assert_eq!(read(ask(&app, &[]).await).await, (10, None));
    assert_eq!(start.elapsed(), Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn the_handlers_context_has_the_limit_and_the_streams_has_only_the_callers_deadline() {
    async fn remaining(
        Ctx(ctx): Ctx,
        StreamCtx(stream): StreamCtx,
        Extension(extension): Extension<Context>,
    ) -> String {
        assert_eq!(ctx.deadline(), extension.deadline());
        assert_eq!(ctx.span_context(), stream.span_context());
        format!("{:?} {:?}", ctx.remaining(), stream.remaining())
    }
    let app = Router::new().route("/", get(remaining)).layer(ContextLayer::edge());
    for (sent, seen) in
        [(None, "Some(60s) None"), (Some("100S"), "Some(60s) Some(100s)"), (Some("7S"), "Some(7s) Some(7s)")]
    {
        let headers: Vec<_> = sent.iter().map(|sent| ("grpc-timeout", *sent)).collect();
        let body = ask(&app, &headers).await.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, seen);
    }
}

#[tokio::test]
async fn the_extractors_work_without_the_layer() {
    async fn handler(Ctx(ctx): Ctx, StreamCtx(stream): StreamCtx) -> String {
        format!("{:?} {:?}", ctx.deadline(), stream.deadline())
    }
    let app = Router::new().route("/", get(handler));
    let body = ask(&app, &[]).await.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "None None");
}

#[tokio::test(start_paused = true)]
async fn the_context_of_a_stream_ends_with_its_body() {
    for (ends, cause) in [(true, "request_finished"), (false, "client_disconnected")] {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let handler = move |StreamCtx(ctx): StreamCtx| async move {
            sender.send(ctx).unwrap();
            Response::new(Body::from_stream(chunks(2, SECOND)))
        };
        let app = Router::new().route("/", get(handler)).layer(ContextLayer::edge());
        let mut body = ask(&app, &[]).await.into_body();
        let ctx = receiver.recv().await.unwrap();
        body.frame().await.unwrap().unwrap();
        assert!(!ctx.is_done());
        if ends {
            while body.frame().await.is_some() {}
        }
        drop(body);
        assert_eq!(ctx.cause().unwrap().name(), cause);
    }
}

mod grpc {
    use tonic::body::Body as GrpcBody;
    use tonic::{Request, Response, Status, Streaming};
    use tower::service_fn;

    use super::*;
    use crate::support::grpc::Raw;

    type Messages = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

    /// Echoes messages. `Each` responds at once, `All` after the last message.
    #[derive(Clone, Copy)]
    enum Method {
        Each,
        All,
    }

    /// A client of a service with `layer`, in the same task. `/Each` and `/All` take streams.
    fn client(
        layer: ContextLayer,
    ) -> tonic::client::Grpc<
        impl tonic::client::GrpcService<GrpcBody, Error = Infallible, ResponseBody = GrpcBody, Future: Send> + Clone,
    > {
        let service = service_fn(async |request: http::Request<GrpcBody>| {
            let method = if request.uri().path().ends_with("Each") { Method::Each } else { Method::All };
            let mut grpc = tonic::server::Grpc::new(Raw);
            let response = match method {
                Method::Each => {
                    let echo = |request: Request<Streaming<Bytes>>| async {
                        Ok(Response::new(Box::pin(request.into_inner()) as Messages))
                    };
                    grpc.streaming(service_fn(echo), request).await
                }
                Method::All => {
                    let last = |request: Request<Streaming<Bytes>>| async {
                        let mut messages = request.into_inner();
                        let mut last = Bytes::new();
                        while let Some(message) = messages.message().await? {
                            last = message;
                        }
                        Ok::<_, Status>(Response::new(last))
                    };
                    grpc.client_streaming(service_fn(last), request).await
                }
            };
            Ok::<_, Infallible>(response)
        });
        let service = tower::Layer::layer(&layer, service);
        tonic::client::Grpc::new(service.map_response(|response: http::Response<_>| response.map(GrpcBody::new)))
    }

    fn path(path: &'static str) -> http::uri::PathAndQuery {
        http::uri::PathAndQuery::from_static(path)
    }

    /// `count` messages, one every `interval`.
    fn messages(count: usize, interval: Duration) -> impl Stream<Item = Bytes> + Send + 'static {
        stream::iter(0..count).then(move |_| async move {
            sleep(interval).await;
            Bytes::from_static(b"message")
        })
    }

    const INTERVAL: Duration = Duration::from_secs(50);

    #[tokio::test(start_paused = true)]
    async fn streams_of_both_directions_live_longer_than_the_limit() {
        let mut client = client(ContextLayer::edge());
        client.ready().await.unwrap();
        let request = Request::new(messages(5, INTERVAL));
        let response = client.streaming(request, path("/feed.Feed/Each"), Raw).await.unwrap();
        assert_eq!(response.into_inner().filter(|message| std::future::ready(message.is_ok())).count().await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_responses_that_stalls_ends_with_trailers() {
        let service = Traced::new("feed");
        let mut client = client(service.edge());
        client.ready().await.unwrap();
        let request = Request::new(messages(2, INTERVAL).chain(stream::pending()));
        let mut messages = client.streaming(request, path("/feed.Feed/Each"), Raw).await.unwrap().into_inner();
        let start = Instant::now();
        for _ in 0..2 {
            messages.message().await.unwrap().unwrap();
        }
        let status = messages.message().await.unwrap_err();
        assert_eq!((status.code(), status.message()), (tonic::Code::DeadlineExceeded, "the response has stalled"));
        assert_eq!(start.elapsed(), INTERVAL * 2 + LIMIT);
        let span = service.span().await;
        assert_eq!(text(&span, "rpc.status_code"), Some("DEADLINE_EXCEEDED"));
        assert_eq!(events(&span), ["throughline.cancelled"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_requests_has_no_head_and_so_ends_at_the_limit() {
        for (count, interval, code) in
            [(1, INTERVAL, None), (5, SECOND, None), (5, INTERVAL, Some(tonic::Code::DeadlineExceeded))]
        {
            let mut client = client(ContextLayer::edge());
            client.ready().await.unwrap();
            let request = Request::new(messages(count, interval));
            let result = client.client_streaming(request, path("/feed.Feed/All"), Raw).await;
            assert_eq!(result.map(Response::into_inner).err().map(|status| status.code()), code);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_under_a_callers_deadline_or_a_shutdown_ends_with_trailers() {
        let process = Context::background().with_cancel();
        for (timeout, code) in [(Some(90), tonic::Code::DeadlineExceeded), (None, tonic::Code::Unavailable)] {
            let mut client = client(ContextLayer::internal().max_timeout(LIMIT).base(&process));
            client.ready().await.unwrap();
            let mut request = Request::new(messages(1000, INTERVAL));
            if let Some(timeout) = timeout {
                request.set_timeout(Duration::from_secs(timeout));
            }
            let mut messages = client.streaming(request, path("/feed.Feed/Each"), Raw).await.unwrap().into_inner();
            messages.message().await.unwrap().unwrap();
            if timeout.is_none() {
                process.cancel_with(Cause::Shutdown);
            }
            assert_eq!(messages.message().await.unwrap_err().code(), code);
        }
    }
}
