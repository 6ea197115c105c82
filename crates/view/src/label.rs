//! The texts of a line: the name of a span, and how it ended.

use throughline_core::trace::{SpanKind, Status};

use crate::text::columns;
use crate::trace::{SpanView, Trace};

/// The service, if it differs from the parent's, and the name of the span.
pub(crate) fn label(trace: &Trace, index: usize, unicode: bool) -> String {
    let span = &trace.spans()[index];
    let (to, asynchronous) = if unicode { ("→ ", "⇢ ") } else { ("> ", "~ ") };
    let mark = match span.record.kind {
        SpanKind::Client => to,
        SpanKind::Producer | SpanKind::Consumer => asynchronous,
        _ => "",
    };
    // Without a template, the name of a client's span is only the method. The path says more.
    let is_bare = span.record.kind == SpanKind::Client && span.text("url.template").is_none();
    let url = span.text("url.full").filter(|_| is_bare).and_then(|url| url.split_once("://"));
    let path = url.and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    let path = path.map_or("", |path| path.split(['?', '#']).next().unwrap_or_default());
    let gap = if path.is_empty() { "" } else { " " };
    let is_inside = span.parent.is_some_and(|parent| trace.spans()[parent].service == span.service);
    let service = if is_inside { String::new() } else { format!("{} ", span.service) };
    // The mark comes after the service that sends, and before the service that receives.
    let [before, behind] = if span.record.kind == SpanKind::Consumer { [mark, ""] } else { ["", mark] };
    format!("{before}{service}{behind}{}{gap}{path}", span.record.name)
}

/// How a span ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End<'a> {
    /// Nothing was recorded.
    Quiet,
    /// With an HTTP status.
    Responded(u16),
    /// With an error of this type. The type may be empty.
    Failed(&'a str),
    /// Cancelled, with this cause.
    Cancelled(&'a str),
    /// Not handled, or not sent.
    Shed(&'a str),
}

impl<'a> End<'a> {
    pub(crate) fn of(span: &'a SpanView) -> End<'a> {
        let shed = span.text("throughline.shed");
        let is_shed = || span.record.events.iter().any(|event| event.name == "throughline.shed");
        if let Some(shed) = shed.or_else(|| is_shed().then_some("shed")) {
            return End::Shed(shed);
        }
        if let Status::Error(_) = &span.record.status {
            return End::Failed(span.text("error.type").unwrap_or_default());
        }
        if let Some(cause) = span.cause() {
            return End::Cancelled(cause);
        }
        let status = span.number("http.response.status_code").filter(|status| (0.0..=65_535.0).contains(status));
        status.map_or(End::Quiet, |status| End::Responded(status as u16))
    }

    /// Whether the span failed, was cancelled or was shed.
    pub(crate) fn is_trouble(self) -> bool {
        !matches!(self, End::Quiet | End::Responded(_))
    }

    /// The end as text.
    ///
    /// If the long form does not fit in `room` columns, the short form.
    ///
    /// The short form may still be longer than `room`. `origin` is the service of the error.
    pub(crate) fn words(self, origin: Option<&str>, message: Option<&str>, room: usize, unicode: bool) -> String {
        let (long, short) = match self {
            End::Quiet => return String::new(),
            End::Responded(status) => return status.to_string(),
            End::Cancelled(cause) => match message {
                // The message is that of the error, so the cause "error" adds nothing.
                Some(message) if cause == "error" => (format!("cancelled: {message}"), message.to_owned()),
                Some(message) => (format!("cancelled: {cause}: {message}"), format!("{cause}: {message}")),
                None => (format!("cancelled: {cause}"), cause.to_owned()),
            },
            End::Shed(shed) => (format!("{shed}: {}", message.unwrap_or("no time left")), shed.to_owned()),
            End::Failed("") => match message {
                Some(message) => (message.to_owned(), message.to_owned()),
                None => ("error".to_owned(), "error".to_owned()),
            },
            End::Failed(kind) => {
                let short = if kind == "DEADLINE_EXCEEDED" { "deadline".to_owned() } else { kind.to_lowercase() };
                let arrow = if unicode { " ← " } else { " <- " };
                let rest = |kind: &str| {
                    let origin = origin.map(|origin| format!("{arrow}{origin}")).unwrap_or_default();
                    let message = message.map(|message| format!(": {message}")).unwrap_or_default();
                    format!("{kind}{origin}{message}")
                };
                (rest(kind), rest(&short))
            }
        };
        if columns(&long) <= room { long } else { short }
    }
}

/// The message of an error or a cancellation. `None` if it only repeats the type.
pub(crate) fn message(span: &SpanView) -> Option<&str> {
    match End::of(span) {
        End::Failed(kind) => {
            let Status::Error(description) = &span.record.status else { return None };
            let event = span.record.events.iter().rev().find(|event| event.name == "exception");
            let exception = || event?.attributes.get("exception.message")?.as_str();
            let message = Some(&**description).filter(|text| !text.trim().is_empty()).or_else(exception)?;
            let (message_text, kind) = (plain(message), plain(kind));
            (message_text != kind && message_text != format!("{kind} error")).then_some(message)
        }
        End::Cancelled(_) => span.text("throughline.cancel.message"),
        End::Shed(_) => span.cause(),
        End::Quiet | End::Responded(_) => None,
    }
}

/// Normalizes a text, so that `DEADLINE_EXCEEDED` equals "deadline exceeded".
fn plain(text: &str) -> String {
    text.trim().to_lowercase().replace(['_', '-'], " ")
}
