//! Dead letters: the messages that are published in place of messages that were given up.

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use throughline::Error;

use super::Message;

/// The original subject. A message with this header is a dead letter.
const SUBJECT: &str = "dead-letter-subject";
const GROUP: &str = "dead-letter-group";
const ATTEMPTS: &str = "dead-letter-attempts";
const CODE: &str = "dead-letter-code";
const MESSAGE: &str = "dead-letter-message";
const ORIGIN: &str = "dead-letter-origin";

/// The maximum length of a text in a header, in bytes. Longer texts are truncated.
const MAX_TEXT: usize = 1024;

/// The ASCII characters that are percent-encoded. Characters outside ASCII are always encoded.
const ESCAPED: AsciiSet = CONTROLS.add(b'%');

/// Whether the message is a dead letter already.
pub(super) fn is_dead_letter(message: &Message) -> bool {
    message.headers.contains_key(SUBJECT)
}

/// Creates a copy of `message` with the subject `to` and the error in its headers.
pub(super) fn dead_letter(to: String, message: &Message, group: &str, attempts: u32, error: &Error) -> Message {
    let mut headers = message.headers.clone();
    set(&mut headers, SUBJECT, Some(&message.subject));
    set(&mut headers, GROUP, Some(group));
    set(&mut headers, ATTEMPTS, Some(&attempts.to_string()));
    set(&mut headers, CODE, Some(error.code().as_str()));
    set(&mut headers, MESSAGE, Some(error.message()));
    set(&mut headers, ORIGIN, error.origin());
    Message { subject: to, headers, payload: message.payload.clone() }
}

fn set(headers: &mut HeaderMap, name: &'static str, text: Option<&str>) {
    let name = HeaderName::from_static(name);
    let encoded = text.map(|text| {
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        utf8_percent_encode(&text[..end], &ESCAPED).to_string()
    });
    match encoded.and_then(|text| HeaderValue::try_from(text).ok()) {
        // A full map drops the header. The counters and the log still report the error.
        Some(value) => drop(headers.try_insert(name, value)),
        None => drop(headers.remove(name)),
    }
}
