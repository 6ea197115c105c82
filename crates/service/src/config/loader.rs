//! One attempt to load: read, parse, validate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::environment::Variable;
use super::error::ConfigError;
use super::{file, parse};

/// What a configuration is loaded from, and what checks it.
pub(super) struct Loader<T> {
    /// An absolute path.
    pub(super) path: Option<PathBuf>,
    pub(super) is_optional: bool,
    pub(super) variables: Vec<Variable>,
    pub(super) validate: Option<Validate<T>>,
}

pub(super) type Validate<T> = Arc<dyn Fn(&T) -> Result<(), String> + Send + Sync>;

impl<T: DeserializeOwned> Loader<T> {
    /// The text of the file at the start. `None`: there is no file, and none is needed.
    pub(super) fn read_first(&self) -> Result<Option<String>, ConfigError> {
        let Some(path) = &self.path else { return Ok(None) };
        match file::read(path)? {
            None if !self.is_optional => Err(self.missing()),
            text => Ok(text),
        }
    }

    /// The text of the file after a change.
    pub(super) fn read_again(&self) -> Result<String, ConfigError> {
        let path = self.path.as_ref().expect("only a file is watched");
        file::read(path)?.ok_or_else(|| self.missing())
    }

    pub(super) fn missing(&self) -> ConfigError {
        ConfigError::in_file(self.path.as_deref().unwrap_or(Path::new("")), "there is no such file")
    }

    /// Parses the text of the file after a change.
    pub(super) fn parse_again(&self, text: &str) -> Result<T, ConfigError> {
        match &self.path {
            // An editor that writes in place has emptied the file, and has not written it yet.
            Some(path) if text.trim().is_empty() => Err(ConfigError::in_file(path, "the file is empty")),
            _ => self.parse(Some(text)),
        }
    }

    pub(super) fn parse(&self, text: Option<&str>) -> Result<T, ConfigError> {
        let path = self.path.as_deref();
        let value = parse::parse(path.filter(|_| text.is_some()), text.unwrap_or_default(), &self.variables)?;
        match self.validate.as_ref().map_or(Ok(()), |validate| validate(&value)) {
            Ok(()) => Ok(value),
            Err(message) => Err(match path {
                Some(path) => ConfigError::in_file(path, &message),
                None => ConfigError::elsewhere(&message),
            }),
        }
    }
}
