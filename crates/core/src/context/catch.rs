//! Catches the panics of user code, so that the code which calls it goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f`. Catches its panic and drops the payload.
pub(super) fn catch_panic(f: impl FnOnce()) {
    let mut result = catch_unwind(AssertUnwindSafe(f));
    // Dropping the payload may panic again, with another payload. Stop after three.
    for _ in 0..3 {
        let Err(payload) = result else { return };
        result = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    }
    std::mem::forget(result);
}
