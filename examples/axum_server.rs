//! The service of the README, with the two services that it calls.
//!
//! Run it with `cargo run --example axum_server`. `card-api` calls `limits` and `balance` at the
//! same time, within 250 ms. It gets three requests: both services respond; `limits` does not know
//! the card; `balance` is too slow. Then the process is asked to end.

use std::io::{self, Write as _};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Router, routing::get};
use reqwest::redirect::Policy;
use throughline::{ClientLayer, Code, Context, ContextLayer, Ctx, Error, Group, SendWith, Shutdown, telemetry};
use tokio::net::TcpListener;

#[derive(Clone)]
struct Services {
    client: reqwest::Client,
    limits: String,
    balance: String,
}

async fn card(Ctx(ctx): Ctx, State(services): State<Services>, Path(id): Path<u64>) -> Result<String, Error> {
    let ctx = ctx.with_timeout(Duration::from_millis(250)); // or less: an earlier deadline of the caller stays
    let mut group: Group<Error> = Group::new(&ctx); // the first error cancels the siblings, with its cause
    let Services { client, limits, balance } = services;
    let calls = client.clone();
    let limit = group.spawn(async move |ctx| fetch(&ctx, &calls, format!("http://{limits}/cards/{id}")).await);
    let balance = group.spawn(async move |ctx| fetch(&ctx, &client, format!("http://{balance}/cards/{id}")).await);
    // The NOT_FOUND of `limits` is one of this API, too. Without this line it becomes INTERNAL.
    group.join().await.map_err(Error::preserve_code)?;
    Ok(format!("limit {}, balance {}", limit.await?, balance.await?))
}

/// Sends the trace and the time left. The call is dropped when `ctx` is done.
async fn fetch(ctx: &Context, client: &reqwest::Client, url: String) -> Result<String, Error> {
    let response = client.get(url).send_with(ctx, &ClientLayer::internal()).await?;
    Ok(response.text().await?)
}

async fn limit(Path(id): Path<u64>) -> Result<String, Error> {
    if id == 404 { Err(Error::new(Code::NotFound, "no such card")) } else { Ok("1000".into()) }
}

async fn balance(Path(id): Path<u64>) -> &'static str {
    let time = if id == 504 { Duration::from_secs(60) } else { Duration::from_millis(5) };
    tokio::time::sleep(time).await; // the layer drops the handler at the deadline
    "250"
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Each service is a process of its own, with `telemetry::init`, which exports to a collector.
    let start = |service| telemetry::builder(service).exporter(telemetry::MemoryExporter::default()).build();
    let (telemetry, limits, balances) = (start("card-api")?, start("limits")?, start("balance")?);
    let shutdown = Shutdown::on_signal(Duration::from_secs(20))?;
    let layer = |telemetry: &telemetry::TelemetryGuard| {
        ContextLayer::internal().base(shutdown.context()).tracer(telemetry.tracer().clone())
    };
    let client = reqwest::Client::builder().redirect(Policy::none()).build()?;

    let services = Services {
        limits: serve(&shutdown, Router::new().route("/cards/{id}", get(limit)).layer(layer(&limits))).await?,
        balance: serve(&shutdown, Router::new().route("/cards/{id}", get(balance)).layer(layer(&balances))).await?,
        client: client.clone(),
    };
    let app = Router::new().route("/cards/{id}", get(card)).with_state(services).layer(layer(&telemetry));
    let address = serve(&shutdown, app).await?;

    let mut out = io::stdout();
    for id in [200, 404, 504] {
        let response = client.get(format!("http://{address}/cards/{id}")).send().await?;
        assert_eq!(response.status().as_u16(), id);
        writeln!(out, "GET /cards/{id}: {}", response.text().await?)?;
    }
    shutdown.request(); // as SIGTERM does
    let report = shutdown.finish(telemetry).await;
    assert!(report.is_clean(), "{report}");
    writeln!(out, "{report}")?;
    Ok(())
}

/// Serves `app` on a free port until the shutdown, and returns its address.
async fn serve(shutdown: &Shutdown, app: Router) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let server = axum::serve(listener, app).with_graceful_shutdown(shutdown.requested());
    let shutdown = shutdown.clone();
    tokio::spawn(async move { shutdown.serve(server).await });
    Ok(address)
}
