//! The table of the values in scope at a node.
//!
//! Each node has a table of all of them. It begins as a copy of the parent's table, so a lookup
//! never walks up the tree.

use std::ptr;

use super::meta::Meta;

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
    pub(super) has_local: bool,
    pub(super) has_wire: bool,
}

/// Null if the slot is empty, otherwise the address of a value.
///
/// The word before the value is its [`Tag`], so the slot also leads to the key.
pub(super) type Slot = *const u8;

/// The address of a key, plus one if the key was set to "nothing".
///
/// So a lookup that compares tags with the address of a key does not find "nothing".
pub(super) type Tag = *const Meta;

const EMPTY_LEN: usize = 4;
static EMPTY: EmptyTable = EmptyTable([ptr::null(); EMPTY_LEN]);

struct EmptyTable([Slot; EMPTY_LEN]);

// SAFETY: all its pointers are null and are never followed.
unsafe impl Sync for EmptyTable {}

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

    /// The number of keys, those that were set to "nothing" included.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The address of the value under `key`.
    ///
    /// `None` also if the key was set to "nothing".
    #[inline]
    pub(super) fn get(&self, key: &'static Meta) -> Option<Slot> {
        let mut index = self.home(key);
        loop {
            // SAFETY: `index` is within the table, and the search stops at an empty slot.
            let slot = unsafe { *self.slots.add(index) };
            if slot.is_null() {
                return None;
            }
            // SAFETY: every slot in use has a tag.
            if ptr::eq(unsafe { tag_of(slot) }, key) {
                return Some(slot);
            }
            index = (index + 1) & (capacity(self.shift) - 1);
        }
    }

    /// Whether `key` was set, to a value or to "nothing".
    pub(super) fn has(&self, key: &'static Meta) -> bool {
        !self.slots()[self.find(key)].is_null()
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
    pub(super) unsafe fn insert(&mut self, slot: Slot) {
        // SAFETY: guaranteed by the caller.
        let key = unsafe { key_of(slot) };
        let index = self.find(key);
        self.len += u32::from(self.slots()[index].is_null());
        self.has_local |= key.is_local;
        self.has_wire |= key.wire.is_some();
        // SAFETY: the caller owns the table exclusively, and `index` is within it.
        unsafe { self.slots.cast_mut().add(index).write(slot) };
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

    /// The index at which the search for `key` begins.
    #[inline]
    fn home(&self, key: &'static Meta) -> usize {
        // The statics of one crate are neighbours in memory. The multiplication spreads them over
        // the upper bits.
        ((ptr::from_ref(key).addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize
    }

    fn slots(&self) -> &[Slot] {
        // SAFETY: made by `copy_to`, or `NONE`. The slots are in the block of this node or of an
        // ancestor, which is alive (invariant 2).
        unsafe { std::slice::from_raw_parts(self.slots, capacity(self.shift)) }
    }

    /// The `shift` of a copy with room for `more` keys.
    ///
    /// It is the same as of this table while a quarter of the slots stays empty.
    #[inline]
    pub(super) fn shift_for(&self, more: u32) -> u8 {
        let mut shift = self.shift;
        while (self.len as usize + more as usize) * 4 > capacity(shift) * 3 {
            shift -= 1;
        }
        shift
    }

    /// A copy in `slots`, with the entries that `keep` accepts.
    ///
    /// # Safety
    /// `slots` has space for [`capacity`]`(shift)` slots, which may be uninitialized. They live as
    /// long as the copy. `shift` comes from [`shift_for`](Self::shift_for).
    #[inline]
    pub(super) unsafe fn copy_to(&self, slots: *mut Slot, shift: u8, keep: Option<fn(&Meta) -> bool>) -> Values {
        if shift != self.shift || keep.is_some() {
            // SAFETY: guaranteed by the caller.
            return unsafe { rehash(self, slots, shift, keep) };
        }
        // SAFETY: guaranteed by the caller; both tables have the same number of slots.
        unsafe { ptr::copy_nonoverlapping(self.slots, slots, capacity(shift)) };
        Values { slots, ..*self }
    }
}

/// The number of slots of a table.
#[inline]
pub(super) fn capacity(shift: u8) -> usize {
    1 << (64 - shift)
}

/// As [`Values::copy_to`], entry by entry.
///
/// # Safety
/// As [`Values::copy_to`].
#[cold]
unsafe fn rehash(before: &Values, slots: *mut Slot, shift: u8, keep: Option<fn(&Meta) -> bool>) -> Values {
    let mut values = Values { slots, shift, ..Values::NONE };
    // SAFETY: guaranteed by the caller. All zeros is all null. Every slot in use has a tag.
    unsafe {
        slots.write_bytes(0, capacity(shift));
        for slot in before.entries() {
            if keep.is_none_or(|keep| keep(key_of(slot))) {
                values.insert(slot);
            }
        }
    }
    values
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

/// The tag of a key that is set to "nothing".
pub(super) fn tag_nothing(key: &'static Meta) -> Tag {
    ptr::from_ref(key).map_addr(|address| address | 1)
}
