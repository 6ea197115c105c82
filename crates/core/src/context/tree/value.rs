//! Values: every node knows all that are in scope, through a small table that is copied from its parent's and so never walked to.

use std::alloc::{self, Layout};
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use super::node::{Node, NodeKind, Ref};
use crate::context::Key;
use crate::context::key::Meta;

/// The values in scope at a node: an open-addressed table that is never full, so there is always an empty slot. A child's is a copy of
/// its parent's with one slot more in use, which costs a `memcpy` as long as there is room.
#[derive(Clone, Copy)]
pub(super) struct Values {
    slots: *const Slot,
    len: u32,
    /// 64 less the binary logarithm of the number of slots.
    shift: u8,
    has_local: bool,
    pub(super) has_wire: bool,
}

/// Null: empty. Else the address of a value, with its [`Tag`] in the word before it: finding a value is finding its key.
pub(super) type Slot = *const u8;

/// The address of a key. That of a key that has "nothing" is odd, so who looks for its value goes past it.
type Tag = *const Meta;

const EMPTY_LEN: usize = 4;
static EMPTY: EmptyTable = EmptyTable([ptr::null(); EMPTY_LEN]);

struct EmptyTable([Slot; EMPTY_LEN]);

// SAFETY: nothing is ever behind its null pointers.
unsafe impl Sync for EmptyTable {}

/// A node, with a tag, its value and its slots behind it, in one block.
#[repr(C)]
struct ValueNode {
    node: Node,
    key: Option<&'static Meta>,
    layout: Layout,
    drop: Option<unsafe fn(NonNull<ValueNode>)>,
}

/// Where in the block a value of this alignment is.
const fn value_at(align: usize) -> usize {
    let align = if align < align_of::<Tag>() { align_of::<Tag>() } else { align };
    (size_of::<ValueNode>() + size_of::<Tag>()).next_multiple_of(align)
}

impl Values {
    pub(super) const NONE: Values = Values {
        slots: EMPTY.0.as_ptr(),
        len: 0,
        shift: 64 - EMPTY_LEN.trailing_zeros() as u8,
        has_local: false,
        has_wire: false,
    };

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn capacity(&self) -> usize {
        1 << (64 - self.shift)
    }

    fn slots(&self) -> &[Slot] {
        // SAFETY: made by `make`, or `NONE`; the table's node is an ancestor of whoever has this (invariant 2).
        unsafe { std::slice::from_raw_parts(self.slots, self.capacity()) }
    }

    /// Where the search for `key` begins.
    #[inline]
    fn home(&self, key: &'static Meta) -> usize {
        // Statics of one crate lie side by side; a multiplication spreads them, over its upper bits.
        ((ptr::from_ref(key).addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize
    }

    /// Where `key` is, or the empty slot where it would be.
    #[inline]
    fn find(&self, key: &'static Meta) -> usize {
        let slots = self.slots();
        let mut index = self.home(key);
        // SAFETY: what is in a table has a tag.
        while !slots[index].is_null() && !ptr::eq(unsafe { key_of(slots[index]) }, key) {
            index = (index + 1) & (slots.len() - 1);
        }
        index
    }

    /// The address of a value, or of "nothing", for each key.
    pub(super) fn entries(&self) -> impl Iterator<Item = Slot> {
        self.slots().iter().copied().filter(|slot| !slot.is_null())
    }

    /// Puts what is at `slot` under its key.
    ///
    /// # Safety
    /// `slot` has a tag, and lives as long as the table, which is the caller's own and has room.
    #[inline]
    unsafe fn insert(&mut self, slot: Slot) {
        // SAFETY: says the caller.
        let key = unsafe { key_of(slot) };
        let index = self.find(key);
        self.len += u32::from(self.slots()[index].is_null());
        self.has_local |= key.is_local;
        self.has_wire |= key.wire.is_some();
        // SAFETY: the table is the caller's own, and `index` within.
        unsafe { self.slots.cast_mut().add(index).write(slot) };
    }
}

/// The tag of what is in a slot.
///
/// # Safety
/// `slot` has one.
#[inline]
pub(super) unsafe fn tag_of(slot: Slot) -> Tag {
    // SAFETY: says the caller; values are at least as aligned as tags.
    unsafe { *slot.cast::<Tag>().sub(1) }
}

/// The key of what is in a slot.
///
/// # Safety
/// `slot` has a tag.
#[inline]
pub(super) unsafe fn key_of(slot: Slot) -> &'static Meta {
    // SAFETY: says the caller; a tag is the address of a static, plus one at most.
    unsafe { &*tag_of(slot).map_addr(|address| address & !1) }
}

fn tag_nothing(key: &'static Meta) -> Tag {
    ptr::from_ref(key).map_addr(|address| address | 1)
}

impl Ref {
    #[inline]
    pub(in crate::context) fn value<T: 'static>(&self, key: &'static Key<T>) -> Option<&T> {
        // SAFETY: a value under this key was put there by `with_value` with this very key, so it is a `T`; it lies in an ancestor's
        // block or this node's.
        self.find_slot(key.meta()).map(|slot| unsafe { &*slot.cast::<T>() })
    }

    /// The node that has the value under `key`: this one, or the ancestor that it was given to.
    pub(in crate::context) fn origin<T: 'static>(&self, key: &'static Key<T>) -> Option<Ref> {
        let slot = NonNull::new(self.find_slot(key.meta())?.cast_mut())?;
        // SAFETY: as in `value`; `with_value` has put the value there in its node's block, which is alive and so has a count.
        let owner = unsafe { ManuallyDrop::new(Ref(slot.sub(value_at(align_of::<T>())).cast())) };
        Some(Ref::clone(&owner))
    }

    /// Where the value under `key` lies.
    #[inline]
    fn find_slot(&self, key: &'static Meta) -> Option<Slot> {
        let values = &self.node().values;
        let mut index = values.home(key);
        loop {
            // SAFETY: within the table, and there is an empty slot to stop at.
            let slot = unsafe { *values.slots.add(index) };
            if slot.is_null() {
                return None;
            }
            // SAFETY: what is in a table has a tag.
            if ptr::eq(unsafe { tag_of(slot) }, key) {
                return Some(slot);
            }
            index = (index + 1) & (values.capacity() - 1);
        }
    }

    /// A child with `value` under `key`.
    #[inline]
    pub(in crate::context) fn with_value<T: Send + Sync + 'static>(
        parent: Option<&Ref>,
        key: &'static Key<T>,
        value: T,
    ) -> Ref {
        unsafe fn drop_value<T>(block: NonNull<ValueNode>) {
            // SAFETY: by `free` alone, once, and `with_value` has put it there.
            unsafe { block.cast::<u8>().add(value_at(align_of::<T>())).cast::<T>().drop_in_place() }
        }
        let mut block = make(parent, NodeKind::Value, Some(key.meta()), Layout::new::<T>(), 1, None);
        // SAFETY: `make` left room for a `T` with its tag and for a key more, and nobody else has seen the node.
        unsafe {
            let value_address = block.cast::<u8>().add(value_at(align_of::<T>()));
            value_address.cast::<T>().write(value);
            value_address.cast::<Tag>().sub(1).write(key.meta());
            let this = block.as_mut();
            if std::mem::needs_drop::<T>() {
                this.drop = Some(drop_value::<T>);
            }
            this.node.values.insert(value_address.as_ptr());
        }
        Ref(block.cast())
    }

    /// A child with nothing under `key`.
    pub(in crate::context) fn without_value(parent: &Ref, key: &'static Meta) -> Ref {
        let mut block = make(Some(parent), NodeKind::Nothing, Some(key), Layout::new::<()>(), 1, None);
        // SAFETY: as in `with_value`, of a value without size.
        unsafe {
            let value_address = block.cast::<u8>().add(value_at(align_of::<()>()));
            value_address.cast::<Tag>().sub(1).write(tag_nothing(key));
            block.as_mut().node.values.insert(value_address.as_ptr());
        }
        Ref(block.cast())
    }

    /// The same without the values whose keys are local: itself, if there are none.
    pub(in crate::context) fn across_spawn(&self) -> Ref {
        if !self.node().values.has_local {
            return self.clone();
        }
        Ref(make(Some(self), NodeKind::Table, None, Layout::new::<()>(), 0, Some(|key| !key.is_local)).cast())
    }

    /// The key that this very node has a value for, or nothing.
    pub(in crate::context) fn key(&self) -> Option<&'static Meta> {
        match self.node().kind {
            // SAFETY: these kinds are made by `make` alone.
            NodeKind::Value | NodeKind::Nothing => unsafe { self.0.cast::<ValueNode>().as_ref() }.key,
            _ => None,
        }
    }
}

/// `this`, with those of `more` that it lacks.
pub(super) fn union(this: Ref, more: &Values) -> Ref {
    let mut block = make(Some(&this), NodeKind::Table, None, Layout::new::<()>(), more.len, None);
    // SAFETY: nobody else has seen the node.
    let values = unsafe { &mut block.as_mut().node.values };
    for slot in more.entries() {
        // SAFETY: what is in a table has a tag.
        let key = unsafe { key_of(slot) };
        if values.slots()[values.find(key)].is_null() {
            // SAFETY: it lies in an ancestor of the merge's second parent, and `make` left room.
            unsafe { values.insert(slot) };
        }
    }
    Ref(block.cast())
}

/// A node with a table of its own, which has what its parent's has, as far as `keep` says, and room for `more` keys, and a place for a
/// value of `layout` and its tag, that are yet to be written.
#[inline]
fn make(
    parent: Option<&Ref>,
    kind: NodeKind,
    key: Option<&'static Meta>,
    value: Layout,
    more: u32,
    keep: Option<fn(&Meta) -> bool>,
) -> NonNull<ValueNode> {
    let before = parent.map_or(Values::NONE, |parent| parent.node().values);
    let shift = before.shift_for(more);
    let slots_at = value_at(value.align()) + value.size().next_multiple_of(align_of::<Slot>());
    let size = slots_at + size_of::<Slot>() * (Values { shift, ..before }).capacity();
    let layout = Layout::from_size_align(size, value.align().max(align_of::<ValueNode>()))
        .expect("a value that exists and a table of what exists fit into memory");
    // SAFETY: the block is not of size 0.
    let Some(pointer) = NonNull::new(unsafe { alloc::alloc(layout) }) else { alloc::handle_alloc_error(layout) };
    // SAFETY: the slots lie in the block, aligned, and are written before they are read; so is the node, which is aligned as the block.
    unsafe {
        let slots = pointer.add(slots_at).cast::<Slot>().as_ptr();
        let values = if shift == before.shift && keep.is_none() {
            ptr::copy_nonoverlapping(before.slots, slots, before.capacity());
            Values { slots, ..before }
        } else {
            rehash(&before, slots, shift, keep)
        };
        let block = pointer.cast::<ValueNode>();
        block.write(ValueNode { node: Node { values, ..Node::below(parent, kind) }, key, layout, drop: None });
        block
    }
}

impl Values {
    /// The `shift` of a table with room for `more` keys: as it is while a quarter of the slots stays empty.
    #[inline]
    fn shift_for(&self, more: u32) -> u8 {
        let mut shift = self.shift;
        while (self.len as usize + more as usize) * 4 > (1_usize << (64 - shift)) * 3 {
            shift -= 1;
        }
        shift
    }
}

/// A table in `slots` of what `before` has, as far as `keep` says.
///
/// # Safety
/// There are as many slots as `shift` says, which is enough; they may be uninitialized.
#[cold]
unsafe fn rehash(before: &Values, slots: *mut Slot, shift: u8, keep: Option<fn(&Meta) -> bool>) -> Values {
    let mut values = Values { slots, shift, ..Values::NONE };
    // SAFETY: says the caller; all zeros is all null. What is in a table has a tag.
    unsafe {
        slots.write_bytes(0, values.capacity());
        for slot in before.entries() {
            if keep.is_none_or(|keep| keep(key_of(slot))) {
                values.insert(slot);
            }
        }
    }
    values
}

/// Frees a node that [`make`] made, and drops its value.
///
/// # Safety
/// It is such a node, and nobody else reaches it, now or later.
pub(super) unsafe fn free(pointer: NonNull<Node>) {
    struct Dealloc(NonNull<ValueNode>, Layout);

    impl Drop for Dealloc {
        fn drop(&mut self) {
            // SAFETY: allocated by `make` with this layout, and freed here alone.
            unsafe { alloc::dealloc(self.0.cast().as_ptr(), self.1) };
        }
    }

    // SAFETY: says the caller. What `Node` itself owns, its parent and cause, the caller has taken out.
    unsafe {
        let block = pointer.cast::<ValueNode>();
        let drop_value = block.as_ref().drop;
        let _dealloc = Dealloc(block, block.as_ref().layout);
        if let Some(drop_value) = drop_value {
            drop_value(block);
        }
    }
}
