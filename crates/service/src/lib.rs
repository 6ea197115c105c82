//! Services that are their handlers, and clients of one line, on any transport.
//!
//! | | |
//! |---|---|
//! | [`BreakerLayer`] | refuses calls to a callee that fails: [`breaker`] |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod breaker;
pub mod config;
#[cfg(feature = "sqlite")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlite")))]
pub mod sqlite;

pub use breaker::{Breaker, BreakerLayer, BreakerSettings, BreakerState};

#[cfg(all(doctest, feature = "config"))]
#[doc = include_str!("../../../docs/guide/configuration.md")]
struct GuideConfiguration;
