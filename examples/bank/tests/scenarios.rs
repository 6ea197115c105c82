//! The bank's scenarios and their spans.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::HashMap;
use std::time::Duration;

use bank::app::{Bank, Config, SERVICES};
use bank::domain::Authorization;
use bank::scenario::{Outcome, Scenario};
use throughline::ReplyReserve;
use throughline::trace::{SpanKind, Status};
use throughline_view::{SpanView, Trace};

/// A configuration that ignores the environment.
fn config() -> Config {
    // Ten banks share the machine with other programs. So each hop keeps 150 ms for the response,
    // not the default 30 ms.
    let reserve = ReplyReserve { percent: 5, max: Duration::MAX, ..ReplyReserve::DEFAULT };
    Config { variables: HashMap::new(), timeout: Duration::from_secs(3), reserve, ..Config::default() }
}

async fn play(scenario: Scenario) -> (Outcome, Trace) {
    let outcome = scenario.play(config()).await.unwrap();
    let mut traces = outcome.traces();
    assert_eq!(traces.len(), 1, "one trace");
    let trace = traces.remove(0);
    assert_eq!(trace.roots().count(), 1, "{}", trace.outline());
    for (service, stats) in &outcome.closed.stats {
        assert_eq!(stats.emitted, stats.exported, "{service}");
    }
    (outcome, trace)
}

fn text<'a>(span: &'a SpanView, key: &str) -> Option<&'a str> {
    span.record.attributes.get(key).and_then(|value| value.as_str())
}

fn left(span: &SpanView) -> f64 {
    span.record.attributes.get("throughline.deadline.remaining_ms").and_then(|value| value.as_f64()).unwrap()
}

/// The spans that wait for `balance`.
///
/// All except the call to `cards`, which is complete by then.
fn waiting(trace: &Trace) -> Vec<&SpanView> {
    trace.spans().iter().filter(|span| !is_card(span)).collect()
}

fn is_card(span: &SpanView) -> bool {
    &*span.service == "cards" || text(span, "url.full").is_some_and(|url| url.ends_with("/status"))
}

/// Checks that a callee of a synchronous call has less time left than its caller.
fn assert_time_shrinks(trace: &Trace) {
    let mut edges = 0;
    for span in trace.spans() {
        let Some(parent) = span.parent.map(|parent| &trace.spans()[parent]) else { continue };
        let kinds = (parent.record.kind, span.record.kind);
        if matches!(kinds, (SpanKind::Client, SpanKind::Server) | (SpanKind::Server, SpanKind::Client)) {
            assert!(left(span) < left(parent), "{} {} of {}", span.service, span.record.name, parent.record.name);
            edges += 1;
        }
    }
    assert!(edges >= 9, "{edges}");
}

const OK: &str = "\
api: POST /authorizations
  api: POST /authorizations
    card-api: POST /authorizations
      card-api: POST /process
        card-processing: POST /process
          card-processing: POST /status
            cards: POST /status
          card-processing: POST /transactions
            transactions: POST /transactions
              transactions: POST /reserve
                balance: POST /reserve
              transactions: send transaction.created
                transaction-enrichment: process transaction.created
                  transaction-enrichment: POST /lookup
                    merchant: POST /lookup
                  transaction-enrichment: POST /transactions/{id}/merchant
                    transactions: POST /transactions/{id}/merchant
                      transactions: send transaction.enriched
                        feed-generator: process transaction.enriched
                          feed-generator: POST /items
                            feed: POST /items
                              feed: send feed.item.created
                                apns: process feed.item.created
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ok_is_one_trace_of_23_spans_over_11_services() {
    let (outcome, trace) = play(Scenario::Ok).await;
    assert_eq!(outcome.response, Some((200, r#"{"approved":true,"transaction":1}"#.to_owned())));
    assert_eq!(outcome.notifications, ["12.50 at Blue Bottle"]);
    assert_eq!(trace.outline(), OK);
    assert_eq!(trace.spans().len(), 23);
    let mut services = trace.services();
    services.sort_unstable();
    let mut all = SERVICES;
    all.sort_unstable();
    assert_eq!(services, all);
    assert!(trace.spans().iter().all(|span| span.record.status == Status::Unset), "{}", trace.outline());
    assert_time_shrinks(&trace);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_call_each_other_as_in_the_graph() {
    let (_, trace) = play(Scenario::Ok).await;
    let mut edges = trace.edges();
    edges.sort_unstable();
    let mut graph = [
        ("api", "card-api"),
        ("card-api", "card-processing"),
        ("card-processing", "cards"),
        ("card-processing", "transactions"),
        ("transactions", "balance"),
        ("transactions", "transaction-enrichment"),
        ("transaction-enrichment", "merchant"),
        ("transaction-enrichment", "transactions"),
        ("transactions", "feed-generator"),
        ("feed-generator", "feed"),
        ("feed", "apns"),
    ];
    graph.sort_unstable();
    assert_eq!(edges, graph);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_balance_ends_every_waiting_hop_with_the_deadline_100_times_of_100() {
    let mut late = Vec::new();
    for round in 0..10 {
        let rounds: Vec<_> = (0..10).map(|_| tokio::spawn(play(Scenario::SlowBalance))).collect();
        for played in rounds {
            let (outcome, trace) = played.await.unwrap();
            let (status, body) = outcome.response.as_ref().unwrap();
            assert_eq!(*status, 504, "round {round}: {body}");
            for internal in ["balance", "card-processing", "origin", "path"] {
                assert!(!body.contains(internal), "{body}");
            }
            let waiting: Vec<_> = waiting(&trace);
            assert_eq!(waiting.len(), 9, "{}", trace.outline());
            for span in waiting {
                let shown = format!("round {round}: {} {}: {:?}", span.service, span.record.name, span.record);
                assert_eq!(text(span, "error.type"), Some("DEADLINE_EXCEEDED"), "{shown}");
                assert_eq!(text(span, "throughline.error.origin"), Some("balance"), "{shown}");
                if &*span.service == "balance" {
                    assert_eq!(text(span, "throughline.cancel.cause"), Some("deadline_exceeded"), "{shown}");
                }
            }
            assert_eq!((outcome.progress.started, outcome.progress.stopped), (1, 1), "the statement was stopped");
            assert!(trace.spans().iter().all(|span| span.record.kind != SpanKind::Producer), "no event was sent");
            assert_time_shrinks(&trace);
            late.push(outcome.took.as_secs_f64() * 1e3 - outcome.timeout.as_secs_f64() * 1e3);
        }
    }
    late.sort_by(f64::total_cmp);
    println!("the response came between {:.1} and {:.1} ms past the deadline of the edge", late[0], late[99]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hang_up_cancels_every_waiting_hop_and_its_spawned_work() {
    for round in 0..20 {
        let (outcome, trace) = play(Scenario::HangUp).await;
        let waiting: Vec<_> = waiting(&trace);
        assert_eq!(waiting.len(), 9, "{}", trace.outline());
        for span in waiting {
            let shown = format!("round {round}: {} {}: {:?}", span.service, span.record.name, span.record);
            assert_eq!(text(span, "throughline.cancel.cause"), Some("client_disconnected"), "{shown}");
            assert_eq!(span.record.status, Status::Unset, "{shown}");
        }
        let progress = outcome.progress;
        assert_eq!((progress.started, progress.stopped, progress.spawned_stopped), (1, 1, 1));
        assert!(trace.spans().iter().all(|span| span.record.kind != SpanKind::Producer), "no event was sent");
    }
}

/// Sends `authorization`. Returns the status, the body and the trace.
async fn authorize(authorization: Authorization) -> (u16, String, Trace) {
    let bank = Bank::open(config()).await.unwrap();
    let url = format!("http://{}/authorizations", bank.address);
    let response = reqwest::Client::new().post(url).json(&authorization).send().await.unwrap();
    let (status, body) = (response.status().as_u16(), response.text().await.unwrap());
    let trace = Trace::from_batches(&bank.close().await.batches).remove(0);
    (status, body, trace)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_that_is_declined_is_no_error_on_any_span() {
    let poor = Authorization { amount: 1_000_000, ..Authorization::example() };
    let unknown = Authorization { card: "nobody's".into(), ..Authorization::example() };
    for (authorization, reason) in [(poor, "insufficient_funds"), (unknown, "unknown_card")] {
        let (status, body, trace) = authorize(authorization).await;
        assert_eq!((status, body.as_str()), (200, r#"{"approved":false,"transaction":0}"#), "{reason}");
        assert!(trace.spans().iter().all(|span| span.record.status == Status::Unset), "{}", trace.outline());
        assert!(trace.spans().iter().all(|span| span.record.kind != SpanKind::Producer), "no event was sent");
        let declined: Vec<_> = trace
            .spans()
            .iter()
            .flat_map(|span| span.record.events.iter().map(move |event| (span, event)))
            .filter(|(_, event)| event.name == "payment.declined")
            .map(|(span, event)| (&*span.service, &*span.record.name, event.attributes.get("bank.decline.reason")))
            .collect();
        assert_eq!(declined, [("card-processing", "POST /process", Some(&reason.into()))]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_request_is_a_400_at_the_api() {
    let (status, body, _) = authorize(Authorization { amount: 0, ..Authorization::example() }).await;
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("INVALID_ARGUMENT") && !body.contains("card-api"), "{body}");
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = taken.local_addr().unwrap();
    let error = Bank::open(Config { listen, ..config() }).await.unwrap_err();
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_collector_only_the_spans_are_lost() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), "http://127.0.0.1:1".to_owned());
    let config = Config { variables: [endpoint].into(), ..Config::default() };
    let outcome = Scenario::Ok.play(config).await.unwrap();
    assert_eq!(outcome.response.as_ref().map(|(status, _)| *status), Some(200));
    let sum = |count: fn(&throughline::telemetry::Stats) -> u64| {
        outcome.closed.stats.iter().map(|(_, s)| count(s)).sum::<u64>()
    };
    assert_eq!((sum(|s| s.emitted), sum(|s| s.exported), sum(|s| s.dropped())), (23, 0, 23));
    assert!(outcome.closed.lost.is_some());
}
