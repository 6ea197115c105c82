//! The NATS services protocol (ADR-32): how `nats micro` sees a listener.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::subjects::QUEUE;
use crate::ListenerCounters;

/// The key of the metadata that marks instances that understand requests of this crate.
pub(super) const MARK: &str = "throughline";

/// One listener.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) service: Arc<str>,
    pub(super) id: String,
    version: String,
    /// The subject of requests to any instance.
    pub(super) subject: String,
    started_at: SystemTime,
}

/// The subjects that a listener subscribes to. `*` stands for `PING`, `INFO` and `STATS`.
pub(super) fn subjects(service: &str, id: &str) -> [String; 3] {
    ["$SRV.*".to_owned(), format!("$SRV.*.{service}"), format!("$SRV.*.{service}.{id}")]
}

impl Instance {
    pub(super) fn new(service: Arc<str>, id: String, version: String, subject: String) -> Self {
        // The protocol wants the time of the start.
        Instance { service, id, version, subject, started_at: SystemTime::now() }
    }

    /// Returns the response to a request for `subject`. `None`: the protocol has no such request.
    pub(super) fn describe(&self, subject: &str, counters: impl FnOnce() -> ListenerCounters) -> Option<String> {
        let verb = subject.split('.').nth(1)?;
        let mut response = json!({
            "type": "",
            "name": &*self.service,
            "id": self.id,
            "version": self.version,
            "metadata": { MARK: env!("CARGO_PKG_VERSION") },
        });
        let (kind, more) = match verb {
            "PING" => ("ping", json!({})),
            "INFO" => ("info", json!({ "description": "", "endpoints": [self.endpoint()] })),
            "STATS" => {
                let endpoint = self.statistics(&counters());
                ("stats", json!({ "started": rfc3339(self.started_at), "endpoints": [endpoint] }))
            }
            _ => return None,
        };
        response["type"] = format!("io.nats.micro.v1.{kind}_response").into();
        if let (Value::Object(response), Value::Object(more)) = (&mut response, more) {
            response.extend(more);
        }
        Some(response.to_string())
    }

    fn endpoint(&self) -> Value {
        json!({ "name": "default", "subject": self.subject, "queue_group": QUEUE, "metadata": {} })
    }

    fn statistics(&self, counters: &ListenerCounters) -> Value {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let finished = counters.requests.saturating_sub(counters.in_flight as u64);
        let average = nanos(counters.handling_time).checked_div(finished).unwrap_or(0);
        json!({
            "name": "default",
            "subject": self.subject,
            "queue_group": QUEUE,
            "num_requests": counters.requests,
            "num_errors": counters.failures,
            "last_error": "",
            "processing_time": nanos(counters.handling_time),
            "average_processing_time": average,
            "data": {
                "in_flight": counters.in_flight,
                "refused": counters.refused,
                "late_responses": counters.late_responses,
            },
        })
    }
}

/// Returns the name of the instance that a response to `PING` describes.
pub(super) fn instance_of(ping_response: &[u8], service: &str) -> Option<Arc<str>> {
    let response: Value = serde_json::from_slice(ping_response).ok()?;
    let is_ours = response["metadata"][MARK].is_string() && response["name"] == service;
    response["id"].as_str().filter(|id| is_ours && crate::transport::is_name(id)).map(Arc::from)
}

/// Writes a time in UTC as RFC 3339.
fn rfc3339(time: SystemTime) -> String {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since_1970.as_secs() / 86_400, since_1970.as_secs() % 86_400);
    // Howard Hinnant's `civil_from_days`: the year begins in March, so that a leap day is its last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let millis = since_1970.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn only_instances_of_this_crate_and_of_the_service_are_instances() {
        let response = |json: &str| instance_of(json.as_bytes(), "balance");
        assert_eq!(response(r#"{"name":"balance","id":"a1","metadata":{"throughline":"1"}}"#).as_deref(), Some("a1"));
        for other in [
            r#"{"name":"balance","id":"a1","metadata":{}}"#,
            r#"{"name":"balance","id":"a1"}"#,
            r#"{"name":"cards","id":"a1","metadata":{"throughline":"1"}}"#,
            r#"{"name":"balance","id":"a.>","metadata":{"throughline":"1"}}"#,
            r#"{"name":"balance","id":7,"metadata":{"throughline":"1"}}"#,
            "[]",
            "{",
            "",
        ] {
            assert_eq!(response(other), None, "{other}");
        }
    }
}
