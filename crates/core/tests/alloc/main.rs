//! What contexts and propagators allocate, and that they free all of it, counted per thread.
#![allow(clippy::unwrap_used, missing_docs)]

mod ceilings;
mod counting;
mod leaks;
mod propagation;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;
