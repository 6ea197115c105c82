//! What a round trip within the process allocates, as docs/performance.md promises it.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../../core/tests/alloc/counting.rs"]
mod counting;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use throughline::trace::Tracer;
use throughline::{ClientLayer, Context, ContextLayer};
use throughline_transport::Transport;
use tower::{Service as _, service_fn};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// The allocations of one call, when many calls have been made before. Both sides are included.
async fn per_call(mut call: impl AsyncFnMut()) -> u64 {
    const CALLS: u64 = 100;
    for _ in 0..CALLS {
        call().await;
    }
    let start = counting::total();
    for _ in 0..CALLS {
        call().await;
    }
    (counting::total() - start).div_ceil(CALLS)
}

#[tokio::test]
async fn a_round_trip_without_layers() {
    let transport = Transport::in_process();
    let mut listener = transport.listen("balance").await.unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = listener.next().await {
            incoming.responder.respond(Response::new(incoming.request.into_body()));
        }
    });
    let mut endpoint = transport.endpoint("balance", None);
    let allocations = per_call(async || {
        let request = endpoint.address(Request::new(Full::new(Bytes::from_static(b"x")))).unwrap();
        endpoint.call(request).await.unwrap();
    });
    assert_eq!(allocations.await, 2, "the channel of the response, and the future of the medium");
}

#[tokio::test]
async fn a_round_trip_with_layers() {
    let transport = Transport::in_process().client_layer(ClientLayer::internal().tracer(Tracer::noop()));
    let listener = transport.listen("balance").await.unwrap();
    let echo =
        service_fn(async |request: Request<Full<Bytes>>| Ok::<_, Infallible>(Response::new(request.into_body())));
    tokio::spawn(async move {
        listener.serve(&Context::background(), ContextLayer::internal().tracer(Tracer::noop()), echo).await;
    });
    let allocations = per_call(async || {
        let ctx = Context::background().with_timeout(Duration::from_secs(10));
        let request = Request::post("/reserve").body(Bytes::from_static(b"x")).unwrap();
        transport.send(&ctx, "balance", request).await.unwrap();
    });
    assert_eq!(allocations.await, 28);
}
