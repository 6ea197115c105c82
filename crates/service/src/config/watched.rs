use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

/// A value that can change while the program runs.
///
/// [`current`](Self::current) returns the value, and [`changed`](Self::changed) waits for the next
/// one. [`map`](Self::map) derives another watched value, such as one section of a configuration.
///
/// Where it comes from:
/// - [`Config::watched`](super::Config::watched) and [`Config::map`](super::Config::map): a file
///   and the environment. The file is watched as long as one of these values exists.
/// - [`fixed`](Self::fixed), or `From`: a value that never changes.
/// - A `tokio::sync::watch::Receiver<Arc<T>>`: any other source.
///
/// A `Watched<L>` of a tower layer is a layer itself, and a `Watched<S>` of a
/// [`Sampler`](throughline::trace::Sampler) is a sampler. Both use the current value for each
/// request.
///
/// Cloning costs two reference counts.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use throughline_service::config::Watched;
/// use tokio::sync::watch;
///
/// let (sender, receiver) = watch::channel(Arc::new(2));
/// let number = Watched::from(receiver);
/// let square = number.map(|n| n * n);
/// assert_eq!((*number.current(), *square.current()), (2, 4));
///
/// sender.send_replace(Arc::new(3));
/// assert_eq!((*number.current(), *square.current()), (3, 9));
/// ```
pub struct Watched<T> {
    source: Arc<dyn Source<T>>,
    /// The value that `changed` has returned last.
    seen: Arc<T>,
}

/// Where a watched value comes from.
pub(super) trait Source<T>: Send + Sync {
    fn current(&self) -> Arc<T>;

    /// A future of the next change, counted from this call.
    fn next_change(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// A value that never changes.
    ///
    /// # Examples
    /// ```
    /// use throughline_service::config::Watched;
    ///
    /// assert_eq!(*Watched::fixed("eu-1").current(), "eu-1");
    /// ```
    pub fn fixed(value: T) -> Self {
        let (_, receiver) = watch::channel(Arc::new(value));
        Watched::of(Arc::new(receiver))
    }

    pub(super) fn of(source: Arc<dyn Source<T>>) -> Self {
        let seen = source.current();
        Watched { source, seen }
    }

    /// Returns the current value.
    ///
    /// A value of a [`Config`](super::Config) is read without a lock. Call it for each request. The
    /// value that it returns does not change: a request sees one version of its settings.
    pub fn current(&self) -> Arc<T> {
        self.source.current()
    }

    /// Waits until the value is another than the one that this handle has seen, and returns it.
    ///
    /// A handle has seen the value of its creation, and each one that this method has returned.
    /// Values between two calls are skipped. A derived value counts as changed whenever the value
    /// that it is derived from has changed. It does not end for a value that never changes again.
    ///
    /// # Cancellation safety
    /// Dropping the future loses nothing: the next call returns the value.
    pub async fn changed(&mut self) -> Arc<T> {
        loop {
            let next = self.source.next_change();
            let current = self.current();
            if !Arc::ptr_eq(&current, &self.seen) {
                self.seen = Arc::clone(&current);
                return current;
            }
            next.await;
        }
    }

    /// Derives a value: `f` of the current one.
    ///
    /// `f` is called now, and then by the first read after each change, on the task that reads.
    /// Tasks that read at the same time can all call it; one result counts. It should be fast, and
    /// it should not panic: a panic reaches the reader.
    ///
    /// # Examples
    /// ```
    /// use throughline_service::config::Watched;
    ///
    /// let limits = Watched::fixed((16, 4));
    /// let first = limits.map(|limits| limits.0);
    /// assert_eq!(*first.current(), 16);
    /// ```
    pub fn map<U: Send + Sync + 'static>(&self, f: impl Fn(&T) -> U + Send + Sync + 'static) -> Watched<U> {
        let source = Arc::clone(&self.source);
        Watched::of(Arc::new(Derived { source, f, cached: ArcSwapOption::empty() }))
    }
}

struct Derived<T, U, F> {
    source: Arc<dyn Source<T>>,
    f: F,
    cached: ArcSwapOption<Cached<T, U>>,
}

/// A derived value, and the one that it is derived from.
struct Cached<T, U> {
    from: Arc<T>,
    value: Arc<U>,
}

impl<T, U, F> Source<U> for Derived<T, U, F>
where
    T: Send + Sync,
    U: Send + Sync,
    F: Fn(&T) -> U + Send + Sync,
{
    fn current(&self) -> Arc<U> {
        loop {
            let from = self.source.current();
            let cached = self.cached.load();
            // The cache keeps `from` alive, so that no other value can have its address.
            if let Some(cached) = &*cached
                && Arc::ptr_eq(&cached.from, &from)
            {
                return Arc::clone(&cached.value);
            }
            let value = Arc::new((self.f)(&from));
            let fresh = Arc::new(Cached { from, value: Arc::clone(&value) });
            // If another reader was faster, its value counts: one version has one address.
            let found = self.cached.compare_and_swap(&cached, Some(fresh));
            if found.as_ref().map(Arc::as_ptr) == cached.as_ref().map(Arc::as_ptr) {
                return value;
            }
        }
    }

    fn next_change(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.source.next_change()
    }
}

impl<T: Send + Sync + 'static> Source<T> for watch::Receiver<Arc<T>> {
    fn current(&self) -> Arc<T> {
        Arc::clone(&self.borrow())
    }

    fn next_change(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut receiver = self.clone();
        receiver.mark_unchanged();
        Box::pin(async move {
            if receiver.changed().await.is_err() {
                // The sender is gone: the value never changes again.
                std::future::pending::<()>().await;
            }
        })
    }
}

impl<T: Send + Sync + 'static> From<T> for Watched<T> {
    /// Same as [`fixed`](Self::fixed).
    fn from(value: T) -> Self {
        Watched::fixed(value)
    }
}

impl<T: Send + Sync + 'static> From<watch::Receiver<Arc<T>>> for Watched<T> {
    /// Follows the receiver. When its sender is dropped, the last value stays.
    fn from(receiver: watch::Receiver<Arc<T>>) -> Self {
        Watched::of(Arc::new(receiver))
    }
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Watched { source: Arc::clone(&self.source), seen: Arc::clone(&self.seen) }
    }
}

impl<T: fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.source.current()).finish()
    }
}
