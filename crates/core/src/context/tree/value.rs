//! Values: every node knows all that are in scope, through a small table that is copied from its parent's and so never walked to.

use std::alloc::{self, Layout};
use std::ptr::{self, NonNull};

use super::node::{Kind, Node, Ref};
use crate::context::Key;
use crate::context::key::{Meta, Place, Wire};

/// The values in scope at a node: an open-addressed table of at least twice as many slots, so there is always an empty one.
#[derive(Clone, Copy)]
pub(super) struct Values {
    slots: *const Slot,
    /// The number of slots, a power of two, less one.
    mask: u32,
    len: u32,
    has_local: bool,
    has_wire: bool,
}

#[derive(Clone, Copy)]
struct Slot {
    /// `None`: empty.
    key: Option<&'static Meta>,
    /// Null: the key has "nothing" here.
    value: *const u8,
}

struct EmptyTable([Slot; 1]);

// SAFETY: nothing is ever behind its null pointer.
unsafe impl Sync for EmptyTable {}

static EMPTY: EmptyTable = EmptyTable([Slot { key: None, value: ptr::null() }]);

/// A node, with its slots behind it, and its value behind them, in one block.
#[repr(C)]
struct ValueNode {
    node: Node,
    layout: Layout,
    value: *mut u8,
    drop: Option<unsafe fn(*mut u8)>,
}

impl Values {
    pub(super) const NONE: Values =
        Values { slots: EMPTY.0.as_ptr(), mask: 0, len: 0, has_local: false, has_wire: false };

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn slots(&self) -> &[Slot] {
        // SAFETY: made by `make`, or `NONE`; the table's node is an ancestor of whoever has this (invariant 2).
        unsafe { std::slice::from_raw_parts(self.slots, self.mask as usize + 1) }
    }

    /// Where `key` is, or the empty slot where it would be.
    #[inline]
    fn find(slots: &[Slot], key: &'static Meta) -> usize {
        let mask = slots.len() - 1;
        let mut index = hash(key) & mask;
        while slots[index].key.is_some_and(|other| !ptr::eq(other, key)) {
            index = (index + 1) & mask;
        }
        index
    }

    /// Notes what sort of key has come in.
    #[inline]
    fn note(&mut self, key: &Meta) {
        self.has_local |= key.is_local;
        self.has_wire |= key.wire.is_some();
    }

    fn entries(&self) -> impl Iterator<Item = (&'static Meta, *const u8)> {
        self.slots().iter().filter_map(|slot| Some((slot.key?, slot.value)))
    }
}

#[inline]
fn hash(key: &'static Meta) -> usize {
    // Statics of one crate lie side by side; a multiplication spreads them.
    ((ptr::from_ref(key).addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize
}

impl Ref {
    #[inline]
    pub(in crate::context) fn value<T: 'static>(&self, key: &'static Key<T>) -> Option<&T> {
        let values = &self.node().values;
        let slot = values.slots()[Values::find(values.slots(), key.meta())];
        // SAFETY: a value under this key was put there by `with_value` with this very key, so it is a `T`; it lies in an ancestor's
        // block or this node's.
        slot.key.and_then(|_| unsafe { slot.value.cast::<T>().as_ref() })
    }

    /// A child with `value` under `key`.
    #[inline]
    pub(in crate::context) fn with_value<T: Send + Sync + 'static>(
        parent: Option<&Ref>,
        key: &'static Key<T>,
        value: T,
    ) -> Ref {
        unsafe fn drop_value<T>(value: *mut u8) {
            // SAFETY: by `free` alone, once.
            unsafe { value.cast::<T>().drop_in_place() }
        }
        let node = Node::below(parent, Kind::Value(key.meta()));
        let this = make(node, Some(key.meta()), Layout::new::<T>(), |_| true);
        let mut block = this.0.cast::<ValueNode>();
        // SAFETY: `make` left room for a `T`, and nobody else has seen the node.
        unsafe {
            block.as_ref().value.cast::<T>().write(value);
            if std::mem::needs_drop::<T>() {
                block.as_mut().drop = Some(drop_value::<T>);
            }
        }
        this
    }

    /// A child with nothing under `key`.
    pub(in crate::context) fn without_value(parent: &Ref, key: &'static Meta) -> Ref {
        let node = Node::below(Some(parent), Kind::Nothing(key));
        let this = make(node, Some(key), Layout::new::<()>(), |_| true);
        let mut block = this.0.cast::<ValueNode>();
        // SAFETY: nobody else has seen the node; the table is its own.
        unsafe {
            let values = block.as_ref().node.values;
            let index = Values::find(values.slots(), key);
            values.slots.cast_mut().add(index).write(Slot { key: Some(key), value: ptr::null() });
            block.as_mut().value = ptr::null_mut();
        }
        this
    }

    /// The same without the values whose keys are local: itself, if there are none.
    pub(in crate::context) fn across_spawn(&self) -> Ref {
        if !self.node().values.has_local {
            return self.clone();
        }
        make(Node::below(Some(self), Kind::Table), None, Layout::new::<()>(), |key| !key.is_local)
    }
}

impl Ref {
    /// What leaves the process of all that is in scope: name, place, and the value as text; `None` where a key has "nothing".
    pub(in crate::context) fn wire_values(&self) -> impl Iterator<Item = (&'static str, Place, Option<String>)> + '_ {
        let values = Some(&self.node().values).filter(|values| values.has_wire);
        values.into_iter().flat_map(Values::entries).filter_map(|(key, value)| {
            let Wire { place, encode } = key.wire.as_ref()?;
            // SAFETY: as in `value`; `encode` is of the key's type.
            let text = (!value.is_null()).then(|| unsafe { (encode.0)(value) });
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

/// `this`, with those of `more` that it lacks.
pub(super) fn union(this: Ref, more: &Values) -> Ref {
    let mut all = this;
    for (key, value) in more.entries() {
        let values = all.node().values;
        if values.slots()[Values::find(values.slots(), key)].key.is_some() {
            continue;
        }
        let next = make(Node::below(Some(&all), Kind::Table), Some(key), Layout::new::<()>(), |_| true);
        let values = next.node().values;
        let index = Values::find(values.slots(), key);
        // SAFETY: nobody else has seen the node; the table is its own. The value lies in an ancestor of the merge's second parent.
        unsafe { values.slots.cast_mut().add(index).write(Slot { key: Some(key), value }) };
        all = next;
    }
    all
}

/// A node with a table of its own: what `node` has from its parent, as far as `keep` says, and `key`, which leads to a place for a
/// value of `layout` that is yet to be written.
#[inline]
fn make(mut node: Node, key: Option<&'static Meta>, layout: Layout, keep: impl Fn(&Meta) -> bool) -> Ref {
    let before = node.values;
    let len = before.len + u32::from(key.is_some());
    let cap = (len as usize * 2).next_power_of_two().max(2);
    let (block, slots_at, value_at) = block_layout(cap, layout);
    // SAFETY: the block is not of size 0.
    let Some(pointer) = NonNull::new(unsafe { alloc::alloc(block) }) else { alloc::handle_alloc_error(block) };
    // SAFETY: as `block_layout` says, the slots and the value lie in the block, each aligned; all slots are written before they are
    // read.
    unsafe {
        let slots = pointer.as_ptr().add(slots_at).cast::<Slot>();
        let value = pointer.as_ptr().add(value_at);
        let is_same = before.mask as usize + 1 == cap && !before.has_local;
        if is_same {
            ptr::copy_nonoverlapping(before.slots, slots, cap);
        } else {
            for index in 0..cap {
                slots.add(index).write(Slot { key: None, value: ptr::null() });
            }
        }
        let table = std::slice::from_raw_parts_mut(slots, cap);
        node.values = Values { slots, mask: (cap - 1) as u32, ..before };
        if !is_same {
            node.values = Values { len: 0, has_local: false, has_wire: false, ..node.values };
            for (key, value) in before.entries().filter(|(key, _)| keep(key)) {
                table[Values::find(table, key)] = Slot { key: Some(key), value };
                node.values.len += 1;
                node.values.note(key);
            }
        }
        if let Some(key) = key {
            let slot = &mut table[Values::find(table, key)];
            node.values.len += u32::from(slot.key.is_none());
            node.values.note(key);
            *slot = Slot { key: Some(key), value };
        }
        pointer.cast::<ValueNode>().write(ValueNode { node, layout: block, value, drop: None });
    }
    Ref(pointer.cast())
}

/// The layout of a block, and where its slots and its value are.
#[inline]
fn block_layout(cap: usize, value: Layout) -> (Layout, usize, usize) {
    let sum = || {
        let (block, slots_at) = Layout::new::<ValueNode>().extend(Layout::array::<Slot>(cap).ok()?).ok()?;
        let (block, value_at) = block.extend(value).ok()?;
        Some((block.pad_to_align(), slots_at, value_at))
    };
    sum().expect("a value that exists and a table of what exists fit into memory")
}

/// Frees a node that [`make`] made, and drops its value.
///
/// # Safety
/// It is such a node, and nobody else reaches it, now or later.
pub(super) unsafe fn free(pointer: NonNull<Node>) {
    struct Dealloc(NonNull<u8>, Layout);

    impl Drop for Dealloc {
        fn drop(&mut self) {
            // SAFETY: allocated by `make` with this layout, and freed here alone.
            unsafe { alloc::dealloc(self.0.as_ptr(), self.1) };
        }
    }

    // SAFETY: says the caller. What `Node` itself owns, its parent and cause, the caller has taken out.
    unsafe {
        let block = pointer.cast::<ValueNode>();
        let (value, drop_value) = (block.as_ref().value, block.as_ref().drop);
        let _dealloc = Dealloc(pointer.cast(), block.as_ref().layout);
        if let Some(drop_value) = drop_value {
            drop_value(value);
        }
    }
}
