//! The medium HTTP/2.

mod client;
#[cfg(feature = "dns")]
mod dns;
mod garbage;
mod peers;
mod server;
#[cfg(feature = "tls")]
mod tls;

use throughline_transport::{Http2, StaticResolver, Transport};

use crate::conformance::Harness;

struct OverHttp2 {
    server: Transport,
    client: Transport,
}

impl OverHttp2 {
    async fn start(server: Http2, client: Http2, configure: fn(Transport) -> Transport) -> Self {
        let server = server.bind("127.0.0.1:0").await.expect("loopback has a free port");
        let client = client.resolver(addresses([&server])).client();
        OverHttp2 { server: configure(server), client: configure(client) }
    }
}

impl Harness for OverHttp2 {
    async fn start(configure: fn(Transport) -> Transport) -> Option<Self> {
        Some(OverHttp2::start(Transport::http2(), Transport::http2(), configure).await)
    }

    fn server(&self) -> &Transport {
        &self.server
    }

    fn client(&self) -> &Transport {
        &self.client
    }
}

crate::conformance!(OverHttp2);

async fn bound() -> Transport {
    Transport::http2().bind("127.0.0.1:0").await.expect("loopback has a free port")
}

fn address_of(server: &Transport) -> String {
    server.local_addr().expect("it is bound").to_string()
}

/// `balance` and `cards` at these servers.
fn addresses<'a>(servers: impl IntoIterator<Item = &'a Transport>) -> StaticResolver {
    let all: Vec<_> = servers.into_iter().map(address_of).collect();
    StaticResolver::new().with("balance", all.clone()).with("cards", all)
}

/// A client of `balance` at this address.
fn client_of(address: impl Into<String>) -> Transport {
    Transport::http2().resolver(StaticResolver::new().with("balance", [address.into()])).client()
}
