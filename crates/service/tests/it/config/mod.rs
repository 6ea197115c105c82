//! Configuration: files, variables, watching, and the settings of the library.

mod environment;
mod file;
mod guide;
mod running;
mod settings;
mod watched;
mod watching;

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use tempfile::TempDir;
use throughline_service::config::{self, Config, ConfigBuilder};

/// A configuration of a user.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Bank {
    currency: String,
    limit: u64,
    is_open: bool,
    rate: f64,
    #[serde(deserialize_with = "config::duration")]
    patience: std::time::Duration,
    peers: Vec<String>,
    ports: Vec<u16>,
    ledger: Ledger,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Ledger {
    url: Option<String>,
    shards: u32,
}

impl Default for Bank {
    fn default() -> Self {
        Bank {
            currency: "EUR".to_owned(),
            limit: 100,
            is_open: true,
            rate: 0.5,
            patience: std::time::Duration::from_millis(100),
            peers: Vec::new(),
            ports: Vec::new(),
            ledger: Ledger::default(),
        }
    }
}

/// A directory with the path of a configuration file.
struct Place {
    directory: TempDir,
    path: PathBuf,
}

impl Place {
    fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bank.toml");
        Place { directory, path }
    }

    fn with(text: impl AsRef<[u8]>) -> Self {
        let place = Place::empty();
        place.write(text);
        place
    }

    /// Replaces the file as a whole, so that no reader sees half of it.
    fn write(&self, text: impl AsRef<[u8]>) {
        let written = self.directory.path().join("bank.toml.tmp");
        fs::write(&written, text).unwrap();
        fs::rename(&written, &self.path).unwrap();
    }

    fn builder(&self) -> ConfigBuilder<Bank> {
        Config::builder().file(&self.path)
    }
}
