//! Chooses an instance for each call: the better one of two random ones.
//!
//! Power of two choices, as `tower::balance::p2c`. Tower's `Balance` is not used: it polls a
//! service that is not ready only after a wake-up, so each open breaker would need a timer. It
//! also needs `&mut self`, so all calls would wait for one lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use throughline::{Code, Error};
use throughline_transport::NoSuchService;
use tokio::time::Instant;
use tower::Service;

use super::instances::{Discovery, Instance};
use super::load::Ended;

/// Sends each request to one instance of the service.
#[derive(Clone)]
pub(super) struct Balance(pub(super) Arc<Discovery>);

/// The instance of the last attempt of a call, in the extensions of its requests.
///
/// A retry goes to another one, if there is one.
#[derive(Clone, Default)]
pub(super) struct LastInstance(Arc<AtomicUsize>);

impl Service<Request<Full<Bytes>>> for Balance {
    type Response = Response<Full<Bytes>>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<Full<Bytes>>, Error>>;

    /// It is always ready: without an instance that can be called, a call fails at once.
    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Full<Bytes>>) -> Self::Future {
        let discovery = Arc::clone(&self.0);
        Box::pin(async move {
            let set = discovery.set().await?;
            let last = request.extensions_mut().remove::<LastInstance>();
            let (now, instances) = (Instant::now(), set.instances());
            if instances.is_empty() {
                discovery.forget(&set);
                let message = format!("{} has no instances", discovery.service);
                return Err(Error::new(Code::Unavailable, message).with_retryable(true));
            }
            let avoid = last.as_ref().map_or(0, |last| last.0.load(Ordering::Relaxed));
            let (instance, permit) = loop {
                let instance = pick(&instances, now, avoid).map_err(|after| none_ready(&discovery.service, after))?;
                // Another call may have taken the slot of a probe. Then the instance is not ready.
                if let Ok(permit) = instance.breaker.admit(&request, now) {
                    break (Arc::clone(instance), permit);
                }
            };
            drop(instances);
            if let Some(last) = last {
                last.0.store(instance.id, Ordering::Relaxed);
            }
            let pending = Pending::start(&instance, now);
            let result = instance.endpoint.clone().call(request).await;
            permit.end(&result);
            pending.end(&result);
            if let Err(error) = &result
                && NoSuchService::find_in(error).is_some()
            {
                discovery.forget(&set);
            }
            result
        })
    }
}

/// Chooses an instance. `avoid` is used only if no other is ready.
///
/// # Errors
/// No instance is ready. One may be after this time.
fn pick(instances: &[Arc<Instance>], now: Instant, avoid: usize) -> Result<&Arc<Instance>, Duration> {
    let count = instances.len();
    let find = |from: usize, is_good: &dyn Fn(&Instance) -> bool| {
        (0..count).map(|step| (from + step) % count).find(|at| {
            let instance = &instances[*at];
            instance.breaker.is_ready(now).is_ok() && is_good(instance)
        })
    };
    let is_good = |instance: &Instance| instance.id != avoid && !instance.load.is_suspect(now);
    let start = fastrand::usize(..count);
    let Some(first) = find(start, &is_good) else {
        let other = find(start, &|instance| instance.id != avoid).or_else(|| find(start, &|_| true));
        return other.map(|at| &instances[at]).ok_or_else(|| soonest(instances, now));
    };
    let others = first + 1 + if count > 1 { fastrand::usize(..count - 1) } else { 0 };
    let second = find(others % count, &|instance| instance.id != instances[first].id && is_good(instance));
    let best = match second {
        Some(second) if instances[second].load.cost(now) < instances[first].load.cost(now) => second,
        _ => first,
    };
    Ok(&instances[best])
}

fn soonest(instances: &[Arc<Instance>], now: Instant) -> Duration {
    instances.iter().filter_map(|instance| instance.breaker.is_ready(now).err()).min().unwrap_or_default()
}

fn none_ready(service: &str, after: Duration) -> Error {
    let message = format!("{service} is unavailable: the circuit breakers of all its instances are open");
    Error::new(Code::Unavailable, message).with_retryable(true).with_retry_after(after)
}

/// A call to an instance, until it ends or is dropped.
struct Pending {
    instance: Arc<Instance>,
    started: Instant,
    ended: Ended,
}

impl Pending {
    fn start(instance: &Arc<Instance>, started: Instant) -> Self {
        instance.load.start();
        Pending { instance: Arc::clone(instance), started, ended: Ended::Dropped }
    }

    fn end<B>(mut self, result: &Result<Response<B>, Error>) {
        self.ended = match result {
            // An instance that refuses calls is fast, and must not get more of them.
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => Ended::Failed,
            Ok(response) if response.status().is_server_error() => Ended::Failed,
            Ok(_) => Ended::Responded,
            Err(error) if error.code() == Code::Unavailable => Ended::Unreachable,
            Err(_) => Ended::Failed,
        };
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.instance.load.end(self.started, Instant::now(), self.ended);
    }
}
