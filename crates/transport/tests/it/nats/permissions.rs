//! Users with the permissions that the guide lists, and users without.

use http::Response;
use throughline::{Code, Context};
use throughline_transport::{NatsBuilder, NatsOptions, Transport};

use crate::conformance::{request, serve};
use crate::in_time;
use crate::support::nats::NatsServer;

const USERS: &str = r#"
authorization {
  users = [
    { user: balance, password: secret, permissions: {
      subscribe: ["svc.balance", "svc.balance.>", "$SRV.>", "_INBOX.>"],
      publish: ["_INBOX.>", "svc.balance"] } }
    { user: caller, password: secret, permissions: {
      subscribe: ["_INBOX.>"], publish: ["svc.balance", "svc.balance.>", "$SRV.PING.balance"] } }
    { user: deaf, password: secret, permissions: { subscribe: ["none"], publish: [">"] } }
  ]
}
"#;

fn user(broker: &NatsServer, name: &str) -> NatsBuilder {
    Transport::nats(NatsOptions::new(broker.url()).user_and_password(name, "secret"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_permissions_of_the_guide_are_enough() {
    in_time!(async {
        let Some(broker) = NatsServer::start_with(USERS) else { return };
        let server = user(&broker, "balance").connect(&Context::background()).await.unwrap();
        let client = user(&broker, "caller").connect(&Context::background()).await.unwrap();
        serve(&server, "balance", async |_, request| Ok(Response::new(request.into_body()))).await;
        for length in [0, 2 << 20] {
            let sent = client.send(&Context::background(), "balance", request("/", vec![0; length])).await;
            assert_eq!(sent.unwrap().body().len(), length);
        }
        assert!(client.instances("balance").await.is_ok());
        assert!(server.stop_listening("balance").await);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_may_not_do_is_an_error_at_once() {
    in_time!(async {
        let Some(broker) = NatsServer::start_with(USERS) else { return };
        let unknown = user(&broker, "nobody").connect(&Context::background()).await.unwrap_err();
        assert_eq!(unknown.code(), Code::Unauthenticated, "{unknown:?}");
        assert!(unknown.message().contains("are the user and its password or credentials right?"), "{unknown:?}");
        let caller = user(&broker, "caller").connect(&Context::background()).await.unwrap();
        let error = caller.listen("balance").await.err().unwrap();
        assert_eq!(error.code(), Code::PermissionDenied, "{error:?}");
        assert!(error.message().contains("svc.balance"), "{error:?}");
        // There is no deadline: only the medium itself can end these calls.
        for _ in 0..2 {
            let error = caller.send(&Context::background(), "cards", request("/", "")).await.unwrap_err();
            assert_eq!(error.code(), Code::PermissionDenied, "{error:?}");
        }
        let deaf = user(&broker, "deaf").connect(&Context::background()).await.unwrap();
        let error = loop {
            // The refusal of the subscription may come a moment later than the first call.
            let ctx = Context::background().with_timeout(std::time::Duration::from_millis(100));
            let error = deaf.send(&ctx, "balance", request("/", "")).await.unwrap_err();
            if error.code() != Code::DeadlineExceeded {
                break error;
            }
        };
        let message = "the NATS server does not let this user receive responses on _INBOX.>";
        assert_eq!((error.code(), error.message()), (Code::PermissionDenied, message));
    });
}
