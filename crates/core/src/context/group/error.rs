//! The errors of groups.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::context::{Cause, ContextError};

/// The error of a group: cloneable, usable as a cause, and made from a [`ContextError`].
///
/// [`SharedError`] holds an error of any other type.
pub trait GroupError: Clone + Into<Cause> + From<ContextError> + Send + Sync + 'static {}

impl<E: Clone + Into<Cause> + From<ContextError> + Send + Sync + 'static> GroupError for E {}

/// Any error, in a form that can be the error of a [`Group`](super::Group).
///
/// `?` converts into it what converts into `Box<dyn Error + Send + Sync>`: an [`io::Error`], an
/// `anyhow::Error`, a boxed error, or a text. A clone increments a reference count.
///
/// It derefs to the error, so [`downcast_ref`](Error#method.downcast_ref) and
/// [`source`](Error::source) work. As `anyhow::Error`, it is not an [`Error`] itself.
/// [`into_arc`](Self::into_arc) returns one.
///
/// [`io::Error`]: std::io::Error
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::io;
/// use throughline_core::{Context, Group, SharedError};
///
/// let mut group: Group<SharedError> = Group::new(&Context::background());
/// let read = group.spawn(async |_ctx| Ok(std::fs::read("/no such file")?));
/// let parsed = group.spawn(async |_ctx| Ok("7".parse::<u8>()?));
/// let error = group.join().await.expect_err("there is no such file");
/// let error = error.downcast_ref::<io::Error>().expect("it is the error of `read`");
/// assert_eq!(error.kind(), io::ErrorKind::NotFound);
/// # drop((read, parsed));
/// # }
/// ```
#[derive(Clone)]
pub struct SharedError(Arc<dyn Error + Send + Sync>);

impl SharedError {
    /// Returns the error, for code that takes an [`Error`] by value.
    ///
    /// ```
    /// use throughline_core::SharedError;
    ///
    /// fn run() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    ///     Err(SharedError::from("no route").into_arc())?
    /// }
    /// assert_eq!(run().expect_err("it fails").to_string(), "no route");
    /// ```
    pub fn into_arc(self) -> Arc<dyn Error + Send + Sync> {
        self.0
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for SharedError {
    fn from(error: E) -> Self {
        SharedError(Arc::from(error.into()))
    }
}

/// The cause holds the same error. A [`ContextError`] becomes the variant of the same name.
impl From<SharedError> for Cause {
    fn from(error: SharedError) -> Self {
        Cause::Error(error.0).normalized()
    }
}

impl Deref for SharedError {
    type Target = dyn Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
