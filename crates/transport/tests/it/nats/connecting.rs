//! Logins and TLS: the same options connect requests and events.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use throughline::{Code, Context, Error};
use throughline_transport::{Events, NatsOptions, Transport};

use crate::in_time;
use crate::support::nats::NatsServer;

/// Connects requests and events, which have the same result.
async fn connect(options: NatsOptions) -> Result<(), Error> {
    let ctx = Context::background();
    let requests = Transport::nats(options.clone()).connect(&ctx).await.map(drop);
    let events = Events::nats(options).connect(&ctx).await.map(drop);
    let shown = |result: &Result<(), Error>| result.as_ref().err().map(|e| (e.code(), e.message().to_owned()));
    assert_eq!(shown(&requests), shown(&events));
    requests
}

#[tokio::test]
async fn each_login_connects_requests_and_events_and_a_wrong_one_is_unauthenticated() {
    type Login = fn(NatsOptions) -> NatsOptions;
    let logins: [(&str, Login, Login); 3] = [
        (
            "authorization { user: cards, password: secret }",
            |options| options.user_and_password("cards", "secret"),
            |options| options.user_and_password("cards", "guess"),
        ),
        ("authorization { token: secret }", |options| options.token("secret"), |options| options.token("guess")),
        (
            "authorization { users: [{ nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4 }] }",
            |options| options.nkey("SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"),
            |options| options,
        ),
    ];
    in_time!(async {
        for (configuration, right, wrong) in logins {
            let Some(broker) = NatsServer::start_with(configuration) else { return };
            let options = || NatsOptions::new(broker.url());
            connect(right(options())).await.unwrap();
            let error = connect(wrong(options())).await.unwrap_err();
            assert_eq!(error.code(), Code::Unauthenticated, "{configuration}: {error:?}");
            assert!(error.message().ends_with("are the user and its password or credentials right?"), "{error:?}");
        }
    });
}

/// PEM files that are deleted with it.
struct Certificates(PathBuf);

impl Certificates {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("nats-tls-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
        for host in ["127.0.0.1", "client"] {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
            fs::write(folder.join(format!("{host}.pem")), certificate.pem()).unwrap();
            fs::write(folder.join(format!("{host}.key")), key.serialize_pem()).unwrap();
        }
        Certificates(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn tls_needs_a_trusted_server_and_shows_the_client_certificate() {
    in_time!(async {
        let files = Certificates::new();
        let configuration = format!(
            "tls {{ ca_file: {:?}, cert_file: {:?}, key_file: {:?}, verify: true }}",
            files.path("ca.pem"),
            files.path("127.0.0.1.pem"),
            files.path("127.0.0.1.key"),
        );
        let Some(broker) = NatsServer::start_with(&configuration) else { return };
        let untrusted = NatsOptions::new(broker.url());
        let trusted = untrusted.clone().root_certificates(files.path("ca.pem"));
        let complete = trusted.clone().client_certificate(files.path("client.pem"), files.path("client.key"));
        connect(complete.require_tls()).await.unwrap();
        for incomplete in [untrusted, trusted] {
            assert_eq!(connect(incomplete).await.unwrap_err().code(), Code::Unavailable);
        }
        let Some(plain) = NatsServer::start() else { return };
        let error = connect(NatsOptions::new(plain.url()).require_tls()).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    });
}

#[tokio::test]
async fn a_context_that_is_done_ends_the_attempt_to_connect() {
    in_time!(async {
        // It accepts connections and never says a word.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let options = NatsOptions::new(silent.local_addr().unwrap().to_string());
        let ctx = Context::background().with_cancel();
        let requests = Transport::nats(options.clone()).connect(&ctx);
        let events = Events::nats(options).connect(&ctx);
        let cancelled = async { ctx.cancel() };
        let (requests, events, ()) = tokio::join!(biased; requests, events, cancelled);
        assert_eq!(requests.unwrap_err().code(), Code::Cancelled);
        assert_eq!(events.map(drop).unwrap_err().code(), Code::Cancelled);
    });
}
