//! The errors of groups.

use crate::context::{Cause, ContextError};

/// The error of a group: cloneable, usable as a cause, and made from a [`ContextError`].
pub trait GroupError: Clone + Into<Cause> + From<ContextError> + Send + Sync + 'static {}

impl<E: Clone + Into<Cause> + From<ContextError> + Send + Sync + 'static> GroupError for E {}
