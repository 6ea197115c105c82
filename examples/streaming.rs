//! Server-sent events that may run for days, and the three ways in which they end.
//!
//! Run it with `cargo run --example streaming`. The server allows 100 ms for the head of a response
//! and for each frame. The events come every 20 ms, so the stream lives on. It ends when the client
//! disconnects, at the deadline that the client has sent, and when the events stall.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use futures_util::{Stream, StreamExt as _, stream};
use throughline::{ClientLayer, Context, ContextLayer, SendWith, StreamCtx};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Reports why each stream has ended.
type Ends = mpsc::UnboundedSender<String>;

/// One price every 20 ms. A task feeds the stream, as one that listens to a broker would.
async fn prices(
    StreamCtx(ctx): StreamCtx, // the context of the whole response; that of `Ctx` ends after 100 ms
    State(ends): State<Ends>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (sender, receiver) = mpsc::channel(8);
    let watched = ctx.clone();
    tokio::spawn(async move {
        for price in 100.. {
            let next = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                sender.send(price).await
            };
            if !matches!(watched.run(next).await, Ok(Ok(()))) {
                break;
            }
        }
        watched.done().await;
        let cause = watched.cause().expect("a context that is done has a cause");
        ends.send(format!("prices: {}", cause.name())).ok();
    });
    Sse::new(stream::unfold(receiver, async |mut receiver| {
        let price: u32 = receiver.recv().await?;
        Some((Ok(Event::default().event("price").data(price.to_string())), receiver))
    }))
}

/// One event, and then nothing: a source that hangs.
async fn stalled() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let first = stream::once(async { Ok(Event::default().data("the only one")) });
    Sse::new(first.chain(stream::pending()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (ends, mut ended) = mpsc::unbounded_channel();
    let app = Router::new()
        .route("/prices", get(prices))
        .route("/stalled", get(stalled))
        .with_state(ends)
        .layer(ContextLayer::internal().max_timeout(Duration::from_millis(100)));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });

    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let get = |path: &str| client.get(format!("http://{address}/{path}"));
    let (mut out, layer) = (io::stdout(), ClientLayer::internal());

    // The client disconnects after 20 events, which is far beyond 100 ms.
    let body = get("prices").send_with(&Context::background(), &layer).await?.bytes_stream();
    let events = body.take(20).count().await;
    assert_eq!((events, ended.recv().await.as_deref()), (20, Some("prices: client_disconnected")));
    writeln!(out, "20 events, then the client disconnected")?;

    // The client sends a deadline, which covers the whole response.
    let ctx = Context::background().with_timeout(Duration::from_millis(300));
    let body = get("prices").send_with(&ctx, &layer).await?.bytes_stream();
    let events = body.take_while(|event| std::future::ready(event.is_ok())).count().await;
    assert!(events > 1, "there were {events} events in 300 ms");
    assert_eq!(ended.recv().await.as_deref(), Some("prices: deadline_exceeded"));
    writeln!(out, "the deadline of the client ended the stream")?;

    // No frame for 100 ms: the server ends the response.
    let mut body = get("stalled").send_with(&Context::background(), &layer).await?.bytes_stream();
    assert!(body.next().await.is_some_and(|event| event.is_ok()));
    assert!(body.next().await.is_some_and(|end| end.is_err()));
    writeln!(out, "the stalled stream was ended by the server")?;
    Ok(())
}
