//! Values: each node has a small table of all values in scope.
//!
//! The table starts as a copy of the parent's, so a lookup never walks up the tree.

use std::alloc::{self, Layout};
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use super::node::{Node, NodeKind, Ref};
use crate::context::Key;
use crate::context::key::Meta;

/// The values in scope at a node: an open-addressed hash table.
///
/// The table is never full, so there is always an empty slot. A child's table is a copy of its
/// parent's with one more slot in use. The copy is a `memcpy` as long as there is room.
#[derive(Clone, Copy)]
pub(super) struct Values {
    slots: *const Slot,
    len: u32,
    /// 64 minus the binary logarithm of the number of slots.
    shift: u8,
    has_local: bool,
    pub(super) has_wire: bool,
}

/// Null if the slot is empty, otherwise the address of a value.
///
/// The word before the value is its [`Tag`], so the slot also leads to the key.
pub(super) type Slot = *const u8;

/// The address of a key.
///
/// The tag of a key that was set to "nothing" is that address plus one, so a lookup by key does not
/// match it.
type Tag = *const Meta;

const EMPTY_LEN: usize = 4;
static EMPTY: EmptyTable = EmptyTable([ptr::null(); EMPTY_LEN]);

struct EmptyTable([Slot; EMPTY_LEN]);

// SAFETY: all its pointers are null and are never followed.
unsafe impl Sync for EmptyTable {}

/// A node followed by a tag, the value and the slots, in one block of memory.
#[repr(C)]
struct ValueNode {
    node: Node,
    key: Option<&'static Meta>,
    layout: Layout,
    drop: Option<unsafe fn(NonNull<ValueNode>)>,
}

/// The offset in the block of a value of this alignment.
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
        // SAFETY: made by `make`, or `NONE`. The table's node is this node or an ancestor, so it is
        // alive (invariant 2).
        unsafe { std::slice::from_raw_parts(self.slots, self.capacity()) }
    }

    /// The index at which the search for `key` begins.
    #[inline]
    fn home(&self, key: &'static Meta) -> usize {
        // The statics of one crate are neighbours in memory. The multiplication spreads them over
        // the upper bits.
        ((ptr::from_ref(key).addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize
    }

    /// The index of `key`, or of the empty slot where it would be.
    #[inline]
    fn find(&self, key: &'static Meta) -> usize {
        let slots = self.slots();
        let mut index = self.home(key);
        // SAFETY: every slot in use has a tag.
        while !slots[index].is_null() && !ptr::eq(unsafe { key_of(slots[index]) }, key) {
            index = (index + 1) & (slots.len() - 1);
        }
        index
    }

    /// The address of a value, or of "nothing", for each key.
    pub(super) fn entries(&self) -> impl Iterator<Item = Slot> {
        self.slots().iter().copied().filter(|slot| !slot.is_null())
    }

    /// Inserts the value at `slot` under its key.
    ///
    /// # Safety
    /// `slot` has a tag and lives as long as the table. The caller owns the table exclusively, and
    /// it has room.
    #[inline]
    unsafe fn insert(&mut self, slot: Slot) {
        // SAFETY: guaranteed by the caller.
        let key = unsafe { key_of(slot) };
        let index = self.find(key);
        self.len += u32::from(self.slots()[index].is_null());
        self.has_local |= key.is_local;
        self.has_wire |= key.wire.is_some();
        // SAFETY: the caller owns the table exclusively, and `index` is within it.
        unsafe { self.slots.cast_mut().add(index).write(slot) };
    }
}

/// The tag of the value in a slot.
///
/// # Safety
/// `slot` has a tag.
#[inline]
pub(super) unsafe fn tag_of(slot: Slot) -> Tag {
    // SAFETY: guaranteed by the caller; values are at least as aligned as tags.
    unsafe { *slot.cast::<Tag>().sub(1) }
}

/// The key of the value in a slot.
///
/// # Safety
/// `slot` has a tag.
#[inline]
pub(super) unsafe fn key_of(slot: Slot) -> &'static Meta {
    // SAFETY: guaranteed by the caller; a tag is the address of a static, plus one at most.
    unsafe { &*tag_of(slot).map_addr(|address| address & !1) }
}

fn tag_nothing(key: &'static Meta) -> Tag {
    ptr::from_ref(key).map_addr(|address| address | 1)
}

impl Ref {
    #[inline]
    pub(in crate::context) fn value<T: 'static>(&self, key: &'static Key<T>) -> Option<&T> {
        // SAFETY: `with_value` has put the value there with this same key, so it is a `T`. It is in
        // the block of this node or of an ancestor.
        self.find_slot(key.meta()).map(|slot| unsafe { &*slot.cast::<T>() })
    }

    /// The node that holds the value under `key`: this one or an ancestor.
    pub(in crate::context) fn value_node<T: 'static>(&self, key: &'static Key<T>) -> Option<Ref> {
        let slot = NonNull::new(self.find_slot(key.meta())?.cast_mut())?;
        // SAFETY: as in `value`. `with_value` has put the value in its node's block, which is alive
        // and so has a count.
        let owner = unsafe { ManuallyDrop::new(Ref(slot.sub(value_at(align_of::<T>())).cast())) };
        Some(Ref::clone(&owner))
    }

    /// The slot with the value under `key`, if it has one.
    #[inline]
    fn find_slot(&self, key: &'static Meta) -> Option<Slot> {
        let values = &self.node().values;
        let mut index = values.home(key);
        loop {
            // SAFETY: `index` is within the table, and the search stops at an empty slot.
            let slot = unsafe { *values.slots.add(index) };
            if slot.is_null() {
                return None;
            }
            // SAFETY: every slot in use has a tag.
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
            // SAFETY: only `free` calls it, once, and `with_value` has written the value.
            unsafe { block.cast::<u8>().add(value_at(align_of::<T>())).cast::<T>().drop_in_place() }
        }
        let mut block = make(parent, NodeKind::Value, Some(key.meta()), Layout::new::<T>(), 1, None);
        // SAFETY: `make` left room for a `T` with its tag, and for one more key. Nothing else has
        // seen the node.
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

    /// A child without a value under `key`.
    pub(in crate::context) fn without_value(parent: &Ref, key: &'static Meta) -> Ref {
        let mut block = make(Some(parent), NodeKind::Nothing, Some(key), Layout::new::<()>(), 1, None);
        // SAFETY: as in `with_value`, for a value of size 0.
        unsafe {
            let value_address = block.cast::<u8>().add(value_at(align_of::<()>()));
            value_address.cast::<Tag>().sub(1).write(tag_nothing(key));
            block.as_mut().node.values.insert(value_address.as_ptr());
        }
        Ref(block.cast())
    }

    /// A child without the values of local keys, or the node itself if there are none.
    pub(in crate::context) fn across_spawn(&self) -> Ref {
        if !self.node().values.has_local {
            return self.clone();
        }
        Ref(make(Some(self), NodeKind::Table, None, Layout::new::<()>(), 0, Some(|key| !key.is_local)).cast())
    }

    /// The key that this node itself sets, to a value or to "nothing".
    pub(in crate::context) fn key(&self) -> Option<&'static Meta> {
        match self.node().kind {
            // SAFETY: only `make` makes nodes of these kinds.
            NodeKind::Value | NodeKind::Nothing => unsafe { self.0.cast::<ValueNode>().as_ref() }.key,
            _ => None,
        }
    }
}

/// A child of `this` with those values of `more` whose keys `this` does not have.
pub(super) fn union(this: Ref, more: &Values) -> Ref {
    let mut block = make(Some(&this), NodeKind::Table, None, Layout::new::<()>(), more.len, None);
    // SAFETY: nothing else has seen the node.
    let values = unsafe { &mut block.as_mut().node.values };
    for slot in more.entries() {
        // SAFETY: every slot in use has a tag.
        let key = unsafe { key_of(slot) };
        if values.slots()[values.find(key)].is_null() {
            // SAFETY: it is in an ancestor of the merge's second parent, which the merge keeps
            // alive, and `make` left room.
            unsafe { values.insert(slot) };
        }
    }
    Ref(block.cast())
}

/// A node with a table of its own.
///
/// The table has the entries of the parent's table that `keep` accepts, and room for `more` keys.
/// The block has uninitialized space for a value of layout `value` and for its tag; the caller
/// writes both.
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
        .expect("a value and a table of values that exist fit into memory");
    // SAFETY: the block is not of size 0.
    let Some(pointer) = NonNull::new(unsafe { alloc::alloc(layout) }) else { alloc::handle_alloc_error(layout) };
    // SAFETY: the slots are in the block, aligned, and written before they are read. So is the
    // node; the block has its alignment.
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
    /// The `shift` of a table with room for `more` keys. It does not change while a quarter of the
    /// slots stays empty.
    #[inline]
    fn shift_for(&self, more: u32) -> u8 {
        let mut shift = self.shift;
        while (self.len as usize + more as usize) * 4 > (1_usize << (64 - shift)) * 3 {
            shift -= 1;
        }
        shift
    }
}

/// A table in `slots` with the entries of `before` that `keep` accepts.
///
/// # Safety
/// `slots` has the number of slots that `shift` stands for, and that is enough. They may be
/// uninitialized.
#[cold]
unsafe fn rehash(before: &Values, slots: *mut Slot, shift: u8, keep: Option<fn(&Meta) -> bool>) -> Values {
    let mut values = Values { slots, shift, ..Values::NONE };
    // SAFETY: guaranteed by the caller. All zeros is all null. Every slot in use has a tag.
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
/// [`make`] made the node, and nothing else reaches it, now or later.
pub(super) unsafe fn free(pointer: NonNull<Node>) {
    struct Dealloc(NonNull<ValueNode>, Layout);

    impl Drop for Dealloc {
        fn drop(&mut self) {
            // SAFETY: `make` allocated it with this layout, and only this frees it.
            unsafe { alloc::dealloc(self.0.cast().as_ptr(), self.1) };
        }
    }

    // SAFETY: guaranteed by the caller, which has also taken out what `Node` itself owns: the
    // parent and the cause.
    unsafe {
        let block = pointer.cast::<ValueNode>();
        let drop_value = block.as_ref().drop;
        let _dealloc = Dealloc(block, block.as_ref().layout);
        if let Some(drop_value) = drop_value {
            drop_value(block);
        }
    }
}
