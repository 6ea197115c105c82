use std::error::Error;
use std::fmt;

/// The error when a member of the baggage cannot be set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BaggageError(&'static str);

impl BaggageError {
    pub(super) const KEY: Self = Self("a baggage key must be a token: letters, digits and !#$%&'*+-.^_`|~");
    pub(super) const FULL: Self = Self("baggage must not exceed 8192 bytes and 64 members");
}

impl fmt::Debug for BaggageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BaggageError").field(&self.0).finish()
    }
}

impl fmt::Display for BaggageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for BaggageError {}
