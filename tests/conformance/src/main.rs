//! A tonic server and client that connectrpc's conformance suite runs, with and without the layers.
//!
//! `conformance server (none | internal | edge)`, `conformance client (none | internal | channel)`.
//! The suite sends its requests over
//! stdin and reads responses from stdout, each after its length in four bytes.

mod client;
#[path = "../../it/support/codec.rs"]
mod codec;
mod messages;
mod server;

use std::error::Error;
use std::io::{self, Read, Write};

use prost::Message;
use throughline::ContextLayer;

type BoxError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["server", "none"] => server::serve(tower::layer::util::Identity::new()).await,
        ["server", "internal"] => server::serve(ContextLayer::internal()).await,
        ["server", "edge"] => server::serve(ContextLayer::edge()).await,
        ["client", "none"] => client::run(client::Over::Tonic).await,
        ["client", "internal"] => client::run(client::Over::Layer).await,
        ["client", "channel"] => client::run(client::Over::Channel).await,
        _ => Err("usage: conformance (server (none | internal | edge) | client (none | internal | channel))".into()),
    }
}

/// Reads the next message. `None` at the end of stdin.
fn read<M: Message + Default>() -> io::Result<Option<M>> {
    let mut stdin = io::stdin().lock();
    let mut length = [0; 4];
    match stdin.read_exact(&mut length) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut message = vec![0; u32::from_be_bytes(length) as usize];
    stdin.read_exact(&mut message)?;
    Ok(Some(M::decode(&message[..])?))
}

fn write(message: &impl Message) -> io::Result<()> {
    let message = message.encode_to_vec();
    let mut stdout = io::stdout().lock();
    stdout.write_all(&u32::try_from(message.len()).expect("a message is short").to_be_bytes())?;
    stdout.write_all(&message)?;
    stdout.flush()
}
