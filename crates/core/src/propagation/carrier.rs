//! What carries names and values between processes.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// What names and values are written to: the headers of a request, of a message, the environment of a child process.
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
    /// Writes `value` in place of all that `name` had, in whatever case. Carriers of text leave out a value that is not printable ASCII;
    /// propagators have none such.
    fn set(&mut self, name: &HeaderName, value: HeaderValue);

    /// Removes all that `name` has.
    fn remove(&mut self, name: &HeaderName);
}

/// What names and values are read from. Names are compared without regard to case, values may be any bytes.
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
    /// The values of `name`, in order; a map whose names have a case, and no order, gives them as it has them.
    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]>;

    /// The first value of `name` as a header value, if that is what the carrier holds: it is then shared instead of copied.
    fn header_value(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let _ = name;
        None
    }

    /// Told that `count` parts of what `name` has (header lines, members of a list) are malformed or beyond a limit, and so absent.
    /// Deadlines are told as `grpc-timeout`, whatever their header. Nothing is done by default; [`Counted`](crate::propagation::Counted) counts.
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

/// Of text (`V = String`) or of bytes (`V = Vec<u8>`, `Bytes`).
impl<V: From<String>, S: BuildHasher> Injector for HashMap<String, V, S> {
    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        Injector::remove(self, name);
        self.extend(text(value).map(|value| (name.as_str().to_owned(), value.into())));
    }

    fn remove(&mut self, name: &HeaderName) {
        self.retain(|key, _| !is(key, name));
    }
}

/// Of text (`V = String`) or of bytes (`V = Vec<u8>`, `Bytes`).
impl<V: AsRef<[u8]>, S> Extractor for HashMap<String, V, S> {
    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(|(key, _)| is(key, name)).map(|(_, value)| value.as_ref())
    }
}

/// Of text (`V = String`) or of bytes (`V = Vec<u8>`, `Bytes`).
impl<V: From<String>> Injector for BTreeMap<String, V> {
    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        Injector::remove(self, name);
        self.extend(text(value).map(|value| (name.as_str().to_owned(), value.into())));
    }

    fn remove(&mut self, name: &HeaderName) {
        self.retain(|key, _| !is(key, name));
    }
}

/// Of text (`V = String`) or of bytes (`V = Vec<u8>`, `Bytes`).
impl<V: AsRef<[u8]>> Extractor for BTreeMap<String, V> {
    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(|(key, _)| is(key, name)).map(|(_, value)| value.as_ref())
    }
}

/// As message brokers have them: in order, and a name may come twice. Of text or of bytes (`V = Vec<u8>`, `Bytes`).
impl<V: From<String>> Injector for Vec<(String, V)> {
    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        Injector::remove(self, name);
        self.extend(text(value).map(|value| (name.as_str().to_owned(), value.into())));
    }

    fn remove(&mut self, name: &HeaderName) {
        self.retain(|(key, _)| !is(key, name));
    }
}

/// As message brokers have them: in order, and a name may come twice. Of text or of bytes (`V = Vec<u8>`, `Bytes`).
impl<V: AsRef<[u8]>> Extractor for Vec<(String, V)> {
    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(|(key, _)| is(key, name)).map(|(_, value)| value.as_ref())
    }
}

fn is(key: &str, name: &HeaderName) -> bool {
    key.eq_ignore_ascii_case(name.as_str())
}

pub(super) fn text(value: HeaderValue) -> Option<String> {
    value.to_str().ok().map(str::to_owned)
}
