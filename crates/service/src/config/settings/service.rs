use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use throughline::trace::TraceIdRatio;
use throughline::{ContextLayer, Route};

use super::{of_route, path};
use crate::config::text;

/// What operators can change of a running service.
///
/// A setting that is absent is as the code says. An unknown name is an error. Times are text with a
/// unit: `"250ms"`, `"2s"`.
///
/// ```toml
/// max_timeout = "2s"
/// default_timeout = "500ms"
/// max_in_flight = 256
/// sampling_ratio = 0.1
///
/// [routes.reserve]
/// timeout = "5s"
/// min_remaining = "20ms"
/// ```
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use throughline::ContextLayer;
/// use throughline_service::config::ServiceSettings;
///
/// let max_timeout = Some(Duration::from_secs(2));
/// let settings = ServiceSettings { max_timeout, ..ServiceSettings::default() };
/// let layer = settings.apply(ContextLayer::internal());
/// # let _ = layer;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSettings {
    /// The longest time until the head of a response: [`ContextLayer::max_timeout`].
    #[serde(deserialize_with = "text::timeout")]
    pub max_timeout: Option<Duration>,
    /// The limit for a request without a timeout: [`ContextLayer::default_timeout`].
    #[serde(deserialize_with = "text::timeout")]
    pub default_timeout: Option<Duration>,
    /// How many requests are handled at a time. What does not fit is refused. At least 1.
    #[serde(deserialize_with = "text::positive")]
    pub max_in_flight: Option<usize>,
    /// The share of the traces that are recorded, of those that start here: 0 to 1.
    ///
    /// It holds only where a sampler follows it: see [`sampler`](Self::sampler).
    #[serde(deserialize_with = "text::ratio")]
    pub sampling_ratio: Option<f64>,
    /// Settings of single routes, by name (`reserve`) or path (`/cards/{id}`).
    pub routes: BTreeMap<String, RouteSettings>,
}

/// What operators can change of one route of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteSettings {
    /// The limit of this route, instead of the service's: [`Route::timeout`].
    #[serde(deserialize_with = "text::timeout")]
    pub timeout: Option<Duration>,
    /// The limit for each frame of the response's body: [`Route::stall_timeout`].
    #[serde(deserialize_with = "text::timeout")]
    pub stall_timeout: Option<Duration>,
    /// The time that the route needs. Requests with less are shed: [`Route::min_remaining`].
    #[serde(deserialize_with = "text::duration")]
    pub min_remaining: Option<Duration>,
}

impl ServiceSettings {
    /// Returns the layer with these settings. What is absent here stays as it is.
    ///
    /// The settings of a route are added to the options that the layer has for it. The counts of
    /// the layer are shared with the one that is returned.
    pub fn apply(&self, mut layer: ContextLayer) -> ContextLayer {
        if let Some(timeout) = self.max_timeout {
            layer = layer.max_timeout(timeout);
        }
        if let Some(timeout) = self.default_timeout {
            layer = layer.default_timeout(timeout);
        }
        for (route, settings) in &self.routes {
            layer = layer.change_route(path(route).as_ref(), |route| settings.apply(route));
        }
        layer
    }

    /// Returns the settings of a route, by its name or its path.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use throughline_service::config::{RouteSettings, ServiceSettings};
    ///
    /// let slow = RouteSettings { timeout: Some(Duration::from_secs(5)), ..RouteSettings::default() };
    /// let mut settings = ServiceSettings::default();
    /// settings.routes.insert("reserve".to_owned(), slow);
    /// assert_eq!(settings.route("/reserve"), slow);
    /// assert_eq!(settings.route("release"), RouteSettings::default());
    /// ```
    pub fn route(&self, route: &str) -> RouteSettings {
        of_route(&self.routes, route).copied().unwrap_or_default()
    }

    /// Returns a sampler with the [`sampling_ratio`](Self::sampling_ratio); absent: 1.
    ///
    /// Put it into [`ParentBased`](throughline::trace::ParentBased): then the service where a trace
    /// begins decides for all of it. A [`Watched`](crate::config::Watched) sampler follows the
    /// settings.
    ///
    /// # Examples
    /// ```
    /// use throughline::telemetry;
    /// use throughline::trace::ParentBased;
    /// use throughline_service::config::{ServiceSettings, Watched};
    ///
    /// let settings = Watched::fixed(ServiceSettings::default());
    /// let sampler = ParentBased::new(settings.map(ServiceSettings::sampler));
    /// let builder = telemetry::builder("balance").sampler(sampler);
    /// # let _ = builder;
    /// ```
    pub fn sampler(&self) -> TraceIdRatio {
        TraceIdRatio::new(self.sampling_ratio.unwrap_or(1.0))
    }
}

impl RouteSettings {
    /// Returns the options with these settings. What is absent here stays as it is.
    pub fn apply(&self, mut route: Route) -> Route {
        if let Some(timeout) = self.timeout {
            route = route.timeout(timeout);
        }
        if let Some(timeout) = self.stall_timeout {
            route = route.stall_timeout(timeout);
        }
        if let Some(needed) = self.min_remaining {
            route = route.min_remaining(needed);
        }
        route
    }
}
