//! Typed values that travel to other services.
//!
//! These are the values of wire keys ([`Key::baggage`], [`Key::header`]) and the
//! [`Principal`](crate::Principal).
//!
//! - A sender injects all wire values of its context
//!   ([`Propagator::inject`](crate::Propagator::inject)).
//! - A receiver extracts the keys that it lists ([`extract`]). It passes on other members of the
//!   baggage without decoding them.
//! - If two keys use the same name on the wire, the key that was changed last counts. If its value
//!   was removed last, no value is sent.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use http::header::{HeaderName, HeaderValue};

use super::baggage::BAGGAGE;
use super::baggage::grammar::is_token;
use super::field::parsed;
use super::principal;
use crate::context::WireKind;
use crate::{Baggage, Codec, Context, Extractor, Injector, Key};

/// The maximum length of a value in a header of its own.
///
/// A longer value is neither read nor sent.
const MAX_TEXT: usize = 8_192;

/// # Keys that cross the wire
impl<T: Display + FromStr> Key<T> {
    /// Creates a key whose values travel as the baggage member `name`.
    ///
    /// The values are written as [`Codec::text`]. Every service that a call reaches can read them.
    /// A receiver that does not list the key passes the member on.
    ///
    /// # Panics
    /// If `name` is not a token (RFC 9110 §5.6.2). In a `static`, this is a compile error.
    ///
    /// # Examples
    /// ```
    /// use http::HeaderMap;
    /// use throughline_core::propagation::values;
    /// use throughline_core::{Context, Key, Propagator};
    ///
    /// static TENANT: Key<u64> = Key::baggage("tenant");
    ///
    /// let mut headers = HeaderMap::new();
    /// let caller = Context::background().with_value(&TENANT, 7);
    /// Propagator::default().inject(&caller, &mut headers);
    /// assert_eq!(headers["baggage"], "tenant=7");
    ///
    /// let callee = Propagator::default().extract(&Context::background(), &headers);
    /// let callee = values::extract(&callee, &[&TENANT], &headers);
    /// assert_eq!(callee.value(&TENANT), Some(&7));
    /// ```
    /// ```compile_fail,E0080
    /// static TENANT: throughline_core::Key<u64> = throughline_core::Key::baggage("the tenant");
    /// ```
    pub const fn baggage(name: &'static str) -> Self {
        assert!(is_token(name.as_bytes()), "the name of a baggage member must be a token");
        Key::on_the_wire(name, WireKind::Baggage, Codec::text())
    }
}

/// # Keys that cross the wire
impl<T> Key<T> {
    /// Creates a key whose values travel with every call, in the header `name`.
    ///
    /// The values are written as text by `codec`. A value is not sent if its text would change in a
    /// header or is too long:
    /// - it is not printable ASCII,
    /// - it begins or ends with a blank, or
    /// - it is longer than 8,192 bytes.
    ///
    /// A receiver that does not list the key does not pass the header on.
    ///
    /// # Panics
    /// In a `static`, each of these is a compile error:
    /// - `name` is not a valid header name in lower case.
    /// - HTTP or this crate uses the header `name` itself.
    /// - `name` ends in `-bin`: gRPC encodes the values of such headers as base64.
    ///
    /// # Examples
    /// ```
    /// use http::HeaderMap;
    /// use throughline_core::propagation::values;
    /// use throughline_core::{Codec, Context, Key, Propagator};
    ///
    /// static SHARD: Key<u8> = Key::header("x-shard", Codec::text());
    ///
    /// let mut headers = HeaderMap::new();
    /// Propagator::default().inject(&Context::background().with_value(&SHARD, 3), &mut headers);
    /// assert_eq!(headers["x-shard"], "3");
    ///
    /// headers.insert("x-shard", "the third".parse()?);
    /// assert_eq!(values::extract(&Context::background(), &[&SHARD], &headers).value(&SHARD), None);
    /// # Ok::<(), http::header::InvalidHeaderValue>(())
    /// ```
    /// ```compile_fail,E0080
    /// use throughline_core::{Codec, Key};
    ///
    /// static LENGTH: Key<u64> = Key::header("content-length", Codec::text());
    /// ```
    pub const fn header(name: &'static str, codec: Codec<T>) -> Self {
        // Panics if `name` is not a valid header name.
        std::mem::forget(HeaderName::from_static(name));
        assert!(!is_reserved(name), "HTTP or this crate already uses this header");
        Key::on_the_wire(name, WireKind::Header, codec)
    }
}

/// A [`Key`] of any value type, for the list of keys that a receiver reads.
///
/// A key that is not a wire key is never read.
pub trait WireKey: sealed::Read {
    /// Returns the name of the baggage member, if the key travels in the baggage.
    fn member_name(&self) -> Option<&'static str>;

    /// Returns the name of the header, if the key has a header of its own.
    fn header_name(&self) -> Option<HeaderName>;
}

impl<T: Send + Sync + 'static> WireKey for Key<T> {
    fn member_name(&self) -> Option<&'static str> {
        (self.wire_kind() == Some(WireKind::Baggage)).then(|| self.name())
    }

    fn header_name(&self) -> Option<HeaderName> {
        (self.wire_kind() == Some(WireKind::Header)).then(|| HeaderName::from_static(self.name()))
    }
}

mod sealed {
    use crate::{Context, Key};

    pub trait Read: Sync {
        /// Decodes `text` and returns a child of `ctx` with the value.
        fn read(&'static self, ctx: &Context, text: &str) -> Option<Context>;
    }

    impl<T: Send + Sync + 'static> Read for Key<T> {
        fn read(&'static self, ctx: &Context, text: &str) -> Option<Context> {
            Some(ctx.with_value(self, self.decode(text)?))
        }
    }
}

/// Returns a child of `ctx` with the extracted values of `keys` and the principal.
///
/// Call it only for requests from an internal service. Extract the baggage first: values that
/// travel in the baggage are read from the baggage of `ctx`, not from the carrier.
///
/// These are dropped, and reported to the carrier:
/// - a value that cannot be decoded,
/// - a header that occurs twice, is longer than 8,192 bytes, or is not printable ASCII.
///
/// A baggage member that cannot be decoded is still passed on.
pub fn extract<E: Extractor + ?Sized>(ctx: &Context, keys: &[&'static dyn WireKey], carrier: &E) -> Context {
    let principal =
        parsed(carrier, &principal::HEADER, |line| Some(ctx.with_principal(principal::decode(text(line)?)?)));
    let mut child = principal.unwrap_or_else(|| ctx.clone());
    for key in keys {
        let next = match (key.member_name(), key.header_name()) {
            (Some(name), _) => ctx.baggage().get(name).and_then(|text| {
                let read = key.read(&child, &text);
                if read.is_none() {
                    carrier.record_dropped(&BAGGAGE, 1);
                }
                read
            }),
            (None, Some(name)) => parsed(carrier, &name, |line| key.read(&child, text(line)?)),
            (None, None) => None,
        };
        child = next.unwrap_or(child);
    }
    child
}

fn text(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok().filter(|text| fits_header(text))
}

/// Returns the names of the headers that the values of `ctx` travel in.
///
/// The client layer removes these headers from requests to external hosts. The server layer removes
/// them from requests of untrusted clients.
pub fn header_names(ctx: &Context) -> impl Iterator<Item = HeaderName> + '_ {
    let in_headers = ctx.wire_values().filter(|value| value.wire_kind() == WireKind::Header);
    in_headers.map(|value| HeaderName::from_static(value.name())).chain([principal::HEADER.clone()])
}

/// Returns the text that travels with `ctx` under `name`, decoded. It may have any character.
///
/// It is the first of:
/// 1. the value of a wire key in the baggage,
/// 2. the value of a wire key in a header,
/// 3. a member of the baggage.
///
/// # Examples
/// ```
/// use throughline_core::propagation::values;
/// use throughline_core::{Context, Key};
///
/// static TENANT: Key<u64> = Key::baggage("tenant");
///
/// let ctx = Context::background().with_value(&TENANT, 7);
/// assert_eq!(values::get(&ctx, "tenant").as_deref(), Some("7"));
/// assert_eq!(values::get(&ctx.without_value(&TENANT), "tenant"), None);
/// ```
pub fn get<'a>(ctx: &'a Context, name: &str) -> Option<Cow<'a, str>> {
    match ctx.wire_values().filter(|value| value.name() == name).min_by_key(|value| value.wire_kind()) {
        Some(value) => value.text().map(Cow::Owned),
        None => ctx.baggage().get(name),
    }
}

/// Injects the values that have headers of their own. Removes the headers of removed values.
pub(super) fn inject_headers<I: Injector + ?Sized>(ctx: &Context, carrier: &mut I) {
    for value in ctx.wire_values().filter(|value| value.wire_kind() == WireKind::Header) {
        let name = HeaderName::from_static(value.name());
        match value.text().filter(|text| fits_header(text)).and_then(|text| HeaderValue::try_from(text).ok()) {
            Some(value) => carrier.set(&name, value),
            None => carrier.remove(&name),
        }
    }
}

/// Returns the baggage of `ctx` with its wire values.
///
/// The bytes stay the same unless a value has changed since the baggage was set.
pub(super) fn baggage(ctx: &Context) -> Cow<'_, Baggage> {
    let mut baggage = Cow::Borrowed(ctx.baggage());
    for value in ctx.wire_values().filter(|value| value.wire_kind() == WireKind::Baggage) {
        let (name, text) = (value.name(), value.text());
        let is_untouched = match (baggage.get(name), &text) {
            // Another service may have written the same value as a different text (`007`).
            (Some(before), Some(text)) => before == *text || value.rewrite(&before).as_ref() == Some(text),
            (before, text) => before.is_none() && text.is_none(),
        };
        if is_untouched {
            continue;
        }
        // If the new value does not fit, remove the member: the old value would be wrong.
        let changed = text.and_then(|text| baggage.insert(name, &text).ok());
        baggage = Cow::Owned(changed.unwrap_or_else(|| baggage.remove(name)));
    }
    baggage
}

/// Whether a header carries a text unchanged.
///
/// Blanks around a value are not part of it (RFC 9110 §5.5).
fn fits_header(text: &str) -> bool {
    text.len() <= MAX_TEXT
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && !text.starts_with(' ')
        && !text.ends_with(' ')
}

/// Whether a key cannot use the header `name`.
///
/// This holds for headers of HTTP, for credentials, for headers that this crate writes, and for
/// headers whose values gRPC encodes as base64 (`-bin`).
const fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 34] = [
        "absolute-expiry-time",
        "authorization",
        "b3",
        "baggage",
        "connect-timeout-ms",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "creation-time",
        "expect",
        "grpc-timeout",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "request-timeout",
        "set-cookie",
        "te",
        "throughline-principal",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "uber-trace-id",
        "upgrade",
        "x-amzn-trace-id",
        "x-b3-flags",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-spanid",
        "x-b3-traceid",
        "x-envoy-expected-rq-timeout-ms",
    ];
    let mut at = 0;
    while at < RESERVED.len() {
        if is_same(RESERVED[at].as_bytes(), name.as_bytes()) {
            return true;
        }
        at += 1;
    }
    matches!(name.as_bytes(), [.., b'-', b'b', b'i', b'n'])
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}
