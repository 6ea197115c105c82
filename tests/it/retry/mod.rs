//! Retries and hedging of calls.

mod bodies;
mod grpc;
mod hedging;
mod policy;
mod reqwest;
mod spans;
mod waits;

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, request};
use http_body_util::Full;
use throughline::middleware::client::CallBody;
use throughline::{Context, Error, RetryLayer, RetryPolicy};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};

use crate::support::client;

type BoxError = Box<dyn StdError + Send + Sync>;

/// How a scripted service handles one attempt.
enum Reply {
    Status(u16),
    /// A status with one header.
    With(u16, &'static str, &'static str),
    /// The status UNAVAILABLE of gRPC, with `grpc-retry-pushback-ms`.
    Pushback(&'static str),
    /// A success after this time.
    Slow(Duration),
    Fail(BoxError),
    /// A closed connection after this time.
    SlowFailure(Duration),
    Hang,
}

/// A service that follows a script. After it, all requests succeed.
#[derive(Clone, Default)]
struct Peer {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    dropped: Arc<Mutex<u32>>,
}

struct Attempt {
    head: request::Parts,
    at: Instant,
}

impl Peer {
    fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        let peer = Peer::default();
        peer.replies.lock().unwrap().extend(replies);
        peer
    }

    fn statuses(statuses: impl IntoIterator<Item = u16>) -> Self {
        Peer::new(statuses.into_iter().map(Reply::Status))
    }

    fn count(&self) -> usize {
        self.attempts.lock().unwrap().len()
    }

    /// The time from each attempt to the next.
    fn waits(&self) -> Vec<Duration> {
        self.attempts.lock().unwrap().windows(2).map(|pair| pair[1].at - pair[0].at).collect()
    }

    /// A header of each attempt.
    fn headers(&self, name: &str) -> Vec<Option<String>> {
        let attempts = self.attempts.lock().unwrap();
        let header = |attempt: &Attempt| Some(attempt.head.headers.get(name)?.to_str().unwrap().to_owned());
        attempts.iter().map(header).collect()
    }

    /// How many attempts were dropped before their response.
    fn dropped(&self) -> u32 {
        *self.dropped.lock().unwrap()
    }

    async fn call(&self, layer: &RetryLayer, call: Request<()>) -> Result<Response<CallBody<Full<Bytes>>>, Error> {
        layer.layer(self.clone()).oneshot(call).await
    }
}

/// Counts an attempt that is dropped before its response.
struct CountDrop(Option<Arc<Mutex<u32>>>);

impl CountDrop {
    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for CountDrop {
    fn drop(&mut self) {
        if let Some(dropped) = &self.0 {
            *dropped.lock().unwrap() += 1;
        }
    }
}

impl<B: Send + 'static> Service<Request<B>> for Peer {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.attempts.lock().unwrap().push(Attempt { head: request.into_parts().0, at: Instant::now() });
        let reply = self.replies.lock().unwrap().pop_front().unwrap_or(Reply::Status(200));
        let mut guard = CountDrop(Some(self.dropped.clone()));
        Box::pin(async move {
            let mut response = Response::new(Full::new(Bytes::from("done")));
            match reply {
                Reply::Status(status) => *response.status_mut() = StatusCode::from_u16(status).unwrap(),
                Reply::With(status, name, value) => {
                    *response.status_mut() = StatusCode::from_u16(status).unwrap();
                    response.headers_mut().insert(name, value.parse().unwrap());
                }
                Reply::Pushback(value) => {
                    let headers = [
                        ("content-type", "application/grpc"),
                        ("grpc-status", "14"),
                        ("grpc-retry-pushback-ms", value),
                    ];
                    for (name, value) in headers {
                        response.headers_mut().insert(name, value.parse().unwrap());
                    }
                }
                Reply::Slow(time) => tokio::time::sleep(time).await,
                Reply::SlowFailure(time) => {
                    tokio::time::sleep(time).await;
                    guard.disarm();
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
                }
                Reply::Hang => std::future::pending().await,
                Reply::Fail(error) => {
                    guard.disarm();
                    return Err(error);
                }
            }
            guard.disarm();
            Ok(response)
        })
    }
}

fn retrying(policy: &RetryPolicy) -> RetryLayer {
    client().retry(policy.clone())
}

fn get(ctx: &Context) -> Request<()> {
    request("GET", ctx)
}

fn request(method: &str, ctx: &Context) -> Request<()> {
    Request::builder().method(method).uri("http://cards/7").extension(ctx.clone()).body(()).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
