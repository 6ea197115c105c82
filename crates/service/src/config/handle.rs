use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::error::ConfigError;
use super::loader::Loader;
use super::watched::{Source, Watched};
use super::watcher::{FileWatcher, Next};

/// A typed configuration: from a TOML file and the environment, reloaded when the file changes.
///
/// [`builder`](Self::builder) makes it. The environment overrides the file, and the file overrides
/// the defaults of the type.
///
/// While the program runs, a file that cannot be used changes nothing: the old values stay, one
/// error is logged with file, line and column (`throughline::config`), and
/// [`last_error`](Self::last_error) returns it until a good file is there. Errors are:
/// - the file is gone, empty, larger than 1 MiB, not UTF-8, or not TOML;
/// - a value does not fit its type, or a name is unknown to a type with `deny_unknown_fields`;
/// - [`validate`](super::ConfigBuilder::validate) refuses the value.
///
/// The variables are read once, at the start.
///
/// Handles are cheap to clone. The threads that watch the file end after the last of the handles
/// and of the [`Watched`] values that come from them is dropped. They hold no value.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use serde::Deserialize;
/// use throughline_service::config::{self, Config, ServiceSettings};
///
/// #[derive(Default, Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// struct Balance {
///     currency: String,
///     service: ServiceSettings,
/// }
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("balance.toml");
/// std::fs::write(&path, "currency = 'EUR'\n[service]\nmax_timeout = '2s'\n")?;
/// let config: Config<Balance> = Config::builder().file(&path).environment("BALANCE").watch()?;
/// assert_eq!(config.current().currency, "EUR");
///
/// let service = config.map(|balance| balance.service.clone());
/// assert_eq!(service.current().max_timeout, Some(Duration::from_secs(2)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Config<T> {
    shared: Arc<Shared<T>>,
    /// The attempts that this handle has seen.
    attempts: watch::Receiver<()>,
}

struct Shared<T> {
    current: ArcSwap<T>,
    error: ArcSwapOption<ConfigError>,
    /// Notified after each attempt to reload.
    attempts: watch::Sender<()>,
    reloads: AtomicU64,
    errors: AtomicU64,
    /// Wakes the thread, which ends when nothing holds this any more.
    wake: Option<SyncSender<()>>,
}

impl<T: DeserializeOwned + Send + Sync + 'static> Config<T> {
    /// Loads the value, and then watches the file if `is_watched`.
    pub(super) fn start(loader: Loader<T>, is_watched: bool) -> Result<Self, ConfigError> {
        // Before the file is read, so that no change is missed.
        let watched = loader.path.clone().filter(|_| is_watched);
        let watcher = watched.map(FileWatcher::new).transpose()?;
        let text = loader.read_first()?;
        let value = loader.parse(text.as_deref())?;
        let (sender, attempts) = watch::channel(());
        let shared = Arc::new(Shared {
            current: ArcSwap::from_pointee(value),
            error: ArcSwapOption::empty(),
            attempts: sender,
            reloads: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            wake: watcher.as_ref().map(FileWatcher::waker),
        });
        if let Some(watcher) = watcher {
            let last = text.ok_or_else(|| loader.missing().to_string());
            let mut reload = Reload { loader, last, shared: Arc::downgrade(&shared) };
            let spawned = watcher.spawn(move |watched| reload.run(watched));
            spawned.map_err(|e| ConfigError::elsewhere(&format!("cannot start the thread that watches: {e}")))?;
        }
        Ok(Config { shared, attempts })
    }
}

impl<T: Send + Sync + 'static> Config<T> {
    /// Returns the current value. It is read without a lock.
    ///
    /// Call it for each request. The value that it returns does not change: a request sees one
    /// version of its settings.
    pub fn current(&self) -> Arc<T> {
        self.shared.current.load_full()
    }

    /// Returns the value with its changes.
    pub fn watched(&self) -> Watched<T> {
        Watched::of(Arc::clone(&self.shared) as Arc<dyn Source<T>>)
    }

    /// Derives a value that changes with the configuration, such as a section of it.
    ///
    /// See [`Watched::map`].
    pub fn map<U: Send + Sync + 'static>(&self, f: impl Fn(&T) -> U + Send + Sync + 'static) -> Watched<U> {
        self.watched().map(f)
    }

    /// Waits for the next reload, good or bad, and returns its result.
    ///
    /// The first call waits for a reload after the handle was made. Results between two calls are
    /// skipped. A file that is written again with the same content is not reloaded. It does not end
    /// if nothing is watched.
    ///
    /// # Errors
    /// The file cannot be used. The old values hold.
    ///
    /// # Cancellation safety
    /// Dropping the future loses nothing: the next call returns the result.
    pub async fn reloaded(&mut self) -> Result<Arc<T>, Arc<ConfigError>> {
        self.attempts.changed().await.expect("the handle holds the sender");
        self.last_error().map_or_else(|| Ok(self.current()), Err)
    }

    /// Returns why the file as it is now cannot be used. `None`: it is in use.
    pub fn last_error(&self) -> Option<Arc<ConfigError>> {
        self.shared.error.load_full()
    }

    /// Returns how often the value was replaced.
    pub fn reload_count(&self) -> u64 {
        self.shared.reloads.load(Ordering::Relaxed)
    }

    /// Returns how often a changed file could not be used.
    pub fn error_count(&self) -> u64 {
        self.shared.errors.load(Ordering::Relaxed)
    }
}

impl<T: Send + Sync> Source<T> for Shared<T> {
    fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    fn next_change(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut attempts = self.attempts.subscribe();
        Box::pin(async move {
            // The handle that waits holds the sender, so that there is no error.
            let _ = attempts.changed().await;
        })
    }
}

impl<T> Shared<T> {
    fn replace(&self, value: T) {
        self.current.store(Arc::new(value));
        self.error.store(None);
        self.reloads.fetch_add(1, Ordering::Relaxed);
        tracing::info!(target: "throughline::config", "the configuration was reloaded");
        self.attempts.send_replace(());
    }

    fn fail(&self, error: ConfigError) {
        let file = error.file().map(|file| file.display().to_string());
        tracing::error!(
            target: "throughline::config",
            file, line = error.line(), column = error.column(), variable = error.variable(),
            "the configuration was not reloaded, the old values hold: {error}"
        );
        self.error.store(Some(Arc::new(error)));
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.attempts.send_replace(());
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if let Some(wake) = &self.wake {
            // A full queue wakes the thread, too.
            let _ = wake.try_send(());
        }
    }
}

/// What the thread does after a change.
struct Reload<T> {
    loader: Loader<T>,
    /// The last text, or the error that was there instead.
    last: Result<String, String>,
    shared: Weak<Shared<T>>,
}

impl<T: DeserializeOwned + Send + Sync + 'static> Reload<T> {
    fn run(&mut self, watched: Result<(), ConfigError>) -> Next {
        let Some(shared) = self.shared.upgrade() else { return Next::Stop };
        let text = watched.and_then(|()| self.loader.read_again());
        let seen = text.as_ref().map(String::clone).map_err(ToString::to_string);
        if seen == self.last {
            return Next::Wait;
        }
        self.last = seen;
        // The user's code: deserializing, the validation, and dropping the old value.
        let attempt = catch_unwind(AssertUnwindSafe(|| match text.and_then(|text| self.loader.parse_again(&text)) {
            Ok(value) => shared.replace(value),
            Err(error) => shared.fail(error),
        }));
        if attempt.is_err() {
            shared.fail(ConfigError::elsewhere("reading the configuration panicked"));
        }
        Next::Wait
    }
}

impl<T> Clone for Config<T> {
    fn clone(&self) -> Self {
        Config { shared: Arc::clone(&self.shared), attempts: self.attempts.clone() }
    }
}

impl<T: Send + Sync + 'static> From<Config<T>> for Watched<T> {
    fn from(config: Config<T>) -> Self {
        config.watched()
    }
}

impl<T: fmt::Debug> fmt::Debug for Config<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("current", &self.shared.current.load())
            .field("last_error", &self.shared.error.load())
            .finish_non_exhaustive()
    }
}
