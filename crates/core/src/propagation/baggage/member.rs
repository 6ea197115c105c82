//! One member of the list.
//!
//! Its grammar is `key OWS "=" OWS value *( OWS ";" OWS property )` (§3.3.1).

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::BaggageError;
use super::grammar::{self, Parts};
use super::list;

/// The ASCII characters that are percent-encoded. Characters outside ASCII are always encoded.
///
/// - All characters that are not a `baggage-octet` (§3.3.1.3).
/// - `%`.
/// - `+`. Encoding it is optional, but peers that decode values like form data read it as a blank.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b',').add(b';').add(b'\\').add(b'%').add(b'+');
const BLANKS: [char; 2] = [' ', '\t'];

/// A valid member of a [`Baggage`](crate::Baggage).
///
/// # Examples
/// ```
/// use throughline_core::Baggage;
///
/// let baggage = Baggage::from_lines([b"tenant = a=b%2C ; ttl=60;internal".as_slice()]);
/// let member = baggage.iter().next().expect("there is one member");
/// assert_eq!((member.key(), &*member.value()), ("tenant", "a=b,"));
/// let properties: Vec<_> = member.properties().collect();
/// assert_eq!(properties, [("ttl", Some("60".into())), ("internal", None)]);
/// ```
#[derive(Clone, Copy)]
pub struct Member<'a> {
    text: &'a str,
    key: &'a str,
    value: &'a str,
    is_encoded: bool,
    properties: Option<&'a str>,
}

impl<'a> Member<'a> {
    /// Parses the member that begins at `start`; `None` if it breaks the grammar.
    ///
    /// The second result is the position of the comma after it, or the end of the text.
    pub(super) fn parse_at(text: &'a str, start: usize) -> (Option<Self>, usize) {
        let (parts, end) = grammar::member(text.as_bytes(), start);
        let member = parts.map(|Parts { key, value, is_encoded, properties, end }| Member {
            text: &text[key.start..end],
            key: &text[key],
            value: &text[value],
            is_encoded,
            properties: properties.map(|start| &text[start..end]),
        });
        (member, end)
    }

    /// Parses `text`, which has no commas, if it is a member with this key.
    ///
    /// Of members with another key, only the key is read.
    pub(super) fn with_key(text: &'a [u8], key: &str) -> Option<Self> {
        let text = Some(text).filter(|text| grammar::has_key(text, key.as_bytes()))?;
        // If `key` contains an equals sign, `text` may be a member with a shorter key.
        Member::parse_at(std::str::from_utf8(text).ok()?, 0).0.filter(|member| member.key == key)
    }

    /// Returns the member as it was received, without the blanks around it.
    pub(super) fn as_str(&self) -> &'a str {
        self.text
    }

    /// Returns the key: a token (RFC 9110 §5.6.2), never decoded.
    pub fn key(&self) -> &'a str {
        self.key
    }

    /// Returns the value, decoded. Invalid UTF-8 becomes U+FFFD.
    pub fn value(&self) -> Cow<'a, str> {
        if self.is_encoded { decode(self.value) } else { Cow::Borrowed(self.value) }
    }

    /// Returns the properties in order, with decoded values.
    pub fn properties(&self) -> impl Iterator<Item = (&'a str, Option<Cow<'a, str>>)> {
        self.raw_properties().map(|(key, value)| (key, value.map(decode)))
    }

    fn raw_properties(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let properties = self.properties.into_iter().flat_map(|properties| properties.split(';'));
        properties.map(|property| {
            let (key, value) = split(property, '=');
            (key.trim_matches(BLANKS), value.map(|value| value.trim_matches(BLANKS)))
        })
    }
}

/// Shows the key. Omits the value, which may be private.
impl fmt::Debug for Member<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Writes a member as it is sent.
pub(super) fn encode<'a>(
    key: &str,
    value: &str,
    properties: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<String, BaggageError> {
    let mut text = String::new();
    push(&mut text, key, Some(value))?;
    for (key, value) in properties {
        text.push(';');
        push(&mut text, key, value)?;
    }
    Ok(text)
}

fn push(text: &mut String, key: &str, value: Option<&str>) -> Result<(), BaggageError> {
    // Encoding never shortens a text, so reject one that cannot fit before encoding it.
    let min_len = text.len().saturating_add(key.len()).saturating_add(value.map_or(0, str::len));
    if min_len > list::MAX_BYTES {
        return Err(BaggageError::FULL);
    }
    if !grammar::is_token(key.as_bytes()) {
        return Err(BaggageError::KEY);
    }
    text.push_str(key);
    if let Some(value) = value {
        text.push('=');
        text.extend(utf8_percent_encode(value, ENCODED));
    }
    Ok(())
}

/// Decodes percent-encoding.
///
/// `+` stays a plus. A `%` without two digits after it stays a `%`.
fn decode(value: &str) -> Cow<'_, str> {
    if !value.contains('%') {
        return Cow::Borrowed(value);
    }
    // One allocation is enough: decoding never makes a text longer.
    let mut bytes = Vec::with_capacity(value.len());
    bytes.extend(percent_decode_str(value));
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()).into()
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(head, tail)| (head, Some(tail)))
}
