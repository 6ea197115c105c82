//! Reqwest: `send_with` on its requests, and its client as a tower service.

mod retrying;
mod send;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicU32;
use std::task::{Context as TaskContext, Poll};

use reqwest::{Body, Request, RequestBuilder, Response};
use throughline_core::Context;
use tower_service::Service;

use self::retrying::{Reads, send_retrying};
use self::send::{send, wrap};
use super::retry::{RetryLayer, RetryPolicy, RetryService};
use super::{CallBody, ClientLayer, ClientService, error_for_status};
use crate::error::{Code, Error};

/// Sends a reqwest request with a context.
pub trait SendWith {
    /// Sends the request with `ctx`. A 4xx or 5xx response is an error.
    ///
    /// With a [`RetryLayer`], failed calls are sent again: see [the module](super::retry).
    ///
    /// [The module](super) says when each thing happens.
    ///
    /// # Errors
    /// - The context is done before or during the call: `DEADLINE_EXCEEDED` or `CANCELLED`.
    /// - The request cannot be built: `INVALID_ARGUMENT`.
    /// - There is no response: see [the module](super#errors).
    /// - The response is a 4xx or 5xx:
    ///   - From an [internal](ClientLayer::internal) service, the error is the one that the body
    ///     describes. At most 64 KiB of the body are read.
    ///   - From an external host, the error is the meaning of the status. The body is not read.
    ///     Use [`response_with`](Self::response_with) to read it.
    ///
    /// # Cancellation safety
    /// Dropping the future drops the call: the stream is reset, or the connection is closed.
    ///
    /// # Examples
    /// ```no_run
    /// use throughline::{ClientLayer, Context, Error, SendWith};
    ///
    /// async fn balance(ctx: &Context, client: &reqwest::Client) -> Result<String, Error> {
    ///     let request = client.get("http://balance/accounts/7");
    ///     let response = request.send_with(ctx, &ClientLayer::internal()).await?;
    ///     Ok(response.text().await?)
    /// }
    ///
    /// // The layer decides about redirects. Reqwest would send all headers to another host, too.
    /// fn client() -> reqwest::Result<reqwest::Client> {
    ///     reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()
    /// }
    /// ```
    fn send_with(self, ctx: &Context, layer: &impl SendLayer) -> impl Future<Output = Result<Response, Error>> + Send;

    /// Sends the request with `ctx`. Returns the response with any status.
    ///
    /// The caller reads the body, also of a 4xx or 5xx. The call and its span end with the body.
    ///
    /// # Errors
    /// Those of [`send_with`](Self::send_with), except a response's status.
    ///
    /// # Cancellation safety
    /// Dropping the future or the response drops the call.
    ///
    /// # Examples
    /// ```no_run
    /// use throughline::{ClientLayer, Context, Error, SendWith};
    ///
    /// async fn charge(ctx: &Context, client: &reqwest::Client) -> Result<String, Error> {
    ///     let charge = client.post("https://api.payments.example/charges");
    ///     let response = charge.response_with(ctx, &ClientLayer::external()).await?;
    ///     match response.status().as_u16() {
    ///         402 => Ok(format!("declined: {}", response.text().await?)),
    ///         _ => Ok(response.error_for_status()?.text().await?),
    ///     }
    /// }
    /// ```
    fn response_with(
        self,
        ctx: &Context,
        layer: &impl SendLayer,
    ) -> impl Future<Output = Result<Response, Error>> + Send;
}

/// A layer to send reqwest requests with: a [`ClientLayer`] or a [`RetryLayer`].
pub trait SendLayer: sealed::Layers {}

impl SendLayer for ClientLayer {}
impl SendLayer for RetryLayer {}

mod sealed {
    use super::{ClientLayer, RetryLayer, RetryPolicy};

    pub trait Layers: Sync {
        fn layers(&self) -> (&ClientLayer, Option<&RetryPolicy>);
    }

    impl Layers for ClientLayer {
        fn layers(&self) -> (&ClientLayer, Option<&RetryPolicy>) {
            (self, None)
        }
    }

    impl Layers for RetryLayer {
        fn layers(&self) -> (&ClientLayer, Option<&RetryPolicy>) {
            (self.client(), Some(self.policy()))
        }
    }
}

impl SendWith for RequestBuilder {
    async fn send_with(self, ctx: &Context, layer: &impl SendLayer) -> Result<Response, Error> {
        let (layer, policy) = layer.layers();
        let response = send_by(self, ctx, layer, policy, Reads::Status).await?;
        Ok(wrap(error_for_status(response).await?))
    }

    async fn response_with(self, ctx: &Context, layer: &impl SendLayer) -> Result<Response, Error> {
        let (layer, policy) = layer.layers();
        Ok(wrap(send_by(self, ctx, layer, policy, Reads::Nothing).await?))
    }
}

async fn send_by(
    request: RequestBuilder,
    ctx: &Context,
    layer: &ClientLayer,
    policy: Option<&RetryPolicy>,
    reads: Reads,
) -> Result<http::Response<CallBody<Body>>, Error> {
    let (client, request) = request.build_split();
    let request = request.map_err(|e| Error::wrap(Code::InvalidArgument, e.without_url()))?;
    match policy {
        None => send(layer, ctx, request, client, &AtomicU32::new(0)).await,
        // Boxed, so that calls without retries need no memory for them.
        Some(policy) => Box::pin(send_retrying(layer, policy, ctx, request, client, reads)).await,
    }
}

impl<S> Service<Request> for ClientService<S>
where
    S: Service<Request, Response = Response, Error = reqwest::Error> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from)
    }

    /// Calls with the ambient context: a reqwest request has no extensions.
    ///
    /// Returns the response with any status, also a 4xx or 5xx.
    fn call(&mut self, request: Request) -> Self::Future {
        let other = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, other);
        let (layer, ctx) = (self.layer.clone(), Context::current());
        Box::pin(async move { Ok(wrap(send(&layer, &ctx, request, ready, &AtomicU32::new(0)).await?)) })
    }
}

impl<S> Service<Request> for RetryService<S>
where
    S: Service<Request, Response = Response, Error = reqwest::Error> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from)
    }

    /// Calls with the ambient context: a reqwest request has no extensions.
    ///
    /// Returns the response with any status, also a 4xx or 5xx.
    fn call(&mut self, request: Request) -> Self::Future {
        let other = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, other);
        let (layer, ctx) = (self.layer.clone(), Context::current());
        Box::pin(async move {
            Ok(wrap(send_retrying(layer.client(), layer.policy(), &ctx, request, ready, Reads::Nothing).await?))
        })
    }
}
