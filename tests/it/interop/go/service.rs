//! The Rust service: as server and as client, over HTTP and gRPC.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Extension, Json, Router};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::uri::PathAndQuery;
use serde_json::{Value, json};
use throughline::{ClientLayer, Code, Context, Error, ReplyReserve, SendWith};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tonic::transport::{Endpoint, Server, server::TcpIncoming};
use tonic::{Request, Response, Status, Streaming};
use tower::{Layer, service_fn};

use super::report;
use crate::support::grpc::{Raw, call_grpc};
use crate::support::{Traced, client};

pub struct Service {
    pub traced: Traced,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub shared: Shared,
}

#[derive(Clone)]
pub struct Shared {
    reporter: UnboundedSender<Value>,
    aborts: Arc<Mutex<HashMap<String, oneshot::Sender<()>>>>,
}

impl Service {
    pub async fn start(reporter: UnboundedSender<Value>) -> Service {
        let traced = Traced::new("rust");
        let shared = Shared { reporter, aborts: Arc::default() };
        let holding = shared.clone();
        let hold = move |Path(id): Path<String>, Extension(ctx): Extension<Context>| {
            let holding = holding.clone();
            async move {
                holding.hold(&ctx, &id).await;
                if ctx.err().is_none() {
                    panic!("the handler aborts");
                }
            }
        };
        let relay =
            async |Extension(ctx): Extension<Context>, Json(hops): Json<Vec<Value>>| Json(relay(&ctx, &hops).await);
        let app = Router::new()
            .route("/relay", post(relay))
            .route("/hold/{id}", get(hold))
            .route("/fail", get(async || -> Result<(), Error> { Err(failure()) }))
            .layer(traced.internal().reserve(HALF));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap();
        // Without TCP_NODELAY the end of a response waits about 40 ms for the client's ACK.
        let listener = listener.tap_io(|connection| connection.set_nodelay(true).unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc = listener.local_addr().unwrap();
        let methods = shared.clone();
        let methods = service_fn(move |request| {
            let shared = methods.clone();
            async move { Ok::<_, Infallible>(method(shared, request).await) }
        });
        let routes = tonic::service::Routes::from(Router::new().fallback_service(methods));
        let server = Server::builder().layer(traced.internal().reserve(HALF)).add_routes(routes);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
        Service { traced, http, grpc, shared }
    }
}

impl Shared {
    /// Waits until the test aborts the request, and reports how its context ends.
    async fn hold(&self, ctx: &Context, id: &str) {
        let (watched, reporter, own_id) = (ctx.clone(), self.reporter.clone(), id.to_owned());
        // In a task of its own, which is not dropped with the handler.
        tokio::spawn(async move {
            watched.done().await;
            report(&reporter, &own_id, "done", watched.cause().unwrap().name());
        });
        let (abort, aborted) = oneshot::channel();
        self.aborts.lock().unwrap().insert(id.to_owned(), abort);
        report(&self.reporter, id, "called", "");
        aborted.await.unwrap();
        report(&self.reporter, id, "aborted", "");
    }

    pub fn abort(&self, id: &str) {
        self.aborts.lock().unwrap().remove(id).unwrap().send(()).unwrap();
    }

    /// Calls a service that holds the request. Reports the code of the result.
    pub fn call(&self, ctx: &Context, id: &str, kind: &'static str, to: SocketAddr) {
        let (ctx, id, reporter) = (ctx.clone(), id.to_owned(), self.reporter.clone());
        tokio::spawn(async move {
            let code = match kind {
                "http1" | "http2" => call_http(&ctx, &id, kind, to).await,
                _ => call_stream(&ctx, &id, kind, to).await.map_err(Error::from_grpc_status),
            };
            report(&reporter, &id, "result", code.err().map_or("OK", |error| error.code().as_str()));
        });
    }
}

/// Half of the timeout is reserve, so that a busy machine does not make a disconnect of a deadline.
const HALF: ReplyReserve = ReplyReserve { min: Duration::MAX, percent: 0, max: Duration::MAX };

fn patient() -> ClientLayer {
    client().reserve(HALF)
}

async fn call_http(ctx: &Context, id: &str, kind: &str, to: SocketAddr) -> Result<(), Error> {
    let builder = reqwest::Client::builder();
    let builder = if kind == "http1" { builder.http1_only() } else { builder.http2_prior_knowledge() };
    let request = builder.build()?.get(format!("http://{to}/hold/{id}"));
    request.send_with(ctx, &patient()).await?.text().await?;
    Ok(())
}

async fn call_stream(ctx: &Context, id: &str, kind: &str, to: SocketAddr) -> Result<(), Status> {
    let endpoint = Endpoint::from_shared(format!("http://{to}")).unwrap();
    let channel = patient().layer(endpoint.connect_lazy());
    let mut client = tonic::client::Grpc::with_origin(channel, endpoint.uri().clone());
    client.ready().await.map_err(|e| Status::from_error(e.into()))?;
    let one = Bytes::from(id.to_owned());
    // A client that streams does not end its stream.
    let many = stream::iter([one.clone()]).chain(stream::pending());
    let path = PathAndQuery::from_static;
    let mut request = Request::new(());
    request.extensions_mut().insert(ctx.clone());
    let mut responses = match kind {
        "unary" => {
            let request = request.map(|()| one);
            return client.unary(request, path("/interop.Peer/Unary"), Raw).await.map(|_| ());
        }
        "client" => {
            let request = request.map(|()| many);
            return client.client_streaming(request, path("/interop.Peer/ClientStream"), Raw).await.map(|_| ());
        }
        "server" => client.server_streaming(request.map(|()| one), path("/interop.Peer/ServerStream"), Raw).await?,
        "bidi" => client.streaming(request.map(|()| many), path("/interop.Peer/Bidi"), Raw).await?,
        other => panic!("no such kind: {other}"),
    }
    .into_inner();
    while responses.message().await?.is_some() {}
    Ok(())
}

async fn method(shared: Shared, request: http::Request<Body>) -> http::Response<tonic::body::Body> {
    let mut grpc = tonic::server::Grpc::new(Raw);
    let aborted = || Status::aborted("the handler gave up");
    match &*request.uri().path().to_owned() {
        "/interop.Peer/Relay" => {
            let relay = service_fn(async |request: Request<Bytes>| {
                let hops: Vec<Value> = serde_json::from_slice(request.get_ref()).unwrap();
                Ok(Response::new(Bytes::from(json!(relay(&context(&request), &hops).await).to_string())))
            });
            grpc.unary(relay, request).await
        }
        "/interop.Peer/Fail" => {
            let fail = service_fn(async |_: Request<Bytes>| Err::<Response<Bytes>, _>(Status::from(failure())));
            grpc.unary(fail, request).await
        }
        "/interop.Peer/Unary" => {
            let unary = service_fn(async |request: Request<Bytes>| {
                shared.hold(&context(&request), &text(request.get_ref())).await;
                Err::<Response<Bytes>, _>(aborted())
            });
            grpc.unary(unary, request).await
        }
        "/interop.Peer/ClientStream" => {
            let client_streaming = service_fn(async |request: Request<Streaming<Bytes>>| {
                let ctx = context(&request);
                let mut messages = request.into_inner();
                let id = messages.message().await?.unwrap();
                shared.hold(&ctx, &text(&id)).await;
                Err::<Response<Bytes>, _>(aborted())
            });
            grpc.client_streaming(client_streaming, request).await
        }
        "/interop.Peer/ServerStream" => {
            let server_streaming = service_fn(async |request: Request<Bytes>| {
                let (shared, ctx, id) = (shared.clone(), context(&request), request.into_inner());
                let held = stream::once(held(shared, ctx, id.clone()));
                Ok::<_, Status>(Response::new(Box::pin(stream::iter([Ok(id)]).chain(held))))
            });
            grpc.server_streaming(server_streaming, request).await
        }
        "/interop.Peer/Bidi" => {
            let bidi = service_fn(async |request: Request<Streaming<Bytes>>| {
                let (shared, ctx) = (shared.clone(), context(&request));
                let mut messages = request.into_inner();
                let id = messages.message().await?.unwrap();
                let held = stream::once(held(shared, ctx, id.clone()));
                // The stream of requests lives as long as that of responses.
                let responses = stream::iter([Ok(id)]).chain(held).map(move |response| (&messages, response).1);
                Ok::<_, Status>(Response::new(Box::pin(responses)))
            });
            grpc.streaming(bidi, request).await
        }
        other => panic!("no such method: {other}"),
    }
}

async fn held(shared: Shared, ctx: Context, id: Bytes) -> Result<Bytes, Status> {
    shared.hold(&ctx, &text(&id)).await;
    Err(Status::aborted("the handler gave up"))
}

fn context<T>(request: &Request<T>) -> Context {
    request.extensions().get::<Context>().unwrap().clone()
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// An error with all that an error can have.
fn failure() -> Error {
    let missing = [("field".to_owned(), "amount".into())].into_iter().collect();
    let error = Error::new(Code::ResourceExhausted, "zu viel: 100 % für heute").with_retryable(true);
    error.with_retry_after(Duration::from_millis(1500)).with_detail("example.com/Missing", missing)
}

/// Describes the request, and those of the rest of its chain.
pub async fn relay(ctx: &Context, hops: &[Value]) -> Vec<Value> {
    let left = ctx.remaining().map_or(-1, |left| i64::try_from(left.as_micros()).unwrap());
    let own = json!({
        "service": "rust",
        "trace": ctx.span_context().unwrap().trace_id().to_string(),
        "tenant": ctx.baggage().get("tenant"),
        "left_us": left,
    });
    let [next, rest @ ..] = hops else { return vec![own] };
    let (to, rest) = (next["to"].as_str().unwrap(), json!(rest).to_string());
    let response = match to.strip_prefix("grpc://") {
        Some(address) => {
            let to = address.parse().unwrap();
            call_grpc(&client(), ctx, to, "/interop.Peer/Relay", rest).await.map_err(Error::from_grpc_status)
        }
        None => relay_http(ctx, to, rest).await,
    };
    let others: Vec<Value> = match response {
        Ok(response) => serde_json::from_slice(&response).unwrap(),
        Err(error) => vec![json!({ "error": format!("{error:#}") })],
    };
    [own].into_iter().chain(others).collect()
}

async fn relay_http(ctx: &Context, to: &str, rest: String) -> Result<Bytes, Error> {
    let request = reqwest::Client::new().post(to).header("content-type", "application/json").body(rest);
    Ok(request.send_with(ctx, &client()).await?.bytes().await?)
}
