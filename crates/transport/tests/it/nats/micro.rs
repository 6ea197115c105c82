//! The NATS services protocol (ADR-32), and the instances that are found with it.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use throughline::{Code, Context};
use throughline_transport::{Endpoint, NoSuchService, Transport};
use tower::ServiceExt as _;
use tower::discover::Change;

use super::Nats;
use crate::conformance::{Harness, request, serve, until};
use crate::{in_time, start};

async fn ask(medium: &Nats, subject: String) -> Value {
    let raw = async_nats::connect(medium.broker.url()).await.unwrap();
    let response = raw.request(subject, "".into()).await.unwrap();
    serde_json::from_slice(&response.payload).unwrap()
}

#[tokio::test]
async fn a_listener_describes_itself_as_the_protocol_says() {
    in_time!(async {
        let medium = start!(Nats);
        serve(medium.server(), "balance", async |_, request: Request<_>| {
            Ok(Response::builder()
                .status(if request.uri().path() == "/fail" { 500 } else { 200 })
                .body("".into())
                .unwrap())
        })
        .await;
        for path in ["/", "/", "/fail"] {
            let _ = medium.client().send(&Context::background(), "balance", request(path, "")).await;
        }
        until(|| medium.server().counters("balance").unwrap().in_flight == 0).await;
        let ping = ask(&medium, "$SRV.PING".to_owned()).await;
        let id = ping["id"].as_str().unwrap().to_owned();
        assert_eq!(
            ping,
            json!({
                "type": "io.nats.micro.v1.ping_response",
                "name": "balance",
                "id": id,
                "version": "0.0.0",
                "metadata": { "throughline": env!("CARGO_PKG_VERSION") },
            })
        );
        for scope in [String::new(), ".balance".to_owned(), format!(".balance.{id}")] {
            assert_eq!(ask(&medium, format!("$SRV.PING{scope}")).await, ping);
            let info = ask(&medium, format!("$SRV.INFO{scope}")).await;
            assert_eq!(info["type"], "io.nats.micro.v1.info_response");
            let endpoint = json!({ "name": "default", "subject": "svc.balance", "queue_group": "q", "metadata": {} });
            assert_eq!((&info["endpoints"], &info["description"]), (&json!([endpoint]), &json!("")));
            let stats = ask(&medium, format!("$SRV.STATS{scope}")).await;
            assert_eq!((&stats["type"], &stats["id"]), (&json!("io.nats.micro.v1.stats_response"), &json!(id)));
            assert!(stats["started"].as_str().unwrap().ends_with('Z'), "{stats}");
            let endpoint = &stats["endpoints"][0];
            assert_eq!((&endpoint["num_requests"], &endpoint["num_errors"]), (&json!(3), &json!(1)), "{endpoint}");
            let (total, average) = (&endpoint["processing_time"], &endpoint["average_processing_time"]);
            assert_eq!(average.as_u64().unwrap(), total.as_u64().unwrap() / 3);
        }
        assert!(medium.server().stop_listening("balance").await);
        let raw = async_nats::connect(medium.broker.url()).await.unwrap();
        let error = raw.request("$SRV.PING.balance", "".into()).await.unwrap_err();
        assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders);
    });
}

/// The instances of `balance`, once there are so many.
async fn instances(client: &Transport, count: usize) -> Vec<(Arc<str>, Endpoint)> {
    let mut changes = client.instances("balance").await.unwrap();
    let mut found = Vec::new();
    while found.len() < count {
        let Some(Ok(Change::Insert(name, endpoint))) = changes.next().await else { panic!("an instance appears") };
        found.push((name, endpoint));
    }
    found
}

async fn send(endpoint: Endpoint) -> Result<Response<Full<bytes::Bytes>>, throughline::Error> {
    let request = endpoint.address(Request::new(Full::default())).unwrap();
    endpoint.oneshot(request).await
}

#[tokio::test]
async fn each_listener_is_an_instance_with_requests_of_its_own() {
    in_time!(async {
        let medium = start!(Nats);
        let other = Transport::nats(medium.broker.url()).connect(&Context::background()).await.unwrap();
        for (server, name) in [(medium.server(), "first"), (&other, "second")] {
            serve(server, "balance", move |_, _| async move {
                Ok(Response::builder().header("by", name).body("".into()).unwrap())
            })
            .await;
        }
        let mut names = HashSet::new();
        for (_, endpoint) in instances(medium.client(), 2).await {
            let first = send(endpoint.clone()).await.unwrap().headers()["by"].clone();
            for _ in 0..10 {
                assert_eq!(send(endpoint.clone()).await.unwrap().headers()["by"], first);
            }
            names.insert(first);
        }
        assert_eq!(names.len(), 2);
    });
}

#[tokio::test]
async fn an_instance_that_stops_fails_at_once_and_disappears() {
    in_time!(async {
        let medium = start!(Nats);
        serve(medium.server(), "balance", async |_, _| Ok(Response::default())).await;
        let mut changes = medium.client().instances("balance").await.unwrap();
        let Some(Ok(Change::Insert(name, endpoint))) = changes.next().await else { panic!("an instance appears") };
        assert!(send(endpoint.clone()).await.is_ok());
        assert!(medium.server().stop_listening("balance").await);
        let error = send(endpoint).await.unwrap_err();
        assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)), "{error:?}");
        let Some(Ok(Change::Remove(removed))) = changes.next().await else { panic!("the instance disappears") };
        assert_eq!(removed, name);
        let error = medium.client().instances("balance").await.err().unwrap();
        assert!(NoSuchService::find_in(&error).is_some(), "{error:?}");
    });
}

#[tokio::test]
async fn the_broker_may_balance() {
    in_time!(async {
        let medium = start!(Nats);
        serve(medium.server(), "balance", async |_, _| Ok(Response::default())).await;
        let client =
            Transport::nats(medium.broker.url()).balance_by_broker().connect(&Context::background()).await.unwrap();
        let found = instances(&client, 1).await;
        assert_eq!((&*found[0].0, found[0].1.instance()), ("", None));
        assert!(send(found[0].1.clone()).await.is_ok());
        assert!(NoSuchService::find_in(&client.instances("cards").await.err().unwrap()).is_some());
    });
}

/// The tool of NATS, from the variable `THROUGHLINE_NATS_CLI` or `PATH`.
fn cli() -> Option<std::path::PathBuf> {
    let named = std::env::var_os("THROUGHLINE_NATS_CLI").map(std::path::PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("nats"));
    named.into_iter().chain(found).find(|program| program.is_file())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tool_of_nats_shows_the_listener() {
    in_time!(async {
        let medium = start!(Nats);
        let Some(cli) = cli() else {
            return eprintln!("skipped: nats micro: no program nats in THROUGHLINE_NATS_CLI or PATH");
        };
        serve(medium.server(), "balance", async |_, request: Request<_>| Ok(Response::new(request.into_body()))).await;
        medium.client().send(&Context::background(), "balance", request("/", "")).await.unwrap();
        for (arguments, expected) in [
            (&["micro", "list"][..], &["balance", "0.0.0"][..]),
            (&["micro", "info", "balance"], &["svc.balance", "Queue Group: q"]),
            (&["micro", "stats", "balance"], &["balance"]),
            (&["request", "svc.balance", "100 EUR", "-H", "Http-Request: POST /reserve"], &["100 EUR"]),
        ] {
            let mut command = tokio::process::Command::new(&cli);
            let output = command.args(["--server", &medium.broker.url()]).args(arguments).output().await.unwrap();
            let shown = String::from_utf8_lossy(&output.stdout);
            assert!(expected.iter().all(|text| shown.contains(text)), "{arguments:?}: {output:?}");
        }
    });
}
