//! The vocabulary of throughline: one `Context` for every request, the spans it leaves, and their propagation.

mod context;
pub mod propagation;
pub mod trace;
