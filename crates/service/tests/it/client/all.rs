//! Several calls at the same time.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use throughline::{Code, Context, Error};
use throughline_service::client::{CallFailures, call_all, try_call_all};

use crate::support::millis;

#[tokio::test(start_paused = true)]
async fn no_more_calls_run_at_a_time_than_the_limit_and_results_are_in_order() {
    let (running, most) = (Cell::new(0), Cell::new(0));
    let (running, most) = (&running, &most);
    let calls = (0..20_u64).map(|number| {
        ("balance", async move |_ctx: Context| {
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            tokio::time::sleep(millis(20 - number)).await;
            running.set(running.get() - 1);
            Ok::<_, Error>(number)
        })
    });
    let results = call_all(&Context::background(), 3, calls).await.unwrap();
    assert_eq!((results, most.get()), ((0..20).collect(), 3));
}

#[tokio::test(start_paused = true)]
async fn failures_of_different_codes_are_internal_and_each_is_named_with_its_service() {
    let calls = [("balance", Code::Unavailable), ("cards", Code::NotFound), ("ledger", Code::Aborted)];
    let calls = calls.map(|(service, code)| {
        (service, async move |_ctx: Context| match code {
            Code::Aborted => Ok(1),
            code => Err(Error::new(code, "no").with_retry_after(Duration::from_secs(3))),
        })
    });
    let error = call_all(&Context::background(), 9, calls).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::Internal, Some(false)));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
    assert_eq!(error.message(), "2 of 3 calls failed: balance: UNAVAILABLE: no; cards: NOT_FOUND: no");
    let codes: Vec<_> = CallFailures::find_in(&error).unwrap().iter().map(|(_, error)| error.code()).collect();
    assert_eq!(codes, [Code::Unavailable, Code::NotFound]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_does_not_stop_the_others_and_a_long_list_is_cut_off() {
    let finished = &Cell::new(0);
    let calls = (0..20).map(|number| {
        ("balance", async move |_ctx: Context| {
            tokio::time::sleep(millis(number)).await;
            finished.set(finished.get() + 1);
            Err::<(), _>(Error::new(Code::Unavailable, "no"))
        })
    });
    let error = call_all(&Context::background(), 20, calls).await.unwrap_err();
    assert_eq!((error.code(), error.retryable(), finished.get()), (Code::Unavailable, Some(true), 20));
    assert!(error.message().ends_with("; and 12 more"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_cancels_the_other_calls_and_is_their_cause() {
    let seen = &RefCell::new(Vec::new());
    let start = tokio::time::Instant::now();
    let calls = (0..3).map(|number| {
        async move |ctx: Context| {
            seen.borrow_mut().push(ctx.clone());
            tokio::time::sleep(millis(if number == 1 { 10 } else { 60_000 })).await;
            Err::<(), _>(Error::new(Code::NotFound, "no card"))
        }
    });
    let error = try_call_all(&Context::background(), 2, calls).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::NotFound, "no card"));
    assert_eq!((start.elapsed(), seen.borrow().len()), (millis(10), 2), "the third never began");
    let cause = seen.borrow()[0].cause().unwrap();
    assert_eq!(cause.downcast_ref::<Error>().map(Error::message), Some("no card"));
}

#[tokio::test(start_paused = true)]
async fn calls_end_with_the_context() {
    let ctx = Context::background().with_timeout(millis(50));
    let calls = (0..3).map(|_| {
        ("balance", async move |ctx: Context| {
            let slow = tokio::time::sleep(millis(60_000));
            ctx.run(slow).await.map_err(|_| Error::from_context(&ctx))
        })
    });
    let error = call_all(&ctx, 3, calls).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
}
