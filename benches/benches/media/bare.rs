//! The bare media, without this library.

use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::{mpsc, oneshot};

use crate::BODY;
use crate::measure::Way;

type Envelope = (Request<Bytes>, oneshot::Sender<Response<Bytes>>);

/// tokio's channels: the service responds one request after the other.
pub(crate) fn channels() -> Way {
    let (sender, mut receiver) = mpsc::channel::<Envelope>(2048);
    tokio::spawn(async move {
        while let Some((request, responder)) = receiver.recv().await {
            let _ = responder.send(Response::new(request.into_body()));
        }
    });
    over("bare: `mpsc` and `oneshot`", sender)
}

/// tokio's channels, and a task for each request.
pub(crate) fn channels_and_tasks() -> Way {
    let (sender, mut receiver) = mpsc::channel::<Envelope>(2048);
    tokio::spawn(async move {
        while let Some((request, responder)) = receiver.recv().await {
            tokio::spawn(async move {
                let _ = responder.send(Response::new(request.into_body()));
            });
        }
    });
    over("bare, a task for each request", sender)
}

fn over(name: &'static str, sender: mpsc::Sender<Envelope>) -> Way {
    Way::new(name, move || {
        let sender = sender.clone();
        async move {
            let (responder, response) = oneshot::channel();
            let request = Request::post("http://balance/reserve").body(BODY).expect("the URI is valid");
            sender.send((request, responder)).await.expect("the service runs");
            let response = response.await.expect("the service responds");
            assert_eq!(response.body().len(), BODY.len());
        }
    })
}
