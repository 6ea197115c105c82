//! An intrusive list: each item holds the pointers to its neighbours.

use std::iter;
use std::ptr::NonNull;

use crate::context::sync::Cell;

/// A ring: the `prev` of the first item is the last item.
pub(super) struct List<T> {
    head: Option<NonNull<T>>,
}

/// The pointers that an item holds, for one list at a time.
pub(super) struct Neighbours<T> {
    prev: Cell<Option<NonNull<T>>>,
    next: Cell<Option<NonNull<T>>>,
}

/// An item of a [`List`].
pub(super) trait Listed: Sized {
    fn neighbours(&self) -> &Neighbours<Self>;
}

impl<T> Neighbours<T> {
    pub(super) fn new() -> Self {
        Neighbours { prev: Cell::new(None), next: Cell::new(None) }
    }
}

impl<T: Listed> List<T> {
    pub(super) const EMPTY: Self = List { head: None };

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// The item that was pushed first.
    pub(super) fn first(&self) -> Option<NonNull<T>> {
        self.head
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        // SAFETY: an item in the list is alive, guaranteed by the caller that pushed it.
        let next_of = |item: &NonNull<T>| unsafe { item.as_ref() }.neighbours().next.get();
        let items = iter::successors(self.head, move |item| next_of(item).filter(|next| Some(*next) != self.head));
        // SAFETY: as above.
        items.map(|item| unsafe { item.as_ref() })
    }

    /// Adds `item` at the end.
    ///
    /// # Safety
    /// `item` is in no list. It is removed from this one before it is moved or freed. Every access
    /// to the list, and to the neighbours of its items, holds the lock that guards the list.
    pub(super) unsafe fn push_back(&mut self, item: &T) {
        let pointer = Some(NonNull::from(item));
        let own = item.neighbours();
        // SAFETY: an item in the list is alive, guaranteed by the caller that pushed it.
        let Some(head) = self.head.map(|head| unsafe { head.as_ref() }.neighbours()) else {
            own.prev.set(pointer);
            own.next.set(pointer);
            self.head = pointer;
            return;
        };
        let last = head.prev.replace(pointer);
        own.prev.set(last);
        own.next.set(self.head);
        if let Some(last) = last {
            // SAFETY: as above.
            unsafe { last.as_ref() }.neighbours().next.set(pointer);
        }
    }

    /// Takes `item` out.
    ///
    /// # Safety
    /// `item` is in this list.
    pub(super) unsafe fn remove(&mut self, item: &T) {
        let pointer = Some(NonNull::from(item));
        let (prev, next) = (item.neighbours().prev.take(), item.neighbours().next.take());
        if next == pointer {
            self.head = None;
            return;
        }
        if self.head == pointer {
            self.head = next;
        }
        if let (Some(prev), Some(next)) = (prev, next) {
            // SAFETY: an item in the list is alive, guaranteed by the caller that pushed it.
            unsafe { prev.as_ref() }.neighbours().next.set(Some(next));
            // SAFETY: as above.
            unsafe { next.as_ref() }.neighbours().prev.set(Some(prev));
        }
    }
}
