use std::error::Error as StdError;
use std::fmt;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use http::header::{HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body::Body;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_layer::Layer;
use tower_service::Service;

use crate::error::{Code, Error};
use crate::middleware::client::{CallBody, CallFuture, ClientLayer, ClientService};

/// How long [`Channel::new`] tries to connect, if the context does not end earlier.
///
/// gRPC's connection backoff has the same minimum.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

const NOT_AN_ORIGIN: &str = "an origin has a scheme and a host, as http://balance:50051 has";

/// A gRPC channel that sends the context with each call, for any client of tonic.
///
/// It is a [`ClientLayer`] around an HTTP/2 client. Compared with the layer around a channel of
/// tonic:
/// - **Host.** The span and [`internal_hosts`](ClientLayer::internal_hosts) know the host. The
///   client needs no `with_origin`.
/// - **Reply reserve.** A channel of tonic gives up when the callee's timeout has passed. This
///   channel waits until the context is done, so the callee's response still arrives.
///
/// It connects at the first call, and again at the first call after the connection is closed. All
/// calls share one connection. A call that was not sent because the connection had been closed is
/// sent on a new one. Clones share the connection.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use throughline::middleware::tonic::Channel;
/// use throughline::{ClientLayer, Code, Context, Error};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let channel = Channel::new(ClientLayer::internal(), "http://127.0.0.1:1")?;
/// // With generated code: `CardsClient::new(channel)`.
/// let mut client = tonic::client::Grpc::new(channel);
/// client.ready().await?;
///
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(Context::background().with_timeout(Duration::from_secs(2)));
/// # let codec = support::Unit;
/// let called = client.unary(request, "/cards.Cards/Get".parse()?, codec).await;
/// let error = Error::from_grpc_status(called.expect_err("nobody listens there"));
/// assert_eq!(error.code(), Code::Unavailable);
/// # Ok(()) }
/// # mod support {
/// #     use tonic::{Status, codec::*};
/// #     pub struct Unit;
/// #     impl Codec for Unit {
/// #         type Encode = ();
/// #         type Decode = ();
/// #         type Encoder = Unit;
/// #         type Decoder = Unit;
/// #         fn encoder(&mut self) -> Unit { Unit }
/// #         fn decoder(&mut self) -> Unit { Unit }
/// #     }
/// #     impl Encoder for Unit {
/// #         type Item = ();
/// #         type Error = Status;
/// #         fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> { Ok(()) }
/// #     }
/// #     impl Decoder for Unit {
/// #         type Item = ();
/// #         type Error = Status;
/// #         fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> { Ok(Some(())) }
/// #     }
/// # }
/// ```
#[derive(Clone)]
pub struct Channel<S = Client<HttpConnector, tonic::body::Body>> {
    service: ClientService<S>,
    scheme: Scheme,
    authority: Authority,
    /// In front of the method. Empty for most origins.
    prefix: String,
}

impl Channel {
    /// Creates a channel to `origin`, such as `http://balance:50051`.
    ///
    /// It speaks HTTP/2 without TLS. [`with_client`](Self::with_client) has TLS and all settings of
    /// the connection. Connecting takes at most 20 s, and no longer than the context lives.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: `origin` has no host, or another scheme than `http`.
    ///
    /// # Panics
    /// Calls panic outside of a tokio runtime.
    pub fn new(layer: ClientLayer, origin: &str) -> Result<Channel, Error> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let mut client = Client::builder(TokioExecutor::new());
        client.http2_only(true).timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        let channel = Channel::with_client(layer, origin, client.build(connector))?;
        if channel.scheme != Scheme::HTTP {
            return Err(Error::new(Code::InvalidArgument, "TLS needs a client of your own: see Channel::with_client"));
        }
        Ok(channel)
    }
}

impl<S> Channel<S> {
    /// Creates a channel to `origin` over a client of your own.
    ///
    /// - `hyper_util::client::legacy::Client` with `http2_only`, for example with the connector of
    ///   `hyper-rustls`, keep-alive pings or larger windows.
    /// - A `tonic::transport::Channel`. It has its own timer: see
    ///   [the client](crate::middleware::client#tonic).
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: `origin` has no scheme or no host.
    pub fn with_client(layer: ClientLayer, origin: &str, client: S) -> Result<Channel<S>, Error> {
        let uri =
            Uri::try_from(origin).map_err(|e| Error::wrap(Code::InvalidArgument, e).with_message(NOT_AN_ORIGIN))?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(Error::new(Code::InvalidArgument, NOT_AN_ORIGIN));
        };
        let prefix = parts.path_and_query.as_ref().map_or("", PathAndQuery::path).trim_end_matches('/').to_owned();
        Ok(Channel { service: layer.layer(client), scheme, authority, prefix })
    }

    /// The address of a method.
    fn address(&self, method: &Uri) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = match (method.path_and_query(), self.prefix.as_str()) {
            (Some(path), "") => Some(path.clone()),
            (path, prefix) => {
                let path = format!("{prefix}{}", path.map_or("/", PathAndQuery::as_str));
                Some(PathAndQuery::try_from(path).expect("a path, and after it a path with a query"))
            }
        };
        Uri::from_parts(parts).expect("a scheme, a host and a path are an address")
    }
}

impl<S, R> Service<Request<tonic::body::Body>> for Channel<S>
where
    S: Service<Request<tonic::body::Body>, Response = Response<R>>,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    R: Body,
{
    type Response = Response<CallBody<R>>;
    type Error = Error;
    type Future = CallFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> Self::Future {
        *request.uri_mut() = self.address(request.uri());
        // gRPC over HTTP/2, "User Agents".
        const AGENT: HeaderValue =
            HeaderValue::from_static(concat!("grpc-rust-throughline/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(USER_AGENT).or_insert(AGENT);
        self.service.call(request)
    }
}

impl<S> fmt::Debug for Channel<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("host", &self.authority.host()).finish_non_exhaustive()
    }
}
