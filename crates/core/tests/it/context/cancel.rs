//! C16–C20 and R5: cancelling.

use std::error::Error;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Wake, Waker};
use std::thread;

use throughline_core::{CancelHandle, Cause, Context, ContextError, Key};

use super::{Named, PanickingWaker, Wakes, block_on, poll_with, verdict};

#[test]
fn c16_cancel_is_idempotent_and_the_first_call_sets_the_cause() {
    let handle = Context::background().with_cancel();
    let (wakes, waker) = Wakes::new();
    let mut done = pin!(handle.done_owned());
    assert!(poll_with(done.as_mut(), &waker).is_pending());
    handle.cancel_with(Named("first"));
    handle.cancel();
    handle.cancel_with(Cause::Shutdown);
    assert_eq!((verdict(&handle).as_str(), wakes.count()), ("C/first", 1));
    let ctx = handle.context().clone();
    drop(handle);
    assert_eq!(verdict(&ctx), "C/first");
}

#[test]
fn c16_any_thread_may_cancel() {
    fn check<T: Send + Sync + 'static>() {}
    check::<CancelHandle>();
    let handle = Context::background().with_cancel();
    let ctx = handle.context().clone();
    thread::spawn(move || handle.cancel_with(Named("elsewhere"))).join().unwrap();
    assert_eq!(verdict(&ctx), "C/elsewhere");
}

#[test]
fn c16_cancel_does_not_wait_for_the_work() {
    let handle = Context::background().with_cancel();
    let may_end = Arc::new(Barrier::new(2));
    let (ctx, gate) = (handle.context().clone(), may_end.clone());
    let work = thread::spawn(move || {
        block_on(ctx.done());
        gate.wait();
    });
    handle.cancel();
    assert!(!work.is_finished());
    may_end.wait();
    work.join().unwrap();
}

/// A tree of three levels with three children each, and a merge for each child.
fn family(root: &Context) -> Vec<Context> {
    let mut all = vec![root.clone()];
    let mut level = vec![root.clone()];
    for _ in 0..3 {
        level = level.iter().flat_map(|ctx| (0..3).map(|_| ctx.with_cancel().disarm())).collect();
        let live = Context::background().with_cancel().disarm();
        all.extend(level.iter().map(|ctx| Context::merge(&live, ctx)));
        all.extend(level.iter().cloned());
    }
    all
}

#[test]
fn c17_all_descendants_are_done_when_any_cancel_returns() {
    for _ in 0..100 {
        let handle = Context::background().with_cancel();
        let all = family(&handle);
        let start = Barrier::new(3);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    start.wait();
                    handle.cancel();
                    let live = all.iter().filter(|ctx| !ctx.is_done()).count();
                    assert_eq!(live, 0);
                });
            }
        });
    }
}

#[test]
fn c18_cancelling_a_child_does_not_affect_its_parent_or_siblings() {
    let parent = Context::background().with_cancel();
    let sibling = parent.with_cancel();
    let (wakes, waker) = Wakes::new();
    let (mut of_parent, mut of_sibling) = (pin!(parent.done()), pin!(sibling.done()));
    assert!(poll_with(of_parent.as_mut(), &waker).is_pending());
    assert!(poll_with(of_sibling.as_mut(), &waker).is_pending());
    parent.with_cancel().cancel_with(Named("K"));
    drop(parent.with_cancel());
    let _ = parent.with_cancel().disarm();
    assert_eq!([verdict(&parent), verdict(&sibling)], ["-/-", "-/-"]);
    assert_eq!(wakes.count(), 0);
    parent.cancel();
    assert_eq!(wakes.count(), 2);
}

#[test]
fn c19_child_derived_while_its_parent_is_cancelled_is_cancelled() {
    for round in 0..100 {
        let parent = Context::background().with_cancel();
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for thread in 0..3 {
                let (parent, start) = (parent.context(), &start);
                scope.spawn(move || {
                    start.wait();
                    for n in 0..50 {
                        let child = parent.with_cancel();
                        let grandchild = child.with_cancel();
                        if (n + thread) % 2 == 0 {
                            let _ = poll_with(pin!(grandchild.done()), Waker::noop());
                        }
                        if n == 49 {
                            // It hangs if the wake-up is lost.
                            block_on(grandchild.done());
                            assert_eq!(verdict(&grandchild), "C/P", "round {round}");
                        }
                    }
                });
            }
            start.wait();
            parent.cancel_with(Named("P"));
        });
    }
}

#[test]
fn c19_waiter_registered_while_the_parent_is_cancelled_is_woken() {
    for _ in 0..100 {
        let parent = Context::background().with_cancel();
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for depth in 0..3 {
                let (mut ctx, start) = (parent.context().clone(), &start);
                scope.spawn(move || {
                    for _ in 0..depth {
                        ctx = ctx.with_cancel().disarm();
                    }
                    start.wait();
                    block_on(ctx.done());
                });
            }
            start.wait();
            parent.cancel();
        });
    }
}

/// A waker that uses the context when it is woken, cloned or dropped. It would deadlock under a
/// lock of the library.
struct Busy {
    parent: Arc<CancelHandle>,
    child: Context,
    own: Mutex<Option<CancelHandle>>,
    ran: AtomicUsize,
}

impl Wake for Busy {
    fn wake(self: Arc<Self>) {
        if let Some(own) = self.own.lock().unwrap().take() {
            own.cancel();
        }
        self.parent.cancel();
        assert!(self.child.is_done() && self.parent.is_done());
        block_on(self.child.done());
        let _ = self.parent.with_cancel();
        self.ran.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn c20_woken_task_may_use_the_tree_that_wakes_it() {
    let parent = Arc::new(Context::background().with_cancel());
    let handle = parent.with_cancel();
    let child = handle.context().clone();
    let busy = Arc::new(Busy {
        parent: parent.clone(),
        child: child.clone(),
        own: Mutex::new(Some(handle)),
        ran: AtomicUsize::new(0),
    });
    let waker = Waker::from(busy.clone());
    let (mut of_child, mut of_parent) = (pin!(child.done()), pin!(parent.done()));
    assert!(poll_with(of_child.as_mut(), &waker).is_pending());
    assert!(poll_with(of_parent.as_mut(), &waker).is_pending());
    parent.cancel();
    assert_eq!(busy.ran.load(Ordering::SeqCst), 2);
}

static DROPPED: Key<UsesItsTree> = Key::new("dropped");

/// A value or cause whose destructor observes the tree and waits on it.
#[derive(Debug)]
struct UsesItsTree(Context, Arc<AtomicBool>);

impl Drop for UsesItsTree {
    fn drop(&mut self) {
        let mut done = pin!(self.0.done());
        let _ = poll_with(done.as_mut(), Waker::noop());
        let _ = (self.0.with_cancel(), self.0.cause());
        self.1.store(true, Ordering::SeqCst);
    }
}

impl fmt::Display for UsesItsTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("uses its tree")
    }
}

impl Error for UsesItsTree {}

#[test]
fn c20_destructors_of_values_and_causes_may_use_the_tree() {
    let handle = Context::background().with_cancel();
    let [of_value, lost, of_cause] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
    let ctx = handle.with_value(&DROPPED, UsesItsTree(handle.context().clone(), of_value.clone()));
    let child = ctx.with_cancel();
    drop((ctx, child));
    assert!(of_value.load(Ordering::SeqCst));
    let root = Context::background().with_cancel();
    root.cancel_with(UsesItsTree(handle.context().clone(), of_cause.clone()));
    root.cancel_with(UsesItsTree(root.context().clone(), lost.clone()));
    assert!(lost.load(Ordering::SeqCst), "the second cause is dropped at once");
    assert!(!of_cause.load(Ordering::SeqCst));
    drop(root);
    assert!(of_cause.load(Ordering::SeqCst));
}

static PANICS: Key<PanicsWhenDropped> = Key::new("panics");

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("a value that panics");
    }
}

/// A waker that drops its value when it is woken.
struct Drops<T>(Mutex<Option<T>>);

impl<T: Send> Wake for Drops<T> {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().unwrap().take());
    }
}

#[test]
fn r05_every_waiter_is_woken_though_a_value_panics_when_cancel_frees_it() {
    let root = Context::background().with_cancel();
    let freed = root.with_value(&PANICS, PanicsWhenDropped).with_cancel().disarm();
    let sibling = root.with_cancel();
    // A waiter below links its parent, so that the cancellation visits the parent.
    let mut below_freed = Box::pin(freed.with_cancel().disarm().done_owned());
    assert!(poll_with(below_freed.as_mut(), Waker::noop()).is_pending());
    let (wakes, waker) = Wakes::new();
    let mut below_sibling = pin!(sibling.with_cancel().disarm().done_owned());
    assert!(poll_with(below_sibling.as_mut(), &waker).is_pending());
    // Woken first, after the cancellation has collected both children. The waker then drops the
    // last other reference to one of them.
    let drops = Waker::from(Arc::new(Drops(Mutex::new(Some((below_freed, freed))))));
    let mut done = pin!(root.done());
    assert!(poll_with(done.as_mut(), &drops).is_pending());
    root.cancel();
    assert_eq!((wakes.count(), sibling.check()), (1, Err(ContextError::Canceled)));
}

#[test]
fn r05_every_waiter_is_woken_though_other_wakers_panic() {
    let handle = Context::background().with_cancel();
    let child = handle.with_cancel();
    let ((wakes, waker), (panics, _)) = (Wakes::new(), Wakes::new());
    let panicking = Waker::from(Arc::new(PanickingWaker(panics.clone())));
    let mut waiting: Vec<_> =
        (0..99).map(|n| Box::pin(if n % 2 == 0 { handle.done() } else { child.done() })).collect();
    for (n, done) in waiting.iter_mut().enumerate() {
        assert!(poll_with(done.as_mut(), if n % 3 == 0 { &panicking } else { &waker }).is_pending());
    }
    handle.cancel();
    assert_eq!((panics.count(), wakes.count()), (33, 66));
    assert_eq!(child.check(), Err(ContextError::Canceled));
}
