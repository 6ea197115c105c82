//! reqwest: its client as a tower service, and `send_with` on its requests.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll};

use http::header::LOCATION;
use reqwest::{Body, Request, RequestBuilder, Response, ResponseBuilderExt, Url};
use throughline_core::Context;
use tower_service::Service;

use super::call::Call;
use super::redirect::Template;
use super::{CallBody, CallFuture, ClientLayer, ClientService, error_for_status};
use crate::error::{Code, Error};

/// Sends a request with a context.
pub trait SendWith {
    /// Sends the request as part of `ctx`, as [the module](super) tells, and reads what went wrong out of an answer that is no success.
    ///
    /// # Errors
    /// - The context is done, before or meanwhile: `DEADLINE_EXCEEDED` or `CANCELLED`.
    /// - There is no answer: `UNAVAILABLE`. The request can't be built: `INVALID_ARGUMENT`.
    /// - The answer is a 4xx or 5xx: the error that it tells of, with the service it began in, if `layer` is
    ///   [`internal`](ClientLayer::internal); else what its status means.
    ///
    /// # Cancellation safety
    /// Dropping the future drops the call: the other side learns of it.
    ///
    /// # Examples
    /// ```no_run
    /// use throughline::middleware::client::SendWith;
    /// use throughline::{ClientLayer, Context, Error};
    ///
    /// async fn balance(ctx: &Context, client: &reqwest::Client) -> Result<String, Error> {
    ///     let answer = client.get("http://balance/accounts/7").send_with(ctx, &ClientLayer::internal()).await?;
    ///     Ok(answer.text().await?)
    /// }
    ///
    /// // What is followed is up to the layer: by itself reqwest sends the first request's headers on, also to another host.
    /// fn client() -> reqwest::Result<reqwest::Client> {
    ///     reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()
    /// }
    /// ```
    fn send_with(self, ctx: &Context, layer: &ClientLayer) -> impl Future<Output = Result<Response, Error>> + Send;
}

impl SendWith for RequestBuilder {
    async fn send_with(self, ctx: &Context, layer: &ClientLayer) -> Result<Response, Error> {
        let (client, request) = self.build_split();
        let request = request.map_err(|e| Error::wrap(Code::InvalidArgument, e.without_url()))?;
        let response = send(layer, ctx, request, client).await?;
        Ok(wrap(error_for_status(response).await?))
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
        self.inner.poll_ready(cx).map_err(|e| Error::wrap(Code::Unavailable, e.without_url()))
    }

    /// With the ambient context: reqwest's requests have no extensions. Every answer is passed on, also a 4xx or 5xx.
    fn call(&mut self, request: Request) -> Self::Future {
        let other = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, other);
        let (layer, ctx) = (self.layer.clone(), Context::current());
        Box::pin(async move { Ok(wrap(send(&layer, &ctx, request, ready).await?)) })
    }
}

/// Sends `request`, and what its answers redirect to. `client` is ready for the first one.
async fn send<S>(
    layer: &ClientLayer,
    ctx: &Context,
    mut request: Request,
    mut client: S,
) -> Result<http::Response<CallBody<Body>>, Error>
where
    S: Service<Request, Response = Response, Error = reqwest::Error>,
{
    let mut resend = 0;
    loop {
        let template = (resend < layer.config().redirects).then(|| Template::of(&request));
        let call = begin(layer, ctx, &mut request, resend)?;
        let response = CallFuture::sent(call, answer(client.call(request))).await?;
        let next =
            template.and_then(|template| template.redirected(response.status(), response.headers().get(LOCATION)?));
        let Some(next) = next else { return Ok(response) };
        // Its head was all of it.
        pin!(response.into_body()).parts().1.finish();
        ctx.run(poll_fn(|cx| client.poll_ready(cx)))
            .await
            .map_err(|_| Error::from_context(ctx))?
            .map_err(|e| Error::wrap(Code::Unavailable, e.without_url()))?;
        request = next;
        resend += 1;
    }
}

fn begin(layer: &ClientLayer, ctx: &Context, request: &mut Request, resend: u32) -> Result<Call, Error> {
    let mut headers = std::mem::take(request.headers_mut());
    let (method, url) = (request.method(), request.url());
    let uri = url.as_str().parse().unwrap_or_default();
    let call = Call::begin(layer.config(), ctx, method, &uri, url, &mut headers, resend);
    *request.headers_mut() = headers;
    call
}

/// The URL that has answered: after redirects another one than was asked.
#[derive(Clone)]
struct Answered(Url);

async fn answer(
    sent: impl Future<Output = Result<Response, reqwest::Error>>,
) -> Result<http::Response<Body>, reqwest::Error> {
    let response = sent.await.map_err(reqwest::Error::without_url)?;
    let url = Answered(response.url().clone());
    let mut response = http::Response::from(response);
    response.extensions_mut().insert(url);
    Ok(response)
}

/// The response as reqwest has it; reading its body goes on under the context.
fn wrap(response: http::Response<CallBody<Body>>) -> Response {
    let (mut parts, body) = response.into_parts();
    let Answered(url) = parts.extensions.remove().expect("every answer has been given its URL");
    let rebuilt = http::Response::builder().status(parts.status).version(parts.version).url(url).body(Body::wrap(body));
    let mut response = rebuilt.expect("status, version and URL are those of a response");
    *response.headers_mut() = parts.headers;
    response.extensions_mut().extend(parts.extensions);
    Response::from(response)
}
