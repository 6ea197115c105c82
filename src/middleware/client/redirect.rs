//! Makes the request that follows a redirect (RFC 9110 §15.4).
//!
//! The next request is a copy of the first one, taken before the layer wrote headers for its host.

use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, PROXY_AUTHORIZATION, TRANSFER_ENCODING,
};
use http::{Method, StatusCode};
use reqwest::{Request, Url};

/// A copy of a request, from which the next request is made.
pub(super) struct Template {
    request: Request,
    /// The body of the request can be sent only once, so the copy has none.
    has_single_use_body: bool,
}

impl Template {
    pub(super) fn of(request: &Request) -> Self {
        if let Some(request) = request.try_clone() {
            return Template { request, has_single_use_body: false };
        }
        let mut again = Request::new(request.method().clone(), request.url().clone());
        *again.headers_mut() = request.headers().clone();
        *again.timeout_mut() = request.timeout().copied();
        *again.version_mut() = request.version();
        Template { request: again, has_single_use_body: true }
    }

    /// The request that follows a response with this status and `location`.
    ///
    /// `None` if the response is not a redirect, or if this redirect cannot be followed.
    pub(super) fn redirected(self, status: StatusCode, location: &http::HeaderValue) -> Option<Request> {
        let Template { mut request, has_single_use_body } = self;
        let becomes_get = match status {
            // §15.4.2 and §15.4.3 allow this, and all clients do it.
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => *request.method() == Method::POST,
            StatusCode::SEE_OTHER => *request.method() != Method::HEAD,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => false,
            _ => return None,
        };
        if becomes_get {
            *request.method_mut() = Method::GET;
            *request.body_mut() = None;
            for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING] {
                request.headers_mut().remove(name);
            }
        } else if has_single_use_body {
            return None;
        }
        let url = request.url().join(std::str::from_utf8(location.as_bytes()).ok()?).ok()?;
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        request.headers_mut().remove(HOST);
        if origin(&url) != origin(request.url()) {
            for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
                request.headers_mut().remove(name);
            }
        }
        *request.url_mut() = url;
        Some(request)
    }
}

fn origin(url: &Url) -> (&str, Option<&str>, Option<u16>) {
    (url.scheme(), url.host_str(), url.port_or_known_default())
}

#[cfg(test)]
mod tests {
    use reqwest::Body;

    use super::*;

    fn redirected(method: Method, status: u16, location: &str) -> Option<Request> {
        let mut request = Request::new(method, Url::parse("https://bank/cards/7?q=1").expect("a URL"));
        for (name, value) in [(AUTHORIZATION, "secret"), (CONTENT_TYPE, "text/plain"), (HOST, "bank")] {
            request.headers_mut().insert(name, http::HeaderValue::from_static(value));
        }
        *request.body_mut() = Some(Body::from("7"));
        let status = StatusCode::from_u16(status).expect("a status");
        Template::of(&request).redirected(status, &http::HeaderValue::from_str(location).expect("a value"))
    }

    #[test]
    fn the_status_decides_the_method_and_the_body() {
        for (method, status, then, has_body) in [
            (Method::POST, 301, Method::GET, false),
            (Method::POST, 302, Method::GET, false),
            (Method::PUT, 302, Method::PUT, true),
            (Method::PUT, 303, Method::GET, false),
            (Method::HEAD, 303, Method::HEAD, true),
            (Method::POST, 307, Method::POST, true),
            (Method::POST, 308, Method::POST, true),
        ] {
            let next = redirected(method, status, "/there").expect("it is one");
            assert_eq!((next.url().as_str(), next.method()), ("https://bank/there", &then), "{status}");
            assert_eq!(
                (next.body().is_some(), next.headers().contains_key(CONTENT_TYPE)),
                (has_body, has_body),
                "{status}"
            );
        }
    }

    #[test]
    fn credentials_are_not_sent_to_another_origin() {
        for (location, stay) in [
            ("/a", true),
            ("https://bank:443/", true),
            ("http://bank/", false),
            ("https://bank:8443/", false),
            ("//evil/", false),
        ] {
            let next = redirected(Method::GET, 302, location).expect("it is one");
            assert_eq!(next.headers().contains_key(AUTHORIZATION), stay, "{location}");
            assert!(!next.headers().contains_key(HOST));
        }
    }

    #[test]
    fn a_response_that_is_no_redirect_is_not_followed() {
        for (status, location) in [(200, "/"), (304, "/"), (302, "file:///etc"), (302, "https://"), (302, "\t")] {
            assert!(
                redirected(Method::GET, status, location)
                    .is_none_or(|next| next.url().as_str() == "https://bank/cards/7?q=1"),
                "{status} {location}"
            );
        }
    }
}
