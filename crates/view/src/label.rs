//! What a line says of a span: its name, and how it ended.

use throughline_core::trace::{SpanKind, Status};

use crate::text::columns;
use crate::trace::{SpanView, Trace};

/// The service, where it is another one than above, and what it does.
pub(crate) fn label(trace: &Trace, index: usize, unicode: bool) -> String {
    let span = &trace.spans()[index];
    let (to, asynchronous) = if unicode { ("→ ", "⇢ ") } else { ("> ", "~ ") };
    let mark = match span.record.kind {
        SpanKind::Client => to,
        SpanKind::Producer | SpanKind::Consumer => asynchronous,
        _ => "",
    };
    // A client's span has the method for its name; where it goes says more.
    let url =
        span.text("url.full").filter(|_| span.record.kind == SpanKind::Client).and_then(|url| url.split_once("://"));
    let path = url.and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    let path = path.map_or("", |path| path.split(['?', '#']).next().unwrap_or_default());
    let gap = if path.is_empty() { "" } else { " " };
    let is_inside = span.parent.is_some_and(|parent| trace.spans()[parent].service == span.service);
    let service = if is_inside { String::new() } else { format!("{} ", span.service) };
    // A mark is where the arrow is: behind the service that sends, in front of the one that
    // receives.
    let [before, behind] = if span.record.kind == SpanKind::Consumer { [mark, ""] } else { ["", mark] };
    format!("{before}{service}{behind}{}{gap}{path}", span.record.name)
}

/// How a span ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End<'a> {
    /// Without a word.
    Quiet,
    /// With a status of HTTP.
    Responded(u16),
    /// With an error of this type, which may be "".
    Failed(&'a str),
    /// Cancelled, for this cause.
    Cancelled(&'a str),
    /// Not begun, or not sent.
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

    /// Whether it is a reason to look closer.
    pub(crate) fn is_trouble(self) -> bool {
        !matches!(self, End::Quiet | End::Responded(_))
    }

    /// The end in words, shortened where the long form takes more than `room` columns.
    ///
    /// The result may still be longer than `room`. `origin` is where an error began.
    pub(crate) fn words(self, origin: Option<&str>, message: Option<&str>, room: usize, unicode: bool) -> String {
        let (long, short) = match self {
            End::Quiet => return String::new(),
            End::Responded(status) => return status.to_string(),
            End::Cancelled(cause) => match message {
                // The message is the error's.
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

/// What is said of an error or a cancellation besides its type; `None` if that says it all.
pub(crate) fn message(span: &SpanView) -> Option<&str> {
    match End::of(span) {
        End::Failed(kind) => {
            let Status::Error(description) = &span.record.status else { return None };
            let event = span.record.events.iter().rev().find(|event| event.name == "exception");
            let exception = || event?.attributes.get("exception.message")?.as_str();
            let message = Some(&**description).filter(|text| !text.trim().is_empty()).or_else(exception)?;
            let (said, kind) = (plain(message), plain(kind));
            (said != kind && said != format!("{kind} error")).then_some(message)
        }
        End::Cancelled(_) => span.text("throughline.cancel.message"),
        End::Shed(_) => span.cause(),
        End::Quiet | End::Responded(_) => None,
    }
}

/// `DEADLINE_EXCEEDED` and "deadline exceeded" are one.
fn plain(text: &str) -> String {
    text.trim().to_lowercase().replace(['_', '-'], " ")
}
