//! Tests of the drawings and encodings, with fixed times.

#![allow(clippy::unwrap_used)]

mod jaeger;
mod lines;
mod order;
mod path;
mod support;
mod waterfall;
