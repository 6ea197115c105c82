//! Holds the balances of accounts, and reserves money.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use throughline::{Context, Ctx, Error};
use tokio::sync::watch;

use crate::domain::{Balance, Decline, Reservation};

/// The balance of a new account, in cents.
const OPENING: u64 = 100_000;

/// The accounts. All instances share them.
#[derive(Debug)]
pub struct Ledger {
    available: Mutex<HashMap<u64, u64>>,
    /// Whether the storage stalls.
    pub stalled: bool,
    /// How far reservations get. Scenarios watch it.
    pub progress: watch::Sender<Progress>,
}

/// Counts how far reservations get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Statements that started.
    pub started: u32,
    /// Statements that stopped early because the caller no longer needs them.
    pub stopped: u32,
    /// Tasks spawned for a request that stopped with it.
    pub spawned_stopped: u32,
}

impl Ledger {
    /// A ledger without accounts. The first use of an account opens it.
    pub fn new(stalled: bool) -> Self {
        Ledger { available: Mutex::default(), stalled, progress: watch::Sender::default() }
    }

    /// Reserves money, unless `ctx` is done first.
    async fn reserve(&self, ctx: &Context, reservation: &Reservation) -> Result<Result<Balance, Decline>, Error> {
        let statement = async {
            self.progress.send_modify(|progress| progress.started += 1);
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

/// The routes of this service.
pub fn router(ledger: Arc<Ledger>) -> Router {
    Router::new().route("/reserve", post(reserve)).with_state(ledger)
}

async fn reserve(
    Ctx(ctx): Ctx,
    State(ledger): State<Arc<Ledger>>,
    Json(reservation): Json<Reservation>,
) -> Result<Json<Result<Balance, Decline>>, Error> {
    // This runs in the background, and only until the request ends.
    ctx.spawn(refresh_limits(Arc::clone(&ledger)));
    ledger.reserve(&ctx, &reservation).await.map(Json)
}

/// Work that never ends on its own.
///
/// It may be dropped before it is first polled.
fn refresh_limits(ledger: Arc<Ledger>) -> impl Future<Output = ()> + Send {
    let stopped = OnDrop(move || ledger.progress.send_modify(|progress| progress.spawned_stopped += 1));
    async move {
        let _stopped = stopped;
        std::future::pending::<()>().await;
    }
}

/// Calls a function when it is dropped, so that scenarios see work that stopped early.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
