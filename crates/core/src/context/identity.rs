//! Identity of contexts: equality and hash.

use std::hash::{Hash, Hasher};

use super::Context;
use super::tree::Ref;

/// Two contexts are equal if one is a clone of the other.
///
/// Deadline, values and error are not compared. Two contexts that are derived separately are not
/// equal, even if they have the same deadline and values.
///
/// A method that derives a child may return a clone if it has nothing to change. An example is
/// [`with_timeout`](Context::with_timeout) with a later deadline. All
/// [`background`](Context::background) contexts are equal.
///
/// The cost does not depend on the depth of the tree.
///
/// # Examples
/// ```
/// use throughline_core::Context;
///
/// let request = Context::background().with_cancel();
/// let ctx = request.context().clone();
/// assert_eq!(&ctx, request.context());
/// assert_ne!(ctx.with_cancel().context(), ctx.with_cancel().context());
/// assert_eq!(Context::background(), Context::default());
/// ```
impl PartialEq for Context {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        address(self) == address(other)
    }
}

impl Eq for Context {}

/// Hashes the identity, which stays the same after the context is done.
///
/// A context that is the key of a map stays alive in it. So no other context can take its identity.
///
/// # Examples
/// ```
/// use std::collections::HashMap;
/// use throughline_core::Context;
///
/// let request = Context::background().with_cancel();
/// let mut open = HashMap::from([(request.context().clone(), "GET /cards")]);
/// request.cancel();
/// assert_eq!(open.remove(request.context()), Some("GET /cards"));
/// ```
impl Hash for Context {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        address(self).hash(state);
    }
}

/// The address of the node; zero for a context without a node.
#[inline]
fn address(ctx: &Context) -> usize {
    ctx.0.as_ref().map_or(0, Ref::address)
}
