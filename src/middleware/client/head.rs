use http::{HeaderMap, Method, Uri};

use crate::middleware::hooks::HookSpan;

pub(super) type OnStart = dyn Fn(&HookSpan<'_>, &CallHead<'_>) + Send + Sync;

/// The head of a call that is about to be sent, for a hook.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CallHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The address that is called.
    pub uri: &'a Uri,
    /// The headers, without those that the layer adds.
    pub headers: &'a HeaderMap,
}
