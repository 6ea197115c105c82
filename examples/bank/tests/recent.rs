//! The spans that the bank keeps in memory.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bank::recent::Recent;
use throughline::Context;
use throughline::telemetry;

#[tokio::test]
async fn only_the_spans_that_ended_last_are_kept() {
    let recent = Recent::new(100);
    let telemetry = telemetry::builder("api").exporter(recent.clone()).build().unwrap();
    let ctx = Context::background().with_tracer(telemetry.tracer());
    for round in 0..50 {
        for span in 0..10 {
            ctx.span(format!("span {}", round * 10 + span)).start().end();
        }
        telemetry.force_flush(Duration::from_secs(10)).await.unwrap();
    }
    let kept: Vec<_> = recent.batches().into_iter().flat_map(|batch| batch.spans).collect();
    assert!((90..=100).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last().unwrap().name, "span 499");
    assert_eq!(kept[0].name, format!("span {}", 500 - kept.len()));
}
