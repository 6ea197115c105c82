//! The service under test in the W3C Trace Context validation suite.
//!
//! Run it with `cargo run --example w3c_service -- PORT`.
//!
//! 1. The suite sends a request with valid or invalid trace headers, and a list of URLs to call.
//! 2. The service calls the URLs, one after the other.
//! 3. The suite checks the headers that it receives.
//!
//! Nothing here is special to the suite. There is a [`ContextLayer`] on the server, a
//! [`ClientLayer`] on the client, and a handler between them that passes the context on.

use std::io::{self, Write as _};
use std::process::ExitCode;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use serde::Deserialize;
use serde_json::Value;
use throughline::{ClientLayer, Code, ContextLayer, Ctx, Error, SendWith};
use tokio::net::TcpListener;

/// Creates the service. It handles POST requests to any path.
pub fn app() -> Router {
    // Do not follow redirects: the headers were written for another host.
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
    let client = client.expect("no setting of this client can fail");
    Router::new().fallback(post(call_all)).with_state(client).layer(ContextLayer::internal()) // reads the caller's trace and deadline, or starts a trace
}

/// A URL to call, and the JSON to send.
#[derive(Deserialize)]
struct Call {
    url: String,
    arguments: Value,
}

/// Responds when all calls are complete. If a call fails, its error is the response.
async fn call_all(State(client): State<reqwest::Client>, Ctx(ctx): Ctx, body: Bytes) -> Result<(), Error> {
    let calls: Vec<Call> = serde_json::from_slice(&body)
        .map_err(|e| Error::wrap(Code::InvalidArgument, e).with_message("the body must be a JSON list of calls"))?;
    for call in calls {
        // Each call has its own span, which is sent as `traceparent`.
        let response = client.post(call.url).json(&call.arguments).send_with(&ctx, &ClientLayer::internal()).await?;
        response.bytes().await?;
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

/// Serves until the process ends.
///
/// # Errors
/// Returns an exit code and a message of one line. The code is 2 if the command line is invalid.
pub async fn serve(arguments: Vec<String>) -> Result<(), (u8, String)> {
    let [port] = &arguments[..] else { return Err((2, "usage: w3c_service PORT (0 selects a free port)".into())) };
    let port: u16 = port.parse().map_err(|_| (2, format!("{port:?} is not a port number (0 to 65535)")))?;
    let failed = |e: io::Error| (1, format!("127.0.0.1:{port}: {e}"));

    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    writeln!(io::stdout(), "listening on http://{address}").map_err(failed)?;
    axum::serve(listener, app()).await.map_err(failed)
}
