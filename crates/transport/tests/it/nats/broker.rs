//! A broker that is not there, that goes, and that comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use throughline::{Code, Context, Error};
use throughline_transport::Transport;
use tokio::sync::{Semaphore, mpsc};

use super::Nats;
use crate::conformance::{Harness, request, serve, until};
use crate::support::nats::NatsServer;
use crate::{in_time, start};

/// Sends until a response arrives.
async fn until_served(client: &Transport) -> Response<Bytes> {
    loop {
        match client.send(&Context::background(), "balance", request("/", "")).await {
            Ok(response) => return response,
            Err(error) => assert_eq!(error.code(), Code::Unavailable, "{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn calls_in_flight_fail_when_the_broker_goes_and_succeed_when_it_is_back() {
    in_time!(async {
        let mut medium = start!(Nats);
        let (started, mut has_started) = mpsc::unbounded_channel();
        let may_respond = Arc::new(Semaphore::new(0));
        let permits = Arc::clone(&may_respond);
        serve(medium.server(), "balance", move |_, _: Request<Bytes>| {
            let (started, permits) = (started.clone(), Arc::clone(&permits));
            async move {
                started.send(()).unwrap();
                permits.acquire().await.unwrap().forget();
                Ok(Response::default())
            }
        })
        .await;
        // There is no deadline: only the medium can end these calls.
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let client = medium.client().clone();
                tokio::spawn(async move { client.send(&Context::background(), "balance", request("/", "")).await })
            })
            .collect();
        for _ in 0..calls.len() {
            has_started.recv().await.unwrap();
        }
        medium.broker.kill();
        for call in calls {
            let error = call.await.unwrap().unwrap_err();
            // The requests were sent: a retry is for those that are idempotent.
            assert_eq!((error.code(), error.retryable()), (Code::Unavailable, None), "{error:?}");
            assert!(error.message().contains("was lost while balance had the request"), "{error:?}");
        }
        let error = medium.client().send(&Context::background(), "balance", request("/", "")).await.unwrap_err();
        assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)), "{error:?}");
        assert!(error.message().contains("there is no connection to the NATS server 127.0.0.1:"), "{error:?}");
        assert_eq!(medium.client().sending(), 0);

        // The handlers go on. The caller cancels them when it is connected again.
        medium.broker.restart();
        until(|| medium.server().counters("balance").unwrap().in_flight == 0).await;
        may_respond.add_permits(1000);
        until_served(medium.client()).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_load_lets_no_call_hang_and_calls_succeed_after_it() {
    in_time!(async {
        let mut medium = start!(Nats);
        serve(medium.server(), "balance", async |_, request: Request<Bytes>| Ok(Response::new(request.into_body())))
            .await;
        let (sent, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let load: Vec<_> = (0..32)
            .map(|caller| {
                let (client, sent, failed) = (medium.client().clone(), Arc::clone(&sent), Arc::clone(&failed));
                tokio::spawn(async move {
                    for number in 0.. {
                        let body = format!("{caller}-{number}");
                        let ctx = Context::background().with_timeout(Duration::from_secs(30));
                        match client.send(&ctx, "balance", request("/", body.clone())).await {
                            Ok(response) => assert_eq!(response.body(), body.as_bytes()),
                            Err(error) => {
                                // No call waits for its deadline.
                                assert_eq!(error.code(), Code::Unavailable, "{error:?}");
                                failed.fetch_add(1, Ordering::SeqCst);
                                tokio::task::yield_now().await;
                            }
                        }
                        sent.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let more = async |count: usize| {
            let target = sent.load(Ordering::SeqCst) + count;
            until(|| sent.load(Ordering::SeqCst) >= target).await;
        };
        more(200).await;
        for _ in 0..2 {
            medium.broker.kill();
            let before = failed.load(Ordering::SeqCst);
            until(|| failed.load(Ordering::SeqCst) >= before + 64).await;
            medium.broker.restart();
            until_served(medium.client()).await;
            more(200).await;
        }
        for task in load {
            task.abort();
            assert!(task.await.is_err_and(|error| error.is_cancelled()), "no response was another call's");
        }
    });
}

#[tokio::test]
async fn an_unreachable_broker_is_an_error_that_says_what_to_check() {
    // Nothing listens to the port: it was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = Transport::nats(format!("nats://user:secret@127.0.0.1:{port}"))
        .connect(&Context::background())
        .await
        .unwrap_err();
    let check = "is nats-server running, and is this its address?";
    assert_eq!(error.message(), format!("cannot connect to the NATS server 127.0.0.1:{port}: {check}"));
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_broker_may_come_after_the_services() {
    in_time!(async {
        let Some(mut broker) = NatsServer::start() else { return };
        broker.kill();
        let server =
            Transport::nats(broker.url()).connect_in_background().connect(&Context::background()).await.unwrap();
        let client =
            Transport::nats(broker.url()).connect_in_background().connect(&Context::background()).await.unwrap();
        serve(&server, "balance", async |_, _| Ok(Response::new(Bytes::from("late")))).await;
        let error = client.send(&Context::background(), "balance", request("/", "")).await.unwrap_err();
        assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)));
        broker.restart();
        // The client may connect first, and then the name is not known yet.
        let response = loop {
            match client.send(&Context::background(), "balance", request("/", "")).await {
                Ok(response) => break response,
                Err(error) => assert!(matches!(error.code(), Code::Unavailable | Code::NotFound), "{error:?}"),
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(response.body(), "late");
        assert!(server.stop_listening("balance").await);
    });
}

#[tokio::test]
async fn transports_with_different_prefixes_do_not_see_each_other() {
    in_time!(async {
        let Some(broker) = NatsServer::start() else { return };
        let server =
            Transport::nats(broker.url()).subject_prefix("test.svc").connect(&Context::background()).await.unwrap();
        serve(&server, "balance", async |_, _| Ok(Response::default())).await;
        let connect = async |prefix: &str| {
            Transport::nats(broker.url()).subject_prefix(prefix).connect(&Context::background()).await.unwrap()
        };
        let send = async |client: Transport| client.send(&Context::background(), "balance", request("/", "")).await;
        assert!(send(connect("test.svc").await).await.is_ok());
        assert_eq!(send(connect("svc").await).await.unwrap_err().code(), Code::NotFound);
    });
}

#[tokio::test]
async fn two_instances_share_the_requests() {
    in_time!(async {
        let medium = start!(Nats);
        let other = Transport::nats(medium.broker.url()).connect(&Context::background()).await.unwrap();
        for (server, name) in [(medium.server(), "first"), (&other, "second")] {
            serve(server, "balance", move |_, _| async move { Ok(Response::new(Bytes::from(name))) }).await;
        }
        let mut names = std::collections::HashMap::<Bytes, usize>::new();
        for _ in 0..200 {
            let sent = medium.client().send(&Context::background(), "balance", request("/", "")).await;
            *names.entry(sent.unwrap().into_body()).or_default() += 1;
        }
        assert_eq!(names.len(), 2, "{names:?}");
        // An instance that stops gets no more requests, and no call fails.
        assert!(other.stop_listening("balance").await);
        for _ in 0..50 {
            let sent = medium.client().send(&Context::background(), "balance", request("/", "")).await;
            assert_eq!(sent.unwrap().body(), "first");
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_an_instance_stops_under_load() {
    in_time!(async {
        let medium = start!(Nats);
        serve(medium.server(), "balance", async |_, _| Ok(Response::default())).await;
        let (sent, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let load: Vec<_> = (0..16)
            .map(|_| {
                let (client, sent, ends) = (medium.client().clone(), Arc::clone(&sent), Arc::clone(&ends));
                tokio::spawn(async move {
                    while !ends.load(Ordering::SeqCst) {
                        // A request that is lost fails when its deadline passes.
                        let ctx = Context::background().with_timeout(Duration::from_secs(5));
                        let result = client.send(&ctx, "balance", request("/", "")).await;
                        result.map_err(|error: Error| format!("{error:?}")).unwrap();
                        sent.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for _ in 0..20 {
            let other = Transport::nats(medium.broker.url()).connect(&Context::background()).await.unwrap();
            serve(&other, "balance", async |_, _| Ok(Response::default())).await;
            let target = sent.load(Ordering::SeqCst) + 100;
            while sent.load(Ordering::SeqCst) < target && !load.iter().any(|task| task.is_finished()) {
                tokio::task::yield_now().await;
            }
            assert!(other.stop_listening("balance").await);
        }
        ends.store(true, Ordering::SeqCst);
        for task in load {
            task.await.expect("no request was lost");
        }
    });
}

#[tokio::test]
async fn a_listener_stops_after_a_restart_of_the_broker_and_while_it_is_away() {
    in_time!(async {
        let mut medium = start!(Nats);
        for _ in 0..2 {
            let serving = serve(medium.server(), "balance", async |_, _| Ok(Response::default())).await;
            until_served(medium.client()).await;
            medium.broker.restart();
            until_served(medium.client()).await;
            assert!(medium.server().stop_listening("balance").await);
            serving.await.unwrap();
            let error = medium.client().send(&Context::background(), "balance", request("/", "")).await.unwrap_err();
            // Instances that were there before the restart may come back.
            assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)), "{error:?}");
        }
        let serving = serve(medium.server(), "balance", async |_, _| Ok(Response::default())).await;
        until_served(medium.client()).await;
        medium.broker.kill();
        assert!(medium.server().stop_listening("balance").await);
        serving.await.unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_bodies_at_once_do_not_break_the_connection() {
    in_time!(async {
        let medium = start!(Nats);
        serve(medium.server(), "balance", async |_, request: Request<Bytes>| Ok(Response::new(request.into_body())))
            .await;
        let body = Bytes::from(vec![b'a'; 4 << 20]);
        let calls = (0..64).map(|_| {
            let (client, body) = (medium.client().clone(), body.clone());
            async move { client.send(&Context::background(), "balance", request("/", body)).await }
        });
        for result in futures_util::future::join_all(calls).await {
            assert_eq!(result.unwrap().body().len(), 4 << 20);
        }
    });
}
