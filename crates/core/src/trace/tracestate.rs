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
        let mut list = List::default();
        let mut first = None;
        for (index, line) in lines.clone().enumerate() {
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
        for (index, line) in lines.enumerate() {
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
        if !is_key(key.as_bytes()) || !is_value(value.as_bytes()) {
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
        line.split(|&byte| byte == b',').try_for_each(|member| self.member(trim(member)))
    }

    fn member(&mut self, member: &[u8]) -> Result<(), TraceStateError> {
        if member.is_empty() {
            return Ok(());
        }
        let equals = member.iter().position(|&byte| byte == b'=').ok_or(TraceStateError(()))?;
        let (key, value) = (&member[..equals], &member[equals + 1..]);
        self.members += 1;
        if self.members <= MAX_MEMBERS && is_key(key) && is_value(value) { Ok(()) } else { Err(TraceStateError(())) }
    }
}

/// Without the optional white space around a list member: spaces and tabs (RFC 9110 §5.6.3).
fn trim(mut member: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = member {
        member = rest;
    }
    member
}

/// `key = ( lcalpha / DIGIT ) 0*255 ( keychar )` (§3.3.1.3.1).
fn is_key(key: &[u8]) -> bool {
    let in_key = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    matches!(key, [b'a'..=b'z' | b'0'..=b'9', rest @ ..] if rest.len() < MAX_PART && rest.iter().all(in_key))
}

/// `value = 0*255(chr) nblk-chr`: printable ASCII without comma and equals sign, no space at the end (§3.3.1.3.2).
fn is_value(value: &[u8]) -> bool {
    let in_value = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    matches!(value, [.., last] if *last != b' ' && value.len() <= MAX_PART && value.iter().all(in_value))
}
