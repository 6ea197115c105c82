//! HTTP/2 over TLS.

use http::Response;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use throughline::{Code, Context, Error};
use throughline_transport::{Instance, StaticResolver, Tls, Transport};

use super::OverHttp2;
use super::peers::http1;
use crate::conformance::{Harness, request, serve};

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate of this host, and its key.
    fn identity(&self, tls: Tls, host: &str) -> Tls {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        tls.identity(certificate.pem(), key.serialize_pem()).unwrap()
    }

    fn trusted(&self) -> Tls {
        Tls::new().ca(self.0.pem()).unwrap()
    }
}

struct OverTls(OverHttp2);

impl Harness for OverTls {
    async fn start(configure: fn(Transport) -> Transport) -> Option<Self> {
        let authority = Authority::new();
        let server = authority.identity(authority.trusted(), "127.0.0.1").require_client_certificates();
        let client = authority.identity(authority.trusted(), "client");
        let (server, client) = (Transport::http2().tls(server).unwrap(), Transport::http2().tls(client).unwrap());
        Some(OverTls(OverHttp2::start(server, client, configure).await))
    }

    fn server(&self) -> &Transport {
        self.0.server()
    }

    fn client(&self) -> &Transport {
        self.0.client()
    }
}

crate::conformance!(OverTls);

/// Sends one request to a server, whose instance has this host.
async fn sent(server: Tls, client: Tls, host: &str) -> Result<(), Error> {
    let server = Transport::http2().tls(server).unwrap().bind("127.0.0.1:0").await.unwrap();
    serve(&server, "balance", async |_, _| Ok(Response::default())).await;
    let resolver = StaticResolver::new();
    let instance = Instance::new(server.local_addr().unwrap().to_string()).with_host(host);
    resolver.set_instances("balance", vec![instance]);
    let client = Transport::http2().tls(client).unwrap().resolver(resolver).client();
    client.send(&Context::background(), "balance", request("/", "")).await.map(drop)
}

#[tokio::test]
async fn the_certificate_must_be_valid_for_the_host_of_the_instance() {
    let authority = Authority::new();
    let server = || authority.identity(Tls::new(), "balance.internal");
    sent(server(), authority.trusted(), "balance.internal").await.unwrap();
    let error = sent(server(), authority.trusted(), "cards.internal").await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(false)));
    assert!(error.message().contains("TLS with cards.internal: "), "{error:?}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let authority = Authority::new();
    let server = authority.identity(Tls::new(), "balance");
    let error = sent(server, Authority::new().trusted(), "balance").await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Code::Unavailable, Some(false)), "{error:?}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_where_one_is_required() {
    let authority = Authority::new();
    let server = authority.identity(authority.trusted(), "balance").require_client_certificates();
    let error = sent(server, authority.trusted(), "balance").await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
}

#[tokio::test]
async fn a_client_of_tls_and_a_server_without_it_do_not_wait_for_each_other() {
    let server = super::bound().await;
    serve(&server, "balance", async |_, _| Ok(Response::default())).await;
    let resolver = super::addresses([&server]);
    let client = Transport::http2().tls(Authority::new().trusted()).unwrap().resolver(resolver).client();
    let error = client.send(&Context::background(), "balance", request("/", "")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");

    let authority = Authority::new();
    let tls = authority.identity(Tls::new(), "127.0.0.1");
    let server = Transport::http2().tls(tls).unwrap().bind("127.0.0.1:0").await.unwrap();
    let error = super::client_of(super::address_of(&server));
    let error = error.send(&Context::background(), "balance", request("/", "")).await.unwrap_err();
    assert!(matches!(error.code(), Code::Unavailable | Code::Internal), "{error:?}");
    // A request without TLS gets no response.
    let response = http1(server.local_addr().unwrap(), "GET / HTTP/1.1\r\nHost: balance", "").await;
    assert!(!response.contains("HTTP/1.1 200"), "{response}");
}

#[tokio::test]
async fn certificates_that_do_not_fit_are_refused_when_they_are_set() {
    assert_eq!(Tls::new().ca("no certificate").unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(Tls::new().identity("", "").unwrap_err().code(), Code::InvalidArgument);
    let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let certificate = CertificateParams::new(["a".to_owned()]).unwrap().self_signed(&one).unwrap();
    let tls = Tls::new().identity(certificate.pem(), other.serialize_pem()).unwrap();
    assert_eq!(Transport::http2().tls(tls).unwrap_err().code(), Code::InvalidArgument);
    let error = Transport::http2().tls(Tls::new()).unwrap().bind("127.0.0.1:0").await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}
