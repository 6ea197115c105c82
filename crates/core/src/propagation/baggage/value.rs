use std::borrow::Cow;
use std::fmt;

use http::header::HeaderValue;

use super::{BaggageError, Member, list, member};

/// Names and values that go with a request to every service it reaches.
///
/// It is kept as the text it came in, and goes on byte for byte while nobody changes it. Members are looked for when they are
/// read; values are decoded then, and encoded when they are set, so a value can never become a member. Cloning is one reference
/// count at most.
///
/// Never longer than 8,192 bytes nor more than 64 members (§3.3.2 asks for as much): of what comes in beyond that, whole members are
/// left out and [counted](Self::dropped_count). Every byte of it is printable ASCII or a tab.
///
/// Every service on the way can read it, and may be a stranger's: it is no place for secrets.
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
    /// Nothing but 0x20 to 0x7E and tabs, within the limits.
    text: HeaderValue,
    dropped: usize,
}

impl Baggage {
    /// The most bytes it has, with the commas.
    pub const MAX_BYTES: usize = 8_192;
    /// The most members it has.
    pub const MAX_MEMBERS: usize = 64;

    /// Without members.
    pub const EMPTY: Baggage = Baggage { text: HeaderValue::from_static(""), dropped: 0 };

    /// What header lines say, combined in their order as if joined by commas (RFC 9110 §5.3). It never fails: a member that is
    /// beyond the limits, or has a byte that is neither printable ASCII nor a tab, is left out; no other check is made.
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

    /// [`from_lines`](Self::from_lines), with as many iterators over them as it takes.
    pub(super) fn combined<'a, I: Iterator<Item = &'a [u8]>>(lines: impl Fn() -> I) -> Self {
        let (text, dropped) = list::combine(lines);
        Baggage { text: HeaderValue::try_from(text).expect("printable ASCII and tabs"), dropped }
    }

    /// Shares the bytes of a header where they can go on as they are.
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

    /// As it goes on the wire.
    pub fn as_str(&self) -> &str {
        self.text.to_str().expect("printable ASCII and tabs")
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// How many members did not come in: beyond the limits, or with a byte that no member may have. Also those that broke the grammar and
    /// were left out when another was set or removed.
    pub fn dropped_count(&self) -> usize {
        self.dropped
    }

    /// The value of `key`, decoded; of several, the last one's. What is not UTF-8 in it is U+FFFD (§3.3.1.3). `None` also where the
    /// member breaks the grammar.
    ///
    /// It may have any character, control characters too, once decoded.
    pub fn get(&self, key: &str) -> Option<Cow<'_, str>> {
        let mut members = self.text.as_bytes().rsplit(|byte| *byte == b',');
        members.find_map(|text| Member::named(text, key)).map(|member| member.value())
    }

    /// The members that keep to the grammar, in order.
    pub fn iter(&self) -> impl Iterator<Item = Member<'_>> {
        let (text, mut start) = (self.as_str(), 0);
        let next = move || {
            (start <= text.len()).then(|| {
                let (member, end) = Member::at(text, start);
                start = end + 1;
                member
            })
        };
        std::iter::from_fn(next).flatten()
    }

    /// The same with `key` set to `value`, as the last member and the only one of that key, without properties. Members that break the
    /// grammar are left out, and [counted](Self::dropped_count).
    ///
    /// # Errors
    /// `key` is not a token (RFC 9110 §5.6.2), or there is no room for the member.
    pub fn insert(&self, key: &str, value: &str) -> Result<Self, BaggageError> {
        self.insert_with(key, value, [])
    }

    /// [`insert`](Self::insert) with properties: keys with a value or without one.
    ///
    /// # Errors
    /// As of `insert`, also for the keys of properties.
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
        Ok(Baggage { text: HeaderValue::try_from(text).expect("encoded"), dropped: self.dropped + dropped })
    }

    /// The same without `key`; if it has one, also without the members that break the grammar, which are counted.
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

    /// The same, of at most `bytes` bytes and `members` members: byte for byte if it is within that, or else the members that are, in
    /// order, and the others counted. Limits beyond [`MAX_BYTES`](Self::MAX_BYTES) and [`MAX_MEMBERS`](Self::MAX_MEMBERS) are those.
    ///
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
        Baggage { text: HeaderValue::try_from(text).expect("checked"), dropped: self.dropped + dropped }
    }

    /// The members that keep to the grammar and have another key, as they came, and their number; and that of those that break it.
    fn without(&self, key: &str, room: usize) -> (String, usize, usize) {
        let mut text = String::with_capacity(self.text.len() + room);
        let (mut kept, mut broken) = (0, 0);
        for part in self.as_str().split(',').filter(|part| list::has_member(part.as_bytes())) {
            match Member::at(part, 0).0 {
                Some(member) if member.key() == key => {}
                Some(member) => {
                    let comma = if text.is_empty() { "" } else { "," };
                    text.extend([comma, member.as_str()]);
                    kept += 1;
                }
                None => broken += 1,
            }
        }
        (text, kept, broken)
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

/// The keys, not the values, which may be private.
impl fmt::Debug for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Baggage")?;
        f.debug_set().entries(self.iter().map(|member| member.key())).finish()
    }
}
