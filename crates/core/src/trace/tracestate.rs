//! `tracestate`: W3C Trace Context Level 2, §3.3.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The limit of members. A list with more is dropped as a whole (§3.3.1.1).
const MAX_MEMBERS: usize = 32;
/// The limit of bytes.
///
/// A longer list is dropped as a whole; the specification requires at least 512.
const MAX_BYTES: usize = 8 * 1024;
/// The greatest length of a key and of a value (§3.3.1.3).
const MAX_PART: usize = 256;

/// The `tracestate` of a trace: key-value pairs of tracing systems, most recent first.
///
/// It holds the text that was received, checked in one pass. The text is propagated byte for byte
/// until it is changed. A clone costs at most one reference count. The empty one allocates nothing.
///
/// # Examples
/// ```
/// use throughline_core::TraceState;
///
/// let state: TraceState = "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE".parse()?;
/// assert_eq!(state.get("congo"), Some("t61rcWkgMzE"));
///
/// let state = state.insert("congo", "t62")?;
/// assert_eq!(state.as_str(), "congo=t62,rojo=00f067aa0ba902b7", "the changed member is first");
/// assert!("a=1,b".parse::<TraceState>().is_err(), "a bad member drops the list");
/// # Ok::<(), throughline_core::trace::TraceStateError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct TraceState(Option<Arc<str>>);

impl TraceState {
    /// The tracestate without members.
    pub const EMPTY: Self = Self(None);

    /// Parses header lines, combined in their order as if joined by commas (RFC 9110 §5.3).
    ///
    /// Empty members are allowed. A key that occurs twice is allowed too: it is for the sender to
    /// avoid (§3.5), and the list of another system is propagated as it is.
    ///
    /// # Errors
    /// One member breaks the grammar, or there are more than 32 members or more than 8,192 bytes.
    /// The whole list is rejected, and nothing is allocated.
    ///
    /// # Examples
    /// ```
    /// use throughline_core::TraceState;
    ///
    /// let lines: [&[u8]; 2] = [b"a=1", b"b=2"];
    /// assert_eq!(TraceState::from_lines(lines)?.as_str(), "a=1,b=2");
    /// # Ok::<(), throughline_core::trace::TraceStateError>(())
    /// ```
    pub fn from_lines<'a>(lines: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>) -> Result<Self, TraceStateError> {
        let lines = lines.into_iter();
        Self::combined(|| lines.clone())
    }

    /// Does the same as [`from_lines`](Self::from_lines). `lines` is called for each pass.
    pub(crate) fn combined<'a, I: Iterator<Item = &'a [u8]>>(lines: impl Fn() -> I) -> Result<Self, TraceStateError> {
        let mut list = List::default();
        let mut first = None;
        for (index, line) in lines().enumerate() {
            list.line(line, index > 0)?;
            if index == 0 {
                first = Some(line);
            }
        }
        if list.members == 0 {
            return Ok(Self::EMPTY);
        }
        // `line` accepts ASCII only.
        let text = |line: &'a [u8]| std::str::from_utf8(line).map_err(|_| TraceStateError(()));
        if let Some(line) = first.filter(|line| line.len() == list.bytes) {
            return Ok(Self(Some(Arc::from(text(line)?))));
        }
        let mut joined = String::with_capacity(list.bytes);
        for (index, line) in lines().enumerate() {
            if index > 0 {
                joined.push(',');
            }
            joined.push_str(text(line)?);
        }
        Ok(Self(Some(joined.into())))
    }

    /// Returns the list as it is propagated.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether there is no member.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the value of `key`.
    ///
    /// If it occurs more than once, the first one is the most recent.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find_map(|(name, value)| (name == key).then_some(value))
    }

    /// Returns the members, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members().filter_map(|member| member.split_once('='))
    }

    /// Returns the list with `key` set to `value`, as its first member.
    ///
    /// Other members with this key are removed (§3.5: "Adding a key/value pair MUST NOT result in
    /// the same key being present multiple times"). If there would be 33 members, the last one is
    /// dropped.
    ///
    /// # Errors
    /// `key` or `value` breaks the grammar, or the list would be longer than 8,192 bytes.
    pub fn insert(&self, key: &str, value: &str) -> Result<Self, TraceStateError> {
        let is_key = matches!(split(key.as_bytes(), KEY), (key, []) if fits_key(key));
        let is_value = matches!(split(value.as_bytes(), VALUE), (value, []) if fits_value(value));
        if !is_key || !is_value {
            return Err(TraceStateError(()));
        }
        let mut text = String::with_capacity(key.len() + value.len() + 2 + self.as_str().len());
        text.extend([key, "=", value]);
        for member in self.others(key).take(MAX_MEMBERS - 1) {
            text.extend([",", member]);
        }
        if text.len() > MAX_BYTES { Err(TraceStateError(())) } else { Ok(Self(Some(text.into()))) }
    }

    /// Returns the list without `key`. A list without that key is returned unchanged.
    #[must_use]
    pub fn remove(&self, key: &str) -> Self {
        if self.get(key).is_none() {
            return self.clone();
        }
        let mut text = String::with_capacity(self.as_str().len());
        for member in self.others(key) {
            let comma = if text.is_empty() { "" } else { "," };
            text.extend([comma, member]);
        }
        if text.is_empty() { Self::EMPTY } else { Self(Some(text.into())) }
    }

    fn members(&self) -> impl Iterator<Item = &str> {
        self.as_str().split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty())
    }

    fn others(&self, key: &str) -> impl Iterator<Item = &str> {
        self.members().filter(move |member| member.split_once('=').is_none_or(|(name, _)| name != key))
    }
}

impl FromStr for TraceState {
    type Err = TraceStateError;

    fn from_str(text: &str) -> Result<Self, TraceStateError> {
        Self::from_lines([text.as_bytes()])
    }
}

impl fmt::Display for TraceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for TraceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TraceState").field(&self.as_str()).finish()
    }
}

/// A text is not a valid [`TraceState`] or member of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceStateError(());

impl fmt::Display for TraceStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a W3C tracestate: a bad key or value, more than 32 members or than 8192 bytes")
    }
}

impl std::error::Error for TraceStateError {}

/// Counts the members and bytes of a list while it is checked.
#[derive(Default)]
struct List {
    members: usize,
    bytes: usize,
}

impl List {
    fn line(&mut self, line: &[u8], comma: bool) -> Result<(), TraceStateError> {
        self.bytes = self.bytes.saturating_add(line.len()).saturating_add(usize::from(comma));
        if self.bytes > MAX_BYTES {
            return Err(TraceStateError(()));
        }
        let mut rest = skip_blanks(line);
        while !rest.is_empty() {
            rest = match rest {
                [b',', more @ ..] => skip_blanks(more),
                _ => self.member(rest)?,
            };
        }
        Ok(())
    }

    /// Checks the member at the start of `text`.
    ///
    /// Returns the text after it: nothing, or a comma and more.
    fn member<'a>(&mut self, text: &'a [u8]) -> Result<&'a [u8], TraceStateError> {
        let (key, text) = split(text, KEY);
        let [b'=', text @ ..] = text else { return Err(TraceStateError(())) };
        let (value, text) = split(text, VALUE);
        let text = skip_blanks(text);
        let ends_well = matches!(text, [] | [b',', ..]);
        self.members += 1;
        if self.members <= MAX_MEMBERS && ends_well && fits_key(key) && fits_value(trim_spaces(value)) {
            Ok(text)
        } else {
            Err(TraceStateError(()))
        }
    }
}

/// Classes of bytes: in a key (`keychar`, §3.3.1.3.1), and in a value (`chr`, §3.3.1.3.2).
const KEY: u8 = 1;
const VALUE: u8 = 2;

/// The classes of each byte.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        if matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@') {
            classes[byte as usize] |= KEY;
        }
        if matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=') {
            classes[byte as usize] |= VALUE;
        }
        byte += 1;
    }
    classes
};

/// Splits `text` after its first bytes of the class.
fn split(text: &[u8], class: u8) -> (&[u8], &[u8]) {
    let end = text.iter().position(|&byte| CLASSES[usize::from(byte)] & class == 0);
    text.split_at(end.unwrap_or(text.len()))
}

/// Removes optional white space from the start: spaces and tabs (RFC 9110 §5.6.3).
fn skip_blanks(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    text
}

fn trim_spaces(mut value: &[u8]) -> &[u8] {
    while let [rest @ .., b' '] = value {
        value = rest;
    }
    value
}

/// `key = ( lcalpha / DIGIT ) 0*255 ( keychar )` (§3.3.1.3.1).
///
/// All bytes of `key` are key bytes.
fn fits_key(key: &[u8]) -> bool {
    matches!(key, [b'a'..=b'z' | b'0'..=b'9', rest @ ..] if rest.len() < MAX_PART)
}

/// `value = 0*255(chr) nblk-chr` (§3.3.1.3.2): no space at the end.
///
/// All bytes of `value` are value bytes.
fn fits_value(value: &[u8]) -> bool {
    matches!(value, [.., last] if *last != b' ' && value.len() <= MAX_PART)
}
