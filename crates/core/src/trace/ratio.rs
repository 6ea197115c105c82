//! Sampling by the randomness of the trace id (OpenTelemetry: TraceState handling, probability
//! sampling).

use std::fmt::Write;

use super::sampler::{Sampler, SamplingParameters, SamplingResult};
use super::tracestate::TraceState;

/// 2^56: one more than the greatest randomness. As a threshold it rejects every trace.
const RANGE: u64 = 1 << 56;
/// Hexadecimal digits of a randomness. A threshold has at most as many.
const DIGITS: usize = 14;

/// Records a share of all traces, chosen by the randomness in the trace id.
///
/// All processes with the same ratio choose the same traces. A trace is recorded if its randomness
/// R is at least the rejection threshold T.
///
/// - R is `rv` of the tracestate's member `ot`, or else the low 56 bits of the trace id.
/// - T is (1 − ratio) · 2^56.
///
/// The threshold of a recorded trace is written as `ot=th:…`. A system that counts spans can
/// compute from it how many traces each span stands for. `th` is removed if the trace is not
/// recorded, or if the tracestate has no room for this threshold.
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
    /// Records this share of the traces.
    ///
    /// 0.0 and less is none, 1.0 and more is all, NaN is none.
    pub fn new(ratio: f64) -> Self {
        // `as` saturates, and makes zero of NaN. A share that rounds to zero is none.
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

/// Returns the value of `rv`: exactly 14 lower-case hexadecimal digits.
fn randomness(member: &str) -> Option<u64> {
    let rv = member.split(';').find_map(|field| field.strip_prefix("rv:"))?;
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if rv.len() == DIGITS && rv.bytes().all(digit) { u64::from_str_radix(rv, 16).ok() } else { None }
}

/// Returns `state` with this threshold in its member `ot`, or with none.
///
/// Other fields of `ot` stay.
fn rewrite(state: &TraceState, member: Option<&str>, threshold: Option<u64>) -> TraceState {
    let mut fields = String::new();
    if let Some(threshold) = threshold {
        // Trailing zeros are left out. All zeros are `0`.
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
        // There is no room for the threshold. The trace is recorded all the same, but the caller's
        // threshold, which is not this sampler's, must not be propagated.
        Some(_) => rewrite(state, member, None),
        None => state.remove("ot"),
    })
}
