//! Code of users that must not take down what calls it.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f`. A panic ends here, and what it carries is dropped.
pub(super) fn shielded(f: impl FnOnce()) {
    let mut result = catch_unwind(AssertUnwindSafe(f));
    // Dropping that may panic in its turn, and so on; not without end.
    for _ in 0..3 {
        let Err(payload) = result else { return };
        result = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    }
    std::mem::forget(result);
}
