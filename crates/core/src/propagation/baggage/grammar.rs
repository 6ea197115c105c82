//! The grammar of one member, in one pass and without allocation.

use std::ops::Range;

/// Classes of bytes: `tchar` (RFC 9110 §5.6.2), and `baggage-octet` (§3.3.1.3) without `%`.
const TOKEN: u8 = 1;
const OCTET: u8 = 2;

/// The classes that each byte is in.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            classes[byte as usize] |= TOKEN;
        }
        if matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e) && byte != b'%' {
            classes[byte as usize] |= OCTET;
        }
        byte += 1;
    }
    let symbols = b"!#$%&'*+-.^_`|~";
    let mut i = 0;
    while i < symbols.len() {
        classes[symbols[i] as usize] |= TOKEN;
        i += 1;
    }
    classes
};

/// Where in a text the parts of a member are.
pub(super) struct Parts {
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
    /// Whether the value has a `%`.
    pub(super) is_encoded: bool,
    /// From behind the first `;`.
    pub(super) properties: Option<usize>,
    /// Of the member, without the blanks behind it.
    pub(super) end: usize,
}

/// The member that begins at `start`, possibly with blanks, if it keeps to the grammar; and the place of the comma behind it, or the
/// text's end.
///
/// `key OWS "=" OWS value *( OWS ";" OWS property )`, where `property = key [ OWS "=" OWS value ]` (§3.3.1).
pub(super) fn member(text: &[u8], start: usize) -> (Option<Parts>, usize) {
    match parse(text, start) {
        Ok((parts, at)) => (Some(parts), at),
        Err(at) => {
            let comma = text[at..].iter().position(|byte| *byte == b',');
            (None, comma.map_or(text.len(), |comma| at + comma))
        }
    }
}

/// [`member`], or the place where the grammar is broken: no comma is before that.
fn parse(text: &[u8], start: usize) -> Result<(Parts, usize), usize> {
    let start = blanks(text, start);
    let key = start..run(text, start, TOKEN);
    let at = blanks(text, key.end);
    if key.is_empty() || text.get(at) != Some(&b'=') {
        return Err(at);
    }
    let (value, is_encoded) = value_of(text, at + 1);
    let (mut properties, mut end) = (None, value.end);
    let mut at = blanks(text, end);
    while let Some(b';') = text.get(at) {
        properties = properties.or(Some(at + 1));
        let start = blanks(text, at + 1);
        end = run(text, start, TOKEN);
        if end == start {
            return Err(end);
        }
        at = blanks(text, end);
        if let Some(b'=') = text.get(at) {
            end = value_of(text, at + 1).0.end;
            at = blanks(text, end);
        }
    }
    match text.get(at) {
        None | Some(b',') => Ok((Parts { key, value, is_encoded, properties, end }, at)),
        Some(_) => Err(at),
    }
}

/// The value behind an equals sign at `at - 1`, which may be empty, without the blanks before it; and whether it has a `%`.
fn value_of(text: &[u8], at: usize) -> (Range<usize>, bool) {
    let start = blanks(text, at);
    let (mut end, mut is_encoded) = (run(text, start, OCTET), false);
    while let Some(b'%') = text.get(end) {
        is_encoded = true;
        end = run(text, end + 1, OCTET);
    }
    // Blanks with nothing behind them are not before the value.
    (if start < end { start..end } else { at..at }, is_encoded)
}

/// The end of what begins at `at` and is of the class.
#[inline]
fn run(text: &[u8], mut at: usize, class: u8) -> usize {
    let is_in = |byte: u8| CLASSES[usize::from(byte)] & class != 0;
    // By fours: a loop over single bytes spends half of its time on itself.
    while let Some([a, b, c, d]) = text.get(at..).and_then(<[u8]>::first_chunk) {
        if !is_in(*a) {
            return at;
        }
        if !is_in(*b) {
            return at + 1;
        }
        if !is_in(*c) {
            return at + 2;
        }
        if !is_in(*d) {
            return at + 3;
        }
        at += 4;
    }
    while text.get(at).is_some_and(|byte| is_in(*byte)) {
        at += 1;
    }
    at
}

/// The end of the spaces and tabs that begin at `at`.
#[inline]
fn blanks(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

/// Whether `text` begins with `key` as the key of a member.
pub(super) fn has_key(text: &[u8], key: &[u8]) -> bool {
    let start = blanks(text, 0);
    text[start..].starts_with(key) && text.get(blanks(text, start + key.len())) == Some(&b'=')
}

/// Whether all of `text` is one token.
pub(in crate::propagation) const fn is_token(text: &[u8]) -> bool {
    let mut at = 0;
    while at < text.len() && CLASSES[text[at] as usize] & TOKEN != 0 {
        at += 1;
    }
    at > 0 && at == text.len()
}
