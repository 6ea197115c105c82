//! Causes behind an atomic pointer.
//!
//! A cause with an error is boxed, the others are statics.

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

/// A pointer for [`Node::cause`](super::node::Node::cause). [`drop_raw`] frees it.
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

/// Frees a pointer that [`into_raw`] made. Does nothing for null.
///
/// # Safety
/// `raw` is null or made by `into_raw`, and nothing uses it afterwards.
#[inline]
pub(super) unsafe fn drop_raw(raw: *mut Cause) {
    if !raw.is_null() {
        // SAFETY: guaranteed by the caller.
        unsafe { drop_given(raw) };
    }
}

/// As [`drop_raw`], for a pointer that is not null.
#[cold]
unsafe fn drop_given(raw: *mut Cause) {
    // SAFETY: guaranteed by the caller.
    if matches!(unsafe { &*raw }, Cause::Error(_)) {
        // SAFETY: as above; `into_raw` boxes the causes with an error, and only those.
        drop(unsafe { Box::from_raw(raw) });
    }
}
