//! Sends a reqwest request, and the requests that follow its redirects.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};

use http::header::LOCATION;
use reqwest::{Body, Request, Response, ResponseBuilderExt, Url};
use throughline_core::Context;
use tower_service::Service;

use crate::error::Error;
use crate::middleware::client::call::{Call, Outgoing};
use crate::middleware::client::redirect::Template;
use crate::middleware::client::request::RequestBody;
use crate::middleware::client::{CallBody, CallFuture, ClientLayer};

/// Sends `request`, and follows redirects. `client` must be ready for the first request.
///
/// `sent` counts the requests that were sent, redirects and retries included.
pub(super) async fn send<S>(
    layer: &ClientLayer,
    ctx: &Context,
    mut request: Request,
    mut client: S,
    sent: &AtomicU32,
) -> Result<http::Response<CallBody<Body>>, Error>
where
    S: Service<Request, Response = Response, Error = reqwest::Error>,
{
    // A timeout of the request limits the callee, too, and is the cause if it ends the call.
    let limited = request.timeout().map(|timeout| ctx.with_timeout(*timeout));
    let ctx = limited.as_ref().unwrap_or(ctx);
    let mut redirects = 0;
    let first = request.url().origin();
    loop {
        let template = (redirects < layer.config().redirects).then(|| Template::of(&request));
        let is_cross_origin = redirects > 0 && request.url().origin() != first;
        // A redirect leads to another path.
        let url_template = layer.template_of(None).filter(|_| redirects == 0);
        let resend = sent.fetch_add(1, Ordering::Relaxed);
        let call = begin(layer, ctx, &mut request, url_template, resend, is_cross_origin)?;
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
        redirects += 1;
    }
}

fn begin(
    layer: &ClientLayer,
    ctx: &Context,
    request: &mut Request,
    template: Option<&str>,
    resend: u32,
    is_cross_origin: bool,
) -> Result<Call, Error> {
    let mut headers = std::mem::take(request.headers_mut());
    let (method, url) = (request.method(), request.url());
    let uri = url.as_str().parse().unwrap_or_default();
    let out = Outgoing { method, uri: &uri, full_url: url, headers: &mut headers, template, resend, is_cross_origin };
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
pub(super) fn wrap(response: http::Response<CallBody<Body>>) -> Response {
    let (mut parts, body) = response.into_parts();
    let ResponseUrl(url) = parts.extensions.remove().expect("`with_url` has inserted the URL");
    let rebuilt = http::Response::builder().status(parts.status).version(parts.version).url(url).body(Body::wrap(body));
    let mut response = rebuilt.expect("status, version and URL come from a valid response");
    *response.headers_mut() = parts.headers;
    response.extensions_mut().extend(parts.extensions);
    Response::from(response)
}
