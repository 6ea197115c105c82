//! A card payment, in the shape of the services of a young bank: eleven services that talk HTTP to each other, and events.
//!
//! Read `services` for what they do; each handler is business and nothing else. `kit` is what they share, `app` starts them, `scenario`
//! plays with them.

pub mod app;
pub mod domain;
pub mod kit;
pub mod recent;
pub mod scenario;
pub mod services;
