//! Which instance gets a request, and over which connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use throughline::{Code, Context};
use throughline_transport::{NoSuchService, StaticResolver, Transport};
use tokio::sync::mpsc;
use tower::discover::Change;

use super::peers::{Proxy, refusing};
use super::{address_of, addresses, bound, client_of};
use crate::conformance::{request, serve};

fn client(addresses: StaticResolver) -> Transport {
    Transport::http2().resolver(addresses).client()
}

async fn send(client: &Transport) -> Result<Response<Bytes>, throughline::Error> {
    client.send(&Context::background(), "balance", request("/", "")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_first_requests_share_one_connection() {
    let server = bound().await;
    serve(&server, "balance", async |_, request: Request<Bytes>| Ok(Response::new(request.into_body()))).await;
    let proxy = Proxy::to(server.local_addr().unwrap()).await;
    let client = client_of(proxy.address.to_string());
    let calls = (0..1000).map(|number: u32| {
        let client = client.clone();
        tokio::spawn(async move {
            let body = number.to_string();
            let sent = client.send(&Context::background(), "balance", request("/", body.clone())).await;
            assert_eq!(sent.unwrap().body(), body.as_bytes());
        })
    });
    join_all(calls).await.into_iter().for_each(|call| call.unwrap());
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_cancelled_requests_do_not_end_the_connection() {
    let server = bound().await;
    let mut listener = server.listen("balance").await.unwrap();
    let proxy = Proxy::to(server.local_addr().unwrap()).await;
    let client = client_of(proxy.address.to_string());
    // h2 closes a connection after 1,024 late frames or resets, unless it has other limits.
    for _ in 0..30 {
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { send(&client).await })
            })
            .collect();
        let mut taken = Vec::new();
        while taken.len() < calls.len() {
            taken.push(listener.next().await.unwrap());
        }
        // Half of the callers give up while their response is on its way.
        for incoming in taken.drain(..50) {
            incoming.responder.respond(Response::new(Bytes::from(vec![b'a'; 20_000])));
        }
        calls.iter().for_each(|call| call.abort());
        for mut incoming in taken {
            incoming.responder.closed().await;
        }
    }
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn an_address_that_refuses_connections_is_unavailable_at_once() {
    let address = refusing().await;
    let error = send(&client_of(address.to_string())).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)));
    assert!(error.message().starts_with(&format!("balance at {address} cannot be reached: ")), "{error:?}");
}

#[tokio::test]
async fn an_address_that_is_not_valid_is_unavailable_at_once() {
    let error = send(&client_of("no port")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().starts_with("balance at no port cannot be reached: "), "{error:?}");
}

#[tokio::test]
async fn a_service_without_instances_is_unavailable_at_once() {
    let error = send(&client(StaticResolver::new().with::<&str>("balance", []))).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "balance has no instances"));
}

#[tokio::test]
async fn the_next_instance_gets_the_request_when_one_cannot_be_reached() {
    let server = bound().await;
    serve(&server, "balance", async |_, _| Ok(Response::default())).await;
    let all = [refusing().await.to_string(), address_of(&server), refusing().await.to_string()];
    let client = client(StaticResolver::new().with("balance", all));
    for _ in 0..10 {
        send(&client).await.unwrap();
    }
}

#[tokio::test]
async fn the_next_instance_gets_the_request_when_one_does_not_have_the_service() {
    let (one, other) = (bound().await, bound().await);
    serve(&one, "balance", async |_, _| Ok(Response::default())).await;
    serve(&other, "cards", async |_, _| Ok(Response::default())).await;
    let client = client(addresses([&one, &other]));
    for _ in 0..10 {
        send(&client).await.unwrap();
    }
    assert_eq!(one.counters("balance").unwrap().requests, 10);
    assert!(one.stop_listening("balance").await);
    let error = send(&client).await.unwrap_err();
    assert_eq!(NoSuchService::find_in(&error).map(NoSuchService::service), Some("balance"));
}

#[tokio::test]
async fn instances_share_the_requests() {
    let servers = [bound().await, bound().await, bound().await];
    for server in &servers {
        serve(server, "balance", async |_, _| Ok(Response::default())).await;
    }
    let client = client(addresses(&servers));
    for _ in 0..30 {
        send(&client).await.unwrap();
    }
    let counts = servers.each_ref().map(|server| server.counters("balance").unwrap().requests);
    assert_eq!(counts, [10, 10, 10]);
}

#[tokio::test]
async fn an_endpoint_sends_to_its_instance_only() {
    let (one, other) = (bound().await, bound().await);
    serve(&one, "balance", async |_, _| Ok(Response::default())).await;
    serve(&other, "balance", async |_, _| Ok(Response::default())).await;
    let client = client(addresses([&one, &other]));
    let endpoint = client.endpoint("balance", Some(address_of(&other).into()));
    for _ in 0..3 {
        let request = endpoint.address(Request::new(Default::default())).unwrap();
        tower::ServiceExt::oneshot(endpoint.clone(), request).await.unwrap();
    }
    assert_eq!(other.counters("balance").unwrap().requests, 3);
    let gone = client.endpoint("balance", Some("127.0.0.1:1".into()));
    let request = gone.address(Request::new(Default::default())).unwrap();
    let error = tower::ServiceExt::oneshot(gone, request).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)));
}

/// Counts its clones.
#[derive(Default)]
struct Cloned(Arc<AtomicUsize>);

impl Clone for Cloned {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::SeqCst);
        Cloned(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn extensions_of_a_request_are_not_copied() {
    let server = bound().await;
    serve(&server, "balance", async |_, _| Ok(Response::default())).await;
    let endpoint = client(addresses([&server])).endpoint("balance", None);
    let mut request = endpoint.address(Request::new(Default::default())).unwrap();
    let cloned = Cloned::default();
    let clones = Arc::clone(&cloned.0);
    request.extensions_mut().insert(cloned);
    tower::ServiceExt::oneshot(endpoint, request).await.unwrap();
    assert_eq!(clones.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_instance_that_is_removed_gets_no_new_requests_and_its_connection_closes() {
    let (one, other) = (bound().await, bound().await);
    serve(&one, "balance", async |_, _| Ok(Response::new(Bytes::from("one")))).await;
    serve(&other, "balance", async |_, _| Ok(Response::new(Bytes::from("other")))).await;
    let mut proxy = Proxy::to(one.local_addr().unwrap()).await;
    let resolver = StaticResolver::new().with("balance", [proxy.address.to_string()]);
    let client = client(resolver.clone());
    let mut instances = client.instances("balance").await.unwrap();
    let Change::Insert(first, _) = instances.next().await.unwrap().unwrap() else { panic!("not removed") };
    assert_eq!(*first, proxy.address.to_string());
    assert_eq!(send(&client).await.unwrap().body(), "one");

    resolver.set("balance", [address_of(&other)]);
    let Change::Insert(second, _) = instances.next().await.unwrap().unwrap() else { panic!("not removed yet") };
    assert_eq!(*second, address_of(&other));
    let Change::Remove(removed) = instances.next().await.unwrap().unwrap() else { panic!("the first one is gone") };
    assert_eq!(removed, first);
    assert_eq!(send(&client).await.unwrap().body(), "other");
    proxy.closed().await;
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn a_404_of_a_handler_is_not_an_unknown_service() {
    let server = bound().await;
    serve(&server, "balance", async |_, _| {
        let response = Response::builder().status(StatusCode::NOT_FOUND).header("x-no-such-service", "balance");
        Ok(response.body(Bytes::new()).unwrap())
    })
    .await;
    let error = send(&client(addresses([&server]))).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(NoSuchService::find_in(&error).is_none());
}

#[test]
fn a_server_that_is_killed_ends_its_requests_and_can_come_back_at_the_same_port() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (server_runtime, client_runtime) = (runtime(), runtime());
    let (sender, mut arrived) = mpsc::unbounded_channel();
    let start = async move |address: String| {
        let server = Transport::http2().bind(address).await.unwrap();
        let sender = sender.clone();
        serve(&server, "balance", move |_, request: Request<Bytes>| {
            let sender = sender.clone();
            async move {
                if request.uri().path() == "/stall" {
                    sender.send(()).unwrap();
                    std::future::pending::<()>().await;
                }
                Ok(Response::default())
            }
        })
        .await;
        server
    };
    let server = server_runtime.block_on(start("127.0.0.1:0".to_owned()));
    let address = address_of(&server);
    let client = client_of(address.clone());
    let stalled = client.clone();
    let call = client_runtime
        .spawn(async move { stalled.send(&Context::background(), "balance", request("/stall", "")).await });
    client_runtime.block_on(arrived.recv()).unwrap();
    // All its tasks are dropped in the middle, and so its sockets are closed.
    server_runtime.shutdown_background();
    drop(server);
    // The request may have had effects, so nothing says that it may be sent again.
    let error = client_runtime.block_on(call).unwrap().unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, None), "{error:?}");

    let next = runtime();
    let _server = next.block_on(start(address));
    client_runtime.block_on(send(&client)).unwrap();
    drop(client_runtime);
}

#[test]
fn a_runtime_that_ends_while_it_connects_does_not_break_the_client() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let server = second.block_on(bound());
    second.block_on(serve(&server, "balance", async |_, _| Ok(Response::default())));
    let client = client_of(address_of(&server));
    first.block_on(async {
        let mut call = std::pin::pin!(send(&client));
        // The attempt is on its way, and its task never runs again.
        assert!(futures_util::poll!(call.as_mut()).is_pending());
    });
    drop(first);
    // The next request may meet the attempt that was cut off, and the one after it does not.
    let _ = second.block_on(send(&client));
    second.block_on(send(&client)).unwrap();
}
