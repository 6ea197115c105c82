//! C25: `Context::on_signal`. Signals reach the whole process, so this binary has one test.
#![cfg(all(feature = "signal", unix))]
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use throughline_core::{Cause, Context, ContextError};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A shell sends the signal to its parent, this process. Returns once the runtime has received it.
async fn receive(name: &str, kind: SignalKind) {
    let mut received = signal(kind).unwrap();
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} $PPID")]).status().unwrap();
    assert!(sent.success());
    received.recv().await.unwrap();
}

fn assert_shut_down(ctx: &Context) {
    assert_eq!(ctx.err(), Some(ContextError::Canceled));
    assert!(matches!(ctx.cause(), Some(Cause::Shutdown)), "{:?}", ctx.cause());
}

#[test]
fn c25_on_signal_is_cancelled_by_sigint_and_sigterm_with_cause_shutdown() {
    runtime().block_on(async {
        for (name, kind) in [("TERM", SignalKind::terminate()), ("INT", SignalKind::interrupt())] {
            is_cancelled_by(name, kind).await;
            ends_like_any_other_handle(name, kind).await;
            keeps_watching_when_disarmed(name, kind).await;
        }
    });
    ends_with_the_runtime_that_watches_signals();
}

async fn is_cancelled_by(name: &str, kind: SignalKind) {
    let root = Context::background().with_cancel();
    let (base, beside) = (root.on_signal().unwrap(), root.on_signal().unwrap());
    let request = base.with_cancel();
    tokio::task::yield_now().await;
    assert!(!request.is_done(), "an earlier signal does not count");
    receive(name, kind).await;
    for ctx in [&request, &base, &beside] {
        ctx.done().await;
        assert_shut_down(ctx);
    }
    assert!(!root.is_done(), "{name} cancels the context and its children, not its parent");
}

async fn ends_like_any_other_handle(name: &str, kind: SignalKind) {
    let parent = Context::background().with_cancel();
    let base = parent.on_signal().unwrap();
    let ctx = base.context().clone();
    drop(base);
    assert!(matches!(ctx.cause(), Some(Cause::HandleDropped)), "by its handle");
    // No context watches for the signal any more, and it does not stop this process.
    receive(name, kind).await;
    let base = parent.on_signal().unwrap();
    parent.cancel_with(std::io::Error::other("stop"));
    assert!(matches!(base.cause(), Some(Cause::Error(_))), "by its parent");
}

async fn keeps_watching_when_disarmed(name: &str, kind: SignalKind) {
    let ctx = Context::background().on_signal().unwrap().disarm();
    tokio::task::yield_now().await;
    assert!(!ctx.is_done());
    receive(name, kind).await;
    ctx.done().await;
    assert_shut_down(&ctx);
}

fn ends_with_the_runtime_that_watches_signals() {
    let watching = runtime();
    let base = watching.block_on(async { Context::background().on_signal() }).unwrap();
    drop(watching);
    assert!(matches!(base.cause(), Some(Cause::HandleDropped)), "{:?}", base.cause());
}
