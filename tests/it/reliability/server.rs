//! A server whose connections are counted, and which ends without a trace.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use throughline::{Context, ContextLayer, Key};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::support::PATIENCE;

static BASE: Key<Arc<()>> = Key::new("base");

/// Knows whether a context below its base is alive.
pub struct Contexts {
    base: Context,
    token: Arc<()>,
}

impl Contexts {
    pub fn new() -> Contexts {
        let token = Arc::new(());
        Contexts { base: Context::background().with_value(&BASE, Arc::clone(&token)), token }
    }

    pub fn under(&self, layer: ContextLayer) -> ContextLayer {
        layer.base(&self.base)
    }

    /// Drops the base, and waits until no context below it is left. Each of them holds it.
    pub async fn all_end(self) {
        let Contexts { base, token } = self;
        drop(base);
        let end = async {
            while Arc::strong_count(&token) > 1 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, end).await.expect("no context is left");
    }
}

pub struct Server {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(app: Router) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                connection.set_nodelay(true).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let app = TowerToHyperService::new(app.clone());
                connections.spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(connection), app).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Server { address, accepted, task }
    }

    /// How many connections were accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Drops the server with its connections and its layers.
    pub async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}
