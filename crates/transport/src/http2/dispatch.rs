//! From a request of HTTP to the inbox of its service.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use throughline::{Code, Error};

use super::NO_SUCH_SERVICE;
use super::services::Services;
use crate::error::response_of;
use crate::{Inbox, NoSuchService};

/// Responds to one request, whose body arrives within `timeout`.
///
/// It is dropped when the caller gives up.
pub(super) async fn respond(services: &Services, request: Request<Incoming>, timeout: Duration) -> Response<Bytes> {
    let Some(host) = host_of(&request) else {
        return invalid("the request names no host");
    };
    let Some(inbox) = find(services, &host) else { return no_such_service(&host) };
    if request.method() == Method::CONNECT {
        let error = Error::new(Code::Unimplemented, "services do not take CONNECT");
        return response_of(error, inbox.service());
    }
    let mut response = deliver(&inbox, request, timeout).await;
    // Only this server says so, and not a service that passes on what it got from another one.
    response.headers_mut().remove(NO_SUCH_SERVICE);
    response
}

async fn deliver(inbox: &Inbox, request: Request<Incoming>, timeout: Duration) -> Response<Bytes> {
    if inbox.is_draining() {
        return inbox.refuse_ended().await;
    }
    let limit = inbox.max_body();
    if request.body().size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return inbox.refuse_body().await;
    }
    let admission = match inbox.admit() {
        Ok(admission) => admission,
        Err(refusal) => return refusal.await,
    };
    let (mut head, body) = request.into_parts();
    let Some(uri) = address(head.uri, inbox.service()) else { return invalid("the path is not valid") };
    head.uri = uri;
    let error = match tokio::time::timeout(timeout, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => return admission.deliver(Request::from_parts(head, body.to_bytes())).await,
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            drop(admission);
            return inbox.refuse_body().await;
        }
        Ok(Err(_cut_off)) => Error::new(Code::InvalidArgument, "the body of the request is cut off"),
        Err(_elapsed) => {
            let message = format!("the body of the request did not arrive within {timeout:?}");
            Error::new(Code::DeadlineExceeded, message)
        }
    };
    response_of(error, inbox.service())
}

/// The host of a request in lower case, without its port.
fn host_of<B>(request: &Request<B>) -> Option<String> {
    let host = match request.uri().host() {
        Some(host) => host.to_ascii_lowercase(),
        None => {
            let value = request.headers().get(header::HOST)?;
            let authority = Authority::try_from(value.as_bytes()).ok()?;
            authority.host().to_ascii_lowercase()
        }
    };
    Some(host)
}

fn find(services: &Services, host: &str) -> Option<Inbox> {
    let is_ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    if is_ip {
        return services.only_one();
    }
    let label = host.split_once('.').map_or(host, |(label, _)| label);
    services.find(label).or_else(|| if host == "localhost" { services.only_one() } else { None })
}

/// Makes `service` the authority, as on every medium.
fn address(uri: Uri, service: &str) -> Option<Uri> {
    if uri.authority().is_some_and(|authority| authority.as_str() == service) && uri.scheme() == Some(&Scheme::HTTP) {
        return Some(uri);
    }
    let mut parts = uri.into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::try_from(service).ok()?);
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    }
    Uri::from_parts(parts).ok()
}

fn invalid(message: &str) -> Response<Bytes> {
    Error::new(Code::InvalidArgument, message.to_owned()).to_response()
}

fn no_such_service(host: &str) -> Response<Bytes> {
    let mut response = Error::from(NoSuchService::new(host)).to_response();
    // A host consists of characters that a header may have.
    let value = HeaderValue::from_str(host).unwrap_or_else(|_| HeaderValue::from_static(""));
    response.headers_mut().insert(NO_SUCH_SERVICE, value);
    response
}
