//! What the transport and the service library add to a call, without a network: with `services`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::Full;
use throughline::{Context, Error};
use throughline_service::{BreakerLayer, BreakerSettings, Client};
use throughline_transport::{Inbox, InstanceChanges, Medium, Outgoing, Transport};
use tower::discover::Change;
use tower::{Layer, Service};

use crate::operations::{Operation, operation};

pub(crate) const OPERATIONS: &[Operation] = &[
    operation("an endpoint whose medium responds at once", ENDPOINT, |n| {
        let endpoint = transport().endpoint("balance", None);
        calls(n, endpoint);
    }),
    operation("the same behind a breaker", BREAKER, |n| {
        let layer = BreakerLayer::new("balance", BreakerSettings::default());
        calls(n, layer.layer(transport().endpoint("balance", None)));
    }),
    operation("`Transport::send` over it, with a deadline", SEND, |n| {
        let transport = transport();
        block_on(async {
            for _ in 0..n {
                let ctx = Context::background().with_timeout(HOUR);
                transport.send(&ctx, "balance", request()).await.expect("the medium responds");
            }
        });
    }),
    operation("`Client::send` over it, two instances", CLIENT, |n| {
        let transport = transport();
        block_on(async {
            let client = Client::new("balance", &transport);
            for _ in 0..n {
                let ctx = Context::background().with_timeout(HOUR);
                client.send(&ctx, request()).await.expect("the medium responds");
            }
        });
    }),
];

const ENDPOINT: u64 = 10_000;
const BREAKER: u64 = 10_000;
const SEND: u64 = 100_000;
const CLIENT: u64 = 100_000;

const HOUR: Duration = Duration::from_secs(3600);

fn request() -> Request<Bytes> {
    Request::post("/reserve").body(Bytes::new()).expect("the path is valid")
}

fn transport() -> Transport {
    Transport::new(AtOnce)
}

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime without I/O needs nothing").block_on(work);
}

fn calls<S>(n: u64, mut service: S)
where
    S: Service<Request<Full<Bytes>>>,
    S::Error: std::fmt::Debug,
{
    block_on(async {
        for _ in 0..n {
            let request = Request::post("http://balance/reserve").body(Full::default()).expect("the URI is valid");
            service.call(request).await.expect("the medium responds");
        }
    });
}

/// Responds to each request at once, for two instances.
#[derive(Debug)]
struct AtOnce;

impl Medium for AtOnce {
    fn listen(&self, _: Inbox) -> BoxFuture<'_, Result<BoxFuture<'static, ()>, Error>> {
        Box::pin(std::future::ready(Ok(Box::pin(std::future::pending()) as BoxFuture<'static, ()>)))
    }

    fn send(&self, _: Outgoing) -> BoxFuture<'static, Result<Response<Bytes>, Error>> {
        Box::pin(std::future::ready(Ok(Response::new(Bytes::new()))))
    }

    fn instances<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<InstanceChanges, Error>> {
        let two = ["a", "b"].map(|name| Change::Insert(Arc::from(name), ()));
        Box::pin(std::future::ready(Ok(stream::iter(two).chain(stream::pending()).boxed())))
    }
}
