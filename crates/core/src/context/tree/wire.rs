//! Values that are sent to other processes.

use std::marker::PhantomData;
use std::ptr;

use super::meta::{Meta, Wire, WireKind};
use super::node::Ref;
use super::table::{Slot, Values, key_of, tag_of};
use crate::context::Key;

/// A value that is sent to other processes, or the "nothing" of its key.
///
/// It is encoded as text only on request.
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

    /// The encoded value; `None` if the key was set to "nothing".
    pub(crate) fn text(&self) -> Option<String> {
        // SAFETY: every slot in use has a tag. If the tag is the key, a value of the key's type
        // follows it, as in `Ref::value`, and `encode` takes that type.
        unsafe { ptr::eq(tag_of(self.slot), self.key).then(|| (self.wire.codec.encode)(self.slot)) }
    }

    /// Decodes `text` and encodes the result again.
    ///
    /// Two texts stand for the same value if this returns the same text for both.
    pub(crate) fn rewrite(&self, text: &str) -> Option<String> {
        let codec = self.wire.codec;
        // SAFETY: `of` has stored `rewrite` together with this codec.
        unsafe { (codec.rewrite)(codec, text) }
    }
}

impl Ref {
    /// The values in scope that are sent to other processes.
    ///
    /// If several keys are sent under the same name in the same way, only the key that was set last
    /// counts.
    pub(in crate::context) fn wire_values(&self) -> impl Iterator<Item = WireValue<'_>> {
        let values = &self.node().values;
        wire_entries(values).filter(move |value| {
            let is_alone = wire_entries(values).filter(|other| other.is_sent_as(value)).nth(1).is_none();
            is_alone || self.nearest(value).is_some_and(|key| ptr::eq(key, value.key))
        })
    }

    /// The key that was set last of those that are sent as `value` is.
    ///
    /// The tables do not record the order; the chain of nodes does.
    #[cold]
    fn nearest(&self, value: &WireValue<'_>) -> Option<&'static Meta> {
        // Above a spawn, the chain still has local keys that are no longer in the table.
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

/// The values in scope that are sent to other processes, one for each key.
fn wire_entries(values: &Values) -> impl Iterator<Item = WireValue<'_>> {
    let values = Some(values).filter(|values| values.has_wire);
    values.into_iter().flat_map(Values::entries).filter_map(|slot| {
        // SAFETY: every slot in use has a tag.
        let key = unsafe { key_of(slot) };
        Some(WireValue { key, wire: key.wire.as_ref()?, slot, scope: PhantomData })
    })
}

impl<T> Key<T> {
    /// Decodes `text`. Also `None` if values of this key stay in the process.
    pub(crate) fn decode(&self, text: &str) -> Option<T> {
        let wire = self.meta.wire.as_ref()?;
        // SAFETY: the codec in the `Meta` of a `Key<T>` was made for `T`.
        unsafe { wire.codec.decode(text) }
    }
}
