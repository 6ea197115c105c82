//! Headers of messages, at the broker and in this library.

use async_nats::header::{HeaderName, HeaderValue};
use throughline::{Code, Error};

/// The maximum number of headers that are kept of a received message.
const MAX_HEADERS: usize = 1024;

/// The headers for the broker itself. They are not headers of the message.
const RESERVED: &str = "nats-";

/// # Errors
/// `INVALID_ARGUMENT`: a value is not UTF-8, or a name cannot be sent.
pub(super) fn to_broker(headers: &http::HeaderMap) -> Result<async_nats::HeaderMap, Error> {
    let mut sent = async_nats::HeaderMap::new();
    for (name, value) in headers {
        let text = std::str::from_utf8(value.as_bytes()).ok().and_then(|text| text.parse::<HeaderValue>().ok());
        let sent_name = match name.as_str().starts_with(RESERVED) {
            true => capitalized(name.as_str()),
            false => name.as_str().to_owned(),
        };
        match (sent_name.parse::<HeaderName>(), text) {
            (Ok(name), Some(value)) => sent.append(name, value),
            _ => {
                let text = format!("the header {name} cannot be sent over NATS: its value must be UTF-8");
                return Err(Error::new(Code::InvalidArgument, text).with_retryable(false));
            }
        }
    }
    Ok(sent)
}

/// Returns the headers of a message. Malformed ones are dropped.
pub(super) fn from_broker(received: &async_nats::HeaderMap) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    let all = received.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    for (name, value) in all.take(MAX_HEADERS) {
        let Ok(name) = http::HeaderName::try_from(AsRef::<[u8]>::as_ref(name)) else { continue };
        let Ok(value) = http::HeaderValue::try_from(value.as_str()) else { continue };
        if !name.as_str().starts_with(RESERVED) {
            // There is capacity: the number is limited.
            let _ = headers.try_append(name, value);
        }
    }
    headers
}

/// `nats-msg-id` → `Nats-Msg-Id`. The broker compares names with their case.
fn capitalized(name: &str) -> String {
    let mut is_first = true;
    let capital = |c: char| {
        let c = if is_first { c.to_ascii_uppercase() } else { c };
        is_first = c == '-';
        c
    };
    name.chars().map(capital).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_those_of_the_broker_do_not() {
        let mut headers = http::HeaderMap::new();
        headers.append("x-shard", "3".parse().unwrap());
        headers.append("x-shard", "4".parse().unwrap());
        headers.append("x-city", http::HeaderValue::from_bytes("Zürich".as_bytes()).unwrap());
        let mut sent = to_broker(&headers).unwrap();
        sent.append("Nats-Msg-Id", "7");
        assert_eq!(from_broker(&sent), headers);
        headers.clear();
        headers.append("nats-msg-id", "7".parse().unwrap());
        assert_eq!(to_broker(&headers).unwrap().get("Nats-Msg-Id").map(|value| value.as_str()), Some("7"));
        headers.append("x-bytes", http::HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(to_broker(&headers).unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn malformed_and_very_many_headers_of_a_peer_are_dropped() {
        let mut received = async_nats::HeaderMap::new();
        received.append("a(b", "1");
        received.append("control", "a\u{1}b");
        (0..5_000).for_each(|_| received.append("many", "x"));
        let headers = from_broker(&received);
        assert!(headers.keys().all(|name| name == "many") && headers.len() <= MAX_HEADERS, "{}", headers.len());
    }
}
