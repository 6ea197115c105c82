//! Properties of every error that a peer reports, in any bytes. Tests and fuzz targets share them.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use throughline::{Code, Error};

const HOUR: Duration = Duration::from_secs(3600);

/// All that a peer gets of an error, except the wait.
pub fn content(error: &Error) -> (impl PartialEq + std::fmt::Debug + use<>, &[Map<String, Value>]) {
    let path: Vec<_> = error.path().map(str::to_owned).collect();
    let problem = [error.problem_type(), error.title(), error.instance()].map(|text| text.map(str::to_owned));
    ((error.code(), error.message().to_owned(), path, error.retryable(), problem), error.details())
}

fn assert_bounded(error: &Error) {
    assert!(error.message().len() <= 4096 && !error.message().is_empty());
    assert!(error.path().len() <= 16 && error.path().all(|service| service.len() <= 256));
    assert!(error.retry_after().is_none_or(|after| after <= HOUR));
}

fn assert_can_be_redacted(error: Error) {
    let redacted = error.redacted();
    assert_eq!((redacted.origin(), redacted.path().len()), (None, 0));
    assert_eq!((redacted.problem_type(), redacted.title(), redacted.instance()), (None, None, None));
    assert!(redacted.details().iter().all(|detail| detail["@public"] == true));
    assert_eq!(redacted.message(), message_of(redacted.code()), "an untrusted client does not get a peer's message");
}

/// The message that any client may see for a code.
fn message_of(code: Code) -> String {
    Error::wrap(code, "").message().to_owned()
}

/// A response with a problem document.
///
/// A line with its status, one with its `Retry-After`, and the body.
pub fn problem(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let (Some(status), Some(wait), Some(body)) = (lines.next(), lines.next(), lines.next()) else { return };
    let Ok(status) = StatusCode::from_bytes(status) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("Application/Problem+JSON ; charset=utf-8"));
    if let Ok(wait) = HeaderValue::from_bytes(wait) {
        headers.insert(header::RETRY_AFTER, wait);
    }
    let read = Error::from_response(status, &headers, body);
    assert_eq!(read.is_some(), status.as_u16() >= 400);
    let Some(error) = read else { return };
    assert_bounded(&error);
    let external = Error::from_status(status, &headers).unwrap();
    assert_eq!((external.origin(), external.details().len()), (None, 0), "only the status of an external host counts");
    // Sent again, it loses only what is too large to send, and the last place of floats.
    let sent = error.clone().preserve_code().through_service(None).to_response();
    assert!(sent.body().len() <= 64 * 1024);
    let again = Error::from_response(sent.status(), sent.headers(), sent.body())
        .expect("a document of this library is readable");
    assert!(again.details().is_empty() || again.details().len() == error.details().len());
    assert_eq!(content(&again).0, content(&error).0);
    assert!(again.retry_after() >= error.retry_after(), "rounded up");
    assert_bounded(&error.clone().through_service(Some("api")));
    assert_can_be_redacted(error);
}

#[cfg(feature = "tonic")]
pub use self::grpc::{grpc_details, grpc_trailers};

#[cfg(feature = "tonic")]
mod grpc {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::FutureExt;
    use http::{HeaderName, Request, Response};
    use http_body_util::Empty;
    use throughline::ClientLayer;
    use tonic::Status;
    use tower::{Layer, Service, service_fn};

    use super::*;

    fn check(status: Status) {
        let code = Code::from_grpc_number(status.code() as i32).unwrap_or(Code::Unknown);
        let external = Error::from_external_grpc_status(status.clone());
        assert_eq!((external.code(), external.origin(), external.details().len()), (code, None, 0));
        assert_bounded(&external);
        let error = Error::from_grpc_status(status);
        assert_eq!(error.code(), code);
        assert_bounded(&error);
        let sent = Status::from(error.clone().preserve_code().through_service(Some("api")));
        let mut trailers = HeaderMap::new();
        sent.add_header(&mut trailers).expect("the status can be sent");
        let size = trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum::<usize>();
        assert!(size <= 8192, "{size} bytes are more than a peer accepts");
        let again = Error::from_grpc_status(Status::from_header_map(&trailers).unwrap());
        assert_eq!((again.code(), again.origin()), (error.code(), error.origin().or(Some("api"))));
        assert_can_be_redacted(error);
    }

    /// A status whose details are any bytes. The first byte is its code.
    pub fn grpc_details(data: &[u8]) {
        let Some((&code, details)) = data.split_first() else { return };
        let code = tonic::Code::from_i32((code & 31).into());
        check(Status::with_details(code, "again", details.to_vec().into()));
    }

    /// A status in a peer's trailers, as tonic reads it through the client layer.
    ///
    /// Each line is `name: value`.
    pub fn grpc_trailers(data: &[u8]) {
        let mut trailers = HeaderMap::new();
        for line in data.split(|byte| *byte == b'\n').take(100) {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let value = HeaderValue::from_bytes(line[colon..].strip_prefix(b": ").unwrap_or_default());
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), value) {
                trailers.append(name, value);
            }
        }
        let peer = service_fn(|_: Request<()>| {
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.headers_mut() = trailers.clone();
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let response = ClientLayer::internal().layer(peer).call(Request::new(())).now_or_never();
        let response = response.expect("the peer is ready at once").expect("the peer does not fail");
        if let Some(status) = Status::from_header_map(response.headers()) {
            check(status);
        }
    }
}
