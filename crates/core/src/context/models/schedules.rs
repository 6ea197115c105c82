//! Scenes too large for loom, in many random orders (R5, R6).
//!
//! Shuttle runs them with sequentially consistent memory. ThreadSanitizer runs them on real
//! threads, and finds accesses that nothing orders.

use std::sync::Arc;

use super::runner::{below, explore, thread};
use super::{Count, Waiter, clock};
use crate::context::{CancelHandle, Cause, Context, Key, hook};

static TOKEN: Key<Arc<()>> = Key::new("token");
const CAUSES: [Cause; 3] = [Cause::Shutdown, Cause::Abandoned, Cause::ClientDisconnected];

/// A tree of cancels, deadlines, values and merges, and the handles that cancel it.
struct Tree {
    contexts: Vec<Context>,
    handles: Vec<CancelHandle>,
    token: Arc<()>,
}

impl Tree {
    fn random(size: usize) -> Tree {
        let token = Arc::new(());
        let root = Context::background().with_value(&TOKEN, Arc::clone(&token)).with_cancel();
        let mut tree = Tree { contexts: vec![root.context().clone()], handles: vec![root], token };
        for _ in 1..size {
            let parent = tree.any().clone();
            let ctx = match below(6) {
                0..=2 => {
                    let handle = parent.with_cancel();
                    let ctx = handle.context().clone();
                    tree.handles.push(handle);
                    ctx
                }
                3 => parent.with_deadline(clock::at(1 + below(2) as u64)),
                4 => Context::merge(&parent, tree.any()),
                _ => parent.with_value(&TOKEN, Arc::clone(&tree.token)),
            };
            tree.contexts.push(ctx);
        }
        tree
    }

    fn any(&self) -> &Context {
        &self.contexts[below(self.contexts.len())]
    }
}

/// Causes that a thread has observed. They must not change later.
type Seen = Vec<(Context, Cause)>;

fn look(ctx: &Context, seen: &mut Seen) {
    seen.extend(ctx.cause().map(|cause| (ctx.clone(), cause)));
}

fn cancel_some(tree: &Tree) -> Seen {
    let mut seen = Seen::new();
    for _ in 0..2 {
        let handle = &tree.handles[below(tree.handles.len())];
        handle.cancel_with(CAUSES[below(3)].clone());
        assert!(handle.is_done());
        look(handle, &mut seen);
        look(tree.any(), &mut seen);
    }
    seen
}

/// Adds and drops waiters, on contexts of the tree and on new children.
fn wait_for_some(tree: &Tree) -> (Vec<(bool, Waiter)>, Seen) {
    let (mut waiters, mut seen) = (Vec::new(), Seen::new());
    for _ in 0..3 {
        let ctx = if below(2) == 0 { tree.any().clone() } else { tree.any().with_cancel().disarm() };
        let mut waiter = if below(4) == 0 { Waiter::that_panics(&ctx) } else { Waiter::new(&ctx) };
        let was_done = waiter.poll();
        look(&ctx, &mut seen);
        match below(3) {
            0 => drop(waiter),
            1 => {
                waiter.change_waker();
                waiters.push((waiter.poll() || was_done, waiter));
            }
            _ => waiters.push((was_done, waiter)),
        }
    }
    (waiters, seen)
}

#[test]
fn random_trees() {
    explore(40_000, || {
        let tree = Arc::new(Tree::random(7));
        let with = |tree: &Arc<Tree>| Arc::clone(tree);
        let (ours, theirs, waited, timed) = (with(&tree), with(&tree), with(&tree), below(2) == 0);
        let cancelling = [thread::spawn(move || cancel_some(&ours)), thread::spawn(move || cancel_some(&theirs))];
        let waiting = thread::spawn(move || wait_for_some(&waited));
        if timed {
            clock::tick();
        }
        let (waiters, mut seen) = waiting.join().unwrap();
        seen.extend(cancelling.into_iter().flat_map(|cancelling| cancelling.join().unwrap()));
        tree.handles[0].cancel();
        for (was_done, mut waiter) in waiters {
            assert!(was_done || waiter.count() >= 1, "{:?} was not woken", waiter.context());
            assert!(waiter.poll());
        }
        for (ctx, cause) in seen {
            assert_eq!(ctx.cause().map(|cause| cause.name()), Some(cause.name()), "{ctx:?}");
        }
        let tree = Arc::into_inner(tree).unwrap();
        assert!(tree.contexts.iter().all(Context::is_done));
        drop((tree.handles, tree.contexts));
        // The whole tree has been freed.
        assert_eq!(Arc::strong_count(&tree.token), 1);
    });
}

/// R5: some of many wakers panic while two threads cancel. All the others are woken.
#[test]
fn panicking_wakers() {
    explore(20_000, || {
        let top = Arc::new(Context::background().with_cancel());
        let child = top.with_cancel();
        let mut waiters: Vec<Waiter> = (0..9)
            .map(|n| {
                let ctx = if n % 2 == 0 { top.context() } else { child.context() };
                if n % 3 == 0 { Waiter::that_panics(ctx) } else { Waiter::new(ctx) }
            })
            .collect();
        assert!(!waiters.iter_mut().any(Waiter::poll));
        let canceller = Arc::clone(&top);
        let cancelling = thread::spawn(move || canceller.cancel());
        child.cancel();
        cancelling.join().unwrap();
        assert!(waiters.iter().all(|waiter| waiter.count() == 1));
    });
}

/// Threads register, stop and fire callbacks at the same time.
#[test]
fn hooks() {
    explore(20_000, || {
        let tree = Arc::new(Tree::random(4));
        let register = |tree: Arc<Tree>| {
            let made: Vec<_> = (0..2)
                .map(|_| {
                    let (count, counted) = (Arc::new(Count::default()), tree.token.clone());
                    let called = Arc::clone(&count);
                    let f = move || {
                        called.add();
                        drop(counted);
                    };
                    (hook::call_when_done(tree.any(), f), count)
                })
                .collect();
            made.into_iter().map(|(hook, count)| (below(2) == 0 && hook.stop(), count)).collect::<Vec<_>>()
        };
        let (ours, theirs) = (Arc::clone(&tree), Arc::clone(&tree));
        let registering = thread::spawn(move || register(ours));
        let cancelling = thread::spawn(move || cancel_some(&theirs));
        let also = register(Arc::clone(&tree));
        drop(cancelling.join().unwrap());
        let registered = registering.join().unwrap();
        tree.handles[0].cancel();
        for (is_stopped, count) in registered.into_iter().chain(also) {
            assert_eq!(count.count(), usize::from(!is_stopped));
        }
        let tree = Arc::into_inner(tree).unwrap();
        drop((tree.handles, tree.contexts));
        assert_eq!(Arc::strong_count(&tree.token), 1);
    });
}
