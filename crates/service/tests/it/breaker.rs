//! The breaker with three outcomes, around a tower client.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use throughline::middleware::client::{CallBody, ClientService};
use throughline::trace::SpanKind;
use throughline::{ClientLayer, Code, Context, Error};
use throughline_service::breaker::{BreakerLayer, BreakerService, BreakerSettings, BreakerState};
use tokio::sync::Notify;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt as _};

use crate::support::{Spans, millis};

type Inner = BoxCloneSyncService<Request<Full<Bytes>>, Response<Full<Bytes>>, Error>;
type Caller = ClientService<BreakerService<Inner>>;

/// A callee whose behaviour a test sets: it waits, and then sends a status.
struct Peer {
    status: Mutex<Result<u16, Code>>,
    delay_ms: AtomicU64,
    running: AtomicUsize,
    most_running: AtomicUsize,
    calls: AtomicUsize,
    layer: BreakerLayer,
    service: Mutex<Option<BreakerService<Inner>>>,
}

/// Counts a call as running, until it is dropped.
struct Running<'a>(&'a Peer);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Peer {
    fn new(settings: BreakerSettings) -> Arc<Self> {
        let peer = Arc::new(Peer {
            status: Mutex::new(Ok(200)),
            delay_ms: AtomicU64::new(10),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            layer: BreakerLayer::new("balance", settings),
            service: Mutex::new(None),
        });
        let this = Arc::downgrade(&peer);
        let handler = tower::service_fn(move |_: Request<Full<Bytes>>| {
            let peer = this.upgrade().unwrap();
            async move {
                peer.calls.fetch_add(1, Ordering::SeqCst);
                let running = peer.running.fetch_add(1, Ordering::SeqCst) + 1;
                peer.most_running.fetch_max(running, Ordering::SeqCst);
                let _running = Running(&peer);
                tokio::time::sleep(millis(peer.delay_ms.load(Ordering::SeqCst))).await;
                let status = *peer.status.lock().unwrap();
                let mut response = Response::new(Full::new(Bytes::new()));
                *response.status_mut() = StatusCode::from_u16(status.map_err(|code| Error::new(code, ""))?).unwrap();
                Ok::<_, Error>(response)
            }
        });
        *peer.service.lock().unwrap() = Some(peer.layer.layer(BoxCloneSyncService::new(handler)));
        peer
    }

    fn set(&self, status: Result<u16, Code>, delay_ms: u64) {
        *self.status.lock().unwrap() = status;
        self.delay_ms.store(delay_ms, Ordering::SeqCst);
    }

    fn caller(&self) -> Caller {
        ClientLayer::internal().layer(self.service.lock().unwrap().clone().unwrap())
    }

    async fn call(&self, ctx: &Context) -> Result<Response<CallBody<Full<Bytes>>>, Error> {
        let mut request = Request::post("http://balance/reserve").body(Full::new(Bytes::new())).unwrap();
        request.extensions_mut().insert(ctx.clone());
        let mut caller = self.caller();
        caller.ready().await?.call(request).await
    }

    /// Calls this many times without a deadline.
    async fn calls(&self, count: usize) {
        for _ in 0..count {
            let _ = self.call(&Context::background()).await;
        }
    }

    fn state(&self) -> BreakerState {
        self.service.lock().unwrap().as_ref().unwrap().breaker().state()
    }

    fn counters(&self) -> throughline_service::breaker::BreakerCounters {
        self.service.lock().unwrap().as_ref().unwrap().breaker().counters()
    }
}

fn exact() -> BreakerSettings {
    BreakerSettings { jitter: 0.0, ..BreakerSettings::default() }
}

#[tokio::test(start_paused = true)]
async fn opens_when_half_of_the_requests_are_5xx_and_refuses_calls_at_once() {
    let peer = Peer::new(exact());
    peer.calls(5).await;
    peer.set(Ok(500), 10);
    peer.calls(4).await;
    assert_eq!(peer.state(), BreakerState::Closed, "4 of 9");
    peer.calls(1).await;
    assert_eq!(peer.state(), BreakerState::Open, "5 of 10");
    let sent = peer.calls.load(Ordering::SeqCst);
    let refused = peer.call(&Context::background()).await.unwrap_err();
    assert_eq!((refused.code(), refused.retryable()), (Code::Unavailable, Some(true)));
    assert!(refused.retry_after().is_some_and(|after| after <= millis(1000)));
    assert_eq!(peer.calls.load(Ordering::SeqCst), sent, "the callee has not seen it");
    let counters = peer.counters();
    assert_eq!((counters.successes, counters.failures, counters.refused, counters.opened), (5, 5, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn opens_after_transport_failures_in_a_row_whatever_the_ratio() {
    let peer = Peer::new(BreakerSettings { unreachable_limit: 3, ..exact() });
    peer.calls(100).await;
    peer.set(Err(Code::Unavailable), 10);
    peer.calls(2).await;
    peer.set(Ok(200), 10);
    peer.calls(1).await;
    peer.set(Err(Code::Unavailable), 10);
    peer.calls(2).await;
    assert_eq!(peer.state(), BreakerState::Closed, "a success in between begins a new row");
    peer.calls(1).await;
    assert_eq!(peer.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn opens_on_missed_deadlines_that_were_fair() {
    let peer = Peer::new(exact());
    peer.calls(20).await;
    peer.set(Ok(200), 60_000);
    let mut missed = 0;
    while peer.state() == BreakerState::Closed {
        let error = peer.call(&Context::background().with_timeout(millis(50))).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
        missed += 1;
    }
    assert_eq!((missed, peer.counters().failures), (20, 20), "five times the p50 of 10 ms is fair");
}

#[tokio::test(start_paused = true)]
async fn opens_on_a_callee_that_hangs_from_the_start() {
    let peer = Peer::new(exact());
    peer.set(Ok(200), 60_000);
    for _ in 0..10 {
        peer.call(&Context::background().with_timeout(millis(1000))).await.unwrap_err();
    }
    assert_eq!(peer.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn opens_on_a_504_of_a_callee_that_had_enough_time_and_not_on_that_of_one_that_had_not() {
    let peer = Peer::new(exact());
    peer.calls(10).await;
    peer.set(Ok(504), 5);
    for _ in 0..100 {
        assert_eq!(peer.call(&Context::background().with_timeout(millis(12))).await.unwrap().status(), 504);
    }
    assert_eq!((peer.state(), peer.counters().neutral), (BreakerState::Closed, 100));
    peer.calls(10).await;
    assert_eq!(peer.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn stays_closed_under_1000_calls_whose_callers_cancel() {
    let peer = Peer::new(exact());
    for number in 0..1000 {
        let caller = Context::background().with_timeout(millis(10_000)).with_cancel();
        let call = peer.call(&caller);
        tokio::select! {
            biased;
            result = call => assert_eq!(result.unwrap_err().code(), Code::Cancelled),
            () = tokio::time::sleep(millis(1)) => {
                // Half of them cancel the context, the others drop the call.
                if number % 2 == 0 {
                    caller.cancel();
                }
            }
        }
    }
    let counters = peer.counters();
    assert_eq!((peer.state(), counters.neutral, counters.failures), (BreakerState::Closed, 1000, 0));
    peer.call(&Context::background()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_context_is_cancelled_while_it_waits_is_neutral() {
    let peer = Peer::new(exact());
    for _ in 0..100 {
        let caller = Context::background().with_cancel();
        let (result, ()) = tokio::join!(peer.call(&caller), async {
            tokio::time::sleep(millis(1)).await;
            caller.cancel();
        });
        assert_eq!(result.unwrap_err().code(), Code::Cancelled);
    }
    assert_eq!((peer.state(), peer.counters().neutral), (BreakerState::Closed, 100));
}

#[tokio::test(start_paused = true)]
async fn stays_closed_under_1000_calls_that_come_with_1_ms_left() {
    for known_p50 in [false, true] {
        let peer = Peer::new(exact());
        peer.calls(if known_p50 { 20 } else { 0 }).await;
        for _ in 0..1000 {
            let error = peer.call(&Context::background().with_timeout(millis(1))).await.unwrap_err();
            assert_eq!(error.code(), Code::DeadlineExceeded);
        }
        let counters = peer.counters();
        assert_eq!((peer.state(), counters.neutral, counters.failures), (BreakerState::Closed, 1000, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn stays_closed_under_4xx_and_limits_of_the_caller() {
    let peer = Peer::new(exact());
    for status in [Ok(400), Ok(404), Ok(429), Ok(501), Err(Code::ResourceExhausted), Err(Code::InvalidArgument)] {
        peer.set(status, 1);
        peer.calls(50).await;
    }
    assert_eq!((peer.state(), peer.counters().neutral), (BreakerState::Closed, 300));
}

/// Opens the breaker with ten failures.
async fn opened(settings: BreakerSettings) -> Arc<Peer> {
    let peer = Peer::new(settings);
    peer.set(Ok(500), 0);
    peer.calls(10).await;
    assert_eq!(peer.state(), BreakerState::Open);
    peer
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_succeeds_closes_and_one_that_fails_reopens_for_longer() {
    let peer = opened(exact()).await;
    let mut sent = peer.calls.load(Ordering::SeqCst);
    for pause in [1000, 2000, 4000] {
        tokio::time::advance(millis(pause - 1)).await;
        peer.calls(1).await;
        assert_eq!(peer.calls.load(Ordering::SeqCst), sent, "{pause} ms are not over");
        tokio::time::advance(millis(1)).await;
        peer.calls(1).await;
        sent += 1;
        assert_eq!((peer.calls.load(Ordering::SeqCst), peer.state()), (sent, BreakerState::Open), "{pause}");
    }
    peer.set(Ok(200), 0);
    tokio::time::advance(millis(8000)).await;
    peer.calls(1).await;
    assert_eq!(peer.state(), BreakerState::Closed);
    // The window is empty, and the time is the first one again.
    peer.set(Ok(500), 0);
    peer.calls(9).await;
    assert_eq!(peer.state(), BreakerState::Closed);
    peer.calls(1).await;
    tokio::time::advance(millis(1000)).await;
    peer.set(Ok(200), 0);
    peer.calls(1).await;
    assert_eq!(peer.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn no_more_probes_run_at_a_time_than_allowed() {
    for probes in [1, 3] {
        let peer = opened(BreakerSettings { probes, ..exact() }).await;
        peer.set(Ok(200), 100);
        peer.most_running.store(0, Ordering::SeqCst);
        tokio::time::advance(millis(1000)).await;
        let ctx = Context::background();
        let results = futures_util::future::join_all((0..20).map(|_| peer.call(&ctx))).await;
        let passed = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!((passed, peer.most_running.load(Ordering::SeqCst)), (probes as usize, probes as usize));
        assert_eq!(peer.state(), BreakerState::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_caller_cancels_frees_its_slot() {
    let peer = opened(exact()).await;
    peer.set(Ok(200), 100);
    tokio::time::advance(millis(1000)).await;
    for _ in 0..3 {
        let ctx = Context::background();
        let call = peer.call(&ctx);
        tokio::time::timeout(millis(10), call).await.expect_err("the caller gives up");
        assert_eq!(peer.state(), BreakerState::HalfOpen);
    }
    peer.call(&Context::background()).await.unwrap();
    assert_eq!(peer.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_began_before_the_breaker_opened_does_not_reopen_it() {
    let peer = Peer::new(exact());
    peer.set(Ok(500), 3000);
    let ctx = Context::background();
    let mut old = Box::pin(peer.call(&ctx));
    let is_pending = poll_fn(|cx| Poll::Ready(old.as_mut().poll(cx).is_pending())).await;
    assert!(is_pending);
    peer.set(Ok(500), 0);
    peer.calls(10).await;
    tokio::time::advance(millis(1000)).await;
    peer.set(Ok(200), 0);
    peer.calls(1).await;
    assert_eq!(peer.state(), BreakerState::Closed);
    peer.set(Ok(500), 0);
    assert_eq!(old.await.unwrap().status(), 500);
    peer.calls(9).await;
    assert_eq!(peer.state(), BreakerState::Closed, "nine, without the old one");
}

#[tokio::test(start_paused = true)]
async fn settings_change_while_calls_run() {
    let peer = Peer::new(exact());
    peer.set(Ok(500), 0);
    peer.calls(3).await;
    assert_eq!(peer.state(), BreakerState::Closed);
    peer.layer.set(BreakerSettings { min_requests: 4, open_time: millis(50), ..exact() });
    peer.calls(1).await;
    assert_eq!(peer.state(), BreakerState::Open);
    let refused = peer.call(&Context::background()).await.unwrap_err();
    assert_eq!(refused.retry_after(), Some(millis(50)));
}

#[tokio::test(start_paused = true)]
async fn each_change_is_an_event_on_the_client_span_of_the_call_that_caused_it() {
    let (peer, spans) = (Peer::new(BreakerSettings { min_requests: 2, ..exact() }), Spans::default());
    let ctx = spans.context();
    peer.set(Ok(500), 0);
    for _ in 0..3 {
        drop(peer.call(&ctx).await);
    }
    peer.set(Ok(200), 60_000);
    tokio::time::advance(millis(1000)).await;
    peer.call(&ctx.with_timeout(millis(1500))).await.unwrap_err();
    let changes: Vec<Vec<String>> = spans
        .take()
        .iter()
        .map(|span| {
            assert_eq!(span.kind, SpanKind::Client);
            let events = span.events.iter().filter(|event| event.name == "throughline.breaker");
            let text = |name: &str, event: &throughline::trace::Event| {
                event.attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string()).unwrap()
            };
            events
                .map(|event| {
                    assert_eq!(text("throughline.breaker.name", event), "balance");
                    let from = text("throughline.breaker.previous_state", event);
                    format!("{from} → {}", text("throughline.breaker.state", event))
                })
                .collect()
        })
        .collect();
    let expected: [&[&str]; 4] = [&[], &["closed → open"], &[], &["open → half_open", "half_open → open"]];
    assert_eq!(changes, expected);
}

#[tokio::test(start_paused = true)]
async fn a_call_outside_a_client_layer_takes_the_ambient_context() {
    let peer = opened(exact()).await;
    let mut service = peer.service.lock().unwrap().clone().unwrap();
    let request = Request::new(Full::new(Bytes::new()));
    let error = service.ready().await.unwrap().call(request).await.unwrap_err();
    assert_eq!(Error::meaning_of(&*error).code(), Code::Unavailable);
    // The deadline of the ambient context decides about a missed one.
    let other = Peer::new(BreakerSettings { min_requests: 1, ..exact() });
    other.set(Ok(200), 60_000);
    let mut service = other.service.lock().unwrap().clone().unwrap();
    let ctx = Context::background().with_timeout(millis(1));
    let started = Arc::new(Notify::new());
    ctx.scope(async {
        let request = Request::new(Full::new(Bytes::new()));
        let call = service.ready().await.unwrap().call(request);
        started.notify_one();
        let _ = Context::current().run(call).await;
    })
    .await;
    assert_eq!((other.state(), other.counters().neutral), (BreakerState::Closed, 1));
}
