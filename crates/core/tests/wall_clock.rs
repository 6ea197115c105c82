//! The wall clock jumps by an hour: only dates change. Deadlines and spans do not move; messages
//! behave as documented.
//!
//! The test replaces the process's clock: it defines the function that the standard library calls
//! for the time, and adds the jump.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, clippy::unwrap_used)]

#[path = "it/memory.rs"]
#[allow(dead_code)]
mod memory;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use memory::Memory;
use throughline_core::propagation::deadline::{self, ReplyReserve};
use throughline_core::propagation::message;
use throughline_core::trace::UnixNanos;
use throughline_core::{Context, ContextError, SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use tokio::time::advance;

const HOUR: i64 = 3600;

/// How far the wall clock is off, in seconds.
static JUMP: AtomicI64 = AtomicI64::new(0);

/// Replaces the function of libc in the whole process.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the pointer is the caller's, and the kernel checks it.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if result == 0 && clock == libc::CLOCK_REALTIME {
        // SAFETY: the kernel has just written there.
        unsafe { (*time).tv_sec += JUMP.load(SeqCst) };
    }
    if result == 0 { 0 } else { -1 }
}

/// Exclusive use of the clock by one test. Dropping it resets the clock.
struct Clock(#[allow(dead_code)] MutexGuard<'static, ()>);

impl Clock {
    fn own() -> Clock {
        static CLOCK: Mutex<()> = Mutex::new(());
        Clock(CLOCK.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn jump(&self, seconds: i64) {
        JUMP.store(seconds, SeqCst);
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        JUMP.store(0, SeqCst);
    }
}

#[test]
fn the_clock_jumps() {
    let clock = Clock::own();
    let before = SystemTime::now();
    clock.jump(-HOUR);
    assert!(SystemTime::now() < before);
    clock.jump(HOUR);
    let passed = SystemTime::now().duration_since(before).unwrap();
    assert!(passed >= Duration::from_secs(3600));
}

#[tokio::test(start_paused = true)]
async fn no_deadline_moves_with_the_wall_clock() {
    let clock = Clock::own();
    let second = Duration::from_secs(1);
    for jump in [HOUR, -HOUR] {
        clock.jump(0);
        let ctx = Context::background().with_timeout(10 * second);
        let child = ctx.with_timeout(5 * second);
        let sent = |ctx: &Context| {
            let mut headers = HeaderMap::new();
            deadline::inject(ctx.remaining().unwrap(), &ReplyReserve::NONE, &mut headers).unwrap();
            headers["grpc-timeout"].clone()
        };
        let waiter = tokio::spawn({
            let child = child.clone();
            async move { child.done().await }
        });
        tokio::task::yield_now().await;
        clock.jump(jump);
        assert_eq!((ctx.remaining(), child.remaining()), (Some(10 * second), Some(5 * second)), "{jump}");
        assert_eq!((sent(&ctx), sent(&child)), ("10000000u".parse().unwrap(), "5000000u".parse().unwrap()));
        assert_eq!(ctx.with_timeout(second).remaining(), Some(second), "made after the jump");
        advance(4 * second).await;
        assert_eq!(child.err(), None);
        advance(second).await;
        waiter.await.unwrap();
        assert_eq!((child.err(), ctx.err()), (Some(ContextError::DeadlineExceeded), None));
    }
}

#[tokio::test(start_paused = true)]
async fn t07_spans_never_run_backwards_and_keep_their_true_duration() {
    let clock = Clock::own();
    let (memory, ctx) = Memory::new();
    // The process's time base is set by its first span. A paused clock may be earlier than that.
    ctx.span("first").start().end();
    advance(Duration::from_secs(1)).await;
    let outer = ctx.span("outer").start();
    advance(Duration::from_secs(1)).await;
    clock.jump(-HOUR);
    let inner = outer.context().span("inner").start();
    advance(Duration::from_secs(1)).await;
    clock.jump(HOUR);
    inner.add_event("jumped", [("by", "an hour")]);
    inner.end();
    clock.jump(-HOUR);
    outer.end();
    let (outer, inner) = (memory.span("outer"), memory.span("inner"));
    assert!(outer.start_time < inner.start_time && inner.start_time < inner.end_time);
    assert_eq!(
        (outer.end_time.0 - outer.start_time.0, inner.end_time.0 - inner.start_time.0),
        (2_000_000_000, 1_000_000_000)
    );
    assert_eq!(inner.events[0].time, inner.end_time);
}

/// A suspend looks the same to a process: the monotonic clock stands still while the wall clock
/// goes on.
#[test]
fn t07_after_a_wall_clock_step_new_local_roots_are_right_and_running_traces_stay_consistent() {
    let clock = Clock::own();
    let near = |time: UnixNanos, at: SystemTime| time.0.abs_diff(UnixNanos::from(at).0) < 60_000_000_000;
    for step in [8 * HOUR, -8 * HOUR] {
        clock.jump(0);
        let (memory, ctx) = Memory::new();
        let caller =
            SpanContext::new(TraceId::random(), SpanId::random(), TraceFlags::SAMPLED, TraceState::EMPTY, true);
        let running = ctx.span("running").start();
        let began = SystemTime::now();
        clock.jump(step);
        let stepped = SystemTime::now();
        running.add_event("stepped", ());
        running.span("below").start().end();
        let next = ctx.span("next").start();
        next.span("below next").start().end();
        next.end();
        ctx.with_remote_parent(caller).span("request").start().end();
        running.end();

        for name in ["next", "below next", "request"] {
            let span = memory.span(name);
            assert!(near(span.start_time, stepped) && near(span.end_time, stepped), "{step}: {span:?}");
        }
        let (running, below) = (memory.span("running"), memory.span("below"));
        for time in [running.start_time, running.events[0].time, below.start_time, running.end_time] {
            assert!(near(time, began), "{step}: {running:?} {below:?}");
        }
        assert!(running.start_time <= below.start_time && below.end_time <= running.end_time);
    }
}

#[test]
fn a_message_never_gets_more_time_than_sent_and_less_when_the_receiver_clock_is_ahead() {
    let clock = Clock::own();
    let mut headers = BTreeMap::<String, String>::new();
    let given = Duration::from_secs(7200);
    message::inject(SystemTime::now(), Some(given), &mut headers).unwrap();
    let times = message::extract(&headers);
    clock.jump(-HOUR);
    assert_eq!((times.remaining(SystemTime::now()), times.age(SystemTime::now())), (Some(given), Duration::ZERO));
    clock.jump(HOUR);
    let left = times.remaining(SystemTime::now()).unwrap();
    assert!(left <= given - Duration::from_secs(3600) && !left.is_zero());
    clock.jump(3 * HOUR);
    assert_eq!(times.remaining(SystemTime::now()), Some(Duration::ZERO), "it has expired");
}
