//! The hooks of calls.

use std::sync::Arc;

use http::response;

use super::head::CallHead;
use super::layer::ClientLayer;
use crate::middleware::hooks::{Finished, HookSpan};

/// # Hooks
///
/// They are called with the call's context as the ambient one. A hook that panics does not fail the
/// call. Several hooks of one kind are called in the order in which they were set.
impl ClientLayer {
    /// Calls `hook` when the span of a call has started.
    ///
    /// ```
    /// use throughline::ClientLayer;
    ///
    /// let layer = ClientLayer::internal().on_start(|span, head| {
    ///     span.set_attribute("bank.has_body", head.headers.contains_key("content-type"));
    /// });
    /// # let _ = layer;
    /// ```
    pub fn on_start(self, hook: impl Fn(&HookSpan<'_>, &CallHead<'_>) + Send + Sync + 'static) -> Self {
        self.change(|config| config.on_start.push(Arc::new(hook)))
    }

    /// Calls `hook` when the head of the response has arrived.
    pub fn on_response(self, hook: impl Fn(&HookSpan<'_>, &response::Parts) + Send + Sync + 'static) -> Self {
        self.change(|config| config.on_response.push(Arc::new(hook)))
    }

    /// Calls `hook` before the span of a call ends.
    ///
    /// It gets what is known about the call.
    /// Once for each call, also for those that fail, that are dropped, that are not recorded, or
    /// that are not sent because no time is left.
    ///
    /// ```
    /// use throughline::ClientLayer;
    ///
    /// let layer = ClientLayer::internal().peer("balance").on_end(|_, call| {
    ///     println!("{} {:?}: {:?} after {:?}", call.method, call.peer, call.status, call.duration);
    /// });
    /// # let _ = layer;
    /// ```
    pub fn on_end(self, hook: impl Fn(&HookSpan<'_>, &Finished<'_>) + Send + Sync + 'static) -> Self {
        self.change(|config| config.on_end.push(Arc::new(hook)))
    }
}
