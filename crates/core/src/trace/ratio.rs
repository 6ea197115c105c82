//! Sampling by the trace id's randomness (OpenTelemetry: TraceState handling, probability sampling).

use std::fmt::Write;

use super::sampler::{Sampler, SamplingParameters, SamplingResult};
use super::tracestate::TraceState;

/// 2^56: one more than the greatest randomness and threshold.
const RANGE: u64 = 1 << 56;
/// Hexadecimal digits of a randomness and at most of a threshold.
const DIGITS: usize = 14;

/// Records a share of all traces, chosen by the randomness in the trace id, so that every process of one ratio chooses
/// the same ones.
///
/// A trace is recorded when its randomness R (`rv` of the tracestate's member `ot`, or else the trace id's low 56 bits)
/// is at least the rejection threshold T = (1 − ratio) · 2^56. The threshold is then written as `ot=th:…`, so that
/// whoever counts spans knows how many traces each stands for; a trace that is not recorded loses its `th`, as does one whose
/// tracestate has no room for ours.
///
/// # Examples
/// ```
/// use throughline_core::TraceId;
/// use throughline_core::trace::{Sampler, SamplingParameters, TraceIdRatio};
///
/// let sampler = TraceIdRatio::new(0.25);
/// let low: TraceId = "00000000000000000080000000000000".parse()?;
/// let high: TraceId = "000000000000000000c0000000000000".parse()?;
/// assert!(!sampler.sample(&SamplingParameters::new(low, "GET /")).sampled);
///
/// let result = sampler.sample(&SamplingParameters::new(high, "GET /"));
/// assert!(result.sampled);
/// assert_eq!(result.trace_state.expect("sampled").as_str(), "ot=th:c");
/// # Ok::<(), throughline_core::trace::ParseIdError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TraceIdRatio {
    threshold: u64,
}

impl TraceIdRatio {
    /// Records this share of the traces: 0.0 is none, 1.0 and more all; what is not a number is none.
    pub fn new(ratio: f64) -> Self {
        // `as` saturates, and makes zero of NaN. A share that rounds to nothing is none.
        let kept = (ratio.clamp(0.0, 1.0) * RANGE as f64) as u64;
        Self { threshold: RANGE - kept.min(RANGE) }
    }
}

impl Sampler for TraceIdRatio {
    fn sample(&self, span: &SamplingParameters<'_>) -> SamplingResult {
        let parent = span.parent.map_or(&TraceState::EMPTY, |parent| parent.trace_state());
        let member = parent.get("ot");
        let randomness = member.and_then(randomness).unwrap_or_else(|| span.trace_id.randomness());
        let sampled = randomness >= self.threshold;
        let trace_state = match (sampled, member) {
            (false, None) => None,
            _ => Some(rewrite(parent, member, sampled.then_some(self.threshold))),
        };
        SamplingResult { sampled, trace_state, ..SamplingResult::default() }
    }
}

/// The value of `rv`: exactly 14 lower-case hexadecimal digits.
fn randomness(member: &str) -> Option<u64> {
    let rv = member.split(';').find_map(|field| field.strip_prefix("rv:"))?;
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if rv.len() == DIGITS && rv.bytes().all(digit) { u64::from_str_radix(rv, 16).ok() } else { None }
}

/// `state` with this threshold, or none, in its member `ot`, whose other fields stay.
fn rewrite(state: &TraceState, member: Option<&str>, threshold: Option<u64>) -> TraceState {
    let mut fields = String::new();
    if let Some(threshold) = threshold {
        // Trailing zeros carry nothing; all zeros are `0`.
        let digits = format!("{threshold:014x}");
        let digits = digits.trim_end_matches('0');
        let _ = write!(fields, "th:{}", if digits.is_empty() { "0" } else { digits });
    }
    for field in member.unwrap_or_default().split(';').filter(|field| !field.is_empty() && !field.starts_with("th:")) {
        let semicolon = if fields.is_empty() { "" } else { ";" };
        fields.extend([semicolon, field]);
    }
    if fields.is_empty() {
        return state.remove("ot");
    }
    state.insert("ot", &fields).unwrap_or_else(|_| match threshold {
        // No room for it. The decision stands all the same; what must not go on is the caller's threshold, which is not ours.
        Some(_) => rewrite(state, member, None),
        None => state.remove("ot"),
    })
}
