//! The limit of requests in flight that the settings of a service give.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse as _;
use throughline::{Code, Error};

use crate::config::{ServiceSettings, Watched};

/// Refuses requests beyond `max_in_flight` of the current settings.
pub(super) fn limit(router: Router, service: Arc<str>, settings: Watched<ServiceSettings>) -> Router {
    let in_flight = Arc::new(AtomicUsize::new(0));
    router.layer(from_fn(move |request: Request, next: Next| {
        let limit = settings.current().max_in_flight.unwrap_or(usize::MAX);
        let counted = InFlight::start(&in_flight, limit);
        let service = Arc::clone(&service);
        async move {
            let Some(_counted) = counted else {
                let message = format!("{service} has {limit} requests in flight");
                return Error::new(Code::ResourceExhausted, message).into_response();
            };
            next.run(request).await
        }
    }))
}

/// A request in flight, until it is dropped.
struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    /// `None`: as many as allowed are in flight.
    fn start(count: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let add = |count: usize| (count < limit).then(|| count + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(InFlight(Arc::clone(count)))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
