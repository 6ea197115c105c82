//! A card payment over eleven services of a bank, which use HTTP and events.
//!
//! - `services`: what each service does. The handlers are business logic only.
//! - `kit`: what the services share.
//! - `app`: starts the services.
//! - `scenario`: sends requests to them.
//! - `cli`: the command line.
//!
//! `Dockerfile` and `compose.yaml` run it in containers, beside Jaeger.

pub mod app;
pub mod cli;
pub mod domain;
pub mod kit;
pub mod recent;
pub mod scenario;
pub mod services;
