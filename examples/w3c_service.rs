//! The service that W3C's Trace Context validation suite talks to: `cargo run --example w3c_service -- PORT`.
//!
//! The suite sends it traces, good and bad ones, each with a list of addresses to call. It calls them one after the other, and the suite
//! looks at the headers that arrive. Nothing in here is made for it: it is two layers, [`ContextLayer`] on the server and
//! [`ClientLayer`] on the client, and a handler between them that passes the context on.

use std::io::{self, Write as _};
use std::process::ExitCode;

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::Value;
use throughline::{ClientLayer, Code, Context, ContextLayer, Error, SendWith};
use tokio::net::TcpListener;

/// The service: it takes a POST to any path.
pub fn app() -> Router {
    // A redirect would get what was written for another host.
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
    let client = client.expect("nothing is asked of it that can be missing");
    Router::new().fallback(post(call_all)).with_state(client).layer(ContextLayer::internal()) // reads the caller's trace and deadline, or begins a trace
}

/// What to call, and with what.
#[derive(Deserialize)]
struct Call {
    url: String,
    arguments: Value,
}

/// Answers when all calls have been answered; the first one that fails is the answer.
async fn call_all(
    State(client): State<reqwest::Client>,
    Extension(ctx): Extension<Context>,
    body: Bytes,
) -> Result<(), Error> {
    let calls: Vec<Call> = serde_json::from_slice(&body)
        .map_err(|e| Error::wrap(Code::InvalidArgument, e).with_message("the body is no list of calls"))?;
    for call in calls {
        // A span of its own for each call, whose identity goes out as `traceparent`.
        let answer = client.post(call.url).json(&call.arguments).send_with(&ctx, &ClientLayer::internal()).await?;
        answer.bytes().await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(std::env::args().skip(1).collect()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            eprintln!("error: {error}");
            ExitCode::from(code)
        }
    }
}

/// Serves until the process ends. Its error is an exit code, 2 where the command line is wrong, and one line that says why.
pub async fn serve(arguments: Vec<String>) -> Result<(), (u8, String)> {
    let [port] = &arguments[..] else { return Err((2, "usage: w3c_service PORT (0 takes any that is free)".into())) };
    let port: u16 = port.parse().map_err(|_| (2, format!("{port:?} is not a port, 0 to 65535")))?;
    let failed = |e: io::Error| (1, format!("127.0.0.1:{port}: {e}"));

    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    writeln!(io::stdout(), "listening on http://{address}").map_err(failed)?;
    axum::serve(listener, app()).await.map_err(failed)
}
