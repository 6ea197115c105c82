//! The counts of one moment, and their JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// The counts of a service since its start. As JSON, it is the response of `/stats`.
///
/// ```json
/// {
///   "service": "balance",
///   "routes": {
///     "POST /reserve": {
///       "requests": 120,
///       "in_flight": 2,
///       "shed": 1,
///       "failures": { "FAILED_PRECONDITION": 4, "DEADLINE_EXCEEDED": 1 },
///       "cancelled": { "client_disconnected": 3 },
///       "duration_ms": { "p50": 1.407, "p90": 2.815, "p99": 9.727, "max": 11.204, "mean": 1.733 }
///     }
///   },
///   "listener": { "refused": 0, "late_responses": 0 }
/// }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ServiceStats {
    /// The name of the service.
    pub service: String,
    /// By method and route: `POST /reserve`. At most 512.
    ///
    /// A request counts for the route that it began with, also if a hook has renamed it since.
    /// `(other)` has the requests without a route.
    pub routes: BTreeMap<String, RouteStats>,
    /// What the listener has counted. `None`: the service does not listen.
    pub listener: Option<ListenerStats>,
}

/// The counts of one route since the start of its service.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RouteStats {
    /// The requests, those in flight included.
    pub requests: u64,
    /// The requests that have not ended.
    pub in_flight: u64,
    /// The requests whose handler was not called: no time was left, too little, or a shutdown.
    pub shed: u64,
    /// The requests that ended with an error, by the name of its code. Errors of callers count.
    pub failures: BTreeMap<&'static str, u64>,
    /// The requests that were cancelled before their end, by the name of the cause.
    ///
    /// The names are those of [`Cause::name`](throughline::Cause::name). A request may also count
    /// as a failure. Those that were shed do not count here.
    pub cancelled: BTreeMap<&'static str, u64>,
    /// The time from the arrival of a request to the end of its response.
    #[serde(rename = "duration_ms")]
    pub duration: DurationStats,
}

/// Durations of requests: in JSON, in milliseconds.
///
/// A percentile is at most 6.25 % above the true one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DurationStats {
    /// Half of the requests took no longer.
    #[serde(serialize_with = "millis")]
    pub p50: Duration,
    /// 90 % of the requests took no longer.
    #[serde(serialize_with = "millis")]
    pub p90: Duration,
    /// 99 % of the requests took no longer.
    #[serde(serialize_with = "millis")]
    pub p99: Duration,
    /// The longest one.
    #[serde(serialize_with = "millis")]
    pub max: Duration,
    /// The average.
    #[serde(serialize_with = "millis")]
    pub mean: Duration,
}

/// Requests that the listener of a transport has not passed on, or whose caller had gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Requests that were refused: too many in flight, a body over the limit, or a shutdown.
    pub refused: u64,
    /// Responses that were discarded, because the caller had given up.
    pub late_responses: u64,
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_micros() as f64 / 1000.0)
}
