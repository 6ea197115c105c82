//! The code location and the thread of spans and events.

use std::thread;

use throughline_core::trace::Value;
use tracing_core::Metadata;

/// Which location attributes spans and events get.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Location {
    pub(super) is_code: bool,
    pub(super) is_thread: bool,
}

thread_local! {
    /// The number of the thread. A `ThreadId` shows it in its `Debug` form only.
    static THREAD_ID: Option<u64> = {
        let id = format!("{:?}", thread::current().id());
        id.trim_start_matches("ThreadId(").trim_end_matches(')').parse().ok()
    };
}

impl Location {
    pub(super) fn attributes(self, metadata: &'static Metadata<'static>) -> Vec<(&'static str, Value)> {
        let mut attributes = Vec::new();
        if self.is_code {
            attributes.extend(metadata.file().map(|file| ("code.file.path", file.into())));
            attributes.extend(metadata.line().map(|line| ("code.line.number", line.into())));
            attributes.extend(function(metadata).map(|function| ("code.function.name", function.into())));
        }
        if self.is_thread {
            attributes.extend(THREAD_ID.with(|id| id.map(|id| ("thread.id", id.into()))));
            attributes.extend(thread::current().name().map(|name| ("thread.name", name.to_owned().into())));
        }
        attributes
    }
}

/// Returns the path of the function, for a span made by `#[instrument]`.
///
/// The metadata does not differ from other spans whose name is an identifier, so these match too.
fn function(metadata: &Metadata<'_>) -> Option<String> {
    let is_in_identifier = |c: char| c.is_alphanumeric() || c == '_';
    let name = metadata.name();
    let is_identifier = !name.starts_with(|c: char| c.is_numeric()) && name.chars().all(is_in_identifier);
    if metadata.is_span() && is_identifier { Some(format!("{}::{name}", metadata.module_path()?)) } else { None }
}
