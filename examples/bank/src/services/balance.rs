//! Knows what is in the accounts, and sets money aside.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Json, Router};
use throughline::{Context, Error};
use tokio::sync::watch;

use crate::domain::{Balance, Decline, Reservation};

/// What is in an account that nothing is known of, in cents.
const OPENING: u64 = 100_000;

/// The accounts, which all instances share.
#[derive(Debug)]
pub struct Ledger {
    available: Mutex<HashMap<u64, u64>>,
    /// Whether its storage has stalled, as storage does.
    pub stalled: bool,
    /// How far reservations come: for scenarios to watch.
    pub progress: watch::Sender<Progress>,
}

/// How far a reservation has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Statements that were begun.
    pub begun: u32,
    /// Statements that were stopped, because whoever asked needs them no more.
    pub stopped: u32,
    /// Pieces of work, spawned for a request, that were stopped with it.
    pub spawned_stopped: u32,
}

impl Ledger {
    /// Full accounts.
    pub fn new(stalled: bool) -> Self {
        Ledger { available: Mutex::default(), stalled, progress: watch::Sender::default() }
    }

    /// Sets money aside, unless `ctx` is done before.
    async fn reserve(&self, ctx: &Context, reservation: &Reservation) -> Result<Result<Balance, Decline>, Error> {
        let statement = async {
            self.progress.send_modify(|progress| progress.begun += 1);
            let running = OnDrop(|| self.progress.send_modify(|progress| progress.stopped += 1));
            if self.stalled {
                std::future::pending::<()>().await;
            }
            std::mem::forget(running);
            Ok(self.withdraw(reservation))
        };
        ctx.run(statement).await.unwrap_or_else(|_| Err(Error::from_context(ctx)))
    }

    fn withdraw(&self, reservation: &Reservation) -> Result<Balance, Decline> {
        let mut accounts = self.available.lock().unwrap_or_else(PoisonError::into_inner);
        let available = accounts.entry(reservation.account).or_insert(OPENING);
        *available = available.checked_sub(reservation.amount).ok_or(Decline::InsufficientFunds)?;
        Ok(Balance { available: *available })
    }
}

/// Its routes.
pub fn router(ledger: Arc<Ledger>) -> Router {
    Router::new().route("/reserve", post(reserve)).with_state(ledger)
}

async fn reserve(
    Extension(ctx): Extension<Context>,
    State(ledger): State<Arc<Ledger>>,
    Json(reservation): Json<Reservation>,
) -> Result<Json<Result<Balance, Decline>>, Error> {
    // In the background, and only as long as somebody waits for the answer.
    ctx.spawn(refresh_limits(Arc::clone(&ledger)));
    ledger.reserve(&ctx, &reservation).await.map(Json)
}

/// Work that never gets far, and may not even begin.
fn refresh_limits(ledger: Arc<Ledger>) -> impl Future<Output = ()> + Send {
    let stopped = OnDrop(move || ledger.progress.send_modify(|progress| progress.spawned_stopped += 1));
    async move {
        let _stopped = stopped;
        std::future::pending::<()>().await;
    }
}

/// Tells the scenarios that something was dropped half-way.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
