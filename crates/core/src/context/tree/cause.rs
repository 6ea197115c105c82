//! Causes behind an atomic pointer: those that carry nothing are statics, an error is boxed.

use std::ptr;

use crate::context::Cause;

static CANCELED: Cause = Cause::Canceled;
static DEADLINE_EXCEEDED: Cause = Cause::DeadlineExceeded;
static CLIENT_DISCONNECTED: Cause = Cause::ClientDisconnected;
static ABANDONED: Cause = Cause::Abandoned;
static REQUEST_FINISHED: Cause = Cause::RequestFinished;
static SHUTDOWN: Cause = Cause::Shutdown;
static PANICKED: Cause = Cause::Panicked;
static HANDLE_DROPPED: Cause = Cause::HandleDropped;

pub(super) fn into_raw(cause: Cause) -> *mut Cause {
    let fixed = match cause.normalized() {
        Cause::Canceled => &CANCELED,
        Cause::DeadlineExceeded => &DEADLINE_EXCEEDED,
        Cause::ClientDisconnected => &CLIENT_DISCONNECTED,
        Cause::Abandoned => &ABANDONED,
        Cause::RequestFinished => &REQUEST_FINISHED,
        Cause::Shutdown => &SHUTDOWN,
        Cause::Panicked => &PANICKED,
        Cause::HandleDropped => &HANDLE_DROPPED,
        error @ Cause::Error(_) => return Box::into_raw(Box::new(error)),
    };
    ptr::from_ref(fixed).cast_mut()
}

/// Frees what [`into_raw`] made. Null is nothing.
///
/// # Safety
/// `raw` is null or of `into_raw`, and nobody uses it from here on.
#[inline]
pub(super) unsafe fn drop_raw(raw: *mut Cause) {
    if !raw.is_null() {
        // SAFETY: says the caller.
        unsafe { drop_given(raw) };
    }
}

/// As [`drop_raw`], not null.
#[cold]
unsafe fn drop_given(raw: *mut Cause) {
    // SAFETY: says the caller; only a cause with an error in it was boxed.
    if matches!(unsafe { &*raw }, Cause::Error(_)) {
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(raw) });
    }
}
