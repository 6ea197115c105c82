//! What an error does not tell its caller, shown inside the process.

use std::any::Any;
use std::error::Error as StdError;
use std::io;

use throughline_core::Span;

use crate::ERROR_LOG_TARGET;
use crate::error::{Chain, Code, Error};

/// Records an error that ends a request, with its sources: an `exception` event on the request's span, and one line in the log.
///
/// A fault is what has a status of 5xx. Other errors are the callers', who can cause any number of them: their lines are at the level
/// DEBUG, and the span's status does not change.
pub(super) fn report(span: &Span, error: &(dyn StdError + 'static), is_fault: bool) {
    match error.downcast_ref::<Error>() {
        Some(error) if is_fault => span.record_returned(error),
        None if is_fault => span.record_returned(error),
        _ if span.is_recording() => {
            let kind = std::any::type_name::<Error>();
            span.add_event(
                "exception",
                [("exception.type", kind.to_owned()), ("exception.message", Chain(error).to_string())],
            );
        }
        _ => {}
    }
    span.enter(|| match is_fault {
        true => tracing::error!(target: ERROR_LOG_TARGET, error = %Chain(error), "a request has failed"),
        false => tracing::debug!(target: ERROR_LOG_TARGET, error = %Chain(error), "a request is refused"),
    });
}

/// [`report`]s a service's error of any type, as far as it is known to be an error. Returns its code, if it has one.
pub(super) fn report_any(span: &Span, error: &dyn Any) -> Option<Code> {
    let boxed =
        || error.downcast_ref::<Box<dyn StdError + Send + Sync>>().map(|error| &**error as &(dyn StdError + 'static));
    let ours = || error.downcast_ref::<Error>().map(|error| error as &(dyn StdError + 'static));
    let io = || error.downcast_ref::<io::Error>().map(|error| error as &(dyn StdError + 'static));
    let error = boxed().or_else(ours).or_else(io)?;
    report(span, error, true);
    Error::among(error).map(Error::code)
}
