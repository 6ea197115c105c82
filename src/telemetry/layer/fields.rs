//! Reads the fields of `tracing` spans and events.
//!
//! The special names are the same as in `tracing-opentelemetry`.

use std::fmt::Debug;

use throughline_core::error_message;
use throughline_core::trace::{Attributes, SpanKind, Status, Value};
use tracing::field::{Field, Visit};

const EXCEPTION_MESSAGE: &str = "exception.message";

/// The field `otel.kind`, which is needed even if the span is not recorded.
#[derive(Default)]
pub(super) struct KindField(pub(super) Option<SpanKind>);

impl Visit for KindField {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "otel.kind" {
            self.0 = kind(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "otel.kind" {
            self.0 = kind(&format!("{value:?}"));
        }
    }
}

/// The fields of a span.
#[derive(Default)]
pub(super) struct SpanFields {
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) name: Option<String>,
    pub(super) kind: Option<SpanKind>,
    /// The value of `otel.status_code`, if it is valid.
    code: Option<Status>,
    description: Option<String>,
}

impl SpanFields {
    /// Returns `Unset` if no field sets the status.
    ///
    /// A description without a code is an error.
    pub(super) fn status(&mut self) -> Status {
        match (self.code.take(), self.description.take()) {
            (Some(Status::Ok), _) => Status::Ok,
            (_, Some(description)) => Status::Error(description.into()),
            (code, None) => code.unwrap_or_default(),
        }
    }
}

impl Visit for SpanFields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.attributes.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.attributes.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.attributes.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.attributes.push((field.name(), value.into()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "otel.name" => self.name = Some(value.to_owned()),
            "otel.kind" => self.kind = kind(value).or(self.kind),
            "otel.status_code" => self.code = code(value),
            "otel.status_description" | "otel.status_message" => self.description = Some(value.to_owned()),
            name => self.attributes.push((name, value.to_owned().into())),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &error_message(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

fn kind(name: &str) -> Option<SpanKind> {
    let kinds = [SpanKind::Internal, SpanKind::Server, SpanKind::Client, SpanKind::Producer, SpanKind::Consumer];
    kinds.into_iter().find(|kind| kind.to_string().eq_ignore_ascii_case(name))
}

fn code(name: &str) -> Option<Status> {
    match name {
        _ if name.eq_ignore_ascii_case("ok") => Some(Status::Ok),
        _ if name.eq_ignore_ascii_case("error") => Some(Status::Error("".into())),
        _ => None,
    }
}

/// The fields of an event.
#[derive(Default)]
pub(super) struct EventFields {
    pub(super) attributes: Attributes,
    pub(super) message: Option<String>,
    /// The text of the field `error`.
    error: Option<String>,
    /// The text of the field `exception.message`.
    exception: Option<String>,
    /// Whether a field marks the event as an error.
    pub(super) is_error: bool,
}

impl EventFields {
    pub(super) fn new(level: &'static str, target: &'static str) -> Self {
        let mut fields = EventFields::default();
        fields.attributes.set("level", level);
        fields.attributes.set("target", target);
        fields
    }

    /// Returns the error message: `exception.message`, else `error`, else the event's message.
    ///
    /// The texts that are not used become attributes.
    pub(super) fn take_error(&mut self) -> Option<String> {
        let mut texts = [self.exception.take(), self.error.take(), self.message.take()].into_iter();
        let mut names = ["exception.message", "error", "message"].into_iter();
        let found = texts.by_ref().zip(names.by_ref()).find_map(|(text, _)| text);
        for (text, name) in texts.zip(names) {
            if let Some(text) = text {
                self.attributes.set(name, text);
            }
        }
        found
    }

    fn value(&mut self, field: &Field, value: impl Into<Value>) {
        let value = value.into();
        match field.name() {
            "message" => self.message = Some(value.to_string()),
            // `error = false` does not mark an error.
            "error" if value.as_bool() == Some(false) => _ = self.attributes.set("error", value),
            "error" => {
                self.is_error = true;
                self.error = Some(value.to_string());
            }
            EXCEPTION_MESSAGE => {
                self.is_error = true;
                self.exception = Some(value.to_string());
            }
            // Fields of records from the `log` crate. Their target becomes the target of the event.
            "log.target" => _ = self.attributes.set("target", value),
            "log.module_path" | "log.file" | "log.line" => {}
            name => {
                self.is_error |= name.starts_with("exception.");
                self.attributes.set(name, value);
            }
        }
    }
}

impl Visit for EventFields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.value(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.value(field, error_message(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        let is_message = matches!(field.name(), "error" | EXCEPTION_MESSAGE);
        let with_sources = is_message.then(|| with_sources(&text, value)).flatten();
        self.value(field, with_sources.unwrap_or(text));
    }
}

/// Returns the text with its sources, for an error formatted with `%`.
///
/// `anyhow::Error`, for example, shows its sources in its alternate form (`{:#}`). For errors that
/// do not, it returns `None`. It also does for `Debug` values: their alternate form is a different
/// text, not a longer one.
fn with_sources(text: &str, value: &dyn Debug) -> Option<String> {
    let alternate = format!("{value:#?}");
    alternate.strip_prefix(text).is_some_and(|sources| sources.starts_with(": ")).then_some(alternate)
}
