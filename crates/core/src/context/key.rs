//! Keys of typed values.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use super::tree::{ErasedCodec, Meta, Wire, WireKind};

/// Names a value of type `T` in a [`Context`](super::Context).
///
/// A key is a `static`, and its address is its identity: two keys are distinct even with the same
/// name and type. The name is for people: [`Debug`](fmt::Debug) of a context prints it.
///
/// By default a value crosses a [`spawn`](super::Context::spawn) and stays in the process. Values
/// of [`Key::baggage`](Key::baggage) and [`Key::header`](Key::header) are also sent with calls to
/// other services.
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
/// A `const` would be a different key at each use, so it does not compile:
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

impl<T> Key<T> {
    /// Makes a key whose values cross spawns and stay in the process.
    pub const fn new(name: &'static str) -> Self {
        Key { meta: Meta::new(name), of: PhantomData }
    }

    /// Makes a key whose values are sent to other services as text.
    pub(crate) const fn on_the_wire(name: &'static str, kind: WireKind, codec: Codec<T>) -> Self {
        let mut key = Key::new(name);
        key.meta.wire = Some(Wire { kind, codec: ErasedCodec::of(codec.encode, codec.decode) });
        key
    }

    /// Makes the values stay on the task: they do not cross a [`spawn`](super::Context::spawn).
    ///
    /// Use it for data of the task, not of the request.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use throughline_core::{Context, Key};
    ///
    /// static DEPTH: Key<u32> = Key::new("depth").local();
    ///
    /// let ctx = Context::background().with_value(&DEPTH, 1);
    /// let seen = ctx.spawn(async { Context::current().value(&DEPTH).copied() }).await;
    /// assert_eq!(ctx.value(&DEPTH), Some(&1));
    /// assert_eq!(seen.expect("the task did not panic"), Ok(None));
    /// # }
    /// ```
    #[must_use]
    pub const fn local(mut self) -> Self {
        self.meta.is_local = true;
        self
    }

    /// Returns the name that the key was made with.
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

/// Converts values of one type to text and back, for keys that are sent.
///
/// `decode` reads what `encode` writes as the same value. For any other text from a peer, `decode`
/// returns `None` or a value, and does not panic. `None` means the same to the receiver as a value
/// that was not sent.
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
    /// Makes a codec from two functions.
    pub const fn new(encode: fn(&T) -> String, decode: fn(&str) -> Option<T>) -> Self {
        Codec { encode, decode }
    }

    /// Makes a codec that writes with [`Display`](fmt::Display) and reads with [`FromStr`].
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
