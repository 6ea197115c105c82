//! Over plain HTTP, each attempt is a span of its own.

use throughline::trace::{SpanKind, Status};
use throughline::{Cause, Context, RetryPolicy, SpanRecord};

use super::{Peer, Reply, get, millis, retrying, seconds};
use crate::support::{Traced, number, text};

fn resend_counts(spans: &[SpanRecord]) -> Vec<Option<f64>> {
    spans.iter().map(|span| number(span, "http.request.resend_count")).collect()
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_a_client_span_with_its_number_and_the_time_that_was_left() {
    let caller = Traced::new("api");
    let root = Context::background().with_tracer(caller.telemetry.tracer()).span("pay").start();
    let ctx = root.with_timeout(seconds(10));
    let peer = Peer::new([Reply::With(503, "retry-after", "2"), Reply::Status(502)]);
    drop(peer.call(&retrying(&RetryPolicy::new()), get(&ctx)).await.unwrap());
    let spans = caller.spans(3).await;
    assert_eq!(resend_counts(&spans), [None, Some(1.0), Some(2.0)]);
    let parent = root.span_context().map(|root| root.span_id());
    for (span, sent) in spans.iter().zip(peer.headers("traceparent")) {
        assert_eq!((span.name.as_ref(), span.kind, span.parent_span_id), ("GET", SpanKind::Client, parent));
        assert!(sent.unwrap().contains(&span.span_context.span_id().to_string()));
    }
    let errors: Vec<_> = spans.iter().map(|span| text(span, "error.type")).collect();
    assert_eq!(errors, [Some("503"), Some("502"), None]);
    assert!(matches!(spans[0].status, Status::Error(_)) && spans[2].status == Status::Unset);
    // Nobody gave up a failed attempt: it was complete.
    let causes = spans.iter().filter_map(|span| text(span, "throughline.cancel.cause")).count();
    assert_eq!(causes, 1, "only the last response was dropped, and by this test");
    let left: Vec<_> = spans.iter().map(|span| number(span, "throughline.deadline.remaining_ms").unwrap()).collect();
    assert!(left[0] == 10_000.0 && left[1] <= 8_000.0 && left[2] <= left[1], "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_cancelled_leaves_no_span_of_an_attempt_that_was_not_made() {
    let caller = Traced::new("api");
    let request = Context::background().with_tracer(caller.telemetry.tracer()).with_cancel();
    let (peer, layer) = (Peer::new([Reply::With(429, "retry-after", "5")]), retrying(&RetryPolicy::new()));
    let cancel = async {
        tokio::time::sleep(seconds(1)).await;
        request.cancel_with(Cause::Shutdown);
    };
    let (result, ()) = tokio::join!(peer.call(&layer, get(request.context())), cancel);
    assert_eq!(result.unwrap_err().message(), "shutting down");
    let span = caller.span().await;
    assert_eq!((text(&span, "error.type"), text(&span, "throughline.cancel.cause")), (Some("429"), None));
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_hedge_that_lost_is_abandoned_and_no_error() {
    let caller = Traced::new("api");
    let ctx = Context::background().with_tracer(caller.telemetry.tracer());
    let peer = Peer::new([Reply::Hang]);
    let layer = retrying(&RetryPolicy::new().hedge_after(millis(100)));
    let response = peer.call(&layer, get(&ctx)).await.unwrap();
    let spans = caller.spans(1).await;
    assert_eq!(resend_counts(&spans), [None]);
    assert_eq!((text(&spans[0], "throughline.cancel.cause"), &spans[0].status), (Some("abandoned"), &Status::Unset));
    drop(response);
    assert_eq!(resend_counts(&caller.spans(2).await), [None, Some(1.0)]);
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_hedge_that_failed_has_its_error_and_was_not_abandoned() {
    let caller = Traced::new("api");
    let ctx = Context::background().with_tracer(caller.telemetry.tracer());
    let peer = Peer::new([Reply::Slow(millis(300)), Reply::Status(503)]);
    let layer = retrying(&RetryPolicy::new().hedge_after(millis(100)));
    let response = peer.call(&layer, get(&ctx)).await.unwrap();
    let span = caller.span().await;
    assert_eq!((text(&span, "error.type"), text(&span, "throughline.cancel.cause")), (Some("503"), None));
    drop(response);
}
