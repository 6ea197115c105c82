use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{self, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::environment;
use super::error::ConfigError;
use super::handle::Config;
use super::loader::{Loader, Validate};

/// Where a [`Config`] comes from, and what checks it. [`Config::builder`] makes it.
///
/// # Examples
/// ```
/// use serde::Deserialize;
/// use throughline_service::config::Config;
///
/// #[derive(Deserialize)]
/// struct Balance {
///     #[serde(default = "currency")]
///     currency: String,
/// }
///
/// fn currency() -> String {
///     "EUR".to_owned()
/// }
///
/// let config: Config<Balance> = Config::builder()
///     .optional_file("/etc/balance/not-there.toml")
///     .environment("BALANCE")
///     .validate(|balance: &Balance| match balance.currency.len() {
///         3 => Ok(()),
///         _ => Err("currency: it must be a code of three letters, such as EUR".to_owned()),
///     })
///     .load()?;
/// assert_eq!(config.current().currency, "EUR");
/// # Ok::<(), throughline_service::config::ConfigError>(())
/// ```
#[must_use]
pub struct ConfigBuilder<T> {
    path: Option<PathBuf>,
    is_optional: bool,
    prefix: Option<String>,
    variables: Option<Vec<(OsString, OsString)>>,
    validate: Option<Validate<T>>,
}

impl<T: DeserializeOwned + Send + Sync + 'static> Config<T> {
    /// Starts with no file, no environment and no validation.
    pub fn builder() -> ConfigBuilder<T> {
        ConfigBuilder { path: None, is_optional: false, prefix: None, variables: None, validate: None }
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> ConfigBuilder<T> {
    /// Reads this TOML file. If it is missing at the start, that is an error.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        (self.path, self.is_optional) = (Some(path.into()), false);
        self
    }

    /// Reads this TOML file. If it is missing at the start, the defaults and the environment hold.
    ///
    /// A file that comes later is used. One that is removed later is an error: the old values stay.
    pub fn optional_file(mut self, path: impl Into<PathBuf>) -> Self {
        (self.path, self.is_optional) = (Some(path.into()), true);
        self
    }

    /// Reads the environment variables whose names begin with `prefix` and `__`.
    ///
    /// The rest of the name is the key, in any case; `__` separates nested keys. With the prefix
    /// `BALANCE`, the variable `BALANCE__SERVICE__MAX_TIMEOUT` is `max_timeout` in the table
    /// `[service]`. Where the file has a key such as `max-timeout`, it is that one: `-` and `_`
    /// make no difference.
    ///
    /// The type decides how the text is read. It is tried as a TOML value other than a string
    /// (`3`, `true`, `["a", "b"]`), then as text, then as a list with commas (`a,b`).
    ///
    /// An empty variable counts as not set.
    pub fn environment(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Reads these variables instead of the environment's. For tests.
    ///
    /// Only those with the prefix of [`environment`](Self::environment) count.
    ///
    /// # Examples
    /// ```
    /// use serde::Deserialize;
    /// use throughline_service::config::Config;
    ///
    /// #[derive(Deserialize)]
    /// struct Balance {
    ///     peers: Vec<String>,
    /// }
    ///
    /// let variables = [("BALANCE__PEERS", "ledger,cards")];
    /// let config: Config<Balance> = Config::builder().environment("BALANCE").variables(variables).load()?;
    /// assert_eq!(config.current().peers, ["ledger", "cards"]);
    /// # Ok::<(), throughline_service::config::ConfigError>(())
    /// ```
    pub fn variables<K: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.variables = Some(variables.into_iter().map(|(name, text)| (name.into(), text.into())).collect());
        self
    }

    /// Checks each value before it is used. A value that `check` refuses is an error.
    ///
    /// The text of the error should name the setting. `check` is called at the start, and then on
    /// the thread that watches the file. A second call replaces the first.
    pub fn validate(mut self, check: impl Fn(&T) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.validate = Some(Arc::new(check));
        self
    }

    /// Loads the configuration once. It does not change afterwards.
    ///
    /// # Errors
    /// The file or a variable cannot be used. [`ConfigError`] says where and why.
    pub fn load(self) -> Result<Config<T>, ConfigError> {
        Config::start(self.loader()?, false)
    }

    /// Loads the configuration, and then again whenever the file changes.
    ///
    /// It watches the directory of the file, and the directory of each symbolic link on the way to
    /// it. So the file can be written in place, replaced by renaming, or be a link, as in a
    /// `ConfigMap` of Kubernetes. Without a file, it does what [`load`](Self::load) does.
    ///
    /// It needs no tokio runtime. It starts two threads: one of the crate `notify`, one that reads
    /// and validates.
    ///
    /// # Errors
    /// As for [`load`](Self::load), and if a directory cannot be watched, for example because the
    /// system's limit of watches is reached.
    pub fn watch(self) -> Result<Config<T>, ConfigError> {
        Config::start(self.loader()?, true)
    }

    fn loader(self) -> Result<Loader<T>, ConfigError> {
        // The working directory can change later.
        let absolute = |path: PathBuf| {
            path::absolute(&path).map_err(|e| ConfigError::io(&path, "the path cannot be made absolute", e))
        };
        let variables = match (&self.prefix, self.variables) {
            (None, _) => Vec::new(),
            (Some(prefix), Some(variables)) => environment::collect(prefix, variables)?,
            (Some(prefix), None) => environment::collect(prefix, env::vars_os())?,
        };
        let path = self.path.map(absolute).transpose()?;
        Ok(Loader { path, is_optional: self.is_optional, variables, validate: self.validate })
    }
}

impl<T> fmt::Debug for ConfigBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigBuilder").field("file", &self.path).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
