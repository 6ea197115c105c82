//! Conversion to and from `tokio_util::sync::CancellationToken`.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Wake, Waker};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::tree::Ref;
use super::{CancelHandle, Context, Key, hook};

/// Cancels a context when its token is cancelled.
///
/// It is dropped with the last context derived from that context.
static TOKEN_LINK: Key<TokenLink> = Key::new("cancellation_token");

impl Context {
    /// Returns a token that is cancelled when this context is done.
    ///
    /// Use it for libraries that take a token.
    ///
    /// The token is cancelled before [`cancel`](CancelHandle::cancel) returns. Cancelling the token
    /// does not cancel the context, nor another token of it. It uses no task. The link between a
    /// context and its tokens is made once and kept until the context is done, however many tokens
    /// are made.
    ///
    /// ```
    /// use throughline_core::Context;
    ///
    /// let request = Context::background().with_cancel();
    /// let token = request.cancellation_token();
    /// request.cancel();
    /// assert!(token.is_cancelled());
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio-util")))]
    pub fn cancellation_token(&self) -> CancellationToken {
        let Some(node) = self.0.as_ref().and_then(Ref::ended_by) else { return CancellationToken::new() };
        if let Some(token) = tokens().get(&node.address()) {
            return token.child_token();
        }
        let token = CancellationToken::new();
        if self.is_done() {
            token.cancel();
            return token;
        }
        node_token(&Context(Some(node.clone())), node.address(), token)
    }

    /// Derives a child of `parent` that is cancelled when `token` is.
    ///
    /// Use it in code that is given a token.
    ///
    /// Cancelling the child does not cancel the token. It uses no task. Nothing stays registered
    /// after the last context derived from the child is dropped.
    ///
    /// ```
    /// use throughline_core::{Context, ContextError};
    /// use tokio_util::sync::CancellationToken;
    ///
    /// let token = CancellationToken::new();
    /// let ctx = Context::from_token(&Context::background(), &token);
    /// token.cancel();
    /// assert_eq!(ctx.err(), Some(ContextError::Canceled));
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio-util")))]
    pub fn from_token(parent: &Context, token: &CancellationToken) -> Context {
        let handle = parent.with_cancel();
        let ctx = handle.context().clone();
        let canceller = Arc::new(Canceller(handle));
        let mut waiting = Box::pin(token.clone().cancelled_owned());
        let waker = Waker::from(Arc::clone(&canceller));
        if waiting.as_mut().poll(&mut TaskContext::from_waker(&waker)).is_ready() {
            canceller.0.cancel();
        }
        ctx.with_value(&TOKEN_LINK, TokenLink { _canceller: canceller, _waiting: Mutex::new(waiting) })
    }
}

/// The tokens of nodes that are not done, by the address of the node.
///
/// The hook of a token holds its node, so no other node can have the same address.
static TOKENS: Mutex<BTreeMap<usize, CancellationToken>> = Mutex::new(BTreeMap::new());

fn tokens() -> MutexGuard<'static, BTreeMap<usize, CancellationToken>> {
    TOKENS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child of the node's token.
///
/// The node's token is `token`, unless another thread has stored one first.
fn node_token(ctx: &Context, address: usize, token: CancellationToken) -> CancellationToken {
    let token_of_node = token.clone();
    let hook = hook::call_when_done(ctx, move || {
        // Cancel first, then remove: a thread that inserts the token after the removal finds it
        // cancelled.
        token_of_node.cancel();
        let kept = tokens().remove(&address);
        drop(kept);
    });
    let mut kept = tokens();
    if let Some(first) = kept.get(&address) {
        let child = first.child_token();
        drop(kept);
        hook.stop();
        return child;
    }
    let child = token.child_token();
    if !token.is_cancelled() {
        kept.insert(address, token);
    }
    child
}

/// The waker of a token. The token wakes it once.
struct Canceller(CancelHandle);

impl Wake for Canceller {
    fn wake(self: Arc<Self>) {
        self.0.cancel();
    }
}

struct TokenLink {
    _canceller: Arc<Canceller>,
    // Never locked. The mutex makes the future `Sync`.
    _waiting: Mutex<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl fmt::Debug for TokenLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenLink")
    }
}
