//! Publish and subscribe between services, with context propagation.
//!
//! [`Events`] publishes messages. A [`Subscription`] receives them. Each message carries the trace,
//! the baggage and other wire values of its publisher.

mod events;

pub use events::{Consumer, Delivery, Events, GroupCounters, Message, Subscription};
