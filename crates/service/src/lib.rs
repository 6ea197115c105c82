//! Services that are their handlers, and clients of one line, on any transport.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod config;

#[cfg(all(doctest, feature = "config"))]
#[doc = include_str!("../../../docs/guide/configuration.md")]
struct GuideConfiguration;
