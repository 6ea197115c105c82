//! `async-nats` alone: a request and its reply, each side with a connection of its own.

use std::io;

use futures_util::StreamExt as _;

use crate::BODY;
use crate::measure::Way;

pub(crate) async fn way(url: &str) -> io::Result<Way> {
    let server = async_nats::connect(url).await.map_err(io::Error::other)?;
    let client = async_nats::connect(url).await.map_err(io::Error::other)?;
    let mut requests = server.queue_subscribe("balance", "balance".into()).await.map_err(io::Error::other)?;
    server.flush().await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let Some(reply) = request.reply else { continue };
            server.publish(reply, request.payload).await.expect("the server runs");
        }
    });
    Ok(Way::new("bare: `async-nats`", move || {
        let client = client.clone();
        async move {
            let response = client.request("balance", BODY).await.expect("the service responds");
            assert_eq!(response.payload.len(), BODY.len());
        }
    }))
}
