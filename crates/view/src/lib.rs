//! Shows traces in a terminal, or in Jaeger's UI.
//!
//! - [`Trace`] builds a tree from span records.
//! - [`Trace::waterfall`] draws the tree as text, with the deadline.
//! - [`Trace::jaeger_json`] encodes it for Jaeger's UI.
//! - [`Trace::outline`] prints it without times, for tests.

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
