use std::borrow::Cow;
use std::fmt;

use super::limits::SpanLimits;
use super::value::Value;

/// The number of attributes that take no heap allocation.
const INLINE: usize = 8;
/// The greatest length of a key in bytes.
///
/// A longer one is taken for a mistake.
const MAX_KEY: usize = 1024;

type Attribute = (Cow<'static, str>, Value);

/// Keys with their values, in the order in which the keys were first set.
///
/// The last write of a key wins. The first 8 attributes are stored inline: a span with that many
/// static keys, and with scalar or static values, allocates nothing.
///
/// # Examples
/// ```
/// use throughline_core::trace::{Attributes, Value};
///
/// let mut attributes = Attributes::new();
/// attributes.set("http.route", "/cards/{id}");
/// attributes.set("http.response.status_code", 500);
/// attributes.set("http.response.status_code", 200);
/// assert_eq!(attributes.get("http.response.status_code"), Some(&Value::I64(200)));
/// assert_eq!(attributes.iter().count(), 2);
/// ```
#[derive(Clone, Default)]
pub struct Attributes {
    // `None` until the first write: an empty set then takes one store to make and one load to drop.
    inline: Option<[Option<Attribute>; INLINE]>,
    overflow: Vec<Attribute>,
    /// The number of attributes dropped for their keys.
    ///
    /// The span, event or link that takes the others counts them.
    rejected_keys: u32,
}

impl Attributes {
    /// Returns an empty set.
    #[inline]
    pub const fn new() -> Self {
        Self { inline: None, overflow: Vec::new(), rejected_keys: 0 }
    }

    /// Sets `key` to `value`.
    ///
    /// If the key is empty or longer than 1,024 bytes, the attribute is dropped and this returns
    /// `false`. The event, link or span that takes these attributes counts it in its
    /// `dropped_attributes_count`.
    pub fn set(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> bool {
        let is_set = self.put(key.into(), value.into(), u32::MAX);
        self.rejected_keys = self.rejected_keys.saturating_add(u32::from(!is_set));
        is_set
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.iter().find_map(|(name, value)| (name == key).then_some(value))
    }

    /// Returns the number of attributes.
    pub fn len(&self) -> usize {
        if self.overflow.is_empty() {
            self.inline.iter().flatten().flatten().count()
        } else {
            INLINE + self.overflow.len()
        }
    }

    /// Whether there is no attribute.
    pub fn is_empty(&self) -> bool {
        self.inline.is_none()
    }

    /// Returns the attributes, in the order in which their keys were first set.
    pub fn iter(&self) -> Iter<'_> {
        Iter { inline: self.inline.as_slice().as_flattened().iter(), overflow: self.overflow.iter() }
    }

    /// Keeps the attributes for which `keep` returns `true`. `keep` may change the values.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value) -> bool) {
        let all = std::mem::take(self);
        self.rejected_keys = all.rejected_keys;
        for (key, mut value) in all.into_pairs() {
            if keep(&key, &mut value) {
                self.put(key, value, u32::MAX);
            }
        }
    }

    /// Whether nothing was set and nothing was dropped.
    #[inline]
    pub(super) fn is_untouched(&self) -> bool {
        self.is_empty() && self.rejected_keys == 0
    }

    /// Does what `mem::take` does, without copying the inline space of an empty set.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Self {
        if self.is_empty() { Self::new() } else { std::mem::take(self) }
    }

    /// Does the same as [`set`](Self::set), within `limits`. It returns `false` if dropped.
    #[inline]
    pub(super) fn set_within(
        &mut self,
        key: Cow<'static, str>,
        mut value: Value,
        count: u32,
        limits: &SpanLimits,
    ) -> bool {
        value.truncate(limits.characters());
        self.put(key, value, count)
    }

    /// Applies `limits` to attributes that were set without them.
    ///
    /// Returns the number dropped, including those dropped for their keys.
    pub(super) fn shrink_to(&mut self, count: u32, limits: &SpanLimits) -> u32 {
        for value in self.inline.iter_mut().flatten().flatten().chain(&mut self.overflow).map(|(_, value)| value) {
            value.truncate(limits.characters());
        }
        let rejected_keys = std::mem::take(&mut self.rejected_keys);
        let excess = u32::try_from(self.len()).unwrap_or(u32::MAX).saturating_sub(count);
        if excess > 0 {
            let all = std::mem::take(self).into_pairs();
            for (key, value) in all.take(usize::try_from(count).unwrap_or(usize::MAX)) {
                self.put(key, value, count);
            }
        }
        excess.saturating_add(rejected_keys)
    }

    #[inline]
    fn put(&mut self, key: Cow<'static, str>, value: Value, count: u32) -> bool {
        if key.is_empty() || key.len() > MAX_KEY || count == 0 {
            return false;
        }
        let inline = self.inline.get_or_insert([const { None }; INLINE]);
        for (index, slot) in inline.iter_mut().enumerate() {
            match slot {
                Some((name, old)) if *name == key => {
                    *old = value;
                    return true;
                }
                Some(_) => {}
                None => {
                    let room = index < usize::try_from(count).unwrap_or(usize::MAX);
                    if room {
                        *slot = Some((key, value));
                    }
                    return room;
                }
            }
        }
        self.put_overflow(key, value, count)
    }

    #[cold]
    fn put_overflow(&mut self, key: Cow<'static, str>, value: Value, count: u32) -> bool {
        if let Some((_, old)) = self.overflow.iter_mut().find(|(name, _)| *name == key) {
            *old = value;
            return true;
        }
        let room = INLINE + self.overflow.len() < usize::try_from(count).unwrap_or(usize::MAX);
        if room {
            self.overflow.push((key, value));
        }
        room
    }

    fn into_pairs(self) -> impl Iterator<Item = Attribute> {
        self.inline.into_iter().flatten().flatten().chain(self.overflow)
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl PartialEq for Attributes {
    /// The same keys with the same values, in the same order.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<K: Into<Cow<'static, str>>, V: Into<Value>> FromIterator<(K, V)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut attributes = Self::new();
        attributes.extend(pairs);
        attributes
    }
}

impl<K: Into<Cow<'static, str>>, V: Into<Value>> Extend<(K, V)> for Attributes {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        for (key, value) in pairs {
            self.set(key, value);
        }
    }
}

impl<K: Into<Cow<'static, str>>, V: Into<Value>, const N: usize> From<[(K, V); N]> for Attributes {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<K: Into<Cow<'static, str>>, V: Into<Value>> From<Vec<(K, V)>> for Attributes {
    fn from(pairs: Vec<(K, V)>) -> Self {
        pairs.into_iter().collect()
    }
}

impl From<()> for Attributes {
    /// No attribute: `span.add_event("cache miss", ())`.
    fn from((): ()) -> Self {
        Self::new()
    }
}

impl<'a> IntoIterator for &'a Attributes {
    type Item = (&'a str, &'a Value);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The attributes of [`Attributes::iter`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    inline: std::slice::Iter<'a, Option<Attribute>>,
    overflow: std::slice::Iter<'a, Attribute>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a Value);

    fn next(&mut self) -> Option<Self::Item> {
        let inline = self.inline.next().and_then(Option::as_ref);
        inline.or_else(|| self.overflow.next()).map(|(key, value)| (key.as_ref(), value))
    }
}
