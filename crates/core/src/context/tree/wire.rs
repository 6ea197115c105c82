//! Values that leave the process.

use std::ptr;

use super::node::Ref;
use super::value::{Values, key_of, tag_of};
use crate::context::key::{Place, Wire};

impl Ref {
    /// What leaves the process of all that is in scope: name, place, and the value as text; `None` where a key has "nothing".
    pub(in crate::context) fn wire_values(&self) -> impl Iterator<Item = (&'static str, Place, Option<String>)> + '_ {
        let values = Some(&self.node().values).filter(|values| values.has_wire);
        values.into_iter().flat_map(Values::entries).filter_map(|slot| {
            // SAFETY: what is in a table has a tag.
            let (key, tag) = unsafe { (key_of(slot), tag_of(slot)) };
            let Wire { place, encode } = key.wire.as_ref()?;
            // SAFETY: as in `value`; `encode` is of the key's type.
            let text = ptr::eq(tag, key).then(|| unsafe { (encode.0)(slot) });
            Some((key.name, *place, text))
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
