//! Keys of typed values.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

use super::tree::ErasedCodec;

/// The key of a value of type `T` in a [`Context`](super::Context).
///
/// A key is a `static`, and its address is its identity: two keys are distinct, also with one name and one type. The name is for
/// people ([`Debug`](fmt::Debug) of a context prints it).
///
/// By default a value crosses a [`spawn`](super::Context::spawn) and stays in the process. [`Key::baggage`](Key::baggage) and
/// [`Key::header`](Key::header) declare keys whose values go with calls to other services, too.
///
/// # Examples
/// ```
/// use throughline_core::{Context, Key};
///
/// static TENANT: Key<String> = Key::new("tenant");
///
/// let ctx = Context::background().with_value(&TENANT, "acme".to_owned());
/// assert_eq!(ctx.value(&TENANT).map(String::as_str), Some("acme"));
/// ```
/// A `const` would be a different key at each use, so it does not compile as one:
/// ```compile_fail,E0716
/// use throughline_core::{Context, Key};
///
/// const TENANT: Key<String> = Key::new("tenant");
///
/// let ctx = Context::background().with_value(&TENANT, "acme".to_owned());
/// assert!(ctx.value(&TENANT).is_some());
/// ```
#[repr(C)]
pub struct Key<T> {
    pub(super) meta: Meta,
    of: PhantomData<fn(T) -> T>,
}

/// What is known of a key without its type. Its address is the key's.
pub(super) struct Meta {
    pub(super) name: &'static str,
    pub(super) is_local: bool,
    /// How its values leave the process, if they do.
    pub(super) wire: Option<Wire>,
    // Nothing is ever written to it. It keeps `&KEY` of a `const` from being promoted to a `'static` one.
    _not_promoted: AtomicBool,
}

/// How the values of a key leave the process.
pub(super) struct Wire {
    pub(super) kind: WireKind,
    /// Of the type that the key has.
    pub(super) codec: ErasedCodec,
}

/// Where a value is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WireKind {
    /// A member of the baggage.
    Baggage,
    /// A header of its own.
    Header,
}

impl<T> Key<T> {
    /// A key for values that cross spawns and stay in the process.
    pub const fn new(name: &'static str) -> Self {
        Key { meta: Meta { name, is_local: false, wire: None, _not_promoted: AtomicBool::new(false) }, of: PhantomData }
    }

    /// A key for values that leave the process as text.
    pub(crate) const fn on_the_wire(name: &'static str, kind: WireKind, codec: Codec<T>) -> Self {
        let mut key = Key::new(name);
        key.meta.wire = Some(Wire { kind, codec: ErasedCodec::of(codec.encode, codec.decode) });
        key
    }

    /// The same, for values that do not cross a [`spawn`](super::Context::spawn): what belongs to the task, not to the request.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use throughline_core::{Context, Key};
    ///
    /// static DEPTH: Key<u32> = Key::new("depth").local();
    ///
    /// let ctx = Context::background().with_value(&DEPTH, 1);
    /// let seen = ctx.spawn(async { Context::current().value(&DEPTH).copied() }).await;
    /// assert_eq!((ctx.value(&DEPTH), seen.expect("it did not panic")), (Some(&1), Ok(None)));
    /// # }
    /// ```
    #[must_use]
    pub const fn local(mut self) -> Self {
        self.meta.is_local = true;
        self
    }

    /// The name it was made with.
    pub const fn name(&self) -> &'static str {
        self.meta.name
    }

    #[inline]
    pub(super) fn meta(&'static self) -> &'static Meta {
        &self.meta
    }

    pub(crate) fn wire_kind(&self) -> Option<WireKind> {
        self.meta.wire.as_ref().map(|wire| wire.kind)
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.meta.name)
    }
}

/// How values of one type are written as text and read from it, for keys that cross the wire.
///
/// What `encode` writes `decode` reads as the same value. Whatever else a peer may have sent, `decode` answers `None` or a value, and
/// does not panic: to the receiver `None` is a value that was not sent.
///
/// # Examples
/// ```
/// use throughline_core::{Codec, Key};
///
/// #[derive(Debug, PartialEq)]
/// enum Channel { App, Web }
///
/// static CHANNEL: Key<Channel> = Key::header("x-channel", Codec::new(
///     |channel| match channel { Channel::App => "app", Channel::Web => "web" }.to_owned(),
///     |text| match text { "app" => Some(Channel::App), "web" => Some(Channel::Web), _ => None },
/// ));
/// assert_eq!(CHANNEL.name(), "x-channel");
/// ```
pub struct Codec<T> {
    encode: fn(&T) -> String,
    decode: fn(&str) -> Option<T>,
}

impl<T> Codec<T> {
    /// Of two functions.
    pub const fn new(encode: fn(&T) -> String, decode: fn(&str) -> Option<T>) -> Self {
        Codec { encode, decode }
    }

    /// What [`Display`](fmt::Display) writes and [`FromStr`] reads.
    pub const fn text() -> Self
    where
        T: fmt::Display + FromStr,
    {
        Codec { encode: |value| value.to_string(), decode: |text| text.parse().ok() }
    }
}

impl<T> fmt::Debug for Codec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Codec")
    }
}
