//! gRPC without generated code: methods that take and return bytes.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use http::uri::PathAndQuery;
use throughline::middleware::client::ClientService;
use throughline::{ClientLayer, Context, ContextLayer};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tower::{Layer, service_fn};

pub use super::codec::Raw;

/// Serves every method with `handler` on a tonic server, until the test's runtime ends.
pub async fn serve_grpc<F, A>(layer: ContextLayer, handler: F) -> SocketAddr
where
    F: Fn(Request<Bytes>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Bytes, Status>> + Send + 'static,
{
    serve_grpc_by(Server::builder(), layer, handler).await
}

/// Like [`serve_grpc`], with a configured server.
pub async fn serve_grpc_by<F, A>(server: Server, layer: ContextLayer, handler: F) -> SocketAddr
where
    F: Fn(Request<Bytes>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Bytes, Status>> + Send + 'static,
{
    let method = service_fn(move |request: http::Request<axum::body::Body>| {
        let handler = handler.clone();
        async move {
            let unary = service_fn(move |request| {
                let response = handler(request);
                async move { response.await.map(Response::new) }
            });
            Ok::<_, Infallible>(tonic::server::Grpc::new(Raw).unary(unary, request).await)
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Routes::from(axum::Router::new().fallback_service(method));
    let server = server.layer(layer).add_routes(routes);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

/// Serves every method on a tonic server with one `message` and a stream that never ends.
pub async fn serve_grpc_stream(layer: ContextLayer, message: &'static str) -> SocketAddr {
    serve_grpc_stream_by(layer, None, message).await
}

/// Like [`serve_grpc_stream`], with another layer inside the first.
pub async fn serve_grpc_stream_by(
    layer: ContextLayer,
    inner: Option<ContextLayer>,
    message: &'static str,
) -> SocketAddr {
    let method = service_fn(move |request: http::Request<axum::body::Body>| async move {
        let streaming = service_fn(move |_: Request<Bytes>| {
            let one = futures_util::stream::iter([Ok(Bytes::from(message))]);
            let stream = futures_util::StreamExt::chain(one, futures_util::stream::pending::<Result<Bytes, Status>>());
            std::future::ready(Ok::<_, Status>(Response::new(stream)))
        });
        Ok::<_, Infallible>(tonic::server::Grpc::new(Raw).server_streaming(streaming, request).await)
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback_service(method);
    let routes = Routes::from(match inner {
        Some(inner) => router.layer(inner),
        None => router,
    });
    let server = Server::builder().layer(layer).add_routes(routes);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

/// Calls a streaming method with tonic, without a layer.
pub async fn call_grpc_stream(to: SocketAddr, method: &'static str) -> tonic::Streaming<Bytes> {
    let endpoint = Endpoint::from_shared(format!("http://{to}")).unwrap();
    let mut client = tonic::client::Grpc::with_origin(endpoint.connect_lazy(), endpoint.uri().clone());
    client.ready().await.unwrap();
    let request = Request::new(Bytes::new());
    client.server_streaming(request, PathAndQuery::from_static(method), Raw).await.unwrap().into_inner()
}

/// Calls a unary method over a tonic channel with `layer`.
pub async fn call_grpc(
    layer: &ClientLayer,
    ctx: &Context,
    to: SocketAddr,
    method: &'static str,
    message: impl Into<Bytes>,
) -> Result<Bytes, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{to}")).unwrap();
    let channel: ClientService<Channel> = layer.layer(endpoint.connect_lazy());
    let mut client = tonic::client::Grpc::with_origin(channel, endpoint.uri().clone());
    client.ready().await.map_err(|e| Status::from_error(e.into()))?;
    let mut request = Request::new(message.into());
    request.extensions_mut().insert(ctx.clone());
    client.unary(request, PathAndQuery::from_static(method), Raw).await.map(Response::into_inner)
}
