//! The text of an error with its sources, bounded.

use std::error::Error;
use std::fmt::{self, Write};

/// The limit of an error message in bytes, its sources included.
const MAX_MESSAGE: usize = 4 * 1024;
/// The limit of sources in a message. A chain of sources can be endless.
const MAX_SOURCES: usize = 16;

/// Returns the error's message and those of its [`source`](Error::source)s, as `a: b: c`.
///
/// It includes at most 16 sources and has at most 4 KiB. A source is left out if the text so far
/// ends with the source's message.
///
/// ```
/// use throughline_core::error_message;
///
/// #[derive(Debug)]
/// struct Save(std::io::Error);
///
/// impl std::fmt::Display for Save {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str("cannot save")
///     }
/// }
///
/// impl std::error::Error for Save {
///     fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
///         Some(&self.0)
///     }
/// }
///
/// let error = Save(std::io::Error::other("disk full"));
/// assert_eq!(error_message(&error), "cannot save: disk full");
/// ```
pub fn error_message<E: Error + ?Sized>(error: &E) -> String {
    let mut text = Bounded(String::new());
    let _ = write!(text, "{error}");
    let mut source = error.source();
    for _ in 0..MAX_SOURCES {
        let Some(error) = source else { break };
        let mut message = Bounded(String::new());
        let _ = write!(message, "{error}");
        if !text.0.ends_with(&message.0) {
            let _ = write!(text, ": {}", message.0);
        }
        source = error.source();
    }
    text.0
}

/// A text of at most 4 KiB. A write past the limit fails, which stops an endless `Display`.
pub(crate) struct Bounded(pub(crate) String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_MESSAGE - self.0.len();
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        self.0.push_str(&text[..end]);
        Err(fmt::Error)
    }
}
