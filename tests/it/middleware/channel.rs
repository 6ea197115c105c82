//! The channel for clients of tonic.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use throughline::middleware::tonic::Channel;
use throughline::{ClientLayer, Code, Context, Error, ReplyReserve};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::{Request, Response, Status};

use crate::support::grpc::{Raw, serve_grpc};
use crate::support::{PATIENCE, Traced, client, number, text};

async fn call<T>(channel: T, ctx: &Context, message: &'static str) -> Result<Bytes, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: Send + 'static,
    T::Error: std::fmt::Debug,
    <T::ResponseBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let mut request = Request::new(Bytes::from(message));
    request.extensions_mut().insert(ctx.clone());
    client.unary(request, PathAndQuery::from_static("/cards.Cards/Get"), Raw).await.map(Response::into_inner)
}

#[tokio::test]
async fn the_host_needs_no_origin_of_the_client() {
    let (caller, service) = (Traced::new("api"), Traced::new("cards"));
    let address = serve_grpc(service.internal(), async |request| {
        let agent = request.metadata().get("user-agent").unwrap().to_str().unwrap();
        assert!(agent.starts_with("grpc-rust-throughline/"), "{agent}");
        Err(Error::new(Code::NotFound, "no such card").into())
    })
    .await;
    let layer = ClientLayer::internal_hosts(["127.0.0.1"]).tracer(caller.telemetry.tracer().clone());
    let channel = Channel::new(layer, &format!("http://{address}")).unwrap();
    let error = Error::from_grpc_status(call(channel, &Context::background(), "").await.unwrap_err());
    assert_eq!((error.code(), error.message(), error.origin()), (Code::NotFound, "no such card", Some("cards")));
    let (called, served) = (caller.span().await, service.span().await);
    assert_eq!(text(&called, "server.address"), Some("127.0.0.1"));
    assert_eq!(number(&called, "server.port"), Some(address.port().into()));
    assert_eq!(served.parent_span_id, Some(called.span_context.span_id()), "the host is internal");
}

#[tokio::test]
async fn a_tonic_channel_gets_its_host_in_the_same_way() {
    let caller = Traced::new("api");
    let address = serve_grpc(Traced::new("cards").internal(), async |_| Ok(Bytes::new())).await;
    let origin = format!("http://{address}");
    let inner = tonic::transport::Endpoint::from_shared(origin.clone()).unwrap().connect_lazy();
    let layer = client().tracer(caller.telemetry.tracer().clone());
    let channel = Channel::with_client(layer, &origin, inner).unwrap();
    call(channel, &Context::background(), "").await.unwrap();
    assert_eq!(text(&caller.span().await, "server.address"), Some("127.0.0.1"));
}

#[tokio::test]
async fn the_callees_own_response_arrives_within_the_reply_reserve() {
    let service = Traced::new("cards");
    let address = serve_grpc(service.internal(), |_| std::future::pending()).await;
    let reserve = ReplyReserve { min: Duration::from_secs(2), percent: 0, max: Duration::from_secs(2) };
    let channel = Channel::new(client().reserve(reserve), &format!("http://{address}")).unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let channel = channel.clone();
        calls.spawn(async move {
            let ctx = Context::background().with_timeout(Duration::from_secs(4));
            let status = call(channel, &ctx, "").await.unwrap_err();
            let error = Error::from_grpc_status(status);
            (error.code(), error.origin().map(str::to_owned))
        });
    }
    for ended in calls.join_all().await {
        assert_eq!(ended, (Code::DeadlineExceeded, Some("cards".to_owned())));
    }
}

#[tokio::test]
async fn clones_share_a_connection_and_a_closed_one_is_replaced() {
    let address = serve_grpc(Traced::new("cards").internal(), async |request| Ok(request.into_inner())).await;
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", relay.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let (close, closed) = oneshot::channel::<()>();
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        let mut closed = Some(closed);
        loop {
            let (mut from, _) = relay.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let closed = closed.take();
            tokio::spawn(async move {
                let mut to = TcpStream::connect(address).await.unwrap();
                let copy = tokio::io::copy_bidirectional(&mut from, &mut to);
                let end = async {
                    match closed {
                        Some(closed) => closed.await.unwrap(),
                        None => std::future::pending().await,
                    }
                };
                tokio::select! { _ = copy => {}, () = end => {} }
            });
        }
    });
    let channel = Channel::new(client(), &origin).unwrap();
    let ctx = Context::background();
    call(channel.clone(), &ctx, "first").await.unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let (channel, ctx) = (channel.clone(), ctx.clone());
        calls.spawn(async move { call(channel, &ctx, "seven").await.unwrap() });
    }
    assert_eq!(calls.join_all().await, ["seven"; 10]);
    assert_eq!(connections.load(Ordering::SeqCst), 1);

    close.send(()).unwrap();
    // A call that is sent before the channel has seen the close fails. The next ones do not.
    let replaced = async {
        while call(channel.clone(), &ctx, "eight").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, replaced).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_path_of_an_origin_stands_before_the_method() {
    let (caller, service) = (Traced::new("api"), Traced::new("cards"));
    let address = serve_grpc(service.internal(), async |_| Ok(Bytes::new())).await;
    let layer = client().tracer(caller.telemetry.tracer().clone());
    for path in ["/gateway", "/gateway/", ""] {
        let channel = Channel::new(layer.clone(), &format!("http://{address}{path}")).unwrap();
        call(channel, &Context::background(), "").await.unwrap();
    }
    let names = service.spans(3).await.into_iter().map(|span| text(&span, "rpc.method").unwrap().to_owned());
    assert_eq!(names.collect::<Vec<_>>(), ["gateway/cards.Cards/Get", "gateway/cards.Cards/Get", "cards.Cards/Get"]);
}

#[test]
fn an_origin_without_a_scheme_or_a_host_is_refused_and_so_is_tls_without_a_client_for_it() {
    for origin in
        ["", "/cards", "balance", "balance:50051", "http://", "https://balance", "ftp://balance", "http://a b"]
    {
        let error = Channel::new(client(), origin).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{origin}");
    }
    let channel = Channel::new(client(), "http://user:secret@balance:50051").unwrap();
    assert_eq!(format!("{channel:?}"), r#"Channel { host: "balance", .. }"#);
}

#[tokio::test]
async fn a_call_ends_with_its_context_while_the_channel_connects() {
    // The backlog of a listener that accepts nothing is as good as a host that does not respond:
    // the connection stands, and no byte of HTTP/2 comes back.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = Channel::new(client(), &format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let ctx = Context::background().with_cancel();
    let called = tokio::spawn({
        let ctx = ctx.context().clone();
        async move { call(channel, &ctx, "").await.unwrap_err() }
    });
    tokio::task::yield_now().await;
    ctx.cancel();
    let status = timeout(PATIENCE, called).await.unwrap().unwrap();
    assert_eq!(status.code(), tonic::Code::Cancelled);
}
