//! The medium NATS. See [`Transport::nats`](crate::Transport::nats).

mod bodies;
mod builder;
mod calls;
mod chunks;
mod envelope;
mod instances;
mod link;
mod medium;
mod micro;
mod options;
mod queue;
mod server;
mod subjects;

pub use builder::NatsBuilder;
pub use options::NatsOptions;
