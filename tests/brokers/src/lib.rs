//! The samples of `docs/guide/events.md` for brokers of your own. They are compiled, not run.

pub mod amqp;
#[cfg(feature = "kafka")]
pub mod kafka;
