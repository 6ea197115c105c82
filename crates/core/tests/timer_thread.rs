//! C32: how the timer's thread starts. There is one per process, so this binary has one test.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context as TaskContext, Waker};
use std::thread;
use std::time::Duration;

use throughline_core::{Context, ContextError};
use tokio::runtime::{Builder, Runtime};

fn soon() -> Context {
    Context::background().with_timeout(Duration::from_millis(20))
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits for a deadline. It hangs if the deadline is lost.
fn waits_for_a_deadline(runtime: &Runtime) {
    let ended = runtime.block_on(soon().run(pending::<()>()));
    assert_eq!(ended, Err(ContextError::DeadlineExceeded));
}

/// Runs `f` with too little memory for the stack of another thread.
fn without_threads<R>(f: impl FnOnce() -> R) -> R {
    let limit = |bytes| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the pointer is to a live `rlimit`.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    };
    let pages: u64 = fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
    limit(pages * 4096 + 512 * 1024);
    let output = f();
    limit(libc::RLIM_INFINITY);
    output
}

/// The CPUs that each thread of this process may run on, by the thread's name.
fn threads() -> BTreeMap<String, String> {
    let field = |status: &str, name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
        .map(|status| (field(&status, "Name:"), field(&status, "Cpus_allowed_list:")))
        .collect()
}

fn pin_this_thread() {
    // SAFETY: all zeros is a valid, empty set.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live set.
    let cpu = unsafe {
        let cpu = libc::sched_getcpu();
        libc::CPU_SET(usize::try_from(cpu).unwrap(), &mut one);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&one), &one), 0);
        cpu
    };
    assert_eq!(threads()[thread::current().name().unwrap()[..15].trim_end()], cpu.to_string());
}

#[test]
fn c32_a_failed_start_loses_no_later_deadline_and_the_thread_does_not_inherit_affinity() {
    let runtime = runtime();
    let everywhere = threads().into_values().next().unwrap();
    let (has_panicked, fell_back, may_start) = without_threads(|| {
        let ctx = soon();
        let wait = || pin!(ctx.done()).poll(&mut TaskContext::from_waker(Waker::noop())).is_ready();
        let has_panicked = catch_unwind(AssertUnwindSafe(wait)).is_err();
        let fell_back = catch_unwind(AssertUnwindSafe(|| waits_for_a_deadline(&runtime))).is_ok();
        (has_panicked, fell_back, thread::Builder::new().spawn(|| ()).is_ok())
    });
    assert!(!may_start && has_panicked, "outside a runtime no timer is available");
    assert!(fell_back, "in a runtime, its own timer fires");
    pin_this_thread();
    waits_for_a_deadline(&runtime);
    // Names are cut to fifteen bytes.
    assert_eq!(threads().get("throughline-tim"), Some(&everywhere));
}
