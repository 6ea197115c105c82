//! A card payment over eleven services of a bank, which use HTTP and events.
//!
//! - `services`: what each service does. The handlers are business logic only.
//! - `kit`: what the services share.
//! - `app`: starts the services.
//! - `scenario`: sends requests to them.

pub mod app;
pub mod domain;
pub mod kit;
pub mod recent;
pub mod scenario;
pub mod services;
