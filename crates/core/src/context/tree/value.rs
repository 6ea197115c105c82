//! Nodes that change the values in scope.
//!
//! Each holds one value, "nothing" for one key, or only a table. A node and its value are one block
//! of memory.

use std::alloc::{self, Layout};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::meta::Meta;
use super::node::{Node, NodeKind, Ref};
use super::table::{Slot, Tag, Values, capacity, key_of, tag_nothing};
use crate::context::Key;

/// The head of a block: a tag, the value and the slots follow it.
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

impl Ref {
    #[inline]
    pub(in crate::context) fn value<T: 'static>(&self, key: &'static Key<T>) -> Option<&T> {
        // SAFETY: `with_value` has put the value there with this same key, so it is a `T`. It is in
        // the block of this node or of an ancestor.
        self.node().values.get(key.meta()).map(|slot| unsafe { &*slot.cast::<T>() })
    }

    /// The node that holds the value under `key`: this one or an ancestor.
    pub(in crate::context) fn value_node<T: 'static>(&self, key: &'static Key<T>) -> Option<Ref> {
        let slot = NonNull::new(self.node().values.get(key.meta())?.cast_mut())?;
        // SAFETY: as in `value`. `with_value` has put the value in its node's block, which is alive
        // and so has a count.
        let owner = unsafe { ManuallyDrop::new(Ref(slot.sub(value_at(align_of::<T>())).cast())) };
        Some(Ref::clone(&owner))
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

    /// A child without values of local keys, or the node if there are none.
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
    let mut block = make(Some(&this), NodeKind::Table, None, Layout::new::<()>(), more.len(), None);
    // SAFETY: nothing else has seen the node.
    let values = unsafe { &mut block.as_mut().node.values };
    for slot in more.entries() {
        // SAFETY: every slot in use has a tag.
        let key = unsafe { key_of(slot) };
        if !values.has(key) {
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
    let size = slots_at + size_of::<Slot>() * capacity(shift);
    let layout = Layout::from_size_align(size, value.align().max(align_of::<ValueNode>()))
        .expect("a value and a table of values that exist fit into memory");
    // SAFETY: the block is not of size 0.
    let Some(pointer) = NonNull::new(unsafe { alloc::alloc(layout) }) else { alloc::handle_alloc_error(layout) };
    // SAFETY: the slots are in the block, aligned, and written before they are read. So is the
    // node; the block has its alignment.
    unsafe {
        let slots = pointer.add(slots_at).cast::<Slot>().as_ptr();
        let values = before.copy_to(slots, shift, keep);
        let block = pointer.cast::<ValueNode>();
        block.write(ValueNode { node: Node { values, ..Node::below(parent, kind) }, key, layout, drop: None });
        block
    }
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
