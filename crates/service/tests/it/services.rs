//! Several services of one process.

use throughline::{Code, Context, Shutdown};
use throughline_service::{Service, Services};
use throughline_transport::Transport;

use crate::support::{SECOND, post};

fn services() -> Services {
    Services::new()
        .add(Service::new("cards").route("block", async || "blocked"))
        .add(Service::new("balance").route("reserve", async || "reserved"))
}

#[tokio::test(start_paused = true)]
async fn one_process_serves_all_services_and_ends_them_together() {
    let (transport, shutdown) = (Transport::in_process(), Shutdown::new(20 * SECOND));
    let calls = async {
        let ctx = Context::background();
        while transport.counters("balance").is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(transport.send(&ctx, "cards", post("/block", &())).await.unwrap().body(), "blocked");
        assert_eq!(transport.send(&ctx, "balance", post("/reserve", &())).await.unwrap().body(), "reserved");
        shutdown.request();
    };
    let (served, ()) = tokio::join!(services().serve(&transport, &shutdown), calls);
    served.unwrap();
    assert!(transport.counters("cards").is_none() && transport.counters("balance").is_none());
    assert!(shutdown.drain().await.is_clean());
}

#[tokio::test]
async fn one_process_serves_the_services_that_are_named_and_an_unknown_name_lists_the_known_ones() {
    let one = services().only(["balance"]).unwrap();
    assert_eq!(one.names().collect::<Vec<_>>(), ["balance"]);
    assert_eq!(services().only([""; 0]).unwrap().names().collect::<Vec<_>>(), ["cards", "balance"]);
    let error = services().only(["balance", "crads"]).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(error.message(), "no service is called crads; there are: cards, balance");
}

#[tokio::test]
async fn no_service_is_served_if_one_cannot_listen() {
    let (transport, shutdown) = (Transport::in_process(), Shutdown::new(20 * SECOND));
    let _taken = transport.listen("balance").await.unwrap();
    let error = services().serve(&transport, &shutdown).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    let error = transport.send(&Context::background(), "cards", post("/block", &())).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}
