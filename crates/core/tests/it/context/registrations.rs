//! C22: the registration of a callback, and how it is stopped.

use std::sync::mpsc::{TryRecvError, channel};
use std::sync::{Arc, Barrier};
use std::thread;

use throughline_core::{AfterFunc, Context};

use super::hooks::{HOOK_THREAD, name_of, reporting_callback};

#[test]
fn c22_dropping_the_registration_does_not_stop_it() {
    let handle = Context::background().with_cancel();
    let (callback, calls) = reporting_callback();
    let registration: AfterFunc = handle.after_func(callback);
    drop(registration);
    handle.cancel();
    assert_eq!(name_of(&calls), HOOK_THREAD);
}

#[test]
fn c22_stop_returns_true_once_and_the_callback_does_not_run() {
    let handle = Context::background().with_cancel();
    let (callback, calls) = reporting_callback();
    let registration = handle.after_func(callback);
    assert!(registration.stop());
    assert!(calls.recv().is_err(), "a stopped callback is dropped at once");
    assert!(!registration.stop(), "it was already stopped");
    handle.cancel();
    assert!(!registration.stop());
}

#[test]
fn c22_stop_returns_false_for_a_running_callback_and_does_not_wait() {
    let handle = Context::background().with_cancel();
    let (started, may_end) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (is_running, gate, (ended, end)) = (started.clone(), may_end.clone(), channel());
    let registration = handle.after_func(move || {
        is_running.wait();
        gate.wait();
        ended.send(()).unwrap();
    });
    handle.cancel();
    started.wait();
    assert!(!registration.stop());
    assert_eq!(end.try_recv(), Err(TryRecvError::Empty));
    may_end.wait();
    end.recv().unwrap();
    assert!(!registration.stop(), "also after it has ended");
}

#[test]
fn c22_stop_returns_true_exactly_when_it_prevented_the_call() {
    for round in 0..300 {
        let handle = Context::background().with_cancel();
        let (callback, calls) = reporting_callback();
        let registration = handle.after_func(callback);
        let start = Barrier::new(3);
        let stopped = thread::scope(|scope| {
            let stops = [(); 2].map(|()| {
                scope.spawn(|| {
                    start.wait();
                    registration.stop()
                })
            });
            start.wait();
            handle.cancel();
            stops.map(|stop| usize::from(stop.join().unwrap())).iter().sum::<usize>()
        });
        // A stopped callback closes the channel. Otherwise it has run or will run.
        let ran = usize::from(calls.recv().is_ok());
        assert_eq!(stopped + ran, 1, "round {round}: {stopped} stopped it, and it ran {ran} times");
    }
}

#[test]
fn c22_several_registrations_are_independent() {
    let handle = Context::background().with_cancel();
    let calls: Vec<_> = (0..9)
        .map(|n| {
            let (callback, calls) = reporting_callback();
            let registration = handle.after_func(callback);
            if n % 3 == 0 {
                assert!(registration.stop());
            }
            calls
        })
        .collect();
    handle.cancel();
    let ran: Vec<_> = calls.iter().map(|calls| calls.recv().is_ok()).collect();
    assert_eq!(ran, [false, true, true, false, true, true, false, true, true]);
}

#[test]
fn c22_callback_on_a_context_that_is_never_done_is_dropped() {
    let (callback, calls) = reporting_callback();
    let registration = Context::background().after_func(callback);
    assert_eq!(calls.try_recv(), Err(TryRecvError::Empty));
    drop(registration);
    assert_eq!(calls.try_recv(), Err(TryRecvError::Disconnected));
}
