use std::borrow::Cow;
use std::fmt;

use http::header::HeaderValue;

use super::{BaggageError, Member, list, member};

/// Names and values that travel with a request to every service it reaches.
///
/// # Representation
/// - The text is stored as received, and sent byte for byte until it is changed.
/// - Members are found and decoded when they are read.
/// - Values are encoded when they are set, so a value can never become a second member.
/// - A clone costs at most one reference count.
///
/// # Limits
/// Baggage has at most 8,192 bytes and 64 members (§3.3.2 requires at least these). Members beyond
/// the limits are dropped as a whole and [counted](Self::dropped_count). Every byte is printable
/// ASCII or a tab.
///
/// # Security
/// Every service on the way can read the baggage, including services of other parties. Do not put
/// secrets into it.
///
/// # Examples
/// ```
/// use throughline_core::Baggage;
///
/// let received = Baggage::from_lines([b"tenant=acme;ttl=60, note=a%20b".as_slice()]);
/// assert_eq!(received.get("note").as_deref(), Some("a b"));
///
/// let sent = received.insert("tenant", "bob,role=admin")?;
/// assert_eq!(sent.as_str(), "note=a%20b,tenant=bob%2Crole=admin");
/// assert_eq!(sent.get("role"), None);
/// # Ok::<(), throughline_core::propagation::baggage::BaggageError>(())
/// ```
#[derive(Clone)]
pub struct Baggage {
    /// Only bytes from 0x20 to 0x7E and tabs, within the limits.
    text: HeaderValue,
    dropped: usize,
}

impl Baggage {
    /// The maximum number of bytes, including commas.
    pub const MAX_BYTES: usize = list::MAX_BYTES;
    /// The maximum number of members.
    pub const MAX_MEMBERS: usize = list::MAX_MEMBERS;

    /// Baggage without members.
    pub const EMPTY: Baggage = Baggage { text: HeaderValue::from_static(""), dropped: 0 };

    /// Combines header lines in order, as if joined by commas (RFC 9110 §5.3).
    ///
    /// This never fails. A member is dropped if it is beyond the limits, or has a byte that is
    /// neither printable ASCII nor a tab. There are no other checks.
    ///
    /// # Examples
    /// ```
    /// use throughline_core::Baggage;
    ///
    /// let baggage = Baggage::from_lines([b"a=1".as_slice(), b"b=2,c=\x00"]);
    /// assert_eq!((baggage.as_str(), baggage.dropped_count()), ("a=1,b=2", 1));
    /// ```
    pub fn from_lines<'a>(lines: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>) -> Self {
        let lines = lines.into_iter();
        Self::combined(|| lines.clone())
    }

    /// Like [`from_lines`](Self::from_lines). `lines` returns a new iterator for each pass.
    pub(super) fn combined<'a, I: Iterator<Item = &'a [u8]>>(lines: impl Fn() -> I) -> Self {
        let (text, dropped) = list::combine(lines);
        Baggage { text: HeaderValue::try_from(text).expect("printable ASCII and tabs"), dropped }
    }

    /// Like [`from_lines`](Self::from_lines), but shares the bytes of the header if all are kept.
    pub(super) fn from_header(line: &HeaderValue) -> Self {
        match list::scan(line.as_bytes()) {
            Some(members) if list::fits(line.len(), members) && list::has_member(line.as_bytes()) => {
                Baggage { text: line.clone(), dropped: 0 }
            }
            _ => Baggage::from_lines([line.as_bytes()]),
        }
    }

    pub(super) fn header(&self) -> &HeaderValue {
        &self.text
    }

    /// Returns the text of the header.
    pub fn as_str(&self) -> &str {
        self.text.to_str().expect("printable ASCII and tabs")
    }

    /// Returns whether there is nothing to send.
    ///
    /// A received member that breaks the grammar is still sent. So baggage that is not empty may
    /// have a [`len`](Self::len) of zero.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns the number of valid members. It parses the text.
    ///
    /// ```
    /// use throughline_core::Baggage;
    ///
    /// let baggage = Baggage::from_lines([b"a=1,no value,b=2".as_slice()]);
    /// assert_eq!((baggage.len(), baggage.is_empty()), (2, false));
    /// assert_eq!((Baggage::EMPTY.len(), Baggage::EMPTY.is_empty()), (0, true));
    /// ```
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Returns the number of dropped members.
    ///
    /// A received member is dropped if it is beyond the limits or has an invalid byte. A member
    /// that breaks the grammar is dropped when another member is set or removed.
    pub fn dropped_count(&self) -> usize {
        self.dropped
    }

    /// Returns the value of `key`, decoded.
    ///
    /// If there are several members with this key, the last one counts. Invalid UTF-8 becomes
    /// U+FFFD (§3.3.1.3). A member that breaks the grammar counts as absent.
    ///
    /// The decoded value may contain any character, including control characters.
    pub fn get(&self, key: &str) -> Option<Cow<'_, str>> {
        let mut members = self.text.as_bytes().rsplit(|byte| *byte == b',');
        members.find_map(|text| Member::with_key(text, key)).map(|member| member.value())
    }

    /// Returns the valid members, in order.
    pub fn iter(&self) -> impl Iterator<Item = Member<'_>> {
        let (text, mut start) = (self.as_str(), 0);
        let next = move || {
            (start <= text.len()).then(|| {
                let (member, end) = Member::parse_at(text, start);
                start = end + 1;
                member
            })
        };
        std::iter::from_fn(next).flatten()
    }

    /// Returns a copy with `key` set to `value`.
    ///
    /// The new member is the last one, and has no properties. Other members with the same key are
    /// removed. Members that break the grammar are dropped and [counted](Self::dropped_count).
    ///
    /// # Errors
    /// - `key` is not a token (RFC 9110 §5.6.2).
    /// - The new baggage would exceed the limits.
    pub fn insert(&self, key: &str, value: &str) -> Result<Self, BaggageError> {
        self.insert_with(key, value, [])
    }

    /// Like [`insert`](Self::insert), with properties: keys with or without a value.
    ///
    /// # Errors
    /// The same as for `insert`. The keys of properties must be tokens too.
    ///
    /// # Examples
    /// ```
    /// use throughline_core::Baggage;
    ///
    /// let baggage = Baggage::EMPTY.insert_with("tenant", "acme", [("ttl", Some("60")), ("internal", None)])?;
    /// assert_eq!(baggage.as_str(), "tenant=acme;ttl=60;internal");
    /// # Ok::<(), throughline_core::propagation::baggage::BaggageError>(())
    /// ```
    pub fn insert_with<'a>(
        &self,
        key: &str,
        value: &str,
        properties: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Self, BaggageError> {
        let member = member::encode(key, value, properties)?;
        let (mut text, others, dropped) = self.without(key, member.len() + 1);
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&member);
        if !list::fits(text.len(), others + 1) {
            return Err(BaggageError::FULL);
        }
        Ok(Baggage { text: HeaderValue::try_from(text).expect("encoded as ASCII"), dropped: self.dropped + dropped })
    }

    /// Returns a copy without `key`.
    ///
    /// If there is a member with this key, members that break the grammar are dropped too, and
    /// [counted](Self::dropped_count).
    #[must_use]
    pub fn remove(&self, key: &str) -> Self {
        if !self.iter().any(|member| member.key() == key) {
            return self.clone();
        }
        let (text, _, dropped) = self.without(key, 0);
        Baggage {
            text: HeaderValue::try_from(text).expect("printable ASCII and tabs"),
            dropped: self.dropped + dropped,
        }
    }

    /// Returns a copy with at most `bytes` bytes and `members` members.
    ///
    /// If the baggage is within these limits, the copy has the same bytes. Otherwise members that
    /// do not fit are dropped and [counted](Self::dropped_count); the others keep their order.
    /// [`MAX_BYTES`](Self::MAX_BYTES) and [`MAX_MEMBERS`](Self::MAX_MEMBERS) apply in any case.
    ///
    /// # Examples
    /// ```
    /// use throughline_core::Baggage;
    ///
    /// let baggage = Baggage::from_lines([b"a=1,much=9999999,b=2".as_slice()]).truncated(8, 64);
    /// assert_eq!((baggage.as_str(), baggage.dropped_count()), ("a=1,b=2", 1));
    /// ```
    #[must_use]
    pub fn truncated(&self, bytes: usize, members: usize) -> Self {
        if list::scan(self.text.as_bytes()).is_some_and(|count| count <= members) && self.text.len() <= bytes {
            return self.clone();
        }
        let (text, dropped) = list::keep([self.text.as_bytes()].into_iter(), bytes, members);
        Baggage {
            text: HeaderValue::try_from(text).expect("printable ASCII and tabs"),
            dropped: self.dropped + dropped,
        }
    }

    /// Returns the other valid members as text, their number, and that of invalid members.
    ///
    /// "Other" members have another key than `key`. The text has capacity for `additional` more
    /// bytes.
    fn without(&self, key: &str, additional: usize) -> (String, usize, usize) {
        let mut text = String::with_capacity(self.text.len() + additional);
        let (mut kept, mut invalid) = (0, 0);
        for part in self.as_str().split(',').filter(|part| list::has_member(part.as_bytes())) {
            match Member::parse_at(part, 0).0 {
                Some(member) if member.key() == key => {}
                Some(member) => {
                    let comma = if text.is_empty() { "" } else { "," };
                    text.extend([comma, member.as_str()]);
                    kept += 1;
                }
                None => invalid += 1,
            }
        }
        (text, kept, invalid)
    }
}

/// Collects keys and values. The last value of a key counts.
///
/// A pair that [`insert`](Baggage::insert) would reject is dropped and
/// [counted](Baggage::dropped_count).
///
/// ```
/// use throughline_core::Baggage;
///
/// let baggage: Baggage = [("tenant", "acme"), ("region", "eu"), ("no token", "x")].into_iter().collect();
/// assert_eq!((baggage.as_str(), baggage.dropped_count()), ("tenant=acme,region=eu", 1));
/// ```
impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Baggage {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut baggage = Baggage::EMPTY;
        for (key, value) in pairs {
            match baggage.insert(key.as_ref(), value.as_ref()) {
                Ok(longer) => baggage = longer,
                Err(_) => baggage.dropped += 1,
            }
        }
        baggage
    }
}

impl Default for Baggage {
    fn default() -> Self {
        Baggage::EMPTY
    }
}

impl PartialEq for Baggage {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Baggage {}

/// Shows the keys. Omits the values, which may be private.
impl fmt::Debug for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Baggage")?;
        f.debug_set().entries(self.iter().map(|member| member.key())).finish()
    }
}
