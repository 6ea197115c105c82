//! The medium HTTP/2.

use throughline_transport::{StaticResolver, Transport};

use crate::conformance::Harness;

struct Http2 {
    server: Transport,
    client: Transport,
}

impl Harness for Http2 {
    async fn start(configure: fn(Transport) -> Transport) -> Option<Self> {
        let server = Transport::http2().bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = server.local_addr().expect("it is bound").to_string();
        let addresses = StaticResolver::new().with("balance", [address.clone()]).with("cards", [address]);
        let client = Transport::http2().resolver(addresses).client();
        Some(Http2 { server: configure(server), client: configure(client) })
    }

    fn server(&self) -> &Transport {
        &self.server
    }

    fn client(&self) -> &Transport {
        &self.client
    }
}

crate::conformance!(Http2);
