//! How a request and a response become messages of NATS.
//!
//! | Header of NATS | In | Value |
//! |---|---|---|
//! | `Http-Request` | a request | method, space, path and query |
//! | `Http-Status` | a response | the status |
//! | `Http-Encoded` | both | name, `=`, value in percent encoding; see below |
//! | `Http-Body-Length` | both | the length of a body that follows in chunks |
//! | `Http-Body-Offset` | a chunk | where in the body the payload begins |
//! | `Http-Filler` | a message without a meaning | empty |
//!
//! Every other header is a header of HTTP with its name in lower case. NATS compares names with
//! their case, so none of those above collides with a header of HTTP. A value that has other bytes
//! than printable ASCII, or a space at an end, goes into `Http-Encoded`, and so do all values of
//! the same name, which keeps their order.

use async_nats::header::{HeaderMap, HeaderName, HeaderValue, IntoHeaderValue};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, request, response};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};

const REQUEST: HeaderName = HeaderName::from_static("Http-Request");
const STATUS: HeaderName = HeaderName::from_static("Http-Status");
const ENCODED: HeaderName = HeaderName::from_static("Http-Encoded");
const LENGTH: HeaderName = HeaderName::from_static("Http-Body-Length");
const OFFSET: HeaderName = HeaderName::from_static("Http-Body-Offset");
const FILLER: HeaderName = HeaderName::from_static("Http-Filler");
// The errors of the NATS services protocol, for its tools.
const ERROR: HeaderName = HeaderName::from_static("Nats-Service-Error");
const ERROR_CODE: HeaderName = HeaderName::from_static("Nats-Service-Error-Code");
const RESERVED: [HeaderName; 8] = [REQUEST, STATUS, ENCODED, LENGTH, OFFSET, FILLER, ERROR, ERROR_CODE];

/// The headers of a message, and their size on the wire.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) headers: HeaderMap,
    pub(super) size: usize,
}

impl Head {
    fn new() -> Self {
        // "NATS/1.0\r\n", and the empty line at the end.
        Head { headers: HeaderMap::new(), size: 12 }
    }

    fn add(&mut self, name: HeaderName, value: impl IntoHeaderValue) {
        let (name_size, value) = (AsRef::<[u8]>::as_ref(&name).len(), value.into_header_value());
        self.size += name_size + value.as_str().len() + 4;
        self.headers.append(name, value);
    }

    fn add_http(&mut self, headers: &http::HeaderMap) {
        for name in headers.keys() {
            let values = headers.get_all(name);
            let plain_name = name.as_str().parse::<HeaderName>().ok();
            match plain_name.filter(|_| values.iter().all(|value| is_plain(value.as_bytes()))) {
                Some(plain) => values.iter().filter_map(|value| value.to_str().ok()).for_each(|value| {
                    if let Ok(value) = value.parse::<HeaderValue>() {
                        self.add(plain.clone(), value);
                    }
                }),
                None => values.iter().for_each(|value| {
                    let value = percent_encode(value.as_bytes(), NON_ALPHANUMERIC);
                    self.add(ENCODED, format!("{name}={value}"));
                }),
            }
        }
    }

    /// Announces a body that follows in chunks.
    pub(super) fn announce(&mut self, length: usize) {
        self.add(LENGTH, length.to_string());
    }

    /// Whether a body of `length` bytes fits into the same message.
    pub(super) fn fits(&self, length: usize, max_payload: usize) -> bool {
        self.size.saturating_add(length) <= max_payload
    }
}

/// Whether a value may stand in a header of NATS as it is.
fn is_plain(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b' '..=b'~')) && !value.starts_with(b" ") && !value.ends_with(b" ")
}

pub(super) fn encode_request(head: &request::Parts) -> Head {
    let mut encoded = Head::new();
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    // A path has no control characters.
    if let Ok(line) = format!("{} {path}", head.method).parse::<HeaderValue>() {
        encoded.add(REQUEST, line);
    }
    encoded.add_http(&head.headers);
    encoded
}

pub(super) fn encode_response(head: &response::Parts) -> Head {
    let mut encoded = Head::new();
    encoded.add(STATUS, head.status.as_str());
    if head.status.is_client_error() || head.status.is_server_error() {
        encoded.add(ERROR_CODE, head.status.as_str());
        encoded.add(ERROR, head.status.canonical_reason().unwrap_or("error"));
    }
    encoded.add_http(&head.headers);
    encoded
}

/// The headers of a message that asks for the body of a request.
pub(super) fn encode_continue() -> HeaderMap {
    HeaderMap::from_iter([(STATUS, HeaderValue::from("100"))])
}

/// The headers of a chunk of a body.
pub(super) fn encode_chunk(offset: usize) -> HeaderMap {
    HeaderMap::from_iter([(OFFSET, HeaderValue::from(offset.to_string()))])
}

/// The headers of a message without a meaning.
pub(super) fn encode_filler() -> HeaderMap {
    HeaderMap::from_iter([(FILLER, HeaderValue::new())])
}

pub(super) fn is_filler(headers: Option<&HeaderMap>) -> bool {
    headers.is_some_and(|headers| headers.get(FILLER).is_some())
}

/// Reads a request. The error says what is wrong.
pub(super) fn decode_request(headers: Option<&HeaderMap>, body: Bytes) -> Result<Request<Bytes>, &'static str> {
    let headers = headers.ok_or("no Http-Request header")?;
    let line = headers.get(REQUEST).ok_or("no Http-Request header")?.as_str();
    let (method, path) = line.split_once(' ').ok_or("no path in the Http-Request header")?;
    let mut request = Request::new(body);
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| "a method that is not valid")?;
    let path =
        Some(path).filter(|path| path.starts_with('/') || *path == "*").ok_or("a path that does not begin with /")?;
    let path = PathAndQuery::try_from(path).map_err(|_| "a path that is not valid")?;
    *request.uri_mut() = path.into();
    *request.headers_mut() = decode_headers(headers);
    Ok(request)
}

/// Reads a response. The error says what is wrong.
pub(super) fn decode_response(headers: Option<&HeaderMap>, body: Bytes) -> Result<Response<Bytes>, &'static str> {
    let mut response = Response::new(body);
    *response.status_mut() = decode_status(headers).ok_or("no Http-Status header with a status")?;
    *response.headers_mut() = headers.map(decode_headers).unwrap_or_default();
    Ok(response)
}

pub(super) fn decode_status(headers: Option<&HeaderMap>) -> Option<StatusCode> {
    StatusCode::from_bytes(headers?.get(STATUS)?.as_ref()).ok()
}

/// The announced length of a body that follows in chunks. `Err`: it is not a number.
pub(super) fn decode_length(headers: Option<&HeaderMap>) -> Result<Option<usize>, &'static str> {
    let Some(length) = headers.and_then(|headers| headers.get(LENGTH)) else { return Ok(None) };
    length.as_str().parse().map(Some).map_err(|_| "a Http-Body-Length header that is not a number")
}

pub(super) fn decode_offset(headers: Option<&HeaderMap>) -> Option<usize> {
    headers?.get(OFFSET)?.as_str().parse().ok()
}

/// Leaves out what is not valid.
fn decode_headers(headers: &HeaderMap) -> http::HeaderMap {
    let mut decoded = http::HeaderMap::new();
    let mut append = |name: &[u8], value: &[u8]| {
        let parsed = (http::HeaderName::from_bytes(name), http::HeaderValue::from_bytes(value));
        if let (Ok(name), Ok(value)) = parsed {
            // An error means 32,768 names: more than a message of 1 MiB should have.
            let _ = decoded.try_append(name, value);
        }
    };
    for (name, values) in headers.iter() {
        if *name == ENCODED {
            for (name, value) in values.iter().filter_map(|value| value.as_str().split_once('=')) {
                let value: Vec<u8> = percent_decode_str(value).collect();
                append(name.as_bytes(), &value);
            }
        } else if !RESERVED.contains(name) {
            values.iter().for_each(|value| append(name.as_ref(), value.as_ref()));
        }
    }
    decoded
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn transported(headers: &http::HeaderMap) -> http::HeaderMap {
        let mut head = Head::new();
        head.add_http(headers);
        for (name, values) in head.headers.iter() {
            assert!(values.iter().all(|value| is_plain(value.as_ref())), "{name}: {values:?}");
        }
        decode_headers(&head.headers)
    }

    #[test]
    fn every_header_of_http_arrives() {
        let mut headers = http::HeaderMap::new();
        let values: [&[u8]; 9] =
            [b"", b"plain", b" a", b"a ", b"\ta", b"100% sure", b"caf\xc3\xa9", b"\xff\x80", b"a:b"];
        for value in values {
            headers.append("x-value", http::HeaderValue::from_bytes(value).unwrap());
        }
        for name in
            ["http-request", "http-status", "http-encoded", "nats-service-error", "nats-msg-id", "!#$%&'*+-.^_`|~"]
        {
            headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), http::HeaderValue::from_static("x"));
        }
        assert_eq!(transported(&headers), headers);
    }

    #[test]
    fn the_size_is_that_on_the_wire() {
        let request = Request::get("/a?b=c").header("x-a", "1").header("x-a", "2").body(()).unwrap();
        let head = encode_request(&request.into_parts().0);
        let wire = "NATS/1.0\r\nHttp-Request: GET /a?b=c\r\nx-a: 1\r\nx-a: 2\r\n\r\n";
        assert_eq!(head.size, wire.len());
        assert!(head.fits(1024 - wire.len(), 1024) && !head.fits(1025 - wire.len(), 1024));
    }

    #[test]
    fn a_request_that_is_not_valid_says_why() {
        let decode = |line: &str| decode_request(Some(&HeaderMap::from_iter([(REQUEST, line.into())])), Bytes::new());
        assert!(decode("GET /a").is_ok());
        for (line, why) in [
            ("", "no path in the Http-Request header"),
            ("GET", "no path in the Http-Request header"),
            ("G{}T /", "a method that is not valid"),
            ("GET a", "a path that does not begin with /"),
            ("GET /a b", "a path that is not valid"),
        ] {
            assert_eq!(decode(line).unwrap_err(), why, "{line:?}");
        }
        assert_eq!(decode_request(None, Bytes::new()).unwrap_err(), "no Http-Request header");
    }
}
