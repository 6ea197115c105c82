//! Values that leave the process.

use std::marker::PhantomData;
use std::ptr;

use super::node::Ref;
use super::value::{Slot, Values, key_of, tag_of};
use crate::context::key::{Meta, Place, Wire};

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

    pub(crate) fn place(&self) -> Place {
        self.wire.place
    }

    /// The value as its key writes it; `None` where the key has "nothing".
    pub(crate) fn text(&self) -> Option<String> {
        // SAFETY: what is in a table has a tag. Where that is the key, a value of the key's type is behind it, as in `Ref::value`, and
        // `encode` is of that type.
        unsafe { ptr::eq(tag_of(self.slot), self.key).then(|| (self.wire.encode.0)(self.slot)) }
    }
}

impl Ref {
    /// What leaves the process of all that is in scope.
    pub(in crate::context) fn wire_values(&self) -> impl Iterator<Item = WireValue<'_>> {
        let values = Some(&self.node().values).filter(|values| values.has_wire);
        values.into_iter().flat_map(Values::entries).filter_map(|slot| {
            // SAFETY: what is in a table has a tag.
            let key = unsafe { key_of(slot) };
            Some(WireValue { key, wire: key.wire.as_ref()?, slot, scope: PhantomData })
        })
    }
}

/// Writes the values of one key as text, whose type is known to the key alone.
#[derive(Clone, Copy)]
pub(in crate::context) struct Encode(unsafe fn(*const u8) -> String);

impl Encode {
    /// For the `Meta` of a `Key<T>`, and of no other.
    pub(in crate::context) const fn of<T>(encode: fn(&T) -> String) -> Self {
        // SAFETY: functions are called alike with a reference and with a pointer, whatever sized thing it points to. Who calls it
        // sees to the rest.
        Encode(unsafe { std::mem::transmute::<fn(&T) -> String, unsafe fn(*const u8) -> String>(encode) })
    }
}
