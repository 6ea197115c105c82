//! Events between services: [`Events`] publishes them, a [`Subscription`] takes them, and the trace goes with them.

mod events;

pub use events::{Consumer, Delivery, Events, GroupCounters, Message, Subscription};
