use std::time::Duration;

use serde::Deserialize;

use crate::breaker::BreakerSettings;
use crate::config::text;

/// When the circuit breakers of a client open and close.
///
/// The names are those of [`BreakerSettings`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientBreakerSettings {
    /// The share of failures that opens a breaker, 0 to 1: [`BreakerSettings::failure_ratio`].
    #[serde(deserialize_with = "text::ratio")]
    pub failure_ratio: Option<f64>,
    /// The fewest results before the share counts: [`BreakerSettings::min_requests`]. At least 1.
    #[serde(deserialize_with = "text::positive")]
    pub min_requests: Option<u32>,
    /// The time over which results are counted: [`BreakerSettings::window`].
    #[serde(deserialize_with = "text::timeout")]
    pub window: Option<Duration>,
    /// The transport failures in a row that open a breaker; 0: any number of them does not.
    ///
    /// See [`BreakerSettings::unreachable_limit`].
    pub unreachable_limit: Option<u32>,
    /// How long a breaker stays open the first time: [`BreakerSettings::open_time`].
    #[serde(deserialize_with = "text::timeout")]
    pub open_time: Option<Duration>,
    /// The longest time that a breaker stays open: [`BreakerSettings::max_open_time`].
    #[serde(deserialize_with = "text::timeout")]
    pub max_open_time: Option<Duration>,
    /// The probes that may run at the same time: [`BreakerSettings::probes`]. At least 1.
    #[serde(deserialize_with = "text::positive")]
    pub probes: Option<u32>,
    /// The time that is fair while a route has no median: [`BreakerSettings::fair_time`].
    #[serde(deserialize_with = "text::timeout")]
    pub fair_time: Option<Duration>,
}

impl ClientBreakerSettings {
    /// Returns the settings with these. What is absent here stays as it is.
    ///
    /// # Examples
    /// ```
    /// use throughline_service::BreakerSettings;
    /// use throughline_service::config::ClientBreakerSettings;
    ///
    /// let settings = ClientBreakerSettings { failure_ratio: Some(0.25), ..ClientBreakerSettings::default() };
    /// let settings = settings.apply(BreakerSettings { min_requests: 50, ..BreakerSettings::default() });
    /// assert_eq!((settings.failure_ratio, settings.min_requests), (0.25, 50));
    /// ```
    pub fn apply(&self, base: BreakerSettings) -> BreakerSettings {
        BreakerSettings {
            failure_ratio: self.failure_ratio.unwrap_or(base.failure_ratio),
            min_requests: self.min_requests.unwrap_or(base.min_requests),
            window: self.window.unwrap_or(base.window),
            unreachable_limit: self.unreachable_limit.unwrap_or(base.unreachable_limit),
            open_time: self.open_time.unwrap_or(base.open_time),
            max_open_time: self.max_open_time.unwrap_or(base.max_open_time),
            probes: self.probes.unwrap_or(base.probes),
            fair_time: self.fair_time.unwrap_or(base.fair_time),
            ..base
        }
    }
}
