//! Two services and a caller, on the medium that the argument names.
//!
//! ```text
//! cargo run -p throughline-service --example services                  # within the process
//! cargo run -p throughline-service --example services http2
//! cargo run -p throughline-service --example services --features nats nats://127.0.0.1:4222
//! ```
//!
//! One line decides about the medium. The services and their caller are the same on each.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use throughline::{Code, Context, Ctx, Error, Shutdown};
use throughline_service::axum::extract::State;
use throughline_service::{Client, Json, Service, Services};
use throughline_transport::{StaticResolver, Transport};

#[derive(Debug, Serialize, Deserialize)]
struct Payment {
    card: u64,
    cents: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Balance {
    cents: u64,
}

/// What is on the cards.
type Ledger = Arc<Mutex<HashMap<u64, u64>>>;

/// The service `balance`: takes money from a card.
async fn reserve(
    Ctx(_): Ctx,
    State(ledger): State<Ledger>,
    Json(payment): Json<Payment>,
) -> Result<Json<Balance>, Error> {
    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    let cents = ledger.get_mut(&payment.card).ok_or_else(|| Error::new(Code::NotFound, "no such card"))?;
    let left = cents.checked_sub(payment.cents);
    *cents = left.ok_or_else(|| Error::new(Code::FailedPrecondition, "the balance is too low"))?;
    Ok(Json(Balance { cents: *cents }))
}

/// The service `payments`: calls `balance` with the context of its own request.
async fn pay(
    Ctx(ctx): Ctx,
    State(balance): State<Client>,
    Json(payment): Json<Payment>,
) -> Result<Json<Balance>, Error> {
    // Its callers know the errors of `balance`, so their codes stay.
    balance.call(&ctx, "reserve", &payment).await.map(Json).map_err(Error::preserve_code)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let medium = std::env::args().nth(1).unwrap_or_else(|| "in-process".to_owned());
    let transport = transport(&medium).await?; // the one line

    let shutdown = Shutdown::new(Duration::from_secs(20)); // a service uses `Shutdown::on_signal`
    let ledger = Ledger::new(Mutex::new(HashMap::from([(7, 100)])));
    let balance = Client::new("balance", &transport).timeout(Duration::from_millis(500));
    let payments = Service::new("payments").route("pay", pay).with_state(balance);
    let health = payments.health();
    let services =
        Services::new().add(Service::new("balance").route("reserve", reserve).with_state(ledger)).add(payments);

    let calling = async {
        health.serving().await;
        call(&transport).await?;
        shutdown.request();
        Ok(())
    };
    tokio::try_join!(services.serve(&transport, &shutdown), calling)?;
    assert!(shutdown.drain().await.is_clean());
    writeln!(io::stdout(), "paid over {medium}")?;
    Ok(())
}

async fn transport(medium: &str) -> Result<Transport, Error> {
    match medium {
        "in-process" => Ok(Transport::in_process()),
        "http2" => {
            // Other processes have the addresses from a file or from DNS.
            let addresses = StaticResolver::new();
            let transport = Transport::http2().resolver(addresses.clone()).bind("127.0.0.1:0").await?;
            let address = transport.local_addr().expect("it is bound").to_string();
            addresses.set("balance", [address.clone()]);
            addresses.set("payments", [address]);
            Ok(transport)
        }
        #[cfg(feature = "nats")]
        url if url.starts_with("nats://") => Transport::nats(url).connect(&Context::background()).await,
        other => Err(Error::new(Code::InvalidArgument, format!("there is no medium {other}"))),
    }
}

async fn call(transport: &Transport) -> Result<(), Error> {
    let ctx = Context::background().with_timeout(Duration::from_secs(5));
    let payments = Client::new("payments", transport);
    let left: Balance = payments.call(&ctx, "pay", &Payment { card: 7, cents: 42 }).await?;
    assert_eq!(left, Balance { cents: 58 });

    let refused = payments.call::<Balance>(&ctx, "pay", &Payment { card: 7, cents: 99 }).await;
    let error = refused.expect_err("there is not enough on the card");
    assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, "the balance is too low"));
    assert_eq!(error.origin(), Some("balance"));

    let nobody = Client::new("nobody", transport).call::<Balance>(&ctx, "pay", &()).await;
    assert_eq!(nobody.expect_err("nobody listens").code(), Code::NotFound);
    Ok(())
}
