use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use throughline::RetryPolicy;

use super::breaker::ClientBreakerSettings;
use super::{of_route, path};
use crate::config::text;

/// What operators can change of a running client, for one callee.
///
/// A setting that is absent is as the code says. An unknown name is an error. Times are text with a
/// unit: `"250ms"`, `"2s"`.
///
/// ```toml
/// timeout = "500ms"
///
/// [retry]
/// max_attempts = 4
/// backoff = { initial = "20ms", max = "500ms" }
///
/// [breaker]
/// failure_ratio = 0.5
/// open_time = "5s"
///
/// [routes.search]
/// timeout = "2s"
/// idempotent = true
/// ```
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use throughline::RetryPolicy;
/// use throughline_service::config::ClientSettings;
///
/// let timeout = Some(Duration::from_millis(500));
/// let settings = ClientSettings { timeout, ..ClientSettings::default() };
/// assert_eq!(settings.timeout("search"), timeout);
/// let retries = settings.retry_policy(RetryPolicy::new());
/// # let _ = retries;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientSettings {
    /// The longest time of a call, with all its attempts. A context can only have less.
    #[serde(deserialize_with = "text::timeout")]
    pub timeout: Option<Duration>,
    /// When calls are sent again.
    pub retry: RetrySettings,
    /// When the circuit breakers open and close.
    pub breaker: ClientBreakerSettings,
    /// Settings of single routes, by name (`reserve`) or path (`/cards/{id}`).
    pub routes: BTreeMap<String, ClientRouteSettings>,
}

/// What operators can change of the calls to one route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientRouteSettings {
    /// The longest time of a call, instead of the client's.
    #[serde(deserialize_with = "text::timeout")]
    pub timeout: Option<Duration>,
    /// Declares the calls idempotent, so that they are retried: [`RetryPolicy::idempotent_if`].
    pub idempotent: bool,
}

/// When calls are sent again. The names are those of [`RetryPolicy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// How often a call is sent, the first time included: [`RetryPolicy::max_attempts`].
    ///
    /// At least 1.
    #[serde(deserialize_with = "text::positive")]
    pub max_attempts: Option<u32>,
    /// The limits of the waits between attempts: [`RetryPolicy::backoff`].
    pub backoff: Option<BackoffSettings>,
    /// The longest wait that a callee can ask for: [`RetryPolicy::max_retry_after`].
    #[serde(deserialize_with = "text::duration")]
    pub max_retry_after: Option<Duration>,
    /// The time without a response after which a second attempt is sent:
    /// [`RetryPolicy::hedge_after`].
    #[serde(deserialize_with = "text::duration")]
    pub hedge_after: Option<Duration>,
}

/// The limits of the waits between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackoffSettings {
    /// The limit before the first retry. It doubles with each further one.
    #[serde(deserialize_with = "text::duration")]
    pub initial: Duration,
    /// The greatest limit.
    #[serde(deserialize_with = "text::duration")]
    pub max: Duration,
}

impl ClientSettings {
    /// Returns the longest time of a call to a route, given by its name or its path.
    pub fn timeout(&self, route: &str) -> Option<Duration> {
        self.route(route).timeout.or(self.timeout)
    }

    /// Returns the settings of a route, given by its name or its path.
    pub fn route(&self, route: &str) -> ClientRouteSettings {
        of_route(&self.routes, route).copied().unwrap_or_default()
    }

    /// Returns the policy with these settings. What is absent here stays as it is.
    ///
    /// Its budget and its counts are shared with `policy`. If a route is declared idempotent here,
    /// the rule replaces the policy's [`idempotent_if`](RetryPolicy::idempotent_if).
    pub fn retry_policy(&self, policy: RetryPolicy) -> RetryPolicy {
        let policy = self.retry.apply(policy);
        let idempotent = self.routes.iter().filter(|(_, settings)| settings.idempotent);
        let idempotent: Vec<String> = idempotent.map(|(route, _)| path(route).into_owned()).collect();
        if idempotent.is_empty() {
            return policy;
        }
        policy.idempotent_if(move |_, uri| idempotent.iter().any(|path| path == uri.path()))
    }
}

impl RetrySettings {
    /// Returns the policy with these settings. What is absent here stays as it is.
    pub fn apply(&self, mut policy: RetryPolicy) -> RetryPolicy {
        if let Some(attempts) = self.max_attempts {
            policy = policy.max_attempts(attempts);
        }
        if let Some(backoff) = self.backoff {
            policy = policy.backoff(backoff.initial, backoff.max);
        }
        if let Some(limit) = self.max_retry_after {
            policy = policy.max_retry_after(limit);
        }
        if let Some(delay) = self.hedge_after {
            policy = policy.hedge_after(delay);
        }
        policy
    }
}
