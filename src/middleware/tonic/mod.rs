//! Tonic: a [`Channel`] that sends the context, and [`Metadata`] as a carrier.
//!
//! docs/guide/tonic.md shows the layers around tonic's server and client on one page.

mod channel;
mod metadata;

pub use channel::Channel;
pub use metadata::Metadata;
