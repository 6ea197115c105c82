//! The `OTEL_*` variables (OpenTelemetry specification, "Environment Variable Specification").
//!
//! An empty variable counts as not set. An invalid variable is ignored, with a warning.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use throughline_core::trace::{AlwaysOff, AlwaysOn, ParentBased, Sampler, SpanLimits, TraceIdRatio};

/// 30 years: in practice unlimited, and adding it to the current time does not overflow.
const NO_LIMIT: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Reads variables, and collects warnings about ignored values.
pub(super) struct Env<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    pub(super) warnings: Vec<String>,
}

impl<'a> Env<'a> {
    pub(super) fn new(get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Env { get, warnings: Vec::new() }
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.get)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let value = self.text(name)?;
        match value.parse() {
            Ok(parsed) => Some(parsed),
            Err(e) => {
                self.warn(name, &value, &e);
                None
            }
        }
    }

    pub(super) fn warn(&mut self, name: &str, value: &str, reason: &dyn Display) {
        let value: String = value.chars().take(64).collect();
        self.warnings.push(format!("{name}={value:?} is ignored: {reason}"));
    }

    /// Returns whether the variable is `true`, in any letter case.
    pub(super) fn is_true(&mut self, name: &str) -> bool {
        match self.text(name) {
            Some(value) if value.eq_ignore_ascii_case("true") => true,
            Some(value) if !value.eq_ignore_ascii_case("false") => {
                self.warn(name, &value, &"neither true nor false");
                false
            }
            _ => false,
        }
    }

    /// Reads a number that must be at least 1.
    pub(super) fn count(&mut self, name: &str) -> Option<usize> {
        let count = self.parse(name)?;
        if count == 0 {
            self.warn(name, "0", &"it must be more than 0");
        }
        (count > 0).then_some(count)
    }

    pub(super) fn millis(&mut self, name: &str) -> Option<Duration> {
        self.parse(name).map(Duration::from_millis)
    }

    /// Reads a timeout in milliseconds. 0 means no limit.
    ///
    /// OpenTelemetry configuration, `timeout` of exporters and batch processors.
    pub(super) fn timeout(&mut self, name: &str) -> Option<Duration> {
        self.millis(name).map(|limit| if limit.is_zero() { NO_LIMIT } else { limit })
    }

    /// Reads `k=v,k=v` with percent-encoded values (W3C Baggage, "baggage-string").
    pub(super) fn pairs(&mut self, name: &str) -> Vec<(String, String)> {
        let Some(list) = self.text(name) else { return Vec::new() };
        let mut pairs = Vec::new();
        for member in list.split(',').map(str::trim).filter(|member| !member.is_empty()) {
            match member.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8_lossy().into_owned();
                    pairs.push((key.trim().to_owned(), value));
                }
                // The member is not shown: its value may be a secret.
                _ => self.warn(name, "…", &"a member is not key=value"),
            }
        }
        pairs
    }

    /// Reads the list `OTEL_TRACES_EXPORTER`.
    ///
    /// - `Some(true)`: add an OTLP exporter.
    /// - `Some(false)`: add one only if an endpoint is set.
    /// - `None`: add no exporter.
    pub(super) fn exporter(&mut self, by_default: bool) -> Option<bool> {
        const NAME: &str = "OTEL_TRACES_EXPORTER";
        let list = self.text(NAME).unwrap_or_default();
        let (mut is_none, mut is_otlp) = (false, false);
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "none" => is_none = true,
                "otlp" => is_otlp = true,
                other => self.warn(NAME, other, &"unknown exporter"),
            }
        }
        if is_otlp { Some(true) } else { (!is_none).then_some(by_default) }
    }

    /// Reads `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`.
    pub(super) fn sampler(&mut self) -> Option<Arc<dyn Sampler>> {
        let name = self.text("OTEL_TRACES_SAMPLER")?;
        Some(match name.as_str() {
            "always_on" => Arc::new(AlwaysOn),
            "always_off" => Arc::new(AlwaysOff),
            "traceidratio" => Arc::new(self.ratio()),
            "parentbased_always_on" => Arc::new(ParentBased::new(AlwaysOn)),
            "parentbased_always_off" => Arc::new(ParentBased::new(AlwaysOff)),
            "parentbased_traceidratio" => Arc::new(ParentBased::new(self.ratio())),
            _ => {
                self.warn("OTEL_TRACES_SAMPLER", &name, &"unknown sampler");
                return None;
            }
        })
    }

    fn ratio(&mut self) -> TraceIdRatio {
        const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
        match self.parse::<f64>(NAME) {
            Some(ratio) if (0.0..=1.0).contains(&ratio) => TraceIdRatio::new(ratio),
            Some(ratio) => {
                self.warn(NAME, &ratio.to_string(), &"not between 0 and 1");
                TraceIdRatio::new(1.0)
            }
            None => TraceIdRatio::new(1.0),
        }
    }

    /// Reads the span limits. A limit without a variable keeps the value of `default`.
    pub(super) fn limits(&mut self, default: SpanLimits) -> SpanLimits {
        let general_count = self.parse("OTEL_ATTRIBUTE_COUNT_LIMIT");
        let general_length = self.parse("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT");
        let mut limit = |name, general: Option<u32>, default| self.parse(name).or(general).unwrap_or(default);
        SpanLimits {
            attributes: limit("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", general_count, default.attributes),
            events: limit("OTEL_SPAN_EVENT_COUNT_LIMIT", None, default.events),
            links: limit("OTEL_SPAN_LINK_COUNT_LIMIT", None, default.links),
            event_attributes: limit("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", general_count, default.event_attributes),
            link_attributes: limit("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", general_count, default.link_attributes),
            value_length: limit("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", general_length, default.value_length),
        }
    }
}
