//! Messages for the person who runs the process.

use std::fmt::Arguments;
use std::io::{Write, stderr};

/// Writes a line to stderr. A stderr that is closed changes nothing, where `eprintln!` panics.
pub(super) fn warn(message: Arguments<'_>) {
    let _ = writeln!(stderr(), "throughline: {message}");
}
