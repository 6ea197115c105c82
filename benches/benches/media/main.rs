//! A round trip per medium, beside the bare medium: what the transport and the layers add.
//!
//! All ways to call one medium run in one process, one after the other, in several rounds. The
//! figures are medians over the rounds. Caller and service share a runtime with two workers.
#![allow(missing_docs)]

mod bare;
mod bare_http2;
mod bare_nats;
mod measure;
#[allow(clippy::unwrap_used)]
#[path = "../../../crates/transport/tests/it/support/nats.rs"]
mod nats;
mod ours;
mod signals;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use measure::{Figures, Way};
use throughline::Context;
use throughline::telemetry::{self, ExportFuture, Exporter};
use throughline::trace::Batch;
use throughline_transport::{StaticResolver, Transport};

/// How many calls wait for their response at the same time.
const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// The body of each request and of each response.
const BODY: Bytes = Bytes::from_static(&[b'x'; 128]);

/// Calls of one round at one in flight; more callers make four times as many.
const CALLS: usize = 4_000;
const ROUNDS: usize = 7;

/// Takes spans and does nothing with them.
struct Discard;

impl Exporter for Discard {
    fn export<'a>(&'a self, _: &'a Batch) -> ExportFuture<'a> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn main() -> io::Result<()> {
    if !throughline_benches::is_whole() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let text = runtime.block_on(async {
        let telemetry = telemetry::builder("bench")
            .exporter(Discard)
            .schedule_delay(Duration::from_millis(10))
            .build()
            .map_err(io::Error::other)?;
        let mut text = String::from(
            "| medium, in flight | call | p50, µs | p99, µs | calls/s | p50, ratio | p99, ratio | calls/s, ratio |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
        let mut media = vec![in_process(&telemetry).await?, http2(&telemetry).await?];
        let broker = nats::NatsServer::start();
        if let Some(broker) = &broker {
            media.push(over_nats(&broker.url(), &telemetry).await?);
        }
        for medium in &media {
            for in_flight in IN_FLIGHT {
                let figures = measure::rounds(&medium.ways, in_flight, CALLS, ROUNDS).await;
                table(&mut text, medium.name, in_flight, &medium.ways, &figures);
            }
        }
        text.push_str("\n| medium | what | p50, µs | p99, µs | max, µs |\n|---|---|---|---|---|\n");
        for medium in &media {
            signals::rows(&mut text, medium.name, &medium.client, &medium.server).await?;
        }
        io::Result::Ok(text)
    })?;
    throughline_benches::report("docs/performance.md", "media", &text)
}

struct Medium {
    name: &'static str,
    client: Transport,
    server: Transport,
    ways: Vec<Way>,
}

impl Medium {
    /// `bare` are the ways without the transport.
    async fn new(
        name: &'static str,
        client: Transport,
        server: Transport,
        bare: impl IntoIterator<Item = Way>,
        telemetry: &telemetry::Telemetry,
    ) -> io::Result<Self> {
        let mut ways = Vec::from_iter(bare);
        ways.extend(ours::ways(&client, &server, telemetry).await?);
        Ok(Medium { name, client, server, ways })
    }
}

async fn in_process(telemetry: &telemetry::Telemetry) -> io::Result<Medium> {
    let transport = Transport::in_process();
    let bare = [bare::channels(), bare::channels_and_tasks()];
    Medium::new("in process", transport.clone(), transport, bare, telemetry).await
}

async fn http2(telemetry: &telemetry::Telemetry) -> io::Result<Medium> {
    let server = Transport::http2().bind("127.0.0.1:0").await.map_err(io::Error::other)?;
    let address = server.local_addr().expect("it is bound").to_string();
    let addresses = StaticResolver::new();
    for service in ours::SERVICES.into_iter().chain(signals::SERVICES) {
        addresses.set(service, [address.clone()]);
    }
    let client = Transport::http2().resolver(addresses).client();
    Medium::new("HTTP/2", client, server, [bare_http2::way().await?], telemetry).await
}

async fn over_nats(url: &str, telemetry: &telemetry::Telemetry) -> io::Result<Medium> {
    let server = Transport::nats(url).connect(&Context::background()).await.map_err(io::Error::other)?;
    let client = Transport::nats(url).connect(&Context::background()).await.map_err(io::Error::other)?;
    Medium::new("NATS", client, server, [bare_nats::way(url).await?], telemetry).await
}

/// Adds a row for each way. The ratios are to the first way.
fn table(text: &mut String, medium: &str, in_flight: usize, ways: &[Way], figures: &[Figures]) {
    let bare = figures[0];
    for (way, own) in ways.iter().zip(figures) {
        text.push_str(&format!(
            "| {medium}, {in_flight} | {} | {:.1} | {:.1} | {:.0} | {:.2} | {:.2} | {:.2} |\n",
            way.name,
            own.p50 / 1e3,
            own.p99 / 1e3,
            own.per_second,
            own.p50 / bare.p50,
            own.p99 / bare.p99,
            own.per_second / bare.per_second,
        ));
    }
}
