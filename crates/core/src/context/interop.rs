//! `tokio_util::sync::CancellationToken`, both ways.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Wake, Waker};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::tree::Ref;
use super::{CancelHandle, Context, Key, hook};

/// What cancels a context when its token is; dropped with the last context that could want it.
static TOKEN_LINK: Key<TokenLink> = Key::new("cancellation_token");

impl Context {
    /// A token that is cancelled when this context is done: for libraries that ask for one.
    ///
    /// It is so before [`cancel`](CancelHandle::cancel) returns. Cancelling the token does not cancel the context, nor another token of it.
    /// It costs no task. What connects the two is kept once for a context until it is done, however many tokens are asked for.
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

    /// A child of `parent` that is cancelled when `token` is: for code that is handed one.
    ///
    /// Cancelling it does not cancel the token. It costs no task, and nothing stays when the last context derived from it is gone.
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

/// The token of each node that was asked for one and is not done. Its hook holds the node, so that an address names one node here.
static TOKENS: Mutex<BTreeMap<usize, CancellationToken>> = Mutex::new(BTreeMap::new());

fn tokens() -> MutexGuard<'static, BTreeMap<usize, CancellationToken>> {
    TOKENS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child of the node's token, which is `token` unless another thread was faster.
fn node_token(ctx: &Context, address: usize, token: CancellationToken) -> CancellationToken {
    let token_of_node = token.clone();
    let hook = hook::call_when_done(ctx, move || {
        // Before it is taken out: whoever puts it in after that finds it cancelled.
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

/// The token wakes it, once.
struct Canceller(CancelHandle);

impl Wake for Canceller {
    fn wake(self: Arc<Self>) {
        self.0.cancel();
    }
}

struct TokenLink {
    _canceller: Arc<Canceller>,
    // Never locked: it makes the future `Sync`.
    _waiting: Mutex<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl fmt::Debug for TokenLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenLink")
    }
}
