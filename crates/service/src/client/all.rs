//! Several calls at the same time.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;

use futures_util::stream::{self, StreamExt as _};
use throughline::{Cause, Code, Context, Error};

/// Runs calls at the same time, at most `limit`, and returns all their results.
///
/// Each call has the name of the service that it calls, and gets a child of `ctx`. A failure does
/// not stop the others. The results are in the order of the calls. A limit of zero is one. The
/// calls run within this task and may borrow.
///
/// # Errors
/// If a call fails: one error for all failures, whose source is [`CallFailures`]. Its message names
/// each failure with its service. Its code is that of the failures if they have the same one, and
/// it means the same to the caller's caller: `UNAVAILABLE`, `RESOURCE_EXHAUSTED`, `CANCELLED` or
/// `DEADLINE_EXCEEDED`. Otherwise it is `INTERNAL`. It is retryable if each failure is.
///
/// # Cancellation safety
/// Dropping the future drops the calls.
///
/// # Examples
/// ```
/// use throughline::{Code, Context, Error};
/// use throughline_service::client::{CallFailures, call_all};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let calls = ["balance", "cards", "ledger"].map(|service| {
///     (service, async move |_ctx: Context| match service {
///         "balance" => Ok(100),
///         _ => Err(Error::new(Code::Unavailable, "restarting")),
///     })
/// });
/// let error = call_all(&Context::background(), 2, calls).await.expect_err("two have failed");
/// assert_eq!(error.code(), Code::Unavailable);
/// assert_eq!(
///     error.message(),
///     "2 of 3 calls failed: cards: UNAVAILABLE: restarting; ledger: UNAVAILABLE: restarting",
/// );
/// let failures = CallFailures::find_in(&error).expect("it is the source");
/// assert_eq!(failures.iter().map(|(service, _)| service).collect::<Vec<_>>(), ["cards", "ledger"]);
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn call_all<N, F, Fut, T>(
    ctx: &Context,
    limit: usize,
    calls: impl IntoIterator<Item = (N, F)>,
) -> Result<Vec<T>, Error>
where
    N: Into<String>,
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
    let parent = ctx.with_cancel();
    let started = calls.into_iter().map(|(service, call)| {
        let child = parent.context().clone();
        async move { (service.into(), child.scope(async { call(child.clone()).await }).await) }
    });
    let mut results = std::pin::pin!(stream::iter(started).buffered(limit.max(1)));
    let (mut succeeded, mut failures) = (Vec::new(), Vec::new());
    while let Some((service, result)) = results.next().await {
        match result {
            Ok(value) => succeeded.push(value),
            Err(error) => failures.push((service, error)),
        }
    }
    if failures.is_empty() {
        return Ok(succeeded);
    }
    let calls = succeeded.len() + failures.len();
    Err(CallFailures { calls, failures }.into())
}

/// Runs calls at the same time, at most `limit`; the first failure cancels the others.
///
/// Each call gets a child of `ctx`. The results are in the order of the calls. A limit of zero is
/// one. The calls run within this task and may borrow.
///
/// # Errors
/// The first failure. The context of the others is cancelled with it as the cause, and they are
/// dropped.
///
/// # Cancellation safety
/// Dropping the future drops the calls.
///
/// # Examples
/// ```
/// use throughline::{Context, Error};
/// use throughline_service::client::try_call_all;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let cards = [7_u64, 8];
/// let calls = cards.iter().map(|card| async move |_ctx: Context| Ok::<_, Error>(card * 100));
/// assert_eq!(try_call_all(&Context::background(), 8, calls).await?, [700, 800]);
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn try_call_all<F, Fut, T>(
    ctx: &Context,
    limit: usize,
    calls: impl IntoIterator<Item = F>,
) -> Result<Vec<T>, Error>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
    let parent = ctx.with_cancel();
    let started = calls.into_iter().enumerate().map(|(at, call)| {
        let child = parent.context().clone();
        async move { child.scope(async { call(child.clone()).await }).await.map(|value| (at, value)) }
    });
    // The first failure counts, whichever call it is of.
    let mut results = std::pin::pin!(stream::iter(started).buffer_unordered(limit.max(1)));
    let mut succeeded = Vec::new();
    while let Some(result) = results.next().await {
        match result {
            Ok(value) => succeeded.push(value),
            Err(error) => {
                parent.cancel_with(Cause::from(error.clone()));
                return Err(error);
            }
        }
    }
    succeeded.sort_unstable_by_key(|(at, _)| *at);
    Ok(succeeded.into_iter().map(|(_, value)| value).collect())
}

/// The failures of [`call_all`], each with its service: the source of its error.
#[derive(Debug)]
pub struct CallFailures {
    calls: usize,
    failures: Vec<(String, Error)>,
}

impl CallFailures {
    /// Finds the failures that are the source of `error`.
    pub fn find_in(error: &Error) -> Option<&CallFailures> {
        error.source()?.downcast_ref()
    }

    /// Returns the service and the error of each failure, in the order of the calls.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Error)> {
        self.failures.iter().map(|(service, error)| (&**service, error))
    }
}

impl fmt::Display for CallFailures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} calls failed: ", self.failures.len(), self.calls)?;
        for (at, (service, error)) in self.failures.iter().take(MAX_NAMED).enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{service}: {}: {}", error.code(), error.message())?;
        }
        match self.failures.len().saturating_sub(MAX_NAMED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl StdError for CallFailures {}

/// How many failures a message names.
const MAX_NAMED: usize = 8;

impl From<CallFailures> for Error {
    fn from(failures: CallFailures) -> Error {
        let first = failures.iter().next().map_or(Code::Internal, |(_, error)| error.code());
        let is_first = failures.iter().all(|(_, error)| error.code() == first);
        let passes =
            matches!(first, Code::Unavailable | Code::ResourceExhausted | Code::Cancelled | Code::DeadlineExceeded);
        let code = if passes && is_first { first } else { Code::Internal };
        let is_retryable = |error: &Error| error.retryable().unwrap_or(error.code().is_retryable());
        let is_retryable = failures.iter().all(|(_, error)| is_retryable(error));
        let retry_after = failures.iter().filter_map(|(_, error)| error.retry_after()).max();
        let message = failures.to_string();
        let error = Error::wrap(code, failures).with_message(message).with_retryable(is_retryable);
        match retry_after {
            Some(after) => error.with_retry_after(after),
            None => error,
        }
    }
}
