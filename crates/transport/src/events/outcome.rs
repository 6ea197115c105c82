//! What becomes of a message after an attempt, and the headers of dead letters.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use throughline::{Context, Error, Extractor, Injector};

use super::info::MessageInfo;

/// What the caller of [`Consumer::handle`](super::Consumer::handle) has to do with a message.
#[derive(Debug)]
#[must_use = "the broker does not know the result yet"]
pub enum Outcome {
    /// The handler succeeded. Acknowledge the message.
    Acknowledge,
    /// Let the message be delivered again, after this pause at the earliest.
    ///
    /// The pause is zero if the consumer stops: its base context is done, and the failure says
    /// nothing about the message. Leave it to another consumer then.
    Redeliver(Duration),
    /// Publish the message as a dead letter, then acknowledge it.
    ///
    /// If the dead letter cannot be published, let the message be delivered again.
    GiveUp(DeadLetter),
}

/// A message that is given up: where its copy goes, and the headers to add.
///
/// See [`Consumer::dead_letter`](super::Consumer::dead_letter) for the headers.
#[derive(Debug)]
pub struct DeadLetter {
    pub(super) ctx: Context,
    pub(super) error: Error,
    /// `None`: the message is a dead letter already.
    pub(super) destination: Option<String>,
    pub(super) info: MessageInfo,
}

impl DeadLetter {
    /// Returns the destination of the copy.
    ///
    /// `None`: the message is a dead letter already. Do not publish it again, as it could loop
    /// forever.
    pub fn destination(&self) -> Option<&str> {
        self.destination.as_deref()
    }

    /// Returns the error of the last attempt.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Returns the context to publish the copy with.
    ///
    /// Its span is that of the last attempt. Its time is limited by the
    /// [timeout of an attempt](super::Consumer::timeout). It is not cancelled when the consumer
    /// stops.
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// Adds the headers of the dead letter to a copy of the message's headers.
    pub fn inject<C: Injector + ?Sized>(&self, headers: &mut C) {
        let mut set = |name, text: Option<&str>| {
            let name = HeaderName::from_static(name);
            match text.and_then(encode) {
                Some(value) => headers.set(&name, value),
                None => headers.remove(&name),
            }
        };
        set(SUBJECT, Some(self.info.destination()));
        set(GROUP, self.info.group_name());
        set(ATTEMPTS, Some(&self.info.number().to_string()));
        set(CODE, Some(self.error.code().as_str()));
        set(MESSAGE, Some(self.error.message()));
        set(ORIGIN, self.error.origin());
    }
}

/// Whether a message with these headers is a dead letter already.
pub(super) fn is_dead_letter<C: Extractor + ?Sized>(headers: &C) -> bool {
    headers.get_all(&HeaderName::from_static(SUBJECT)).next().is_some()
}

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

fn encode(text: &str) -> Option<HeaderValue> {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    HeaderValue::try_from(utf8_percent_encode(&text[..end], &ESCAPED).to_string()).ok()
}
