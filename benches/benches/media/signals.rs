//! How soon a caller learns of an unknown service, and a handler of a caller that has given up.

use std::convert::Infallible;
use std::io;
use std::time::Instant;

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{Request, Response};
use http_body_util::Full;
use throughline::{Cause, Context, ContextLayer};
use throughline_transport::{NoSuchService, Transport};
use tokio::sync::mpsc;
use tower::service_fn;

/// The service whose handlers never end, and a name that nothing listens to.
pub(crate) const SERVICES: [&str; 2] = [STALLING, ABSENT];
const STALLING: &str = "stalling";
const ABSENT: &str = "absent";

/// How often each is measured.
const TIMES: usize = 200;

/// Adds the two rows of a medium.
pub(crate) async fn rows(text: &mut String, medium: &str, client: &Transport, server: &Transport) -> io::Result<()> {
    row(text, medium, "unknown service, until the error", &unknown(client).await);
    row(text, medium, "dropped call, until the handler's context is done", &dropped(client, server).await?);
    Ok(())
}

async fn unknown(client: &Transport) -> Histogram<u64> {
    let mut times = Histogram::new(3).expect("three digits are allowed");
    for _ in 0..TIMES {
        let started = Instant::now();
        // There is no deadline: only the medium ends the call.
        let sent = client.send(&Context::background(), ABSENT, Request::new(Bytes::new())).await;
        times.saturating_record(started.elapsed().as_nanos() as u64);
        let error = sent.expect_err("nothing listens");
        assert!(NoSuchService::find_in(&error).is_some(), "{error:?}");
    }
    times
}

async fn dropped(client: &Transport, server: &Transport) -> io::Result<Histogram<u64>> {
    let listener = server.listen(STALLING).await.map_err(io::Error::other)?;
    let (sender, mut contexts) = mpsc::unbounded_channel();
    let stall = service_fn(move |request: Request<Full<Bytes>>| {
        let ctx = request.extensions().get::<Context>().cloned().expect("the layer inserts it");
        sender.send(ctx).expect("the receiver lives as long as the calls");
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
    });
    tokio::spawn(async move { listener.serve(&Context::background(), ContextLayer::internal(), stall).await });
    let mut times = Histogram::new(3).expect("three digits are allowed");
    for _ in 0..TIMES {
        let client = client.clone();
        let call = tokio::spawn(async move {
            let request = Request::new(Bytes::new());
            client.send(&Context::background(), STALLING, request).await
        });
        let handler = contexts.recv().await.expect("the handler starts");
        let started = Instant::now();
        call.abort();
        handler.done().await;
        times.saturating_record(started.elapsed().as_nanos() as u64);
        assert!(matches!(handler.cause(), Some(Cause::ClientDisconnected)), "{:?}", handler.cause());
    }
    Ok(times)
}

fn row(text: &mut String, medium: &str, what: &str, times: &Histogram<u64>) {
    let micros = |nanos: u64| nanos as f64 / 1e3;
    text.push_str(&format!(
        "| {medium} | {what} | {:.1} | {:.1} | {:.1} |\n",
        micros(times.value_at_quantile(0.5)),
        micros(times.value_at_quantile(0.99)),
        micros(times.max()),
    ));
}
