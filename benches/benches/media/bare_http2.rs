//! hyper alone: one connection over loopback, with the settings of the transport.

use std::io;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::BODY;
use crate::measure::Way;

pub(crate) async fn way() -> io::Result<Way> {
    let socket = TcpListener::bind("127.0.0.1:0").await?;
    let stream = TcpStream::connect(socket.local_addr()?).await?;
    stream.set_nodelay(true)?;
    let (accepted, _) = socket.accept().await?;
    accepted.set_nodelay(true)?;
    let echo = service_fn(async |request: Request<Incoming>| {
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>(Response::new(Full::new(body)))
    });
    tokio::spawn(async move {
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.timer(TokioTimer::new()).max_concurrent_streams(1024).max_header_list_size(64 << 10);
        let _ = server.serve_connection(TokioIo::new(accepted), echo).await;
    });
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(64 << 10)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(Way::new("bare: hyper", move || {
        let mut sender = sender.clone();
        async move {
            let request = Request::post("http://balance/reserve").body(Full::new(BODY)).expect("the URI is valid");
            let response = sender.send_request(request).await.expect("the service responds");
            let body = response.into_body().collect().await.expect("it arrives").to_bytes();
            assert_eq!(body.len(), BODY.len());
        }
    }))
}
