//! Typed values that go to other services: those of keys that are declared for the wire, and the [`Principal`](crate::Principal).
//!
//! A sender writes all that its context has ([`Propagator::inject`](crate::Propagator::inject)). A receiver reads the keys it lists
//! ([`extract`]); other members of the baggage are passed on undecoded.
//!
//! Of two keys that travel under one name, the one whose value was set last is sent, or its "nothing".

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

/// The longest text of a value in a header of its own; a longer one is neither read nor sent.
const MAX_TEXT: usize = 8_192;

/// # Keys that cross the wire
impl<T: Display + FromStr> Key<T> {
    /// A key whose values go with every call as the member `name` of the baggage, in the text of [`Codec::text`].
    ///
    /// Every service that a call reaches can read it. A receiver that does not list the key passes the member on.
    ///
    /// # Panics
    /// When `name` is not a token (RFC 9110 §5.6.2): in a `static`, it does not compile.
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
        assert!(is_token(name.as_bytes()), "the name of a member is a token");
        Key::on_the_wire(name, WireKind::Baggage, Codec::text())
    }
}

/// # Keys that cross the wire
impl<T> Key<T> {
    /// A key whose values go with every call in the header `name`, in the text of `codec`.
    ///
    /// A text that is not printable ASCII, has a blank at either end or is longer than 8,192 bytes does not arrive in a header as it is: such
    /// a value is not sent. A receiver that does not list the key does not pass the header on.
    ///
    /// # Panics
    /// When `name` is not a header's name in lower case, is one that HTTP or this crate uses for itself, or ends in `-bin`, as those whose
    /// values gRPC takes for base64: in a `static`, it does not compile.
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
        // It panics for what is no header's name.
        std::mem::forget(HeaderName::from_static(name));
        assert!(!is_reserved(name), "the header has a meaning already");
        Key::on_the_wire(name, WireKind::Header, codec)
    }
}

/// A [`Key`] whatever its type: for the lists of those that a receiver reads. One that is not declared for the wire is never read.
pub trait WireKey: sealed::Read {
    /// The member of the baggage that it travels as, if it does.
    fn member_name(&self) -> Option<&'static str>;

    /// The header that it travels in, if it does.
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
        /// `ctx` with the value that `text` stands for.
        fn read(&'static self, ctx: &Context, text: &str) -> Option<Context>;
    }

    impl<T: Send + Sync + 'static> Read for Key<T> {
        fn read(&'static self, ctx: &Context, text: &str) -> Option<Context> {
            Some(ctx.with_value(self, self.decode(text)?))
        }
    }
}

/// A context below `ctx` with what a carrier from a service of ours has of `keys`, and the principal. What travels in the baggage is
/// read from that of `ctx`, so it is extracted before.
///
/// What can't be decoded is absent, as is a header that comes twice, is longer than 8,192 bytes or is not printable ASCII. The carrier is
/// told. A member that can't be decoded is still passed on.
pub fn extract<E: Extractor + ?Sized>(ctx: &Context, keys: &[&'static dyn WireKey], carrier: &E) -> Context {
    let principal =
        parsed(carrier, &principal::HEADER, |line| Some(ctx.with_principal(principal::decode(text(line)?)?)));
    let mut below = principal.unwrap_or_else(|| ctx.clone());
    for key in keys {
        let next = match (key.member_name(), key.header_name()) {
            (Some(name), _) => ctx.baggage().get(name).and_then(|text| {
                let read = key.read(&below, &text);
                if read.is_none() {
                    carrier.record_dropped(&BAGGAGE, 1);
                }
                read
            }),
            (None, Some(name)) => parsed(carrier, &name, |line| key.read(&below, text(line)?)),
            (None, None) => None,
        };
        below = next.unwrap_or(below);
    }
    below
}

fn text(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok().filter(|text| fits_header(text))
}

/// The headers that values of `ctx` travel in: what is not for strangers.
pub fn header_names(ctx: &Context) -> impl Iterator<Item = HeaderName> + '_ {
    let in_headers = ctx.wire_values().filter(|value| value.wire_kind() == WireKind::Header);
    in_headers.map(|value| HeaderName::from_static(value.name())).chain([principal::HEADER.clone()])
}

/// The text of what goes with `ctx` under `name`: the value of a key that is declared for the wire, one for the baggage before one for a
/// header, or else a member of the baggage, decoded. It may have any character.
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

/// Writes the values that have headers of their own, and removes those headers that the context has "nothing" for.
pub(super) fn inject_headers<I: Injector + ?Sized>(ctx: &Context, carrier: &mut I) {
    for value in ctx.wire_values().filter(|value| value.wire_kind() == WireKind::Header) {
        let name = HeaderName::from_static(value.name());
        match value.text().filter(|text| fits_header(text)).and_then(|text| HeaderValue::try_from(text).ok()) {
            Some(value) => carrier.set(&name, value),
            None => carrier.remove(&name),
        }
    }
}

/// The baggage of `ctx` with the values that travel in it: the same bytes, unless one was set since to another value.
pub(super) fn baggage(ctx: &Context) -> Cow<'_, Baggage> {
    let mut baggage = Cow::Borrowed(ctx.baggage());
    for value in ctx.wire_values().filter(|value| value.wire_kind() == WireKind::Baggage) {
        let (name, text) = (value.name(), value.text());
        let is_untouched = match (baggage.get(name), &text) {
            // Others may write the same value in another way (`007`).
            (Some(before), Some(text)) => before == *text || value.rewrite(&before).as_ref() == Some(text),
            (before, text) => before.is_none() && text.is_none(),
        };
        if is_untouched {
            continue;
        }
        // Where there is no room for what it is now, it is not what it was before.
        let changed = text.and_then(|text| baggage.insert(name, &text).ok());
        baggage = Cow::Owned(changed.unwrap_or_else(|| baggage.remove(name)));
    }
    baggage
}

/// Whether a text comes out of a header as it went in: blanks around a value are no part of it (RFC 9110 §5.5).
fn fits_header(text: &str) -> bool {
    text.len() <= MAX_TEXT
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && !text.starts_with(' ')
        && !text.ends_with(' ')
}

/// Whether a header is HTTP's, a credential's, or one that this crate writes, or one whose values gRPC takes for base64 (`-bin`).
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
