//! Traces for the eye, on a fixed clock.

#![allow(clippy::unwrap_used)]

mod jaeger;
mod lines;
mod order;
mod path;
mod support;
mod waterfall;
