//! Log lines with the ids of their trace and span.

use std::fmt;
use std::sync::Arc;

use throughline_core::propagation::values;
use tracing_core::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::registry::LookupSpan;

use super::Telemetry;
use super::layer::context_of_event;

/// The longest value on a line, in characters. Longer values are cut off.
const MAX_VALUE: usize = 256;

impl Telemetry {
    /// Returns a format for log lines that starts with trace and span ids.
    ///
    /// The values named by [`copy_to_spans`](super::Builder::copy_to_spans) follow. Then comes the
    /// line in the default format of `tracing_subscriber`.
    ///
    /// The ids and values are those of the `tracing` span around the event, if
    /// [`layer`](Self::layer) handles that span. Otherwise they are those of the ambient context. A
    /// line outside of both is not changed.
    ///
    /// Values are cut off at 256 characters and escaped, so a value can't start a new line. Use it
    /// with text formats only: a JSON line with this prefix is no longer JSON.
    ///
    /// ```
    /// use throughline::telemetry::{self, MemoryExporter};
    /// use tracing_subscriber::layer::SubscriberExt;
    ///
    /// let telemetry = telemetry::builder("cards").exporter(MemoryExporter::default()).build()?;
    /// let lines = tracing_subscriber::fmt::layer().event_format(telemetry.log_format());
    /// let subscriber = tracing_subscriber::registry().with(telemetry.layer()).with(lines);
    /// # tracing::subscriber::with_default(subscriber, || tracing::info!("reserved")); // INFO cards: reserved
    /// # Ok::<(), telemetry::BuildError>(())
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "fmt")))]
    pub fn log_format(&self) -> LogFormat {
        LogFormat { inner: Format::default(), names: Arc::clone(&self.0.copied) }
    }
}

/// Formats log lines with trace and span ids: made by [`Telemetry::log_format`].
#[derive(Clone)]
pub struct LogFormat<F = Format<Full>> {
    inner: F,
    names: Arc<[String]>,
}

impl<F> LogFormat<F> {
    /// Returns this format with `inner` as the format of the rest of the line.
    ///
    /// ```
    /// use throughline::telemetry;
    /// use tracing_subscriber::fmt::format;
    ///
    /// let telemetry = telemetry::builder("cards").build()?;
    /// let short = telemetry.log_format().before(format().without_time().compact());
    /// # let _ = short;
    /// # Ok::<(), telemetry::BuildError>(())
    /// ```
    pub fn before<G>(self, inner: G) -> LogFormat<G> {
        LogFormat { inner, names: self.names }
    }
}

impl<S, N, F> FormatEvent<S, N> for LogFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, scope: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let ctx = context_of_event(event, scope.parent_span());
        if let Some(span) = ctx.span_context() {
            write!(writer, "trace_id={} span_id={} ", span.trace_id(), span.span_id())?;
        }
        for name in self.names.iter() {
            if let Some(value) = values::get(&ctx, name) {
                write_value(&mut writer, name, &value)?;
            }
        }
        self.inner.format_event(scope, writer, event)
    }
}

fn write_value(writer: &mut Writer<'_>, name: &str, value: &str) -> fmt::Result {
    let is_plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '=';
    if !value.is_empty() && value.len() <= MAX_VALUE && value.chars().all(is_plain) {
        return write!(writer, "{name}={value} ");
    }
    let shown: String = value.chars().take(MAX_VALUE).collect();
    write!(writer, "{name}={shown:?} ")
}

impl<F> fmt::Debug for LogFormat<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFormat").field("names", &self.names).finish_non_exhaustive()
    }
}
