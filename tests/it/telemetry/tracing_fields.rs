//! How the fields of `tracing` spans and events are recorded.

use std::fmt;
use std::io;

use throughline::trace::{Event, SpanKind, Status, Value};
use throughline::{Context, SpanRecord};
use tracing::{error, field, info, info_span, instrument, warn};
use tracing_subscriber::layer::SubscriberExt;

use super::tracing_layer::{named, spans, subscriber};
use crate::support::Traced;

/// Runs `work` with the layer of a telemetry and returns the spans.
async fn traced(work: impl FnOnce(&Context)) -> Vec<SpanRecord> {
    let traced = Traced::new("cards");
    let ctx = Context::background().with_tracer(traced.telemetry.tracer());
    tracing::subscriber::with_default(subscriber(&traced), || work(&ctx));
    spans(traced).await
}

async fn event(work: impl FnOnce()) -> (Event, Status) {
    let spans = traced(|_| info_span!("span").in_scope(work)).await;
    let span = named(&spans, "span");
    assert_eq!(span.events.len(), 1, "{span:#?}");
    (span.events[0].clone(), span.status.clone())
}

fn text<'a>(event: &'a Event, key: &str) -> Option<&'a str> {
    event.attributes.get(key).and_then(Value::as_str)
}

fn failed(description: &'static str) -> Status {
    Status::Error(description.into())
}

#[derive(Debug)]
struct Save(io::Error);

impl fmt::Display for Save {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot save")
    }
}

impl std::error::Error for Save {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

fn save_error() -> Save {
    Save(io::Error::other("disk full"))
}

#[tokio::test]
async fn t19_otel_fields_take_effect_at_creation() {
    let spans = traced(|_| {
        drop(info_span!("1", otel.name = "GET /cards/{id}", otel.kind = "SERVER", otel.status_code = "ok"));
        drop(
            info_span!("2", otel.kind = ?SpanKind::Producer, otel.status_code = "ERROR", otel.status_message = "boom"),
        );
        drop(info_span!("3", otel.status_description = %format_args!("lost {}", 7)));
        drop(info_span!("4", otel.kind = "sever", otel.status_code = "unset"));
    })
    .await;
    let named = |name| named(&spans, name);
    assert_eq!((named("GET /cards/{id}").kind, &named("GET /cards/{id}").status), (SpanKind::Server, &Status::Ok));
    assert_eq!((named("2").kind, &named("2").status), (SpanKind::Producer, &failed("boom")));
    assert_eq!(named("3").status, failed("lost 7"), "a description alone is an error's");
    assert_eq!((named("4").kind, &named("4").status), (SpanKind::Internal, &Status::Unset));
    assert!(spans.iter().all(|span| span.attributes.is_empty()), "they are no attributes: {spans:#?}");
}

#[tokio::test]
async fn t19_otel_fields_take_effect_when_they_are_recorded_later() {
    let spans = traced(|_| {
        let span = info_span!(
            "route",
            otel.name = field::Empty,
            otel.kind = field::Empty,
            otel.status_code = field::Empty,
            otel.status_description = field::Empty,
            card = field::Empty,
        );
        span.record("otel.status_description", "card not found");
        span.record("otel.status_code", "ERROR");
        span.record("otel.name", "GET /cards/{id}");
        span.record("otel.kind", field::debug(SpanKind::Client));
        span.record("otel.kind", "no kind");
        span.record("card", 7);
    })
    .await;
    let span = named(&spans, "GET /cards/{id}");
    assert_eq!((span.kind, &span.status), (SpanKind::Client, &failed("card not found")));
    assert_eq!(span.attributes.iter().collect::<Vec<_>>(), [("card", &Value::I64(7))]);
}

#[tokio::test]
async fn t19_the_message_of_a_span_is_an_attribute() {
    let spans = traced(|_| drop(info_span!("import", "{} rows", 3))).await;
    assert_eq!(named(&spans, "import").attributes.get("message"), Some(&Value::from("3 rows")));
}

#[tokio::test]
async fn t19_follows_from_adds_a_link() {
    let spans = traced(|_| {
        let (first, second) = (info_span!("first"), info_span!("second"));
        second.follows_from(&first);
    })
    .await;
    let links: Vec<_> = named(&spans, "second").links.iter().map(|link| &link.span_context).collect();
    assert_eq!(links, [&named(&spans, "first").span_context]);
}

#[tokio::test]
async fn t19_an_error_field_of_a_span_includes_its_sources() {
    let spans = traced(|_| {
        let error = save_error();
        drop(info_span!("span", error = &error as &(dyn std::error::Error + 'static)));
    })
    .await;
    let span = named(&spans, "span");
    assert_eq!(span.attributes.get("error"), Some(&Value::from("cannot save: disk full")));
    assert_eq!(span.status, Status::Unset);
}

#[tokio::test]
async fn t20_an_instrumented_function_that_returns_an_error_fails() {
    #[instrument(err, skip_all)]
    fn display() -> Result<(), Save> {
        Err(save_error())
    }

    #[instrument(err(Debug, level = "info"), skip_all)]
    async fn debug() -> Result<(), u8> {
        Err(7)
    }

    let spans = traced(|_| {
        display().unwrap_err();
        futures_util::FutureExt::now_or_never(debug()).unwrap().unwrap_err();
    })
    .await;
    for (name, message, level) in [("display", "cannot save", "ERROR"), ("debug", "7", "INFO")] {
        let span = named(&spans, name);
        assert_eq!(span.status, failed(message));
        let [event] = &span.events[..] else { panic!("{span:#?}") };
        assert_eq!((&*event.name, text(event, "exception.message")), ("exception", Some(message)));
        assert_eq!(text(event, "level"), Some(level));
        assert!(text(event, "target").is_some() && event.attributes.get("error").is_none());
    }
}

#[tokio::test]
async fn t20_an_error_keeps_its_sources_and_the_message_beside_it() {
    let (event, status) = event(|| {
        let error = save_error();
        warn!(error = &error as &(dyn std::error::Error + 'static), card = 7, "saving failed");
    })
    .await;
    assert_eq!(status, failed("cannot save: disk full"));
    assert_eq!((&*event.name, text(&event, "exception.message")), ("exception", Some("cannot save: disk full")));
    assert_eq!((text(&event, "message"), event.attributes.get("card")), (Some("saving failed"), Some(&Value::I64(7))));
}

#[tokio::test]
async fn t20_a_displayed_error_keeps_the_sources_that_its_alternate_form_shows() {
    /// Behaves like `anyhow::Error`.
    #[derive(Debug)]
    struct Report {
        _fields: [u8; 2],
    }

    impl fmt::Display for Report {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(if f.alternate() { "cannot save: disk full" } else { "cannot save" })
        }
    }

    const REPORT: Report = Report { _fields: [1, 2] };

    #[instrument(err)]
    fn display() -> Result<(), Report> {
        Err(REPORT)
    }

    #[instrument(err(Debug))]
    fn debug() -> Result<(), Report> {
        Err(REPORT)
    }

    let spans = traced(|_| {
        display().unwrap_err();
        debug().unwrap_err();
    })
    .await;
    assert_eq!(named(&spans, "display").status, failed("cannot save: disk full"));
    assert_eq!(named(&spans, "debug").status, failed("Report { _fields: [1, 2] }"));
}

#[tokio::test]
async fn t20_an_error_with_endless_sources_is_bounded() {
    #[derive(Debug)]
    struct Endless;

    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&"no end ".repeat(1_000))
        }
    }

    impl std::error::Error for Endless {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(self)
        }
    }

    let (event, _) = event(|| error!(error = &Endless as &(dyn std::error::Error + 'static))).await;
    assert!(text(&event, "exception.message").is_some_and(|message| (4_000..=4_096).contains(&message.len())));
}

#[tokio::test]
async fn t20_an_event_at_level_error_is_an_exception_with_its_message() {
    let (event, status) = event(|| error!(card = 7, "no such card")).await;
    assert_eq!(status, failed("no such card"));
    assert_eq!((&*event.name, text(&event, "exception.message")), ("exception", Some("no such card")));
    assert_eq!(event.attributes.get("message"), None);
}

#[tokio::test]
async fn t20_an_event_with_exception_fields_is_an_exception() {
    let (event, status) =
        event(|| info!(exception.message = "gone", exception.r#type = "Io", error = "x", "text")).await;
    assert_eq!(status, failed("gone"));
    assert_eq!((text(&event, "exception.message"), text(&event, "exception.type")), (Some("gone"), Some("Io")));
    assert_eq!((text(&event, "error"), text(&event, "message")), (Some("x"), Some("text")));
}

#[tokio::test]
async fn t20_other_events_keep_level_and_target_and_leave_the_status() {
    let (event, status) = event(|| info!(target: "bank", error = false, "reserved")).await;
    assert_eq!((&*event.name, status), ("reserved", Status::Unset));
    assert_eq!((text(&event, "level"), text(&event, "target")), (Some("INFO"), Some("bank")));
    assert_eq!(event.attributes.get("error"), Some(&Value::Bool(false)));
}

#[tokio::test]
async fn t20_each_error_event_is_kept_and_a_returned_error_is_not_repeated() {
    let spans = traced(|ctx| {
        let request = ctx.span("request").start();
        request.enter(|| {
            error!("no answer");
            error!("no answer");
        });
        request.record_returned(&io::Error::other("no answer"));
        request.end();
    })
    .await;
    assert_eq!(named(&spans, "request").events.len(), 2);
}

#[tokio::test]
async fn t20_an_ok_status_is_final() {
    let spans = traced(|_| {
        info_span!("span", otel.status_code = "OK").in_scope(|| error!("only one of three replicas"));
    })
    .await;
    let span = named(&spans, "span");
    assert_eq!((&span.status, span.events.len()), (&Status::Ok, 1));
}

#[tokio::test]
async fn t20_code_location_and_thread_are_optional() {
    #[instrument]
    fn reserve() {
        info!("reserved");
    }

    let traced = Traced::new("cards");
    let layer = traced.telemetry.layer().with_location(true).with_threads(true);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        reserve();
        drop(info_span!("GET /"));
    });
    let spans = spans(traced).await;
    let span = named(&spans, "reserve");
    let function = format!("{}::reserve", module_path!());
    assert_eq!(span.attributes.get("code.function.name"), Some(&Value::from(function)));
    assert_eq!(named(&spans, "GET /").attributes.get("code.function.name"), None, "no function has this name");
    for attributes in [&span.attributes, &span.events[0].attributes] {
        assert_eq!(attributes.get("code.file.path"), Some(&Value::from(file!())));
        assert!(attributes.get("code.line.number").and_then(Value::as_i64).is_some_and(|line| line > 1));
        assert!(attributes.get("thread.id").and_then(Value::as_i64).is_some_and(|id| id > 0));
        assert_eq!(attributes.get("thread.name").and_then(Value::as_str), std::thread::current().name());
    }
}
