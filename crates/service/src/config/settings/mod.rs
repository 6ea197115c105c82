//! The settings that this library has itself.

mod breaker;
mod client;
mod service;

use std::borrow::Cow;
use std::collections::BTreeMap;

pub use breaker::ClientBreakerSettings;
pub use client::{BackoffSettings, ClientRouteSettings, ClientSettings, RetrySettings};
pub use service::{RouteSettings, ServiceSettings};

/// The path of a route: `/reserve` of `reserve`. A path stays as it is.
fn path(route: &str) -> Cow<'_, str> {
    if route.starts_with('/') { Cow::Borrowed(route) } else { Cow::Owned(format!("/{route}")) }
}

/// The settings of a route, by its name or its path.
fn of_route<'a, S>(routes: &'a BTreeMap<String, S>, route: &str) -> Option<&'a S> {
    let by_path = || routes.get(route.strip_prefix('/')?);
    routes.get(route).or_else(by_path).or_else(|| routes.get(path(route).as_ref()))
}
