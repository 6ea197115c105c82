//! Reports errors inside the process: on the span and in the log.
//!
//! Callers never see the sources of an error. Here they are recorded.

use std::any::Any;
use std::error::Error as StdError;
use std::io;

use throughline_core::{Span, error_message};

use crate::ERROR_LOG_TARGET;
use crate::error::{Code, Error};

/// Records an error that ends a request, with its sources.
///
/// The span gets an `exception` event, and the log gets one line.
///
/// An error is a fault if its status is 5xx. Callers cause the other errors, and can cause any
/// number of them. So those are logged at level DEBUG, and do not change the span's status.
pub(super) fn report(span: &Span, error: &(dyn StdError + 'static), is_fault: bool) {
    match error.downcast_ref::<Error>() {
        Some(error) if is_fault => span.record_returned(error),
        None if is_fault => span.record_returned(error),
        _ if span.is_recording() => {
            let kind = std::any::type_name::<Error>();
            span.add_event(
                "exception",
                [("exception.type", kind.to_owned()), ("exception.message", error_message(error))],
            );
        }
        _ => {}
    }
    span.enter(|| match is_fault {
        true => tracing::error!(target: ERROR_LOG_TARGET, error = %error_message(error), "a request has failed"),
        false => tracing::debug!(target: ERROR_LOG_TARGET, error = %error_message(error), "a request is refused"),
    });
}

/// Reports a service error of any type, if the type is a known error type.
///
/// The known types are a boxed error, [`Error`] and [`io::Error`].
///
/// Returns the code of the [`Error`] among the error and its sources.
pub(super) fn report_any(span: &Span, error: &dyn Any) -> Option<Code> {
    let boxed =
        || error.downcast_ref::<Box<dyn StdError + Send + Sync>>().map(|error| &**error as &(dyn StdError + 'static));
    let own = || error.downcast_ref::<Error>().map(|error| error as &(dyn StdError + 'static));
    let io = || error.downcast_ref::<io::Error>().map(|error| error as &(dyn StdError + 'static));
    let error = boxed().or_else(own).or_else(io)?;
    report(span, error, true);
    Error::find_in(error).map(Error::code)
}
