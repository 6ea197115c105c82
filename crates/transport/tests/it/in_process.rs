//! The medium within one process.

use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use throughline::{Cause, Code, Context, Key};
use throughline_transport::Transport;
use tokio::task::JoinSet;
use tower::Service as _;

use crate::conformance::{Harness, request, serve, until};

struct InProcess(Transport);

impl Harness for InProcess {
    async fn start(configure: fn(Transport) -> Transport) -> Option<Self> {
        Some(InProcess(configure(Transport::in_process())))
    }

    fn server(&self) -> &Transport {
        &self.0
    }

    fn client(&self) -> &Transport {
        &self.0
    }
}

crate::conformance!(InProcess);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_100_000_sends_of_which_a_third_is_dropped() {
    let transport = Transport::in_process();
    let mut listener = transport.listen("balance").await.unwrap();
    tokio::spawn(async move {
        // Every third request has no response, and its caller gives up.
        let mut never = Vec::new();
        while let Some(incoming) = listener.next().await {
            match incoming.request.uri().path() {
                "/never" => never.push(incoming.responder),
                _ => incoming.responder.respond(Response::new(incoming.request.into_body())),
            }
            if never.len() == 100 {
                for mut responder in never.drain(..) {
                    assert!(matches!(responder.closed().await, Cause::ClientDisconnected));
                }
            }
        }
    });
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let mut endpoint = transport.endpoint("balance", None);
        callers.spawn(async move {
            for call in 0..1_000 {
                let is_dropped = call % 3 == 0;
                let path = if is_dropped { "/never" } else { "/echo" };
                let request = Request::post(path).body(Full::new(Bytes::from_static(b"x"))).unwrap();
                let sending = endpoint.call(endpoint.address(request).unwrap());
                match is_dropped {
                    true => drop(sending),
                    false => assert_eq!(sending.await.unwrap().status(), 200),
                }
            }
        });
    }
    callers.join_all().await;
    assert!(transport.stop_listening("balance").await);
    assert_eq!((transport.sending(), transport.counters("balance")), (0, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_context_is_left_of_cancelled_sends() {
    static MARK: Key<Arc<()>> = Key::new("mark");
    let mark = Arc::new(());
    let transport = Transport::in_process();
    // Every third request waits for ever, and its caller cancels it.
    let serving = serve(&transport, "balance", async |_, request| {
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(request.into_body()))
    });
    let serving = serving.await;
    let mut callers = JoinSet::new();
    for _ in 0..10 {
        let (client, mark) = (transport.clone(), Arc::clone(&mark));
        callers.spawn(async move {
            for call in 0..120 {
                let ctx = Context::background().with_value(&MARK, Arc::clone(&mark)).with_cancel();
                let is_cancelled = call % 3 == 0;
                let path = if is_cancelled { "/never" } else { "/echo" };
                let sending = client.send(&ctx, "balance", request(path, "x"));
                if is_cancelled {
                    let cancelling = async {
                        tokio::task::yield_now().await;
                        ctx.cancel();
                    };
                    let (result, ()) = tokio::join!(sending, cancelling);
                    assert_eq!(result.unwrap_err().code(), Code::Cancelled);
                } else {
                    assert_eq!(sending.await.unwrap().body(), "x");
                }
            }
        });
    }
    callers.join_all().await;
    // The tasks of the last cancelled requests end after their callers.
    until(|| Arc::strong_count(&mark) == 1).await;
    until(|| transport.counters("balance").unwrap().in_flight == 0).await;
    let counters = transport.counters("balance").unwrap();
    assert_eq!((transport.sending(), counters.requests, counters.refused, counters.failures), (0, 1_200, 0, 0));
    assert!(transport.stop_listening("balance").await);
    serving.await.unwrap();
}

#[tokio::test]
async fn extensions_of_a_request_stay_with_its_caller() {
    #[derive(Clone)]
    struct OfTheCaller;
    let transport = Transport::in_process();
    let mut listener = transport.listen("balance").await.unwrap();
    let mut endpoint = transport.endpoint("balance", None);
    let mut request = endpoint.address(Request::new(Full::default())).unwrap();
    request.extensions_mut().insert(OfTheCaller);
    let sending = tokio::spawn(endpoint.call(request));
    let incoming = listener.next().await.unwrap();
    assert!(incoming.request.extensions().get::<OfTheCaller>().is_none());
    incoming.responder.respond(Response::default());
    sending.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_has_its_response_is_not_refused_because_of_it() {
    let transport = Transport::in_process().max_in_flight(NonZeroUsize::MIN);
    let mut listener = transport.listen("balance").await.unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = listener.next().await {
            incoming.responder.respond(Response::new(Bytes::new()));
        }
    });
    let mut endpoint = transport.endpoint("balance", None);
    for _ in 0..10_000 {
        let request = endpoint.address(Request::new(Full::default())).unwrap();
        assert_eq!(endpoint.call(request).await.unwrap().status(), 200);
    }
}
