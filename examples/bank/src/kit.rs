//! Code that the services share: an HTTP client for each other, and typed events.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use throughline::trace::Tracer;
use throughline::{ClientLayer, Code, Context, Error, ReplyReserve, SendWith};
use throughline_transport::{Consumer, Events, Message};
use tokio::task::JoinHandle;

/// A client of one service.
///
/// If the service has several instances, calls take them in turn.
#[derive(Debug)]
pub struct Peer {
    http: reqwest::Client,
    layer: ClientLayer,
    instances: Vec<String>,
    next: AtomicUsize,
}

impl Peer {
    /// A client of the instances of `service` at these addresses (`host:port`).
    ///
    /// It does not follow redirects: another host would get headers written for the instance.
    pub fn new(service: &'static str, instances: Vec<String>) -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
        let http = http.expect("the configuration needs nothing that can be missing");
        Peer { http, layer: ClientLayer::internal().peer(service), instances, next: AtomicUsize::new(0) }
    }

    /// Sets the part of the time left that a call keeps for the response.
    #[must_use]
    pub fn reserve(mut self, reserve: ReplyReserve) -> Self {
        self.layer = self.layer.reserve(reserve);
        self
    }

    /// Posts `body` to `path` of the next instance, and decodes the response.
    ///
    /// # Errors
    /// Those of [`SendWith::send_with`]. A response that cannot be decoded is `INTERNAL`.
    pub async fn post<T: DeserializeOwned>(
        &self,
        ctx: &Context,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.post_to(ctx, path, path, body).await
    }

    /// Like [`post`](Self::post), to a path that contains an id. `template` names the call.
    ///
    /// # Errors
    /// Those of [`post`](Self::post).
    pub async fn post_to<T: DeserializeOwned>(
        &self,
        ctx: &Context,
        template: &'static str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.instances.len();
        let url = format!("http://{}{path}", self.instances[turn]);
        let response = self.http.post(url).json(body).send_with(ctx, &self.layer.template(template)).await?;
        Ok(response.json().await?)
    }
}

/// Publishes `event` as JSON.
///
/// # Errors
/// Those of [`Events::publish`].
pub async fn publish(events: &Events, ctx: &Context, subject: &str, event: &impl Serialize) -> Result<(), Error> {
    let payload = serde_json::to_vec(event).map_err(|e| Error::wrap(Code::Internal, e))?;
    events.publish(ctx, Message::new(subject, payload)).await
}

/// The tracer of each service.
pub type Tracers = HashMap<&'static str, Tracer>;

/// Lets `service` handle the events of `subject`, until `process` is done.
///
/// # Errors
/// Those of [`Events::subscribe`].
pub async fn consume<T, F, Fut>(
    events: &Events,
    process: &Context,
    subject: &str,
    service: &str,
    tracers: &Tracers,
    handler: F,
) -> Result<JoinHandle<()>, Error>
where
    T: DeserializeOwned,
    F: Fn(Context, T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    let consumer = Consumer::new(process).tracer(tracers[service].clone()).timeout(Duration::from_secs(5));
    let subscription = events.subscribe(process, subject, service).await?;
    Ok(tokio::spawn(subscription.serve(consumer, move |ctx, message| {
        let event = serde_json::from_slice(&message.payload);
        let work = event.map(|event| handler(ctx, event));
        async move {
            match work {
                Ok(work) => work.await,
                // A retry would fail in the same way.
                Err(e) => Err(Error::wrap(Code::InvalidArgument, e).with_retryable(false)),
            }
        }
    })))
}
