//! The grammar of one member: a parser that takes one pass and does not allocate.

use std::ops::Range;

/// Classes of bytes: `tchar` (RFC 9110 §5.6.2), and `baggage-octet` (§3.3.1.3) without `%`.
const TOKEN: u8 = 1;
const OCTET: u8 = 2;

/// The classes of each byte.
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

/// The positions of the parts of a member, in a text.
pub(super) struct Parts {
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
    /// Whether the value contains a `%`.
    pub(super) is_encoded: bool,
    /// The start of the properties, after the first `;`.
    pub(super) properties: Option<usize>,
    /// The end of the member, before any trailing blanks.
    pub(super) end: usize,
}

/// Parses the member that begins at `start`. Leading blanks are allowed.
///
/// Returns `None` for a member that breaks the grammar. The second result is the position of the
/// comma after the member, or the end of the text.
///
/// `key OWS "=" OWS value *( OWS ";" OWS property )`, where `property = key [ OWS "=" OWS value ]`
/// (§3.3.1).
pub(super) fn member(text: &[u8], start: usize) -> (Option<Parts>, usize) {
    match parse(text, start) {
        Ok((parts, at)) => (Some(parts), at),
        Err(at) => {
            let comma = text[at..].iter().position(|byte| *byte == b',');
            (None, comma.map_or(text.len(), |comma| at + comma))
        }
    }
}

/// Like [`member`].
///
/// The error is the position where the grammar is broken; no comma precedes it.
fn parse(text: &[u8], start: usize) -> Result<(Parts, usize), usize> {
    let start = blanks(text, start);
    let key = start..run(text, start, TOKEN);
    let at = blanks(text, key.end);
    if key.is_empty() || text.get(at) != Some(&b'=') {
        return Err(at);
    }
    let (value, is_encoded) = parse_value(text, at + 1);
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
            end = parse_value(text, at + 1).0.end;
            at = blanks(text, end);
        }
    }
    match text.get(at) {
        None | Some(b',') => Ok((Parts { key, value, is_encoded, properties, end }, at)),
        Some(_) => Err(at),
    }
}

/// Parses the value after an equals sign at `at - 1`.
///
/// Returns it without leading blanks.
///
/// The value may be empty. The second result is whether it contains a `%`.
fn parse_value(text: &[u8], at: usize) -> (Range<usize>, bool) {
    let start = blanks(text, at);
    let (mut end, mut is_encoded) = (run(text, start, OCTET), false);
    while let Some(b'%') = text.get(end) {
        is_encoded = true;
        end = run(text, end + 1, OCTET);
    }
    // If only blanks follow, the value is empty and begins before them.
    (if start < end { start..end } else { at..at }, is_encoded)
}

/// Returns the end of the run of bytes of `class` that begins at `at`.
#[inline]
fn run(text: &[u8], mut at: usize, class: u8) -> usize {
    let is_in = |byte: u8| CLASSES[usize::from(byte)] & class != 0;
    // Four bytes at a time: with single bytes, half of the time is loop overhead.
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

/// Returns the end of the run of spaces and tabs that begins at `at`.
#[inline]
fn blanks(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

/// Whether `text` begins with a member whose key is `key`.
pub(super) fn has_key(text: &[u8], key: &[u8]) -> bool {
    let start = blanks(text, 0);
    text[start..].starts_with(key) && text.get(blanks(text, start + key.len())) == Some(&b'=')
}

/// Whether `text` is a token.
pub(in crate::propagation) const fn is_token(text: &[u8]) -> bool {
    let mut at = 0;
    while at < text.len() && CLASSES[text[at] as usize] & TOKEN != 0 {
        at += 1;
    }
    at > 0 && at == text.len()
}
