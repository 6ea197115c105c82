//! The medium NATS, against a real server.

mod broker;
mod connecting;
mod garbage;
mod micro;
mod permissions;

use throughline::Context;
use throughline_transport::{NatsOptions, Transport};

use crate::conformance::Harness;
use crate::support::nats::NatsServer;

/// Two transports, each with a connection of its own.
struct Nats {
    broker: NatsServer,
    server: Transport,
    client: Transport,
}

impl Harness for Nats {
    async fn start(configure: fn(Transport) -> Transport) -> Option<Self> {
        let broker = NatsServer::start()?;
        let connect = async |name: &str| {
            let options = NatsOptions::new(broker.url()).name(name);
            configure(Transport::nats(options).connect(&Context::background()).await.unwrap())
        };
        let (server, client) = (connect("server").await, connect("client").await);
        Some(Nats { broker, server, client })
    }

    fn server(&self) -> &Transport {
        &self.server
    }

    fn client(&self) -> &Transport {
        &self.client
    }
}

crate::conformance!(Nats);

/// Runs a test, which fails when it hangs. `return` in it ends the test.
#[macro_export]
macro_rules! in_time {
    ($test:expr) => {
        let in_time = tokio::time::timeout($crate::conformance::PATIENCE, $test).await;
        in_time.expect("the test hangs");
    };
}
