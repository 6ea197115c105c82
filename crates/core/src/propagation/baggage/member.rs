//! One member: `key OWS "=" OWS value *( OWS ";" OWS property )` (§3.3.1).

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::BaggageError;
use super::grammar::{self, Parts};
use super::value::Baggage;

/// What is in this set, and what is not ASCII, is encoded: all but `baggage-octet` (§3.3.1.3), `%`, and also `+`, which may be encoded and
/// which peers that decode forms read as a blank.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b',').add(b';').add(b'\\').add(b'%').add(b'+');
const BLANKS: [char; 2] = [' ', '\t'];

/// A member of a [`Baggage`] that keeps to the grammar.
///
/// # Examples
/// ```
/// use throughline_core::Baggage;
///
/// let baggage = Baggage::from_lines([b"tenant = a=b%2C ; ttl=60;internal".as_slice()]);
/// let member = baggage.iter().next().expect("it has one");
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
    /// The member that begins at `start`, if it keeps to the grammar; and the place of the comma behind it, or the text's end.
    pub(super) fn at(text: &'a str, start: usize) -> (Option<Self>, usize) {
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

    /// The member that `text`, without commas, is, if its key is `key`; the rest of all the others is not looked at.
    pub(super) fn named(text: &'a [u8], key: &str) -> Option<Self> {
        let text = Some(text).filter(|text| grammar::has_key(text, key.as_bytes()))?;
        // A key with an equals sign in it begins what is another's member.
        Member::at(std::str::from_utf8(text).ok()?, 0).0.filter(|member| member.key == key)
    }

    /// As it came, without the blanks around it.
    pub(super) fn as_str(&self) -> &'a str {
        self.text
    }

    /// The key: a token (RFC 9110 §5.6.2), never decoded.
    pub fn key(&self) -> &'a str {
        self.key
    }

    /// The value, decoded; what is not UTF-8 in it is U+FFFD.
    pub fn value(&self) -> Cow<'a, str> {
        if self.is_encoded { decode(self.value) } else { Cow::Borrowed(self.value) }
    }

    /// The properties in order, their values decoded.
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

/// The key, not the value, which may be private.
impl fmt::Debug for Member<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The member as it goes on the wire.
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
    // Encoding only makes it longer, so what can't fit is refused before it is encoded.
    let least = text.len().saturating_add(key.len()).saturating_add(value.map_or(0, str::len));
    if least > Baggage::MAX_BYTES {
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

/// `+` is a plus; a `%` that no two digits follow is itself.
fn decode(value: &str) -> Cow<'_, str> {
    if !value.contains('%') {
        return Cow::Borrowed(value);
    }
    // In one block: what is decoded is no longer than it was.
    let mut bytes = Vec::with_capacity(value.len());
    bytes.extend(percent_decode_str(value));
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()).into()
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(head, tail)| (head, Some(tail)))
}
