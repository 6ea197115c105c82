//! What the tree knows of a key: everything but the type of its values.

use std::sync::atomic::AtomicBool;
use std::{mem, ptr};

/// The part of a key that does not depend on its type.
///
/// Its address is the address of the key.
pub(in crate::context) struct Meta {
    pub(in crate::context) name: &'static str,
    pub(in crate::context) is_local: bool,
    /// How its values are sent to other services, if they are.
    pub(in crate::context) wire: Option<Wire>,
    // Never written. It keeps `&KEY` of a `const` from being promoted to a `'static` reference.
    _not_promoted: AtomicBool,
}

impl Meta {
    /// For a key whose values cross spawns and stay in the process.
    pub(in crate::context) const fn new(name: &'static str) -> Meta {
        Meta { name, is_local: false, wire: None, _not_promoted: AtomicBool::new(false) }
    }
}

/// How the values of a key are sent to other services.
pub(in crate::context) struct Wire {
    pub(in crate::context) kind: WireKind,
    /// Encodes and decodes the type of the key.
    pub(in crate::context) codec: ErasedCodec,
}

/// How a value is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WireKind {
    /// As a member of the baggage.
    Baggage,
    /// As a header of its own.
    Header,
}

/// The codec of one key, without the type of the value.
#[derive(Clone, Copy)]
pub(in crate::context) struct ErasedCodec {
    pub(super) encode: unsafe fn(*const u8) -> String,
    /// A `fn(&str) -> Option<T>`.
    decode: unsafe fn(),
    pub(super) rewrite: unsafe fn(ErasedCodec, &str) -> Option<String>,
}

impl ErasedCodec {
    /// Only for the `Meta` of a `Key<T>`.
    pub(in crate::context) const fn of<T>(encode: fn(&T) -> String, decode: fn(&str) -> Option<T>) -> Self {
        // SAFETY: a reference and a pointer to a sized type are passed to functions in the same
        // way. The caller of `encode` guarantees that the pointer is to a `T`.
        let encode = unsafe { mem::transmute::<fn(&T) -> String, unsafe fn(*const u8) -> String>(encode) };
        // SAFETY: it is not called before `decode` has restored its type.
        let decode = unsafe { mem::transmute::<fn(&str) -> Option<T>, unsafe fn()>(decode) };
        ErasedCodec { encode, decode, rewrite: rewrite::<T> }
    }

    /// # Safety
    /// The codec was made for `T`.
    pub(super) unsafe fn decode<T>(self, text: &str) -> Option<T> {
        // SAFETY: `of` has erased this same type, guaranteed by the caller.
        let decode = unsafe { mem::transmute::<unsafe fn(), fn(&str) -> Option<T>>(self.decode) };
        decode(text)
    }
}

/// Decodes `text` and encodes the result again.
///
/// # Safety
/// `codec` was made for `T`.
unsafe fn rewrite<T>(codec: ErasedCodec, text: &str) -> Option<String> {
    // SAFETY: guaranteed by the caller.
    let value: T = unsafe { codec.decode(text) }?;
    // SAFETY: `value` is a `T`.
    Some(unsafe { (codec.encode)(ptr::from_ref(&value).cast()) })
}
