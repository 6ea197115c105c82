//! `Debug` of a context.

use std::fmt;
use std::time::Instant;

use super::tree::{NodeKind, Ref};
use super::{Context, clock};

/// Prints how the context was derived, as Go does.
///
/// Example: `background.with_cancel.with_deadline(+250ms).with_value(tenant)`. Deadlines are
/// relative to now. Values are never printed, only the names of their keys.
///
/// ```
/// use throughline_core::{Context, Key};
///
/// static PASSWORD: Key<&str> = Key::new("password");
///
/// let ctx = Context::background().with_value(&PASSWORD, "hunter2");
/// assert_eq!(format!("{ctx:?}"), "background.with_value(password)");
/// ```
impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chain = Vec::new();
        let mut next = self.0.as_ref();
        while let Some(node) = next {
            chain.push(node);
            next = node.parent();
        }
        f.write_str("background")?;
        let now = clock::now();
        chain.iter().rev().try_for_each(|node| link(node, now, f))
    }
}

fn link(node: &Ref, now: Instant, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match (node.kind(), node.deadline()) {
        (NodeKind::Cancel, _) => f.write_str(".with_cancel"),
        (NodeKind::Merge, _) => f.write_str(".merge(…)"),
        (NodeKind::Deadline, Some(at)) if at >= now => write!(f, ".with_deadline(+{:?})", at - now),
        (NodeKind::Deadline, Some(at)) => write!(f, ".with_deadline(-{:?})", now - at),
        (NodeKind::Deadline, None) => f.write_str(".with_deadline"),
        (NodeKind::WithoutCancel, _) => f.write_str(".without_cancel"),
        (NodeKind::Value, _) => write!(f, ".with_value({})", name(node)),
        (NodeKind::Nothing, _) => write!(f, ".without_value({})", name(node)),
        (NodeKind::Table, _) => Ok(()),
    }
}

fn name(node: &Ref) -> &'static str {
    node.key().map_or("", |key| key.name)
}
