//! Peers for the tests: proxies, and servers that misbehave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// The first 24 bytes of a client of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A SETTINGS frame without a setting.
pub(super) const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Forwards connections, and counts them.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    closed: mpsc::UnboundedReceiver<()>,
}

impl Proxy {
    pub(super) async fn to(server: SocketAddr) -> Proxy {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, accepted) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (sender, closed) = mpsc::unbounded_channel();
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = socket.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    let _ = sender.send(());
                });
            }
        });
        Proxy { address, accepted, closed }
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Waits until one more connection is closed.
    pub(super) async fn closed(&mut self) {
        self.closed.recv().await.unwrap();
    }
}

/// Sends `responses` to each connection: the first one after the client's first bytes, the others
/// after its request. Then it keeps the connection open.
pub(super) async fn scripted(responses: &'static [&'static [u8]]) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                let mut read = Vec::new();
                for response in responses {
                    wait_for_more(&mut stream, &mut read).await;
                    if stream.write_all(response).await.is_err() {
                        return;
                    }
                }
                let _ = stream.read_to_end(&mut read).await;
            });
        }
    });
    address
}

/// Reads the preface, and later until a HEADERS frame has come.
async fn wait_for_more(stream: &mut TcpStream, read: &mut Vec<u8>) {
    let wants_headers = read.len() >= PREFACE.len();
    while (!wants_headers && read.len() < PREFACE.len()) || (wants_headers && !has_headers(&read[PREFACE.len()..])) {
        if stream.read_buf(read).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

fn has_headers(mut frames: &[u8]) -> bool {
    while let [a, b, c, kind, rest @ ..] = frames {
        if *kind == 1 {
            return true;
        }
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        frames = rest.get(5 + length..).unwrap_or(&[]);
    }
    false
}

/// An address that refuses connections.
pub(super) async fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Sends a request of HTTP/1.1 as `curl` does, and returns the whole response.
pub(super) async fn http1(server: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let length = body.len();
    let request = format!("{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    String::from_utf8(response).unwrap()
}

/// Reads until the bytes end with `end`.
pub(super) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "closed after {:?}", String::from_utf8_lossy(&read));
    }
    String::from_utf8(read).unwrap()
}
