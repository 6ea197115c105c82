//! Atomics on which loom finds all races.
//!
//! For each object, loom (0.7) remembers only the last access. Suppose that a thread loads an
//! atomic and then writes to it, as every compare-and-swap after a check does. Then its own load
//! hides an earlier load by another thread, and loom never tries the write before that load.
//!
//! Here each load also stores to an object of the loading thread, a *mark*. A write after a load
//! stores to the marks of all other threads that have loaded. Loom tries both orders of two stores
//! to a mark. Marks are relaxed stores that no thread reads, so they order nothing.

use std::sync::atomic::AtomicBool as Flag;

use loom::sync::atomic::{self, Ordering, Ordering::Relaxed};

use super::thread_index;

/// The largest number of threads in a model.
const THREADS: usize = 3;

pub(in crate::context) struct Watched<A: Exclusive> {
    inner: A,
    marks: [(Flag, atomic::AtomicUsize); THREADS],
}

/// Checks that an atomic pointer is freed after all its uses.
///
/// Loom does not track memory, but an exclusive access in the destructor fails if another order is
/// possible. Every node and every link has an atomic pointer. Numbers are not checked: they may be
/// in an `Arc`, whose order loom does not see.
pub(in crate::context) trait Exclusive {
    fn claim(&mut self) {}
}

impl Exclusive for atomic::AtomicBool {}
impl Exclusive for atomic::AtomicUsize {}
impl Exclusive for atomic::AtomicU64 {}

impl<T> Exclusive for atomic::AtomicPtr<T> {
    fn claim(&mut self) {
        self.with_mut(|_| ());
    }
}

impl<A: Exclusive> Drop for Watched<A> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.inner.claim();
        }
    }
}

impl<A: Exclusive> Watched<A> {
    fn of(inner: A) -> Self {
        Watched { inner, marks: std::array::from_fn(|_| (Flag::new(false), atomic::AtomicUsize::new(0))) }
    }

    fn to_load(&self) -> &A {
        let (has_loaded, mark) = &self.marks[thread_index()];
        mark.store(0, Relaxed);
        has_loaded.store(true, Relaxed);
        &self.inner
    }

    fn to_write(&self) -> &A {
        let own = thread_index();
        if self.marks[own].0.load(Relaxed) {
            for (index, (has_loaded, mark)) in self.marks.iter().enumerate() {
                if index != own && has_loaded.load(Relaxed) {
                    mark.store(0, Relaxed);
                }
            }
        }
        &self.inner
    }
}

macro_rules! watched {
    ($name:ident$(<$t:ident>)?, $value:ty) => {
        pub(in crate::context) type $name$(<$t>)? = Watched<atomic::$name$(<$t>)?>;

        #[allow(dead_code)]
        impl$(<$t>)? $name$(<$t>)? {
            pub(in crate::context) fn new(value: $value) -> Self {
                Watched::of(atomic::$name::new(value))
            }

            pub(in crate::context) fn load(&self, order: Ordering) -> $value {
                self.to_load().load(order)
            }

            pub(in crate::context) fn store(&self, value: $value, order: Ordering) {
                self.to_write().store(value, order);
            }

            pub(in crate::context) fn swap(&self, value: $value, order: Ordering) -> $value {
                self.to_write().swap(value, order)
            }

            pub(in crate::context) fn compare_exchange(
                &self,
                before: $value,
                after: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.to_write().compare_exchange(before, after, success, failure)
            }
        }
    };
}

watched!(AtomicBool, bool);
watched!(AtomicUsize, usize);
watched!(AtomicU64, u64);
watched!(AtomicPtr<T>, *mut T);

#[allow(dead_code)]
impl AtomicUsize {
    pub(in crate::context) fn fetch_add(&self, value: usize, order: Ordering) -> usize {
        self.to_write().fetch_add(value, order)
    }

    pub(in crate::context) fn fetch_sub(&self, value: usize, order: Ordering) -> usize {
        self.to_write().fetch_sub(value, order)
    }
}

impl AtomicU64 {
    pub(in crate::context) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.to_write().fetch_add(value, order)
    }
}

/// Loom also tries a write, which follows a load, before the load of another thread.
#[test]
fn loom_tries_a_write_before_the_load_of_another_thread() {
    use std::sync::Arc;

    let seen = Arc::new([Flag::new(false), Flag::new(false)]);
    let also = Arc::clone(&seen);
    super::model(move || {
        let flag = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&flag);
        let writing = loom::thread::spawn(move || {
            if !theirs.load(Relaxed) {
                theirs.swap(true, Relaxed);
            }
        });
        also[usize::from(flag.load(Relaxed))].store(true, Relaxed);
        writing.join().unwrap();
    });
    assert!(seen.iter().all(|seen| seen.load(Relaxed)));
}
