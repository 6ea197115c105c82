//! Two services, one request, one trace.
//!
//! Run it with `cargo run --example quickstart`. `shop` calls `stock` and sends its deadline along.
//! The first request is served. For the second one `stock` is too slow: both services stop at the
//! deadline, and the response names the service that took too long.

use std::io::{self, Write as _};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::get;
use serde::Deserialize;
use throughline::telemetry::{self, MemoryExporter, TelemetryGuard};
use throughline::{ClientLayer, ContextLayer, Ctx, Error, SendWith};
use throughline_view::{Options, Trace};
use tokio::net::TcpListener;

#[derive(Deserialize)]
struct Item {
    id: String,
}

/// The handler of `shop`. `ctx` ends after 200 ms, or when the client disconnects.
async fn order(
    Ctx(ctx): Ctx,
    State(Stock { client, address }): State<Stock>,
    Query(item): Query<Item>,
) -> Result<String, Error> {
    let ctx = ctx.with_timeout(Duration::from_millis(200));
    let url = format!("http://{address}/items?id={}", item.id);
    let response = client.get(url).send_with(&ctx, &ClientLayer::internal()).await?;
    Ok(format!("ordered {}", response.text().await?))
}

/// The handler of `stock`. Its context has the deadline of `shop`.
async fn item(Ctx(ctx): Ctx, Query(item): Query<Item>) -> Result<String, Error> {
    let time = Duration::from_millis(if item.id == "rare" { 10_000 } else { 5 });
    ctx.run(tokio::time::sleep(time)).await?; // stands for a query of a database
    Ok(item.id)
}

#[derive(Clone)]
struct Stock {
    client: reqwest::Client,
    address: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Real services are two processes, and each of them calls `telemetry::init("shop")` instead.
    let spans = MemoryExporter::default();
    let telemetry =
        |service: &str| -> Result<TelemetryGuard, _> { telemetry::builder(service).exporter(spans.clone()).build() };
    let (shop_telemetry, stock_telemetry) = (telemetry("shop")?, telemetry("stock")?);

    let stock = Router::new()
        .route("/items", get(item))
        .layer(ContextLayer::internal().tracer(stock_telemetry.tracer().clone()));
    // Without redirects: a redirect would send the headers of this request to another host.
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let shop = Router::new()
        .route("/orders", get(order))
        .with_state(Stock { client: client.clone(), address: serve(stock).await? })
        .layer(ContextLayer::edge().tracer(shop_telemetry.tracer().clone()));
    let shop = serve(shop).await?;

    let mut out = io::stdout();
    for (id, status) in [("bread", 200), ("rare", 504)] {
        let response = client.get(format!("http://{shop}/orders?id={id}")).send().await?;
        assert_eq!(response.status(), status);
        writeln!(out, "GET /orders?id={id}: {} {}", response.status(), response.text().await?)?;
    }

    for telemetry in [shop_telemetry, stock_telemetry] {
        telemetry.shutdown(Duration::from_secs(2)).await?;
    }
    for trace in Trace::from_batches(&spans.batches()) {
        assert_eq!(trace.services().len(), 2, "both services are in the trace");
        writeln!(out, "\n{}", trace.waterfall(&Options::stdout()))?;
    }
    Ok(())
}

/// Serves `app` on a free port and returns its address.
async fn serve(app: Router) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
