//! Keys of typed values.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::AtomicBool;

/// The key of a value of type `T` in a [`Context`](super::Context).
///
/// A key is a `static`, and its address is its identity: two keys are distinct, also with one name and one type. The name is for
/// people ([`Debug`](fmt::Debug) of a context prints it).
///
/// By default a value crosses a [`spawn`](super::Context::spawn) and stays in the process.
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
    meta: Meta,
    value: PhantomData<fn(T) -> T>,
}

/// What is known of a key without its type. Its address is the key's.
pub(super) struct Meta {
    pub(super) name: &'static str,
    pub(super) is_local: bool,
    // Nothing is ever written to it. It keeps `&KEY` of a `const` from being promoted to a `'static` one.
    _one_place: AtomicBool,
}

impl<T> Key<T> {
    /// A key for values that cross spawns and stay in the process.
    pub const fn new(name: &'static str) -> Self {
        Key { meta: Meta { name, is_local: false, _one_place: AtomicBool::new(false) }, value: PhantomData }
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
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.meta.name)
    }
}
