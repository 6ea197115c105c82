//! Deadlines from Rust to Go and back, over plain HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use throughline::Context;

use super::Pair;
use super::service::relay;

/// What is left in µs at the service behind Go, after Go has used up all but 1.7 s of about 2 s.
async fn left_behind_go(pair: &Pair, is_verbatim: bool) -> (i64, i64) {
    let ctx = Context::background().with_tracer(pair.rust.traced.telemetry.tracer());
    let ctx = ctx.with_timeout(Duration::from_secs(2)).span("chain").start();
    let rust = format!("http://{}/relay", pair.rust.http);
    let go = format!("http://{}/relay", pair.go_http);
    let hops = [json!({ "to": go }), json!({ "to": rust, "left_ms": 1700, "verbatim": is_verbatim })];
    let seen = relay(&ctx, &hops).await;
    let left = |hop: &Value| hop["left_us"].as_i64().unwrap_or_else(|| panic!("{seen:?}"));
    assert_eq!(seen.len(), 3, "{seen:?}");
    (left(&seen[1]), left(&seen[2]))
}

#[tokio::test]
async fn gos_transport_sends_the_time_that_is_left_and_a_proxy_gives_its_own_time_away() {
    let Some(pair) = Pair::start().await else { return };
    for _ in 0..3 {
        let (at_go, behind) = left_behind_go(&pair, false).await;
        assert!(at_go <= 1_980_000, "{at_go}");
        // The reserve of 1.7 s is 17 ms.
        assert!(behind <= 1_683_000, "{behind}");
        // A header that is passed on gives the next service the same time again.
        let (_, verbatim) = left_behind_go(&pair, true).await;
        eprintln!("2 s, of which Go uses 300 ms: {behind} µs are left at the next service, verbatim {verbatim} µs");
        assert!(verbatim > behind, "{verbatim}");
    }
}
