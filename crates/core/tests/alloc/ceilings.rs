//! Ceilings on the allocations of single operations, as docs/performance.md promises them.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use throughline_core::{CancelHandle, Context, ContextError, Group, Key, try_join};

use crate::counting::{count, requested};

const HOUR: Duration = Duration::from_secs(3600);
static KEYS: [Key<u64>; 17] = [const { Key::new("key") }; 17];

/// The number of allocations of `operation`, including those of its output.
fn allocations<T>(operation: impl FnOnce() -> T) -> u64 {
    count(operation).1.allocations
}

fn chain(depth: usize) -> Vec<CancelHandle> {
    let mut chain = vec![Context::background().with_cancel()];
    for _ in 1..depth {
        let next = chain[chain.len() - 1].with_cancel();
        chain.push(next);
    }
    chain
}

#[test]
fn p01_a_child_is_one_allocation() {
    let root = Context::background().with_cancel();
    let timed = root.with_timeout(2 * HOUR);
    let at = Instant::now() + HOUR;
    for parent in [root.context(), &timed] {
        assert_eq!(allocations(|| parent.with_cancel()), 1);
        assert_eq!(allocations(|| parent.with_deadline(at)), 1);
        assert_eq!(allocations(|| parent.with_timeout(HOUR)), 1);
    }
    assert_eq!(allocations(|| timed.with_timeout(3 * HOUR)), 0, "the parent's deadline is earlier");
}

#[test]
fn p02_is_done_allocates_nothing() {
    let chain = chain(32);
    let timed = chain[31].with_timeout(HOUR);
    assert_eq!(allocations(|| (chain[31].is_done(), timed.is_done())), 0);
    chain[31].cancel();
    assert_eq!(allocations(|| (chain[31].is_done(), timed.is_done())), 0);
}

#[test]
fn p03_a_clone_allocates_nothing() {
    let root = Context::background().with_cancel();
    assert_eq!(allocations(|| root.context().clone()), 0);
}

#[test]
fn p06_waiting_and_polling_allocate_nothing() {
    let chain = chain(16);
    let mut cx = TaskContext::from_waker(Waker::noop());
    let mut run = pin!(chain[15].run(std::future::pending::<()>()));
    let mut done = pin!(chain[15].done());
    for _ in 0..3 {
        assert_eq!(
            allocations(|| run.as_mut().poll(&mut cx).is_pending() && done.as_mut().poll(&mut cx).is_pending()),
            0
        );
    }
}

#[test]
fn p11_each_value_is_one_allocation() {
    let mut ctx = Context::background();
    for (index, key) in KEYS.iter().enumerate() {
        let (next, during) = count(|| ctx.with_value(key, 7));
        assert_eq!(during.allocations, 1, "on top of {index} values");
        // The node, and at least four slots, of which a quarter stays empty.
        assert!(during.bytes <= 192 + 16 * i64::try_from(index + 1).unwrap(), "on top of {index} values: {during:?}");
        ctx = next;
    }
    assert_eq!(allocations(|| ctx.value(&KEYS[0]).copied()), 0);
}

/// A future that is always pending and reads the ambient context.
struct ReadsCurrent;

impl Future for ReadsCurrent {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<()> {
        assert!(!Context::current().is_done());
        Poll::Pending
    }
}

#[test]
fn p13_an_ambient_scope_allocates_nothing() {
    let root = Context::background().with_cancel();
    let mut scope = pin!(root.scope(ReadsCurrent));
    let mut cx = TaskContext::from_waker(Waker::noop());
    assert_eq!(allocations(|| scope.as_mut().poll(&mut cx).is_pending()), 0);
}

/// About as large as the future of a handler that reads into a buffer.
async fn large() -> u8 {
    let buffer = std::hint::black_box([1_u8; 4096]);
    tokio::task::yield_now().await;
    buffer[7]
}

#[test]
fn p26_a_spawned_future_is_stored_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let ctx = Context::background().with_timeout(HOUR).with_cancel();
        let mut group: Group<ContextError> = Group::new(&ctx);
        let mut limited: Group<ContextError> = Group::new(&ctx).with_limit(1);
        // In the first round the runtime's queue grows to its final length.
        for _ in 0..2 {
            let tokio = requested(|| drop(tokio::spawn(large()))).1;
            let spawn = requested(|| drop(ctx.spawn(large()))).1;
            let of_group = requested(|| drop(group.spawn(async |_| Ok(large().await)))).1;
            let of_limited = requested(|| drop(limited.spawn(async |_| Ok(large().await)))).1;
            let sizes = format!("tokio {tokio}, ctx {spawn}, group {of_group}, group with a limit {of_limited}");
            eprintln!("{sizes}");
            assert!(spawn <= tokio + 256 && of_group <= tokio + 256, "{sizes}");
            // A task that waits for the limit is one more allocation.
            assert!(of_limited <= tokio + 512, "{sizes}");
        }
    });
}

#[test]
fn p26_try_join_is_no_larger_than_its_futures() {
    let ctx = Context::background().with_timeout(HOUR);
    let one = || async { Ok::<_, ContextError>(large().await) };
    let tokio = size_of_val(&async { tokio::try_join!(one(), one()) });
    let size = size_of_val(&try_join(&ctx, |_| one(), |_| one()));
    eprintln!("tokio {tokio}, try_join {size}");
    assert!(size <= tokio + 256, "tokio {tokio}, try_join {size}");
}
