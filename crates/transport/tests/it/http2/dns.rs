//! Instances from DNS, against a small name server on loopback.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};
use http::Response;
use throughline::{Code, Context};
use throughline_transport::{DnsResolver, NoSuchService, Resolver as _, Transport};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::bound;
use crate::conformance::{request, serve};

/// The records of a name. `None`: the server fails.
type Zone = Arc<Mutex<HashMap<String, Option<Vec<RData>>>>>;

/// A name server whose records live for no time.
struct NameServer {
    address: SocketAddr,
    zone: Zone,
    queries: watch::Sender<usize>,
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (zone, queries) = (Zone::default(), watch::Sender::new(0));
        let (records, count) = (Arc::clone(&zone), queries.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let query = Message::from_vec(&buffer[..length]).unwrap();
                count.send_modify(|queries| *queries += 1);
                let response = respond(&records, &query).to_vec().unwrap();
                socket.send_to(&response, peer).await.unwrap();
            }
        });
        NameServer { address, zone, queries }
    }

    fn set(&self, name: &str, records: impl IntoIterator<Item = RData>) {
        self.zone.lock().unwrap().insert(name.to_owned(), Some(records.into_iter().collect()));
    }

    /// Makes lookups of the name fail.
    fn fail(&self, name: &str) {
        self.zone.lock().unwrap().insert(name.to_owned(), None);
    }

    fn remove(&self, name: &str) {
        self.zone.lock().unwrap().remove(name);
    }

    fn resolver(&self, resolver: DnsResolver) -> DnsResolver {
        resolver.name_servers([self.address]).min_refresh(Duration::from_millis(1))
    }

    /// Waits until the server has got this many more queries.
    async fn queried(&self, more: usize) {
        let end = *self.queries.borrow() + more;
        self.queries.subscribe().wait_for(|queries| *queries >= end).await.unwrap();
    }
}

fn respond(zone: &Zone, query: &Message) -> Message {
    let question = query.queries[0].clone();
    let found = zone.lock().unwrap().get(&question.name().to_string()).cloned();
    let mut response = Message::response(query.metadata.id, OpCode::Query);
    response.add_query(question.clone());
    match found {
        None => response.metadata.response_code = ResponseCode::NXDomain,
        Some(None) => response.metadata.response_code = ResponseCode::ServFail,
        Some(Some(records)) => {
            let records = records.into_iter().filter(|data| data.record_type() == question.query_type());
            response.add_answers(records.map(|data| Record::from_rdata(question.name().clone(), 0, data)));
        }
    }
    response
}

fn address(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(127, 0, 0, last)))
}

fn srv(priority: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, 0, port, Name::from_ascii(target).unwrap()))
}

async fn next(sets: &mut throughline_transport::InstanceSets) -> Vec<String> {
    let set = sets.next().await.expect("the stream goes on");
    set.iter().map(|instance| format!("{} {}", instance.address(), instance.host())).collect()
}

#[tokio::test]
async fn a_request_goes_to_an_address_of_the_name() {
    let server = bound().await;
    serve(&server, "balance", async |_, _| Ok(Response::default())).await;
    let port = server.local_addr().unwrap().port();
    let dns = NameServer::start().await;
    dns.set("balance.test.", [address(1)]);
    let resolver = dns.resolver(DnsResolver::new(&format!("{{service}}.test.:{port}")).unwrap());
    let client = Transport::http2().resolver(resolver).client();
    client.send(&Context::background(), "balance", request("/", "")).await.unwrap();
    let error = client.send(&Context::background(), "nobody", request("/", "")).await.unwrap_err();
    assert_eq!(NoSuchService::find_in(&error).map(NoSuchService::service), Some("nobody"), "{error:?}");
}

#[tokio::test]
async fn each_address_is_an_instance_and_changes_follow() {
    let dns = NameServer::start().await;
    dns.set("balance.test.", [address(2), address(1)]);
    let resolver = dns.resolver(DnsResolver::new("{service}.test.:80").unwrap());
    let mut sets = resolver.resolve("balance").await.unwrap();
    assert_eq!(next(&mut sets).await, ["127.0.0.1:80 balance.test", "127.0.0.2:80 balance.test"]);
    dns.set("balance.test.", [address(3)]);
    assert_eq!(next(&mut sets).await, ["127.0.0.3:80 balance.test"]);
}

#[tokio::test]
async fn instances_stay_when_a_lookup_fails_and_go_with_their_name() {
    let dns = NameServer::start().await;
    dns.set("balance.test.", [address(1)]);
    let resolver = dns.resolver(DnsResolver::new("{service}.test.:80").unwrap());
    let mut sets = resolver.resolve("balance").await.unwrap();
    assert_eq!(next(&mut sets).await, ["127.0.0.1:80 balance.test"]);
    dns.fail("balance.test.");
    tokio::select! {
        set = sets.next() => panic!("a failure is no change: {set:?}"),
        () = dns.queried(6) => {}
    }
    dns.remove("balance.test.");
    assert!(next(&mut sets).await.is_empty());
    dns.set("balance.test.", [address(2)]);
    assert_eq!(next(&mut sets).await, ["127.0.0.2:80 balance.test"]);
}

#[tokio::test]
async fn srv_records_have_the_port_and_the_smallest_priority_counts() {
    let dns = NameServer::start().await;
    let records = [srv(1, 7001, "a.test."), srv(1, 7002, "b.test."), srv(2, 7003, "c.test.")];
    dns.set("_http._tcp.balance.test.", records);
    dns.set("a.test.", [address(1)]);
    dns.set("b.test.", [address(2), address(3)]);
    dns.set("c.test.", [address(4)]);
    let resolver = dns.resolver(DnsResolver::srv("_http._tcp.{service}.test."));
    let mut sets = resolver.resolve("balance").await.unwrap();
    let expected = ["127.0.0.1:7001 a.test", "127.0.0.2:7002 b.test", "127.0.0.3:7002 b.test"];
    assert_eq!(next(&mut sets).await, expected);
}

#[tokio::test]
async fn a_name_server_that_fails_is_unavailable_and_a_bad_name_is_not_looked_up() {
    let dns = NameServer::start().await;
    dns.fail("balance.test.");
    let resolver = dns.resolver(DnsResolver::new("{service}.test.:80").unwrap());
    let error = resolver.resolve("balance").await.err().expect("the server fails");
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(true)), "{error:?}");
    let before = *dns.queries.borrow();
    for name in ["", "other.zone.", "a b"] {
        let error = resolver.resolve(name).await.err().expect("it is no name");
        assert!(NoSuchService::find_in(&error).is_some());
    }
    assert_eq!(*dns.queries.borrow(), before);
    assert_eq!(dns.resolver(DnsResolver::srv("{service}")).name_of("a"), "a");
    for pattern in ["", "host", "host:", ":80", "host:0", "host:65536"] {
        assert_eq!(DnsResolver::new(pattern).unwrap_err().code(), Code::InvalidArgument, "{pattern}");
    }
}
