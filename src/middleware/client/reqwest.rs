//! Reqwest: `send_with` on its requests, and its client as a tower service.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll};

use http::header::LOCATION;
use reqwest::{Body, Request, RequestBuilder, Response, ResponseBuilderExt, Url};
use throughline_core::Context;
use tower_service::Service;

use super::call::{Call, Outgoing};
use super::redirect::Template;
use super::request::RequestBody;
use super::{CallBody, CallFuture, ClientLayer, ClientService, error_for_status};
use crate::error::{Code, Error};

/// Sends a reqwest request with a context.
pub trait SendWith {
    /// Sends the request with `ctx`. A 4xx or 5xx response is an error.
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
    fn send_with(self, ctx: &Context, layer: &ClientLayer) -> impl Future<Output = Result<Response, Error>> + Send;

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
    fn response_with(self, ctx: &Context, layer: &ClientLayer) -> impl Future<Output = Result<Response, Error>> + Send;
}

impl SendWith for RequestBuilder {
    async fn send_with(self, ctx: &Context, layer: &ClientLayer) -> Result<Response, Error> {
        let response = send_split(self, ctx, layer).await?;
        Ok(wrap(error_for_status(response).await?))
    }

    async fn response_with(self, ctx: &Context, layer: &ClientLayer) -> Result<Response, Error> {
        Ok(wrap(send_split(self, ctx, layer).await?))
    }
}

async fn send_split(
    request: RequestBuilder,
    ctx: &Context,
    layer: &ClientLayer,
) -> Result<http::Response<CallBody<Body>>, Error> {
    let (client, request) = request.build_split();
    let request = request.map_err(|e| Error::wrap(Code::InvalidArgument, e.without_url()))?;
    send(layer, ctx, request, client).await
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
        Box::pin(async move { Ok(wrap(send(&layer, &ctx, request, ready).await?)) })
    }
}

/// Sends `request`, and follows redirects. `client` must be ready for the first request.
async fn send<S>(
    layer: &ClientLayer,
    ctx: &Context,
    mut request: Request,
    mut client: S,
) -> Result<http::Response<CallBody<Body>>, Error>
where
    S: Service<Request, Response = Response, Error = reqwest::Error>,
{
    // A timeout of the request limits the callee, too, and is the cause if it ends the call.
    let limited = request.timeout().map(|timeout| ctx.with_timeout(*timeout));
    let ctx = limited.as_ref().unwrap_or(ctx);
    let mut resend = 0;
    let first = request.url().origin();
    loop {
        let template = (resend < layer.config().redirects).then(|| Template::of(&request));
        let is_cross_origin = resend > 0 && request.url().origin() != first;
        let call = begin(layer, ctx, &mut request, resend, is_cross_origin)?;
        let response = CallFuture::sent(call, with_url(client.call(request))).await?;
        let next =
            template.and_then(|template| template.redirected(response.status(), response.headers().get(LOCATION)?));
        let Some(next) = next else { return Ok(response) };
        // The call ends here: nobody reads the body of a redirect that is followed.
        pin!(response.into_body()).body_and_call().1.finish();
        ctx.run(poll_fn(|cx| client.poll_ready(cx)))
            .await
            .map_err(|_| Error::from_context(ctx))?
            .map_err(Error::from)?;
        request = next;
        resend += 1;
    }
}

fn begin(
    layer: &ClientLayer,
    ctx: &Context,
    request: &mut Request,
    resend: u32,
    is_cross_origin: bool,
) -> Result<Call, Error> {
    let mut headers = std::mem::take(request.headers_mut());
    let (method, url) = (request.method(), request.url());
    let uri = url.as_str().parse().unwrap_or_default();
    let out = Outgoing { method, uri: &uri, full_url: url, headers: &mut headers, resend, is_cross_origin };
    let call = Call::begin(layer.config(), ctx, out);
    *request.headers_mut() = headers;
    let mut call = call?;
    // A body of bytes is sent at once, so it need not end with the call. Unwrapped, it can be sent
    // again.
    if let Some(body) = request.body_mut().as_mut().filter(|body| body.as_bytes().is_none()) {
        *body = Body::wrap(RequestBody::ending_with(std::mem::take(body), &call.request_end()));
    }
    Ok(call)
}

/// The URL that the response came from.
///
/// After redirects, it is not the one of the request.
#[derive(Clone)]
struct ResponseUrl(Url);

async fn with_url(
    sent: impl Future<Output = Result<Response, reqwest::Error>>,
) -> Result<http::Response<Body>, reqwest::Error> {
    let response = sent.await.map_err(reqwest::Error::without_url)?;
    let url = ResponseUrl(response.url().clone());
    let mut response = http::Response::from(response);
    response.extensions_mut().insert(url);
    Ok(response)
}

/// Converts to reqwest's response. Its body still ends with the context.
fn wrap(response: http::Response<CallBody<Body>>) -> Response {
    let (mut parts, body) = response.into_parts();
    let ResponseUrl(url) = parts.extensions.remove().expect("`with_url` has inserted the URL");
    let rebuilt = http::Response::builder().status(parts.status).version(parts.version).url(url).body(Body::wrap(body));
    let mut response = rebuilt.expect("status, version and URL come from a valid response");
    *response.headers_mut() = parts.headers;
    response.extensions_mut().extend(parts.extensions);
    Response::from(response)
}
