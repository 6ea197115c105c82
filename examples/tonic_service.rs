//! A gRPC service and its caller, with tonic.
//!
//! Run it with `cargo run --example tonic_service`. `shop` calls `cards` with a deadline. The first
//! call succeeds. The second one fails, and the error names the service. The third one is too slow,
//! and both sides stop at the deadline. Generated code is replaced by a few lines here, so that the
//! example needs no `protoc`: `get` by `CardsServer`, and `Cards` by `CardsClient`.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::time::Duration;

use throughline::middleware::tonic::Channel;
use throughline::telemetry::{self, MemoryExporter};
use throughline::{ClientLayer, Code, Context, ContextLayer, Error};
use throughline_view::{Options, Trace};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::{Server, server::TcpIncoming};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;

/// A handler of `cards`. Its context has the deadline of `shop`.
async fn get(request: Request<String>) -> Result<Response<String>, Status> {
    let ctx = Context::current();
    let owner = ctx.run(find_owner(request.get_ref())).await.map_err(Error::from)??;
    Ok(Response::new(owner))
}

/// Stands for a query of a database.
async fn find_owner(card: &str) -> Result<String, Error> {
    match card {
        "7" => Ok("Ada".to_owned()),
        "slow" => std::future::pending().await,
        _ => Err(Error::new(Code::NotFound, "no such card")),
    }
}

/// A client of `cards`, for `shop`.
#[derive(Clone)]
struct Cards(tonic::client::Grpc<Channel>);

impl Cards {
    /// Calls `cards` with the ambient context.
    async fn get(&mut self, card: &str) -> Result<String, Error> {
        self.0.ready().await?;
        let method = http::uri::PathAndQuery::from_static("/cards.Cards/Get");
        let codec = ProstCodec::<String, String>::default();
        let response = self.0.unary(Request::new(card.to_owned()), method, codec).await;
        response.map(Response::into_inner).map_err(Error::from_grpc_status)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Real services are two processes, and each of them calls `telemetry::init("shop")` instead.
    let spans = MemoryExporter::default();
    let cards = telemetry::builder("cards").exporter(spans.clone()).build()?;
    let shop = telemetry::builder("shop").exporter(spans.clone()).build()?;

    let method = service_fn(async |request: http::Request<axum::body::Body>| {
        let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
        Ok::<_, Infallible>(grpc.unary(service_fn(get), request).await)
    });
    let routes = Routes::from(axum::Router::new().route_service("/cards.Cards/Get", method));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let server = Server::builder().layer(ContextLayer::internal().tracer(cards.tracer().clone())).add_routes(routes);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let mut out = io::stdout();
    let mut client = Cards(tonic::client::Grpc::new(Channel::new(ClientLayer::internal(), &origin)?));
    for (card, code) in [("7", None), ("8", Some(Code::NotFound)), ("slow", Some(Code::DeadlineExceeded))] {
        let ctx = Context::background().with_tracer(shop.tracer()).with_timeout(Duration::from_millis(200));
        let span = ctx.span("pay").start();
        let answer = span.context().scope(client.get(card)).await;
        assert_eq!(answer.as_ref().err().map(Error::code), code);
        writeln!(out, "card {card}: {answer:?}")?;
    }

    for telemetry in [shop, cards] {
        telemetry.shutdown(Duration::from_secs(2)).await?;
    }
    for trace in Trace::from_batches(&spans.batches()) {
        assert_eq!(trace.services().len(), 2, "both services are in the trace");
        writeln!(out, "\n{}", trace.waterfall(&Options::stdout()))?;
    }
    Ok(())
}
