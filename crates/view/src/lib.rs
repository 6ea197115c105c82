//! Traces for the eye: [`Trace`] makes a tree of span records, and draws it as a waterfall for the terminal, with the deadline in it.

mod bar;
mod jaeger;
mod label;
mod options;
mod path;
mod pen;
mod rows;
mod text;
mod trace;
mod waterfall;

pub use options::Options;
pub use trace::{SpanView, Trace};
