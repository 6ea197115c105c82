use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used: where, and what is wrong.
///
/// Its text begins with the place. That is the file, with line and column if they are known, or the
/// name of the environment variable:
///
/// ```text
/// /etc/balance.toml:3:11: unknown field `timout`, expected one of `timeout`, `idempotent`
/// BALANCE__TIMEOUT: invalid value: string "250", expected a time with its unit, such as "250ms" or "2s"
/// ```
///
/// It holds at most 500 characters of the values that are wrong, and no line of the file.
#[derive(Debug)]
pub struct ConfigError {
    place: Place,
    message: String,
    source: Option<io::Error>,
}

#[derive(Debug)]
enum Place {
    File { path: PathBuf, position: Option<(usize, usize)> },
    Variable(String),
    None,
}

/// The longest message, in characters.
const MAX_MESSAGE: usize = 500;

impl ConfigError {
    /// Returns the file, if the error is in a file.
    pub fn file(&self) -> Option<&Path> {
        match &self.place {
            Place::File { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Returns the line in the file, counted from 1.
    pub fn line(&self) -> Option<usize> {
        self.position().map(|(line, _)| line)
    }

    /// Returns the column in the line, in characters, counted from 1.
    pub fn column(&self) -> Option<usize> {
        self.position().map(|(_, column)| column)
    }

    /// Returns the name of the environment variable, if the error is in one.
    pub fn variable(&self) -> Option<&str> {
        match &self.place {
            Place::Variable(name) => Some(name),
            _ => None,
        }
    }

    /// Returns what is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn position(&self) -> Option<(usize, usize)> {
        match &self.place {
            Place::File { position, .. } => *position,
            _ => None,
        }
    }

    /// An error at `offset` of the file's bytes.
    pub(super) fn at(path: &Path, bytes: &[u8], offset: usize, message: &str) -> Self {
        let before = &bytes[..offset.min(bytes.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
        Self::new(Place::File { path: path.to_owned(), position: Some((line, column)) }, message)
    }

    pub(super) fn in_file(path: &Path, message: &str) -> Self {
        Self::new(Place::File { path: path.to_owned(), position: None }, message)
    }

    pub(super) fn in_variable(name: &str, message: &str) -> Self {
        Self::new(Place::Variable(name.to_owned()), message)
    }

    pub(super) fn elsewhere(message: &str) -> Self {
        Self::new(Place::None, message)
    }

    pub(super) fn io(path: &Path, doing: &str, error: io::Error) -> Self {
        let message = format!("{doing}: {error}");
        ConfigError { source: Some(error), ..Self::in_file(path, &message) }
    }

    fn new(place: Place, message: &str) -> Self {
        // A value in the message can hold anything. On a log line, it must not look like another.
        let plain = message.chars().map(|c| if c.is_control() { ' ' } else { c });
        ConfigError { place, message: plain.take(MAX_MESSAGE).collect(), source: None }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { path, position: Some((line, column)) } => {
                write!(f, "{}:{line}:{column}: ", path.display())?;
            }
            Place::File { path, position: None } => write!(f, "{}: ", path.display())?,
            Place::Variable(name) => write!(f, "{name}: ")?,
            Place::None => {}
        }
        f.write_str(&self.message)
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}
