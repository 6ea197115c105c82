//! Carriers: the traits [`Injector`] and [`Extractor`], and their implementations for maps.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// A carrier to write names and values to.
///
/// Examples: the headers of a request, the headers of a message, the environment of a child
/// process.
///
/// # Examples
/// ```
/// use std::collections::HashMap;
/// use throughline_core::Baggage;
/// use throughline_core::propagation::baggage;
///
/// let mut message: HashMap<String, String> = HashMap::new();
/// baggage::inject(&Baggage::EMPTY.insert("tenant", "acme")?, &mut message);
/// assert_eq!(message["baggage"], "tenant=acme");
/// # Ok::<(), baggage::BaggageError>(())
/// ```
pub trait Injector {
    /// Sets `name` to `value` and removes every other value of `name`.
    ///
    /// Names are compared without regard to case. A carrier of text removes `name` if `value` is
    /// not printable ASCII. Propagators write printable ASCII only.
    fn set(&mut self, name: &HeaderName, value: HeaderValue);

    /// Removes all values of `name`.
    fn remove(&mut self, name: &HeaderName);
}

/// A carrier to read names and values from.
///
/// Names are compared without regard to case. Values may be any bytes.
///
/// # Examples
/// ```
/// use throughline_core::propagation::w3c;
///
/// let line = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_vec();
/// let message: Vec<(String, Vec<u8>)> = vec![("Traceparent".into(), line)];
/// assert!(w3c::extract(&message).is_some());
/// ```
pub trait Extractor {
    /// Returns the values of `name`, in order.
    ///
    /// A map with case-sensitive names may hold several spellings of `name`. It returns their
    /// values in its own iteration order.
    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]>;

    /// Returns the first value of `name`, if the carrier stores header values.
    ///
    /// The caller can then share the value instead of copying its bytes. Default: `None`.
    fn header_value(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let _ = name;
        None
    }

    /// Called when `count` parts of `name` were dropped: malformed, or beyond a limit.
    ///
    /// A part is a header line or a member of a list. Deadlines are reported as `grpc-timeout`,
    /// whatever their header. Default: does nothing. [`Counted`](crate::propagation::Counted)
    /// counts the calls.
    fn record_dropped(&self, name: &HeaderName, count: usize) {
        let _ = (name, count);
    }
}

impl Injector for HeaderMap {
    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.insert(name, value);
    }

    fn remove(&mut self, name: &HeaderName) {
        HeaderMap::remove(self, name);
    }
}

impl Extractor for HeaderMap {
    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        HeaderMap::get_all(self, name).iter().map(HeaderValue::as_bytes)
    }

    fn header_value(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.get(name)
    }
}

/// Values are text (`V = String`) or bytes (`V = Vec<u8>`, `Bytes`).
impl<V: From<String>, S: BuildHasher> Injector for HashMap<String, V, S> {
    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        Injector::remove(self, name);
        self.extend(text(value).map(|value| (name.as_str().to_owned(), value.into())));
    }

    fn remove(&mut self, name: &HeaderName) {
        self.retain(|key, _| !is_same_name(key, name));
    }
}

/// Values are text (`V = String`) or bytes (`V = Vec<u8>`, `Bytes`).
impl<V: AsRef<[u8]>, S> Extractor for HashMap<String, V, S> {
    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(|(key, _)| is_same_name(key, name)).map(|(_, value)| value.as_ref())
    }
}

/// Values are text (`V = String`) or bytes (`V = Vec<u8>`, `Bytes`).
impl<V: From<String>> Injector for BTreeMap<String, V> {
    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        Injector::remove(self, name);
        self.extend(text(value).map(|value| (name.as_str().to_owned(), value.into())));
    }

    fn remove(&mut self, name: &HeaderName) {
        self.retain(|key, _| !is_same_name(key, name));
    }
}

/// Values are text (`V = String`) or bytes (`V = Vec<u8>`, `Bytes`).
impl<V: AsRef<[u8]>> Extractor for BTreeMap<String, V> {
    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(|(key, _)| is_same_name(key, name)).map(|(_, value)| value.as_ref())
    }
}

/// The form that message brokers use.
///
/// Names are in order, and a name may occur twice.
///
/// Values are text (`V = String`) or bytes (`V = Vec<u8>`, `Bytes`).
impl<V: From<String>> Injector for Vec<(String, V)> {
    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        Injector::remove(self, name);
        self.extend(text(value).map(|value| (name.as_str().to_owned(), value.into())));
    }

    fn remove(&mut self, name: &HeaderName) {
        self.retain(|(key, _)| !is_same_name(key, name));
    }
}

/// The form that message brokers use.
///
/// Names are in order, and a name may occur twice.
///
/// Values are text (`V = String`) or bytes (`V = Vec<u8>`, `Bytes`).
impl<V: AsRef<[u8]>> Extractor for Vec<(String, V)> {
    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(|(key, _)| is_same_name(key, name)).map(|(_, value)| value.as_ref())
    }
}

fn is_same_name(key: &str, name: &HeaderName) -> bool {
    key.eq_ignore_ascii_case(name.as_str())
}

/// Returns `value` as text, or `None` if it is not printable ASCII.
pub(super) fn text(value: HeaderValue) -> Option<String> {
    value.to_str().ok().map(str::to_owned)
}
