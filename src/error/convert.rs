//! What `?` converts into an [`Error`].

use std::io;
use std::sync::Arc;

use throughline_core::{Context, ContextError, SharedError};
use tokio::task::JoinError;

use super::{Code, Error};

/// `DEADLINE_EXCEEDED` or `CANCELLED`, with the cause of the ambient context where it has one.
///
/// A `ContextError` holds no cause. If [`Context::current`] is done with the same error, the result
/// is that of [`Error::from_context`]. So `?` in a handler, in a task of [`Context::spawn`] or in a
/// [`Group`](crate::Group) keeps the cause. Elsewhere use `from_context`.
///
/// ```
/// use throughline::{Cause, Code, Context, Error};
///
/// fn reserve(ctx: &Context) -> Result<(), Error> {
///     ctx.check()?;
///     Ok(())
/// }
///
/// let request = Context::background().with_cancel();
/// request.cancel_with(Cause::ClientDisconnected);
/// let error = request.enter(|| reserve(&request)).expect_err("it is cancelled");
/// assert_eq!((error.code(), error.message()), (Code::Cancelled, "client disconnected"));
/// let error = reserve(&request).expect_err("it is cancelled");
/// assert_eq!((error.code(), error.message()), (Code::Cancelled, "cancelled"));
/// ```
impl From<ContextError> for Error {
    fn from(error: ContextError) -> Error {
        let ambient = Context::current();
        if ambient.err() == Some(error) { Error::from_context(&ambient) } else { Error::without_cause(error) }
    }
}

/// By its kind, or by the [`ContextError`] inside. An `Error` inside comes back unchanged.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        let error = match error.downcast::<Error>() {
            Ok(error) => return error,
            Err(error) => error,
        };
        match error.get_ref().and_then(|inner| inner.downcast_ref::<ContextError>()) {
            Some(&context_error) => match Error::from(context_error) {
                with_cause if with_cause.0.source.is_some() => with_cause,
                without_source => without_source.with_source(Arc::new(error)),
            },
            None => Error::wrap(Code::from_io_kind(error.kind()), error),
        }
    }
}

/// `INTERNAL` for a task that panicked, `CANCELLED` for one that was aborted.
///
/// So a handler can use `ctx.spawn(work).await??`.
///
/// ```
/// use throughline::{Code, Context, Error};
///
/// async fn total(ctx: &Context) -> Result<u64, Error> {
///     Ok(ctx.spawn(async { 7 }).await??)
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// assert_eq!(total(&Context::background()).await?, 7);
/// let aborted = Context::background().spawn(std::future::pending::<()>());
/// aborted.abort();
/// assert_eq!(Error::from(aborted.await.expect_err("it is aborted")).code(), Code::Cancelled);
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl From<JoinError> for Error {
    fn from(error: JoinError) -> Error {
        Error::wrap(if error.is_cancelled() { Code::Cancelled } else { Code::Internal }, error)
    }
}

/// The `Error` or [`ContextError`] inside, or else `INTERNAL` with the error as its source.
impl From<SharedError> for Error {
    fn from(error: SharedError) -> Error {
        if let Some(error) = Error::find_in(&*error) {
            return error.clone();
        }
        match error.downcast_ref::<ContextError>() {
            Some(&context_error) => Error::from(context_error),
            None => Error::new(Code::Internal, Code::Internal.describe()).with_source(error.into_arc()),
        }
    }
}

/// By its code, with the error inside.
impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::new(error.code().io_kind(), error)
    }
}
