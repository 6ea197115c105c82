//! The medium NATS, against a real server.

mod broker;
mod garbage;
mod micro;
mod permissions;

use throughline_transport::Transport;

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
        let server = configure(Transport::nats(broker.url()).name("server").connect().await.unwrap());
        let client = configure(Transport::nats(broker.url()).name("client").connect().await.unwrap());
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
