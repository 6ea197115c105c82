//! A file that changes while calls run.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde::Deserialize;
use throughline::{Context, Ctx};
use throughline_service::config::{ClientSettings, Config, ServiceSettings};
use throughline_service::{Client, Json, Service};
use throughline_transport::Transport;

use super::Place;
use crate::support::{Gate, Served};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Bank {
    service: ServiceSettings,
    bank: ClientSettings,
}

const HOUR: Duration = Duration::from_secs(3600);

/// The handler's time left, in hours and rounded up: the file has hours, and the test takes less.
fn hours_left(ctx: &Context) -> u64 {
    ctx.remaining().unwrap().as_secs().div_ceil(HOUR.as_secs())
}

async fn call(transport: &Transport, route: &str) -> Bytes {
    let request = Request::post(route).body(Bytes::new()).unwrap();
    transport.send(&Context::background(), "bank", request).await.unwrap().into_body()
}

#[tokio::test]
async fn the_next_request_has_the_new_timeout_and_a_broken_file_changes_nothing() {
    let place = Place::with("[service]\nmax_timeout = '2h'\n");
    let mut config = Config::<Bank>::builder().file(&place.path).watch().unwrap();
    let transport = Transport::in_process();
    let process = Context::background().with_cancel();
    let gate = Gate::closed();
    let wait = {
        let gate = gate.clone();
        async move |Ctx(ctx): Ctx| {
            gate.pass().await;
            hours_left(&ctx).to_string()
        }
    };
    let service = Service::new("bank")
        .route("now", async |Ctx(ctx): Ctx| hours_left(&ctx).to_string())
        .route("wait", wait)
        .settings(config.map(|bank| bank.service.clone()));
    let serving = service.serve_until(&transport, &process);

    let calls = async {
        assert_eq!(call(&transport, "/now").await, "2");
        let running = tokio::spawn({
            let transport = transport.clone();
            async move { call(&transport, "/wait").await }
        });
        gate.reached().await;

        place.write("[service]\nmax_timeout = '4h'\n[service.routes.wait]\ntimeout = '6h'\n");
        config.reloaded().await.unwrap();
        assert_eq!(call(&transport, "/now").await, "4");
        gate.open();
        assert_eq!(running.await.unwrap(), "2", "a call that runs keeps its timeout");
        assert_eq!(call(&transport, "/wait").await, "6");

        for (broken, line, column) in [
            ("[service]\nmax_timeout = '1h\n", 2, 18),
            ("[service]\nmax_timeout = 1\n", 2, 15),
            ("[service]\nmax_timeout = '1h'\nmax_timout = '1h'\n", 3, 1),
        ] {
            place.write(broken);
            let error = config.reloaded().await.unwrap_err();
            assert_eq!((error.line(), error.column()), (Some(line), Some(column)), "{error}");
            assert!(error.to_string().contains(&format!("bank.toml:{line}:{column}: ")), "{error}");
            assert_eq!(call(&transport, "/now").await, "4");
        }

        place.write("[service]\nmax_timeout = '1h'\n");
        config.reloaded().await.unwrap();
        assert_eq!(call(&transport, "/now").await, "1");
        assert!(config.last_error().is_none());
        process.cancel();
    };
    let (served, ()) = tokio::join!(serving, calls);
    served.unwrap();
}

#[tokio::test]
async fn the_next_call_of_a_client_has_the_new_timeout_and_a_broken_file_changes_nothing() {
    let place = Place::with("[bank]\ntimeout = '2h'\n");
    let mut config = Config::<Bank>::builder().file(&place.path).watch().unwrap();
    let gate = Gate::closed();
    let wait = {
        let gate = gate.clone();
        async move |Ctx(ctx): Ctx| {
            gate.pass().await;
            Json(hours_left(&ctx))
        }
    };
    let now = async |Ctx(ctx): Ctx| Json(hours_left(&ctx));
    let served = Served::start(Service::new("bank").route("now", now).route("wait", wait)).await;
    let client = Client::new("bank", &served.transport).timeout(9 * HOUR).settings(config.map(|all| all.bank.clone()));
    let ctx = Context::background();
    let hours = async |route: &str| client.call::<u64>(&ctx, route, &()).await.unwrap();

    assert_eq!(hours("now").await, 2);
    let (running, ()) = tokio::join!(hours("wait"), async {
        gate.reached().await;
        place.write("[bank]\ntimeout = '4h'\n[bank.routes.wait]\ntimeout = '6h'\n");
        config.reloaded().await.unwrap();
        assert_eq!(hours("now").await, 4);
        gate.open();
    });
    assert_eq!(running, 2, "a call that runs keeps its timeout");
    assert_eq!(hours("wait").await, 6);

    for broken in ["[bank]\ntimeout = '1h\n", "[bank]\ntimeout = '1h'\ntimout = '1h'\n"] {
        place.write(broken);
        config.reloaded().await.unwrap_err();
        assert_eq!(hours("now").await, 4);
    }
    place.write("[bank]\n");
    config.reloaded().await.unwrap();
    assert_eq!(hours("now").await, 9, "what is absent is as the code says");
    served.stop().await;
}
