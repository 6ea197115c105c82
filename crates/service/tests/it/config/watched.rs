use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use throughline::trace::{ParentBased, Sampler, SamplingParameters, TraceIdRatio};
use throughline::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use throughline_service::config::{ServiceSettings, Watched};
use tokio::sync::watch;
use tower::util::MapRequestLayer;
use tower::{Layer, Service, ServiceExt, service_fn};

fn channel<T: Send + Sync + 'static>(value: T) -> (watch::Sender<Arc<T>>, Watched<T>) {
    let (sender, receiver) = watch::channel(Arc::new(value));
    (sender, Watched::from(receiver))
}

#[tokio::test]
async fn changed_returns_the_value_that_the_handle_has_not_seen() {
    let (sender, mut number) = channel(1);
    let mut square = number.map(|n| n * n);
    assert!(number.changed().now_or_never().is_none());
    sender.send_replace(Arc::new(2));
    sender.send_replace(Arc::new(3));
    assert_eq!((*number.changed().await, *square.changed().await), (3, 9));
    assert!(square.changed().now_or_never().is_none());

    let waiting = tokio::spawn(async move { *square.changed().await });
    tokio::task::yield_now().await;
    sender.send_replace(Arc::new(4));
    assert_eq!(waiting.await.unwrap(), 16);
}

#[tokio::test]
async fn a_value_without_its_sender_stays() {
    let (sender, mut number) = channel(1);
    sender.send_replace(Arc::new(2));
    drop(sender);
    assert_eq!(*number.changed().await, 2);
    assert!(number.changed().now_or_never().is_none());
    assert!(Watched::fixed(1).changed().now_or_never().is_none());
}

#[test]
fn a_derived_value_is_made_once_per_change() {
    let (sender, number) = channel(1);
    let calls = Arc::new(AtomicUsize::new(0));
    let square = number.map({
        let calls = Arc::clone(&calls);
        move |n| {
            calls.fetch_add(1, Ordering::Relaxed);
            n * n
        }
    });
    assert!(Arc::ptr_eq(&square.current(), &square.clone().current()));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    sender.send_replace(Arc::new(2));
    assert_eq!((*square.current(), *square.current(), calls.load(Ordering::Relaxed)), (4, 4, 2));
}

#[test]
fn readers_on_many_threads_see_one_value_per_change() {
    let (sender, number) = channel(0_u64);
    let square = number.map(|n| (*n, n * n));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = 0;
                while last < 1_000 {
                    let value = square.current();
                    assert_eq!(value.0 * value.0, value.1);
                    assert!(value.0 >= last, "{} after {last}", value.0);
                    last = value.0;
                }
            });
        }
        for n in 1..=1_000 {
            sender.send_replace(Arc::new(n));
        }
    });
}

#[tokio::test]
async fn a_watched_layer_is_used_for_the_next_call() {
    let (sender, number) = channel(1);
    let layer = number.map(|n| {
        let n = *n;
        MapRequestLayer::new(move |x: i32| x * n)
    });
    let mut service = layer.layer(service_fn(async |x: i32| Ok::<_, Infallible>(x)));
    assert_eq!(service.ready().await.unwrap().call(10).await, Ok(10));
    let ready = service.ready().await.unwrap();
    sender.send_replace(Arc::new(2));
    assert_eq!(ready.call(10).await, Ok(10), "the call was ready before the change");
    assert_eq!(service.ready().await.unwrap().call(10).await, Ok(20));
}

#[test]
fn a_watched_sampler_holds_for_traces_that_start_after_the_change() {
    let (sender, settings) = channel(ServiceSettings::default());
    let sampler = ParentBased::new(settings.map(ServiceSettings::sampler));
    let id = TraceId::random();
    let mut span = SamplingParameters::new(id, "reserve");
    assert!(sampler.sample(&span).sampled, "without a ratio, all traces are recorded");

    let ratio = |ratio| Arc::new(ServiceSettings { sampling_ratio: Some(ratio), ..ServiceSettings::default() });
    sender.send_replace(ratio(0.0));
    assert!(!sampler.sample(&span).sampled);
    let caller = SpanContext::new(id, SpanId::random(), TraceFlags::SAMPLED, TraceState::EMPTY, true);
    span.parent = Some(&caller);
    assert!(sampler.sample(&span).sampled, "the service where the trace began has decided");

    span.parent = None;
    sender.send_replace(ratio(1.0));
    assert!(sampler.sample(&span).sampled);
    sender.send_replace(ratio(0.25));
    assert_eq!(sampler.sample(&span), TraceIdRatio::new(0.25).sample(&span));
}
