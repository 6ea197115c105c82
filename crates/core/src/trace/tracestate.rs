//! `tracestate`: W3C Trace Context Level 2, §3.3.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Members beyond these drop the whole list (§3.3.1.1).
const MAX_MEMBERS: usize = 32;
/// Bytes beyond these drop the whole list; the specification asks for at least 512.
const MAX_BYTES: usize = 8 * 1024;
/// The greatest length of a key and of a value (§3.3.1.3).
const MAX_PART: usize = 256;

/// The `tracestate` of a trace: key-value pairs that tracing systems hand on, most recent first.
///
/// Kept as the text it came in, checked in one pass, and passed on byte for byte while nobody changes it. Cloning is one
/// reference count at most; the empty one allocates nothing.
///
/// # Examples
/// ```
/// use throughline_core::TraceState;
///
/// let state: TraceState = "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE".parse()?;
/// assert_eq!(state.get("congo"), Some("t61rcWkgMzE"));
///
/// let state = state.insert("congo", "t62")?;
/// assert_eq!(state.as_str(), "congo=t62,rojo=00f067aa0ba902b7", "what was changed goes first");
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
    /// # Errors
    /// One member that breaks the grammar, more than 32 members or more than 8,192 bytes: the whole list is refused, and nothing is
    /// allocated. Empty members are allowed. So is a key that comes twice: that it does not is the sender's to see to (§3.5), and
    /// what another system has sent is passed on as it is.
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

    /// [`from_lines`](Self::from_lines), with as many iterators over them as it takes.
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
        // `line` has let nothing but ASCII pass.
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

    /// The list as it goes on the wire.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether there is no member.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The value of `key`; of several, the first: the most recent.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find_map(|(name, value)| (name == key).then_some(value))
    }

    /// The members, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members().filter_map(|member| member.split_once('='))
    }

    /// The list with `key` set to `value`: first, and once (§3.5: "Adding a key/value pair MUST NOT result in the same key being
    /// present multiple times"). When that makes 33 members, the last one goes.
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

    /// The list without `key`; the same list if it has none.
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

/// Why text is not a [`TraceState`], or a pair not a member of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceStateError(());

impl fmt::Display for TraceStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a W3C tracestate: a bad key or value, more than 32 members or than 8192 bytes")
    }
}

impl std::error::Error for TraceStateError {}

/// What has been seen of a list while it is checked.
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

    /// Takes the member that `text` begins with, and returns what follows it: nothing, or a comma and more.
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

/// The classes that each byte is in.
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

/// What `text` begins with of the class, and the rest.
fn split(text: &[u8], class: u8) -> (&[u8], &[u8]) {
    let end = text.iter().position(|&byte| CLASSES[usize::from(byte)] & class == 0);
    text.split_at(end.unwrap_or(text.len()))
}

/// Without the optional white space before and after a list member: spaces and tabs (RFC 9110 §5.6.3).
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

/// `key = ( lcalpha / DIGIT ) 0*255 ( keychar )` (§3.3.1.3.1), of bytes that are in one.
fn fits_key(key: &[u8]) -> bool {
    matches!(key, [b'a'..=b'z' | b'0'..=b'9', rest @ ..] if rest.len() < MAX_PART)
}

/// `value = 0*255(chr) nblk-chr` (§3.3.1.3.2), of bytes that are in one: no space at the end.
fn fits_value(value: &[u8]) -> bool {
    matches!(value, [.., last] if *last != b' ' && value.len() <= MAX_PART)
}
