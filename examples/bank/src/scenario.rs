//! The scenarios that the example plays with the bank.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use throughline_view::Trace;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::app::{Bank, Closed, Config, StartError};
use crate::domain::Authorization;
use crate::services::balance::Progress;

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Everything works.
    Ok,
    /// The storage of `balance` stalls past the deadline of the edge.
    SlowBalance,
    /// The client hangs up in the middle.
    HangUp,
}

/// The result of a scenario.
#[derive(Debug)]
pub struct Outcome {
    /// The status and the body that the client got. `None` if the client hung up.
    pub response: Option<(u16, String)>,
    /// How long the client waited.
    pub took: Duration,
    /// The timeout of a request.
    pub timeout: Duration,
    /// How far `balance` got.
    pub progress: Progress,
    /// The notifications on the customer's phone.
    pub notifications: Vec<String>,
    /// The result of closing the bank.
    pub closed: Closed,
}

impl Outcome {
    /// The traces of the bank's spans.
    pub fn traces(&self) -> Vec<Trace> {
        Trace::from_batches(&self.closed.batches)
    }
}

impl Scenario {
    /// Opens a bank, plays the scenario, and closes it.
    ///
    /// # Errors
    /// The bank cannot open.
    pub async fn play(self, config: Config) -> Result<Outcome, StartError> {
        let config = match self {
            Scenario::Ok => config,
            Scenario::SlowBalance | Scenario::HangUp => Config { balance_stalls: true, ..config },
        };
        let timeout = config.timeout;
        let bank = Bank::open(config).await?;
        let start = Instant::now();
        let response = match self {
            Scenario::Ok | Scenario::SlowBalance => Some(authorize(&bank).await),
            Scenario::HangUp => {
                hang_up(&bank).await;
                None
            }
        };
        let took = start.elapsed();
        let (ledger, apns) = (bank.ledger.clone(), bank.apns.clone());
        let closed = bank.close().await;
        let notifications = apns.sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let progress = *ledger.progress.borrow();
        Ok(Outcome { response, took, timeout, progress, notifications, closed })
    }
}

/// Sends the example as an untrusted client, without a context.
async fn authorize(bank: &Bank) -> (u16, String) {
    let url = format!("http://{}/authorizations", bank.address);
    let sent = reqwest::Client::new().post(url).json(&Authorization::example()).send().await;
    match sent {
        Ok(response) => (response.status().as_u16(), response.text().await.unwrap_or_default()),
        Err(e) => (0, e.to_string()),
    }
}

/// Sends the example, and hangs up after `balance` has started to work on it.
async fn hang_up(bank: &Bank) {
    let mut progress = bank.ledger.progress.subscribe();
    let body = serde_json::to_string(&Authorization::example()).unwrap_or_default();
    let head = format!("POST /authorizations HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n", bank.address);
    if let Ok(mut stream) = TcpStream::connect(bank.address).await {
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(request.as_bytes()).await.is_ok() {
            let _ = progress.wait_for(|progress| progress.started > 0).await;
        }
    }
    // Wait until the statement and the spawned work have stopped.
    let stopped = progress.wait_for(|progress| progress.stopped > 0 && progress.spawned_stopped > 0);
    let _ = tokio::time::timeout(Duration::from_secs(5), stopped).await;
}
