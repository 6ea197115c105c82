//! Starts the bank: each service has its own port and its own telemetry.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use throughline::telemetry::{self, BuildError, FlushError, Stats, TelemetryGuard};
use throughline::trace::Batch;
use throughline::{CancelHandle, Cause, Context, ContextLayer, Error, ReplyReserve};
use throughline_transport::Events;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::kit::{Peer, Tracers, consume};
use crate::recent::Recent;
use crate::services::{
    api, apns, balance, card_api, card_processing, cards, feed, feed_generator, merchant, transaction_enrichment,
    transactions,
};

/// All services, the API first.
pub const SERVICES: [&str; 11] = [
    "api",
    "card-api",
    "card-processing",
    "cards",
    "transactions",
    "balance",
    "transaction-enrichment",
    "merchant",
    "feed-generator",
    "feed",
    "apns",
];

/// The timeout for the last export of spans.
const FLUSH: Duration = Duration::from_secs(1);
/// The time that requests and events in flight get to end.
const DRAIN: Duration = Duration::from_secs(5);
/// The time that cancelled requests and events get to end after that.
const CANCELLED: Duration = Duration::from_millis(500);
/// Any free port on loopback.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// The maximum number of spans that are kept for the terminal.
const KEPT: usize = 10_000;

/// The configuration of a bank.
#[derive(Clone, Debug)]
pub struct Config {
    /// The timeout of a request, from its arrival at the edge.
    pub timeout: Duration,
    /// The part of the time left that each hop keeps for the response's way back.
    pub reserve: ReplyReserve,
    /// Whether the storage of `balance` stalls.
    pub balance_stalls: bool,
    /// The address of the API. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The `OTEL_*` variables.
    pub variables: HashMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        let variables = std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")).collect();
        let (timeout, reserve) = (Duration::from_secs(2), ReplyReserve::DEFAULT);
        Config { timeout, reserve, balance_stalls: false, listen: LOOPBACK, variables }
    }
}

/// An open bank.
#[derive(Debug)]
pub struct Bank {
    /// The address of the API.
    pub address: SocketAddr,
    /// The accounts.
    pub ledger: Arc<balance::Ledger>,
    /// The notifications that were sent to phones.
    pub apns: Arc<apns::Apns>,
    events: Events,
    telemetries: Vec<(&'static str, TelemetryGuard)>,
    recent: Recent,
    process: CancelHandle,
    closing: watch::Sender<Closing>,
    door: JoinSet<io::Result<()>>,
    servers: JoinSet<io::Result<()>>,
}

/// How far the bank is closed. Each state includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Closing {
    #[default]
    Open,
    /// The API accepts no more requests.
    Door,
    /// No service accepts more requests.
    All,
}

/// Why a bank cannot open.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The bank cannot listen on an address.
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The telemetry of a service cannot be set up.
    Telemetry(BuildError),
    /// The bank cannot subscribe to its events.
    Events(Error),
}

/// The result of closing a bank.
#[derive(Debug)]
pub struct Closed {
    /// The last spans, by service. At most 10,000.
    pub batches: Vec<Batch>,
    /// The export statistics of each service.
    pub stats: Vec<(&'static str, Stats)>,
    /// The error of the last export, if it lost spans.
    pub lost: Option<FlushError>,
}

impl Bank {
    /// Starts the API on its address, and all other services on loopback.
    ///
    /// # Errors
    /// The address is taken, or an `OTEL_*` variable is not valid.
    pub async fn open(config: Config) -> Result<Bank, StartError> {
        let recent = Recent::new(KEPT);
        let mut telemetries = Vec::new();
        for name in SERVICES {
            let builder = telemetry::builder(name).exporter(recent.clone()).on_error(|_| {});
            let builder = builder.from_variables(&|variable| match variable {
                // The environment has one name, which would apply to all services.
                "OTEL_SERVICE_NAME" => Some(name.to_owned()),
                _ => config.variables.get(variable).cloned(),
            });
            let guard = builder.build()?;
            telemetries.push((name, guard));
        }
        let tracers: Tracers = telemetries.iter().map(|(name, guard)| (*name, guard.tracer().clone())).collect();
        let process = Context::background().with_cancel();
        let (closing, _) = watch::channel(Closing::Open);
        let reserve = config.reserve;
        let mut starting = Starting { process: &process, tracers, reserve, closing: &closing, servers: JoinSet::new() };
        let peer = |service, instances: &[SocketAddr]| peer(service, instances).reserve(reserve);

        let events = Events::in_process();
        let ledger = Arc::new(balance::Ledger::new(config.balance_stalls));
        let sent = Arc::new(apns::Apns::default());

        // Start callees first: each service needs the addresses of its callees.
        let balances = [
            starting.serve("balance", balance::router(ledger.clone())).await?,
            starting.serve("balance", balance::router(ledger.clone())).await?,
        ];
        let booking = transactions::Transactions {
            balance: peer("balance", &balances),
            events: events.clone(),
            booked: Default::default(),
        };
        let transactions = starting.serve("transactions", transactions::router(booking)).await?;
        let cards = starting.serve("cards", cards::router()).await?;
        let processing = card_processing::CardProcessing {
            cards: peer("cards", &[cards]),
            transactions: peer("transactions", &[transactions]),
        };
        let processing = starting.serve("card-processing", card_processing::router(processing)).await?;
        let card_api = card_api::CardApi { card_processing: peer("card-processing", &[processing]) };
        let card_api = starting.serve("card-api", card_api::router(card_api)).await?;
        let merchant = starting.serve("merchant", merchant::router()).await?;
        let feed = feed::Feed { events: events.clone(), items: Default::default() };
        let feed = starting.serve("feed", feed::router(feed)).await?;

        let enrichment = Arc::new(transaction_enrichment::Enrichment {
            merchant: peer("merchant", &[merchant]),
            transactions: peer("transactions", &[transactions]),
        });
        let generator = Arc::new(feed_generator::FeedGenerator { feed: peer("feed", &[feed]) });
        let tracers = &starting.tracers;
        consume(&events, &process, "transaction.created", "transaction-enrichment", tracers, move |ctx, event| {
            transaction_enrichment::created(enrichment.clone(), ctx, event)
        })
        .await?;
        consume(&events, &process, "transaction.enriched", "feed-generator", tracers, move |ctx, event| {
            feed_generator::enriched(generator.clone(), ctx, event)
        })
        .await?;
        let phone = sent.clone();
        consume(&events, &process, "feed.item.created", "apns", tracers, move |ctx, event| {
            apns::item_created(phone.clone(), ctx, event)
        })
        .await?;

        let door = ContextLayer::edge().max_timeout(config.timeout);
        let api = api::router(api::Api { card_api: peer("card-api", &[card_api]) });
        let servers = std::mem::take(&mut starting.servers);
        let address = starting.serve_with("api", api, door, config.listen, Closing::Door).await?;
        let door = starting.servers;
        Ok(Bank { address, ledger, apns: sent, events, telemetries, recent, process, closing, door, servers })
    }

    /// Closes the API first, then the events, then the other services, then the telemetry.
    ///
    /// In this order, requests and events in flight can still end: the services that they need are
    /// open. After 5 s, the remaining ones are cancelled.
    pub async fn close(mut self) -> Closed {
        let patience = Context::background().with_timeout(DRAIN);
        self.closing.send_replace(Closing::Door);
        let _ = patience.run(ended(&mut self.door)).await;
        let _ = patience.run(self.events.drain()).await;
        self.closing.send_replace(Closing::All);
        let _ = patience.run(ended(&mut self.servers)).await;
        self.process.cancel_with(Cause::Shutdown);
        let cancelled = async {
            ended(&mut self.door).await;
            self.events.drain().await;
            ended(&mut self.servers).await;
        };
        let _ = Context::background().with_timeout(CANCELLED).run(cancelled).await;

        let mut flushes = JoinSet::new();
        for (name, guard) in self.telemetries {
            let telemetry = (*guard).clone();
            flushes.spawn(async move { (name, guard.shutdown(FLUSH).await.err(), telemetry.stats()) });
        }
        let mut flushed = flushes.join_all().await;
        flushed.sort_by_key(|(name, ..)| SERVICES.iter().position(|service| service == name));
        Closed {
            batches: self.recent.batches(),
            lost: flushed.iter().find_map(|(_, lost, _)| lost.clone()),
            stats: flushed.into_iter().map(|(name, _, stats)| (name, stats)).collect(),
        }
    }
}

async fn ended(servers: &mut JoinSet<io::Result<()>>) {
    while servers.join_next().await.is_some() {}
}

struct Starting<'a> {
    process: &'a Context,
    tracers: Tracers,
    reserve: ReplyReserve,
    closing: &'a watch::Sender<Closing>,
    servers: JoinSet<io::Result<()>>,
}

impl Starting<'_> {
    async fn serve(&mut self, name: &'static str, router: Router) -> Result<SocketAddr, StartError> {
        self.serve_with(name, router, ContextLayer::internal(), LOOPBACK, Closing::All).await
    }

    async fn serve_with(
        &mut self,
        name: &'static str,
        router: Router,
        layer: ContextLayer,
        listen: SocketAddr,
        ends: Closing,
    ) -> Result<SocketAddr, StartError> {
        let taken = |source| StartError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        let app = router.layer(layer.tracer(self.tracers[name].clone()).reserve(self.reserve).base(self.process));
        let mut closing = self.closing.subscribe();
        let closed = async move {
            let _ = closing.wait_for(|closing| *closing >= ends).await;
        };
        self.servers.spawn(async move { axum::serve(listener, app).with_graceful_shutdown(closed).await });
        Ok(address)
    }
}

fn peer(service: &'static str, instances: &[SocketAddr]) -> Peer {
    Peer::new(service, instances.iter().map(SocketAddr::to_string).collect())
}

impl From<BuildError> for StartError {
    fn from(error: BuildError) -> Self {
        StartError::Telemetry(error)
    }
}

impl From<Error> for StartError {
    fn from(error: Error) -> Self {
        StartError::Events(error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Listen { address, source } => write!(f, "cannot listen on {address}: {source}"),
            StartError::Telemetry(error) => error.fmt(f),
            StartError::Events(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}
