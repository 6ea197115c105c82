//! Named services and events over any medium, with context propagation.
//!
//! | | |
//! |---|---|
//! | [`Transport`] | sends requests to named services, and receives them with a [`Listener`] |
//! | [`Medium`] | moves them: in this process, or over a medium of your own |
//! | [`Events`] | publishes messages; a [`Subscription`] receives them |
//!
//! A request carries the whole context: the deadline, the cancellation, the trace, the baggage and
//! other wire values. A message carries the context of its publisher without the deadline and the
//! cancellation.

mod endpoint;
mod error;
mod events;
mod in_process;
mod inbox;
mod listener;
mod medium;
#[cfg(feature = "nats")]
mod nats;
mod transport;

pub use endpoint::{Endpoint, Sending};
pub use error::NoSuchService;
pub use events::{Consumer, Delivery, Events, GroupCounters, Message, Subscription};
pub use inbox::{Inbox, ListenerCounters, Reply};
pub use listener::{Incoming, Listener, Responder};
pub use medium::{InstanceChanges, Medium, Outgoing};
#[cfg(feature = "nats")]
pub use nats::NatsBuilder;
pub use transport::{Instances, Transport};
