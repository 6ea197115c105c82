//! Retries of reqwest requests.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use http::Extensions;
use reqwest::{Body, Request, Response};
use throughline_core::Context;
use tower_service::Service;

use super::send::send;
use crate::error::Error;
use crate::middleware::client::retry::run::{Exchange, run};
use crate::middleware::client::retry::service::{Client, discard, transient_error, wait_until_ready};
use crate::middleware::client::retry::{RetryPolicy, session::Session};
use crate::middleware::client::{CallBody, ClientLayer, error_for_status};

/// What of a response decides whether there is a retry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    /// The head.
    Nothing,
    /// The head, and the document that describes the error. A 4xx or 5xx is then an error.
    Status,
}

/// Sends `request`, and again as `policy` allows. `client` is ready for the first request.
pub(super) async fn send_retrying<S>(
    layer: &ClientLayer,
    policy: &RetryPolicy,
    ctx: &Context,
    request: Request,
    client: S,
    reads: Reads,
) -> Result<http::Response<CallBody<Body>>, Error>
where
    S: Service<Request, Response = Response, Error = reqwest::Error> + Clone + Send + 'static,
    S::Future: Send,
{
    let settings = policy.settings();
    let uri = request.url().as_str().parse().unwrap_or_default();
    let is_idempotent = settings.is_idempotent(request.method(), &uri, request.headers(), &Extensions::new());
    let session = Session::new(settings.clone(), ctx.clone(), layer.config().reserve, is_idempotent);
    let (client, layer) = (Client::new(client), layer.clone());
    let exchange = Reqwest { client, layer, ctx: ctx.clone(), reads, sent: Arc::default() };
    run(exchange, session, request).await.unwrap_or_else(|_| Err(Error::from_context(ctx)))
}

struct Reqwest<S> {
    client: Client<S>,
    layer: ClientLayer,
    ctx: Context,
    reads: Reads,
    sent: Arc<AtomicU32>,
}

impl<S> Exchange<Request> for Reqwest<S>
where
    S: Service<Request, Response = Response, Error = reqwest::Error> + Clone + Send + 'static,
    S::Future: Send,
{
    type Outcome = Result<http::Response<CallBody<Body>>, Error>;

    fn copy(&self, request: &mut Request) -> Option<Request> {
        request.try_clone()
    }

    fn send(&mut self, request: Request, _: u32) -> impl Future<Output = Self::Outcome> + Send + use<S> {
        let (mut service, is_ready) = self.client.for_attempt();
        let (layer, ctx, sent, reads) = (self.layer.clone(), self.ctx.clone(), self.sent.clone(), self.reads);
        async move {
            ctx.run(wait_until_ready(&mut service, is_ready)).await.map_err(|_| Error::from_context(&ctx))??;
            let response = send(&layer, &ctx, request, service, &sent).await?;
            if reads == Reads::Status { error_for_status(response).await } else { Ok(response) }
        }
    }

    fn transient_error(&self, session: &Session, outcome: &Self::Outcome) -> Option<Error> {
        transient_error(session, outcome)
    }

    fn discard(&self, outcome: Self::Outcome) {
        discard(outcome)
    }
}
