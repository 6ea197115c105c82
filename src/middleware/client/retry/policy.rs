use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Extensions, HeaderMap, Method, Uri};
use tower::retry::budget::{Budget, TpsBudget};

use super::hedge::Hedge;
use crate::error::{Code, Error};

/// When a call is sent again, how often, and after which wait.
///
/// [`ClientLayer::retry`](crate::ClientLayer::retry) takes it. [The module](super) says when each
/// thing happens.
///
/// Clones share the [budget](Self::budget) and the counts. Use one policy per callee: then an
/// outage of one callee does not use up the budget of another.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use throughline::{ClientLayer, RetryPolicy};
///
/// let retries = RetryPolicy::new()
///     .max_attempts(4)
///     .backoff(Duration::from_millis(20), Duration::from_millis(500))
///     // A POST is not retried unless it is declared idempotent.
///     .idempotent_if(|_method, uri| uri.path() == "/accounts/search");
/// let layer = ClientLayer::internal().retry(retries.clone());
/// assert_eq!((retries.retry_count(), retries.over_budget_count()), (0, 0));
/// # let _ = layer;
/// ```
#[derive(Clone)]
#[must_use]
pub struct RetryPolicy {
    settings: Arc<Settings>,
}

#[derive(Clone)]
pub(in crate::middleware::client) struct Settings {
    pub(super) max_attempts: u32,
    pub(super) initial_backoff: Duration,
    pub(super) max_backoff: Duration,
    pub(super) max_retry_after: Duration,
    pub(super) hedge: Option<Hedge>,
    budget: Arc<dyn Budget + Send + Sync>,
    is_declared: Option<Declaration>,
    retry_if: Option<Rule>,
    counts: Arc<Counts>,
}

type Declaration = Arc<dyn Fn(&Method, &Uri) -> bool + Send + Sync>;
type Rule = Arc<dyn Fn(&Error) -> bool + Send + Sync>;

#[derive(Default)]
struct Counts {
    retries: AtomicU64,
    over_budget: AtomicU64,
}

/// Declares whether one request is idempotent. Put it into the request's extensions.
///
/// It overrides the method and the policy. `Idempotent(false)` forbids retries, for example of a
/// GET that has effects.
///
/// A reqwest request has no extensions. Give it the header `Idempotency-Key`, whose value lets the
/// callee recognize a repetition.
///
/// # Examples
/// ```
/// use throughline::Idempotent;
///
/// let mut search = http::Request::post("http://accounts/search").body(())?;
/// search.extensions_mut().insert(Idempotent(true));
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotent(pub bool);

impl RetryPolicy {
    /// A policy of at most 3 attempts, with a budget of its own.
    ///
    /// [The module](super#defaults) lists the defaults with their reasons.
    pub fn new() -> Self {
        let settings = Settings {
            max_attempts: 3,
            initial_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
            max_retry_after: Duration::from_secs(10),
            hedge: None,
            budget: Arc::new(TpsBudget::default()),
            is_declared: None,
            retry_if: None,
            counts: Arc::default(),
        };
        RetryPolicy { settings: Arc::new(settings) }
    }

    /// Sets how often a call is sent, the first time included. Default: 3.
    ///
    /// With 1, or 0, a call is not retried.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        Arc::make_mut(&mut self.settings).max_attempts = attempts;
        self
    }

    /// Sets the limits of the waits between attempts. Default: 50 ms and 1 s.
    ///
    /// The wait is random, so that clients that failed together do not come back together. It is
    /// between 0 and a limit, which is `initial` before the first retry, and doubles with each
    /// further one up to `max` (gRFC A6).
    pub fn backoff(mut self, initial: Duration, max: Duration) -> Self {
        let settings = Arc::make_mut(&mut self.settings);
        (settings.initial_backoff, settings.max_backoff) = (initial, max);
        self
    }

    /// Sets the longest wait that a callee can ask for. Default: 10 s.
    ///
    /// If `Retry-After`, `RetryInfo` or `grpc-retry-pushback-ms` asks for more, the call is not
    /// retried. Its error has the time: [`Error::retry_after`].
    pub fn max_retry_after(mut self, limit: Duration) -> Self {
        Arc::make_mut(&mut self.settings).max_retry_after = limit;
        self
    }

    /// Sets the budget that all retries and hedges of this policy and its clones share.
    ///
    /// Default: tower's [`TpsBudget`] with its default settings. It allows 10 retries per second
    /// and one for every five calls, counted over 10 s. Each call deposits once. Each retry and
    /// each hedge withdraws once.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use throughline::RetryPolicy;
    /// use tower::retry::budget::TpsBudget;
    ///
    /// // At most one retry for every ten calls, and one per second besides.
    /// let retries = RetryPolicy::new().budget(TpsBudget::new(Duration::from_secs(10), 1, 0.1));
    /// # let _ = retries;
    /// ```
    pub fn budget(mut self, budget: impl Budget + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.settings).budget = Arc::new(budget);
        self
    }

    /// Declares further requests idempotent: those for which `rule` returns `true`.
    ///
    /// The path of a gRPC call is `/package.Service/Method`. A second rule replaces the first.
    ///
    /// # Examples
    /// ```
    /// use throughline::RetryPolicy;
    ///
    /// let reads = ["/bank.Balance/Get", "/bank.Balance/List"];
    /// let retries = RetryPolicy::new().idempotent_if(move |_, uri| reads.contains(&uri.path()));
    /// # let _ = retries;
    /// ```
    pub fn idempotent_if(mut self, rule: impl Fn(&Method, &Uri) -> bool + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.settings).is_declared = Some(Arc::new(rule));
        self
    }

    /// Replaces the rule for which errors are retried. Default: see
    /// [the module](super#what-is-retried).
    ///
    /// An error that says whether it is [`retryable`](Error::retryable) does not reach the rule.
    ///
    /// # Examples
    /// ```
    /// use throughline::{Code, RetryPolicy};
    ///
    /// let retries = RetryPolicy::new().retry_if(|e| matches!(e.code(), Code::Unavailable | Code::Aborted));
    /// # let _ = retries;
    /// ```
    pub fn retry_if(mut self, rule: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.settings).retry_if = Some(Arc::new(rule));
        self
    }

    /// Sends a second attempt if there is no response after `delay`. Default: no hedging.
    ///
    /// See [the module](super#hedging).
    pub fn hedge_after(mut self, delay: Duration) -> Self {
        Arc::make_mut(&mut self.settings).hedge = Some(Hedge::After(delay));
        self
    }

    /// Sends a second attempt if there is no response after most calls have theirs.
    ///
    /// The delay is the time to the response's head that this share of the last 256 calls did not
    /// exceed. With 0.95, about one call in twenty is sent twice. Hedging starts after 20 calls.
    ///
    /// A share outside 0 to 1 counts as the nearest of them. NaN counts as 1.
    pub fn hedge_after_percentile(mut self, share: f64) -> Self {
        Arc::make_mut(&mut self.settings).hedge = Some(Hedge::at_percentile(share));
        self
    }

    /// Returns how many retries and hedges were sent.
    pub fn retry_count(&self) -> u64 {
        self.settings.counts.retries.load(Ordering::Relaxed)
    }

    /// Returns how many retries and hedges were not sent because the budget was used up.
    pub fn over_budget_count(&self) -> u64 {
        self.settings.counts.over_budget.load(Ordering::Relaxed)
    }

    pub(in crate::middleware::client) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }
}

impl Default for RetryPolicy {
    /// Same as [`new`](Self::new).
    fn default() -> Self {
        RetryPolicy::new()
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy").field("max_attempts", &self.settings.max_attempts).finish_non_exhaustive()
    }
}

impl Settings {
    /// Whether the request may be sent twice.
    pub(in crate::middleware::client) fn is_idempotent(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        more: &Extensions,
    ) -> bool {
        if let Some(Idempotent(is_idempotent)) = more.get() {
            return *is_idempotent;
        }
        // RFC 9110 §9.2.2: PUT, DELETE and the safe methods. The header is a draft of the IETF's
        // httpapi group; Go's net/http retries requests that have it.
        matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
            || headers.contains_key("idempotency-key")
            || self.is_declared.as_ref().is_some_and(|is_declared| is_declared(method, uri))
    }

    /// Whether another attempt may succeed where one failed with `error`.
    ///
    /// An error that says that it is not retryable counts by its code here.
    pub(super) fn is_transient(&self, error: &Error, is_grpc: bool) -> bool {
        if error.retryable() == Some(true) {
            return true;
        }
        if let Some(rule) = &self.retry_if {
            return rule(error);
        }
        match error.code() {
            // The time of one attempt was over. That of the context is checked later.
            Code::DeadlineExceeded => true,
            // Over gRPC, this is also the code of a message that is too large.
            Code::ResourceExhausted => !is_grpc || error.retry_after().is_some(),
            code => code.is_retryable(),
        }
    }

    pub(super) fn deposit(&self) {
        self.budget.deposit();
    }

    /// Withdraws one attempt from the budget. `false`: it is used up.
    pub(super) fn withdraw(&self) -> bool {
        let is_granted = self.budget.withdraw();
        let count = if is_granted { &self.counts.retries } else { &self.counts.over_budget };
        count.fetch_add(1, Ordering::Relaxed);
        is_granted
    }
}
