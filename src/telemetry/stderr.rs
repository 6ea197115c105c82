//! Messages on stderr for the operator of the process.

use std::fmt::Arguments;
use std::io::{Write, stderr};

/// Writes a line to stderr. A closed stderr is ignored; `eprintln!` would panic.
pub(super) fn warn(message: Arguments<'_>) {
    let _ = writeln!(stderr(), "throughline: {message}");
}
