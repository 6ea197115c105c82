//! Public behaviour, one module per behaviour.

#![allow(clippy::unwrap_used, missing_docs)]
mod error;
