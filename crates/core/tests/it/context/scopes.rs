//! C24 and R19: the ambient context.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context as TaskContext, Poll, Waker};
use std::thread;

use futures_util::{Sink, SinkExt, Stream, StreamExt, stream};
use throughline_core::{Context, FutureExt, Key, WithContext};

use super::poll_once;

static NAME: Key<&str> = Key::new("name");
static DEPTH: Key<u32> = Key::new("depth");

fn named(name: &'static str) -> Context {
    Context::background().with_value(&NAME, name)
}

/// The name in the ambient context.
fn current() -> Option<&'static str> {
    Context::current().value(&NAME).copied()
}

#[test]
fn c24_current_is_the_background_outside_of_scopes() {
    assert_eq!(format!("{:?}", Context::current()), "background");
}

#[test]
fn c24_enter_restores_the_previous_context_on_return_and_on_panic() {
    let (outer, inner) = (named("outer"), named("inner"));
    let seen = outer.enter(|| {
        let seen = inner.enter(|| [current(), inner.enter(current)]);
        let panicked = catch_unwind(AssertUnwindSafe(|| inner.enter(|| panic!("in a scope"))));
        assert!(panicked.is_err());
        assert_eq!(current(), Some("outer"));
        seen
    });
    assert_eq!((seen, current()), ([Some("inner"); 2], None));
}

#[tokio::test]
async fn c24_scope_and_with_context_are_ambient_during_each_poll() {
    let work = || async {
        let before = current();
        tokio::task::yield_now().await;
        [before, current()]
    };
    let (scoped, extended) = (named("a").scope(work()), work().with_context(&named("b")));
    // Both are polled in turns on one thread. Neither sees the context of the other.
    assert_eq!(tokio::join!(scoped, extended, work()), ([Some("a"); 2], [Some("b"); 2], [None; 2]));
    assert_eq!(current(), None);
}

#[test]
fn c24_future_keeps_its_context_on_any_thread() {
    let mut work = Box::pin(named("a").scope(async {
        for _ in 0..3 {
            assert_eq!(current(), Some("a"));
            let mut was_polled = false;
            poll_fn(|_| if std::mem::replace(&mut was_polled, true) { Poll::Ready(()) } else { Poll::Pending }).await;
        }
        current()
    }));
    for _ in 0..3 {
        work = thread::spawn(move || {
            assert!(named("other").enter(|| poll_once(work.as_mut())).is_pending());
            assert_eq!(current(), None);
            work
        })
        .join()
        .unwrap();
    }
    assert_eq!(poll_once(work.as_mut()), Poll::Ready(Some("a")));
}

#[test]
fn c24_poll_that_panics_restores_the_previous_context() {
    let mut work = Box::pin(named("inner").scope(async { panic!("in a poll") }));
    named("outer").enter(|| {
        assert!(catch_unwind(AssertUnwindSafe(|| poll_once(work.as_mut()))).is_err());
        assert_eq!(current(), Some("outer"));
    });
    assert_eq!(current(), None);
}

#[tokio::test]
async fn c24_scope_is_ambient_during_a_streams_polls() {
    let mut names = named("a").scope(stream::iter(0..3).map(|n| (n, current())));
    assert_eq!(names.size_hint(), (3, Some(3)));
    let mut seen = Vec::new();
    while let Some(item) = names.next().await {
        assert_eq!(current(), None);
        seen.push(item);
    }
    assert_eq!(seen, [(0, Some("a")), (1, Some("a")), (2, Some("a"))]);
}

/// Records the ambient context in each of its methods.
struct Log(Rc<RefCell<Vec<Note>>>);

type Note = (&'static str, Option<&'static str>);

impl Log {
    fn note(&self, what: &'static str) {
        self.0.borrow_mut().push((what, current()));
    }
}

impl Sink<u32> for Log {
    type Error = ();

    fn poll_ready(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Result<(), ()>> {
        self.note("ready");
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, item: u32) -> Result<(), ()> {
        self.note("send");
        if item == 13 { panic!("in a sink") } else { Ok(()) }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Result<(), ()>> {
        self.note("flush");
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Result<(), ()>> {
        self.note("close");
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn c24_scope_is_ambient_during_a_sinks_polls() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let mut sink = named("a").scope(Log(seen.clone()));
    sink.send(1).await.unwrap();
    sink.close().await.unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut sink).start_send(13)));
    assert!(panicked.is_err() && current().is_none());
    let expected = ["ready", "send", "flush", "close", "send"].map(|what| (what, Some("a")));
    assert_eq!(*seen.borrow(), expected);
}

#[test]
fn c24_scope_is_send_and_sync_if_its_content_is() {
    fn check<T: Send + Sync>() {}
    check::<WithContext<std::future::Ready<()>>>();
}

/// Records the ambient context when it is dropped.
struct Last(Rc<RefCell<Vec<Option<&'static str>>>>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.borrow_mut().push(current());
    }
}

#[test]
fn c24_context_is_ambient_while_the_scope_is_dropped() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let pending = |last: Last| async move {
        let _last = last;
        std::future::pending::<()>().await;
    };
    let new = || Last(seen.clone());
    named("outer").enter(|| {
        let mut polled = Box::pin(named("a").scope(pending(new())));
        assert!(poll_once(polled.as_mut()).is_pending());
        drop(polled);
        assert_eq!(current(), Some("outer"));
        let last = new();
        drop(named("a").scope(async move { drop(last) }));
        drop(named("a").scope(stream::iter([new()])));
        // Dropped in the innermost scope. The previous context is restored when a destructor
        // panics.
        drop(named("b").scope(named("a").scope(pending(new()))));
        let panics = named("a").scope(Bomb);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(panics))).is_err());
        assert_eq!(current(), Some("outer"));
    });
    assert_eq!(*seen.borrow(), [Some("a"); 4]);
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in a destructor");
    }
}

#[test]
fn c24_deriving_does_not_change_the_ambient_context() {
    named("outer").enter(|| {
        let ctx = Context::current().with_value(&NAME, "derived").with_cancel();
        assert_eq!((ctx.value(&NAME), current()), (Some(&"derived"), Some("outer")));
        ctx.cancel();
        assert!(!Context::current().is_done());
    });
}

#[test]
fn c24_scope_is_per_thread_and_does_not_end_its_future() {
    let handle = named("a").with_cancel();
    handle.enter(|| thread::spawn(|| assert_eq!(current(), None)).join().unwrap());
    handle.cancel();
    assert_eq!(poll_once(pin!(handle.scope(async { current() }))), Poll::Ready(Some("a")), "`run` ends work");
}

#[test]
fn c24_current_may_be_called_while_a_thread_ends() {
    struct Last(Sender<bool>);
    impl Drop for Last {
        fn drop(&mut self) {
            let is_background = Context::current().value(&NAME).is_none();
            self.0.send(is_background && named("late").enter(|| true)).unwrap();
        }
    }
    thread_local! { static LAST: RefCell<Option<Last>> = const { RefCell::new(None) } }
    for is_set_first in [true, false] {
        let (sender, receiver) = channel();
        // Thread-local values may be destroyed in either order.
        let ambient = || named("a").enter(|| assert_eq!(current(), Some("a")));
        thread::spawn(move || {
            if !is_set_first {
                ambient();
            }
            LAST.set(Some(Last(sender)));
            ambient();
        })
        .join()
        .unwrap();
        assert_eq!(receiver.recv(), Ok(true));
    }
}

const NESTED: u32 = 70_000;

fn on_a_big_stack(f: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(1 << 30).spawn(f).unwrap().join().unwrap();
}

fn depth() -> Option<u32> {
    Context::current().value(&DEPTH).copied()
}

#[test]
fn r19_after_each_of_70_000_nested_scopes_the_right_one_is_current() {
    fn nest(depth_now: u32) {
        if depth_now == NESTED {
            return;
        }
        Context::background().with_value(&DEPTH, depth_now).enter(|| {
            assert_eq!(depth(), Some(depth_now));
            nest(depth_now + 1);
            assert_eq!(depth(), Some(depth_now));
        });
    }
    on_a_big_stack(|| {
        nest(0);
        assert_eq!(depth(), None);
    });
}

#[test]
fn r19_after_each_poll_of_70_000_nested_futures_the_right_one_is_current() {
    type Nested = Pin<Box<dyn Future<Output = u32>>>;
    on_a_big_stack(|| {
        let mut work: Nested = Box::pin(async {
            tokio::task::yield_now().await;
            0
        });
        for level in 1..=NESTED {
            let inner = work;
            let around = async move {
                assert_eq!(depth(), Some(level));
                let levels = inner.await;
                assert_eq!((levels, depth()), (level - 1, Some(level)));
                level
            };
            work = Box::pin(Context::background().with_value(&DEPTH, level).scope(around));
        }
        let mut cx = TaskContext::from_waker(Waker::noop());
        assert!(work.as_mut().poll(&mut cx).is_pending());
        assert_eq!(depth(), None);
        assert_eq!(work.as_mut().poll(&mut cx), Poll::Ready(NESTED));
        assert_eq!(depth(), None);
    });
}

#[test]
fn c24_nested_scopes_are_restored_level_by_level_on_panic() {
    fn nest(level: u32) {
        Context::background().with_value(&DEPTH, level).enter(|| {
            if level < 20 {
                assert!(catch_unwind(|| nest(level + 1)).is_err());
                assert_eq!(depth(), Some(level));
            }
            panic!("on the way out")
        });
    }
    assert!(catch_unwind(|| nest(0)).is_err());
    assert_eq!(depth(), None);
}
