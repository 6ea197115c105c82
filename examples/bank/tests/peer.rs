//! The HTTP client that services share.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use axum::Router;
use axum::response::Redirect;
use axum::routing::post;
use bank::kit::Peer;
use throughline::{Code, Context};
use tokio::net::TcpListener;

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[tokio::test]
async fn the_target_of_a_redirect_gets_no_request() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let there = post(async move || count.fetch_add(1, SeqCst).to_string());
    let there = format!("http://{}/", serve(Router::new().route("/", there)).await);
    let here = serve(Router::new().route("/", post(async move || Redirect::temporary(&there)))).await;
    let peer = Peer::new("here", vec![here.to_string()]);
    let error = peer.post::<u8>(&Context::background(), "/", &7).await.unwrap_err();
    assert_eq!((error.code(), requests.load(SeqCst)), (Code::Internal, 0), "a redirect is not a valid response");
}
