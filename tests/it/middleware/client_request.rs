//! A request body ends with its call.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use futures_util::{FutureExt as _, StreamExt};
use http::uri::PathAndQuery;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use throughline::SendWith;
use throughline::middleware::client::{ClientService, RequestBody};
use throughline::{Cause, Context, ContextLayer};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Status, Streaming};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::grpc::Raw;
use crate::support::{PATIENCE, client, serve};

/// How a request body ended, as seen by the receiver.
#[derive(Debug, PartialEq)]
enum End {
    Whole,
    Reset(h2::Reason),
    Other(String),
}

impl End {
    fn of(error: &(dyn StdError + 'static)) -> End {
        let reset = std::iter::successors(Some(error), |&error| error.source())
            .find_map(|error| error.downcast_ref::<h2::Error>()?.reason());
        reset.map_or_else(|| End::Other(error.to_string()), End::Reset)
    }
}

/// Responds at once with a body that never ends. Sends how the request body ends.
async fn respond_at_once(State(ends): State<UnboundedSender<End>>, request: Request<Body>) -> Response<Body> {
    let mut body = request.into_body();
    let reading = tokio::spawn(async move {
        let end = loop {
            match body.frame().await {
                None => break End::Whole,
                Some(Ok(_)) => {}
                Some(Err(e)) => break End::of(&e),
            }
        };
        let _ = ends.send(end);
    });
    drop(reading);
    let first = stream::once(async { Ok::<_, Infallible>("half") });
    Response::new(Body::from_stream(first.chain(stream::pending())))
}

async fn peer() -> (SocketAddr, UnboundedReceiver<End>) {
    let (ends, request_ends) = unbounded_channel();
    (serve(Router::new().route("/", post(respond_at_once)).with_state(ends)).await, request_ends)
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync>>;

/// One chunk, and then nothing, without an end.
fn endless() -> StreamBody<Chunks> {
    let first = stream::once(async { Ok(Frame::data(Bytes::from("more"))) });
    StreamBody::new(Box::pin(first.chain(stream::pending())))
}

fn hyper_client<B>() -> Client<hyper_util::client::legacy::connect::HttpConnector, B>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

fn request<B>(address: SocketAddr, ctx: &Context, body: B) -> Request<B> {
    let mut request = Request::post(format!("http://{address}/")).body(body).unwrap();
    request.extensions_mut().insert(ctx.clone());
    request
}

/// How a call ends before its response does.
#[derive(Clone, Copy, Debug)]
enum By {
    Cancel,
    Deadline,
    Drop,
}

const WAYS: [By; 3] = [By::Cancel, By::Deadline, By::Drop];

/// Ends a call below `ctx` after its `response` has arrived. Does not poll the response.
async fn end<R>(by: By, ctx: throughline::CancelHandle, response: R) {
    match by {
        By::Cancel => ctx.cancel(),
        By::Deadline => {}
        By::Drop => return drop(response),
    }
    ctx.done().await;
    // The response is not polled. The request body itself must see the end of the context.
    std::mem::forget(response);
}

fn ctx(by: By) -> throughline::CancelHandle {
    let limit = if let By::Deadline = by { Duration::from_secs(2) } else { PATIENCE * 2 };
    Context::background().with_timeout(limit).with_cancel()
}

async fn end_of_request(mut ends: UnboundedReceiver<End>) -> End {
    timeout(PATIENCE, ends.recv()).await.expect("the peer learns of the end").unwrap()
}

#[tokio::test]
async fn hyper_over_http2_resets_the_stream_of_an_ended_call_whose_request_continues() {
    for by in WAYS {
        let (address, ends) = peer().await;
        let ctx = ctx(by);
        let service = client().layer(hyper_client()).map_request(RequestBody::wrap);
        let response = service.oneshot(request(address, &ctx, endless())).await.unwrap();
        end(by, ctx, response).await;
        assert_eq!(end_of_request(ends).await, End::Reset(h2::Reason::CANCEL), "{by:?}");
    }
}

#[tokio::test]
async fn the_layer_wraps_an_axum_body() {
    for by in WAYS {
        let (address, ends) = peer().await;
        let ctx = ctx(by);
        let service = client().layer(hyper_client());
        let response = service.oneshot(request(address, &ctx, Body::new(endless()))).await.unwrap();
        end(by, ctx, response).await;
        assert_eq!(end_of_request(ends).await, End::Reset(h2::Reason::CANCEL), "{by:?}");
    }
}

#[tokio::test]
async fn reqwest_over_http2_resets_the_stream_of_an_ended_call_whose_request_continues() {
    for by in WAYS {
        let (address, ends) = peer().await;
        let ctx = ctx(by);
        let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let sent = http2.post(format!("http://{address}/")).body(reqwest::Body::wrap(endless()));
        let response = sent.send_with(&ctx, &client()).await.unwrap();
        end(by, ctx, response).await;
        assert_eq!(end_of_request(ends).await, End::Reset(h2::Reason::CANCEL), "{by:?}");
    }
}

#[tokio::test]
async fn over_http1_the_connection_of_an_ended_call_is_closed() {
    let (address, ends) = peer().await;
    let ctx = ctx(By::Drop);
    let sent = reqwest::Client::new().post(format!("http://{address}/")).body(reqwest::Body::wrap(endless()));
    drop(sent.send_with(&ctx, &client()).await.unwrap());
    assert!(matches!(end_of_request(ends).await, End::Other(_)));
}

/// Serves bidirectional methods that respond with `messages`. Each sends its context to `served`.
async fn serve_streams(
    served: UnboundedSender<Context>,
    messages: impl Fn() -> stream::BoxStream<'static, Result<Bytes, Status>> + Clone + Send + Sync + 'static,
) -> SocketAddr {
    let method = service_fn(move |request: Request<Body>| {
        let (served, messages) = (served.clone(), messages.clone());
        async move {
            let streaming = service_fn(move |request: tonic::Request<Streaming<Bytes>>| {
                let ctx = request.extensions().get::<Context>().unwrap().clone();
                served.send(ctx.clone()).unwrap();
                let mut requests = request.into_inner();
                ctx.spawn(async move { while let Ok(Some(_)) = requests.message().await {} });
                std::future::ready(Ok::<_, Status>(tonic::Response::new(messages())))
            });
            Ok::<_, Infallible>(tonic::server::Grpc::new(Raw).streaming(streaming, request).await)
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = tonic::service::Routes::from(Router::new().fallback_service(method));
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = Server::builder().layer(ContextLayer::internal()).add_routes(routes);
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

/// Starts a bidirectional call whose requests never end. `held` is dropped with them.
async fn talk(ctx: &Context, to: SocketAddr, held: UnboundedSender<()>) -> Streaming<Bytes> {
    let endpoint = Endpoint::from_shared(format!("http://{to}")).unwrap();
    let channel: ClientService<Channel> = client().layer(endpoint.connect_lazy());
    let mut client = tonic::client::Grpc::with_origin(channel, endpoint.uri().clone());
    client.ready().await.unwrap();
    let requests = stream::once(async { Bytes::from("hello") }).chain(stream::pending().inspect(move |_| {
        let _ = &held;
    }));
    let mut request = tonic::Request::new(requests);
    request.extensions_mut().insert(ctx.clone());
    client.streaming(request, PathAndQuery::from_static("/cards.Cards/Watch"), Raw).await.unwrap().into_inner()
}

#[tokio::test]
async fn tonic_resets_the_stream_of_an_ended_bidirectional_call_whose_requests_continue() {
    for by in WAYS {
        let (contexts, mut served) = unbounded_channel();
        let messages = || stream::iter([Ok(Bytes::from("one"))]).chain(stream::pending()).boxed();
        let address = serve_streams(contexts, messages).await;
        let ctx = ctx(by);
        let mut responses = talk(&ctx, address, unbounded_channel().0).await;
        assert_eq!(responses.message().await.unwrap().unwrap(), "one");
        end(by, ctx, responses).await;
        let served = served.recv().await.unwrap();
        timeout(PATIENCE, served.done()).await.expect("the peer learns of the end");
        let cause = served.cause().unwrap();
        match by {
            // On a busy machine the client's reset arrives before the peer's own deadline.
            By::Deadline => assert!(matches!(cause, Cause::DeadlineExceeded | Cause::ClientDisconnected), "{cause:?}"),
            By::Cancel | By::Drop => assert!(matches!(cause, Cause::ClientDisconnected), "{cause:?}"),
        }
    }
}

#[tokio::test]
async fn the_requests_of_a_grpc_call_end_with_its_status() {
    let (contexts, _served) = unbounded_channel();
    let address = serve_streams(contexts, || stream::iter([Ok(Bytes::from("one"))]).boxed()).await;
    let ctx = Context::background().with_timeout(PATIENCE * 2);
    let (held, mut dropped) = unbounded_channel();
    let mut responses = talk(&ctx, address, held).await;
    assert_eq!(responses.message().await.unwrap().unwrap(), "one");
    assert_eq!(responses.message().await.unwrap(), None);
    assert_eq!(timeout(PATIENCE, dropped.recv()).await.expect("the requests are dropped"), None);
}

#[tokio::test]
async fn an_upload_continues_after_an_early_and_complete_response() {
    let (ends, request_ends) = unbounded_channel();
    let early = async |State(ends): State<UnboundedSender<End>>, request: Request<Body>| {
        drop(tokio::spawn(async move {
            let end = request.into_body().collect().await.map_or_else(|e| End::of(&e), |_| End::Whole);
            let _ = ends.send(end);
        }));
        "early"
    };
    let address = serve(Router::new().route("/", post(early)).with_state(ends)).await;
    let (more, upload) = tokio::sync::oneshot::channel();
    let chunks = stream::once(async { Ok::<_, Infallible>(Frame::data(Bytes::from("a"))) });
    let chunks = chunks.chain(upload.into_stream().map(|_| Ok(Frame::data(Bytes::from("b")))));
    let service = client().layer(hyper_client());
    let body = Body::new(StreamBody::new(chunks));
    let response = service.oneshot(request(address, &Context::background(), body)).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "early");
    more.send(()).unwrap();
    assert_eq!(end_of_request(request_ends).await, End::Whole);
}

#[tokio::test]
async fn without_a_layer_a_wrapped_body_passes_unchanged() {
    let wrapped = RequestBody::wrap(Request::new(Body::from("7")));
    assert_eq!(http_body::Body::size_hint(wrapped.body()).exact(), Some(1));
    assert_eq!(wrapped.into_body().collect().await.unwrap().to_bytes(), "7");
}
