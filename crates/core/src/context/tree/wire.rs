//! Values that leave the process.

use std::marker::PhantomData;
use std::{mem, ptr};

use super::node::Ref;
use super::value::{Slot, Values, key_of, tag_of};
use crate::context::Key;
use crate::context::key::{Meta, Wire, WireKind};

/// A value that leaves the process, or the "nothing" of its key. It becomes text when that is asked for.
#[derive(Clone, Copy)]
pub(crate) struct WireValue<'a> {
    key: &'static Meta,
    wire: &'static Wire,
    /// In the table of a node that `'a` borrows.
    slot: Slot,
    scope: PhantomData<&'a Ref>,
}

impl WireValue<'_> {
    /// The name of the member or header.
    pub(crate) fn name(&self) -> &'static str {
        self.key.name
    }

    pub(crate) fn wire_kind(&self) -> WireKind {
        self.wire.kind
    }

    fn is_sent_as(&self, other: &WireValue<'_>) -> bool {
        self.wire_kind() == other.wire_kind() && self.name() == other.name()
    }

    /// The value as its key writes it; `None` where the key has "nothing".
    pub(crate) fn text(&self) -> Option<String> {
        // SAFETY: what is in a table has a tag. Where that is the key, a value of the key's type is behind it, as in `Ref::value`, and
        // `encode` is of that type.
        unsafe { ptr::eq(tag_of(self.slot), self.key).then(|| (self.wire.codec.encode)(self.slot)) }
    }

    /// What its key makes of `text`, once read and written again: two texts that come to the same stand for one value.
    pub(crate) fn rewrite(&self, text: &str) -> Option<String> {
        let codec = self.wire.codec;
        // SAFETY: `of` has put it beside that codec.
        unsafe { (codec.rewrite)(codec, text) }
    }
}

impl Ref {
    /// What leaves the process of all that is in scope. Of keys that have one name in one place, the one that was set last counts.
    pub(in crate::context) fn wire_values(&self) -> impl Iterator<Item = WireValue<'_>> {
        let values = &self.node().values;
        wire_entries(values).filter(move |value| {
            let is_alone = wire_entries(values).filter(|other| other.is_sent_as(value)).nth(1).is_none();
            is_alone || self.nearest(value).is_some_and(|key| ptr::eq(key, value.key))
        })
    }

    /// The key that was set last of those whose values are sent as `value` is. The tables don't say; the chain of nodes does.
    #[cold]
    fn nearest(&self, value: &WireValue<'_>) -> Option<&'static Meta> {
        // Local keys are in the chain beyond a spawn, and no longer in the table.
        let is_one =
            |key: &Meta| wire_entries(&self.node().values).any(|it| it.is_sent_as(value) && ptr::eq(it.key, key));
        let mut next = self;
        loop {
            if let Some(key) = next.key().filter(|key| is_one(key)) {
                return Some(key);
            }
            let parent = next.parent()?;
            next = match next.node().as_merge() {
                // The values of the first parent hide those of the second.
                Some(merge) if !wire_entries(&parent.node().values).any(|it| is_one(it.key)) => &merge.second,
                _ => parent,
            };
        }
    }
}

/// Those of the values in scope that leave the process, each key's.
fn wire_entries(values: &Values) -> impl Iterator<Item = WireValue<'_>> {
    let values = Some(values).filter(|values| values.has_wire);
    values.into_iter().flat_map(Values::entries).filter_map(|slot| {
        // SAFETY: what is in a table has a tag.
        let key = unsafe { key_of(slot) };
        Some(WireValue { key, wire: key.wire.as_ref()?, slot, scope: PhantomData })
    })
}

/// The codec of one key, whose type is known to the key alone.
#[derive(Clone, Copy)]
pub(in crate::context) struct ErasedCodec {
    encode: unsafe fn(*const u8) -> String,
    /// A `fn(&str) -> Option<T>`.
    decode: unsafe fn(),
    rewrite: unsafe fn(ErasedCodec, &str) -> Option<String>,
}

impl ErasedCodec {
    /// For the `Meta` of a `Key<T>`, and of no other.
    pub(in crate::context) const fn of<T>(encode: fn(&T) -> String, decode: fn(&str) -> Option<T>) -> Self {
        // SAFETY: functions are called alike with a reference and with a pointer, whatever sized thing it points to. Who calls it
        // sees to the rest.
        let encode = unsafe { mem::transmute::<fn(&T) -> String, unsafe fn(*const u8) -> String>(encode) };
        // SAFETY: it is not called before `decode` has given it its type back.
        let decode = unsafe { mem::transmute::<fn(&str) -> Option<T>, unsafe fn()>(decode) };
        ErasedCodec { encode, decode, rewrite: rewrite::<T> }
    }

    /// # Safety
    /// It is one of `T`.
    unsafe fn decode<T>(self, text: &str) -> Option<T> {
        // SAFETY: `of` has taken this type from it, says the caller.
        let decode = unsafe { mem::transmute::<unsafe fn(), fn(&str) -> Option<T>>(self.decode) };
        decode(text)
    }
}

impl<T> Key<T> {
    /// The value that `text` stands for; `None` also where values of the key stay in the process.
    pub(crate) fn decode(&self, text: &str) -> Option<T> {
        let wire = self.meta.wire.as_ref()?;
        // SAFETY: the codec of a `Key<T>`'s `Meta` is one of `T`.
        unsafe { wire.codec.decode(text) }
    }
}

/// What a codec writes of the value that it reads from `text`.
///
/// # Safety
/// `codec` is one of `T`.
unsafe fn rewrite<T>(codec: ErasedCodec, text: &str) -> Option<String> {
    // SAFETY: says the caller.
    let value: T = unsafe { codec.decode(text) }?;
    // SAFETY: `value` is a `T`.
    Some(unsafe { (codec.encode)(ptr::from_ref(&value).cast()) })
}
