//! Reading the file.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::error::ConfigError;

/// The most bytes of a configuration file: 1 MiB. A larger one is not read.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// Reads the file. `None`: there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(ConfigError::io(path, "cannot read the file", e)),
    };
    // Opening a named pipe would block until another process writes to it.
    if !metadata.is_file() {
        return Err(ConfigError::in_file(path, "it is not a regular file"));
    }
    if metadata.len() > MAX_BYTES as u64 {
        return Err(too_large(path));
    }
    let mut bytes = Vec::new();
    // The file can grow meanwhile.
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|e| ConfigError::io(path, "cannot read the file", e))?;
    if bytes.len() > MAX_BYTES {
        return Err(too_large(path));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(e) => Err(ConfigError::at(path, e.as_bytes(), e.utf8_error().valid_up_to(), "the text is not UTF-8")),
    }
}

fn too_large(path: &Path) -> ConfigError {
    ConfigError::in_file(path, "the file is larger than 1 MiB")
}
