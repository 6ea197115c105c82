//! Named services and events over any medium, with context propagation.
//!
//! | | |
//! |---|---|
//! | [`Transport`] | sends requests to named services, and receives them with a [`Listener`] |
//! | [`Medium`] | moves them: in this process, over HTTP/2, over NATS, or over a medium of your own |
//! | [`Events`] | publishes messages; a [`Subscription`] receives them |
//!
//! A request carries the whole context: the deadline, the cancellation, the trace, the baggage and
//! other wire values. A message carries the context of its publisher without the deadline and the
//! cancellation.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod control;
mod endpoint;
mod error;
mod events;
#[cfg(feature = "http2")]
mod http2;
mod in_process;
mod inbox;
mod listener;
mod medium;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "http2")]
mod resolver;
mod responder;
mod transport;

pub use control::ListenerCounters;
pub use endpoint::{Endpoint, Sending};
pub use error::NoSuchService;
#[cfg(feature = "nats")]
#[cfg_attr(docsrs, doc(cfg(feature = "nats")))]
pub use events::NatsEvents;
pub use events::{
    Consumer, DeadLetter, Delivery, Events, GroupCounters, GroupLimits, Message, MessageInfo, Outcome, Producer,
    Subscription,
};
#[cfg(feature = "http2")]
#[cfg_attr(docsrs, doc(cfg(feature = "http2")))]
pub use http2::Http2;
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub use http2::Tls;
pub use inbox::{Admission, Inbox, Reply};
pub use listener::Listener;
pub use medium::{InstanceChanges, Medium, Outgoing};
#[cfg(feature = "nats")]
#[cfg_attr(docsrs, doc(cfg(feature = "nats")))]
pub use nats::{NatsBuilder, NatsOptions};
#[cfg(feature = "dns")]
#[cfg_attr(docsrs, doc(cfg(feature = "dns")))]
pub use resolver::DnsResolver;
#[cfg(feature = "http2")]
#[cfg_attr(docsrs, doc(cfg(feature = "http2")))]
pub use resolver::{Instance, InstanceSets, Resolver, StaticResolver};
pub use responder::{Incoming, Responder};
pub use transport::{Instances, Transport};

#[cfg(all(doctest, feature = "nats"))]
#[doc = include_str!("../../../docs/guide/nats.md")]
struct GuideNats;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/comparison.md")]
struct Comparison;

#[cfg(all(doctest, feature = "http2"))]
#[doc = include_str!("../../../docs/guide/http2.md")]
struct GuideHttp2;

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/events.md")]
struct GuideEvents;
