//! The service `connectrpc.conformance.v1.ConformanceService` on tonic.
//!
//! Each request defines its response. A success with trailers of its own ends with the status `Ok`,
//! which is how tonic sends them.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use prost_types::Any;
use throughline::Context;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tower::{Layer, service_fn};

use crate::codec::Raw;
use crate::messages::*;
use crate::{BoxError, read, write};

type Replies = ReceiverStream<Result<Bytes, Status>>;

pub(crate) async fn serve<L, R>(layer: L) -> Result<(), BoxError>
where
    L: Layer<Routes> + Clone + Send + 'static,
    L::Service: Service<http::Request<Body>, Response = http::Response<R>> + Clone + Send + 'static,
    <L::Service as Service<http::Request<Body>>>::Future: Send,
    <L::Service as Service<http::Request<Body>>>::Error: Into<BoxError> + Send,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let Some(ServerCompatRequest { message_receive_limit }) = read()? else { return Ok(()) };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port().into();
    write(&ServerCompatResponse { host: "127.0.0.1".into(), port })?;
    let service = service_fn(move |request: http::Request<axum::body::Body>| async move {
        let mut grpc = tonic::server::Grpc::new(Raw)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        if message_receive_limit > 0 {
            grpc = grpc.max_decoding_message_size(message_receive_limit as usize);
        }
        let path = request.uri().path().to_owned();
        Ok::<_, Infallible>(match path.strip_prefix("/connectrpc.conformance.v1.ConformanceService/") {
            Some("Unary") => grpc.server_streaming(service_fn(unary), request).await,
            Some("ServerStream") => grpc.server_streaming(service_fn(server_stream), request).await,
            Some("ClientStream") => grpc.streaming(service_fn(client_stream), request).await,
            Some("BidiStream") => grpc.streaming(service_fn(bidi_stream), request).await,
            _ => Status::unimplemented("no such method").into_http(),
        })
    });
    let routes = Routes::from(axum::Router::new().fallback_service(service));
    let server = Server::builder().layer(layer).add_routes(routes);
    Ok(server.serve_with_incoming(TcpIncoming::from(listener)).await?)
}

/// What a response echoes of its request.
struct Echo {
    metadata: MetadataMap,
    timeout: Option<Duration>,
    type_url: &'static str,
    requests: Vec<Any>,
}

impl Echo {
    fn new<T>(request: &Request<T>, type_url: &'static str) -> Self {
        let sent = request.metadata().get("grpc-timeout").and_then(|value| parse_timeout(value.to_str().ok()?));
        // Where there is a layer, the context has the time left. An edge sets a limit of its own.
        let remaining = request.extensions().get::<Context>().and_then(Context::remaining);
        let timeout = sent.map(|sent| remaining.unwrap_or(sent));
        Echo { metadata: request.metadata().clone(), timeout, type_url, requests: Vec::new() }
    }

    fn add(&mut self, request: Bytes) {
        self.requests.push(Any { type_url: self.type_url.into(), value: request.to_vec() });
    }

    fn info(&self) -> RequestInfo {
        RequestInfo {
            request_headers: Header::all(&self.metadata),
            timeout_ms: self.timeout.map(|timeout| timeout.as_millis() as i64),
            requests: self.requests.clone(),
        }
    }

    fn add_to(&self, error: &mut Error) {
        let value = self.info().encode_to_vec();
        let type_url = "type.googleapis.com/connectrpc.conformance.v1.ConformancePayload.RequestInfo".into();
        error.details.push(Any { type_url, value });
    }
}

fn parse_timeout(value: &str) -> Option<Duration> {
    let (number, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let nanoseconds = match unit {
        "H" => 3_600_000_000_000,
        "M" => 60_000_000_000,
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1_000,
        "n" => 1,
        _ => return None,
    };
    Some(Duration::from_nanos(number.parse::<u64>().ok()?.checked_mul(nanoseconds)?))
}

fn encode(data: Bytes, request_info: Option<RequestInfo>) -> Bytes {
    Reply { payload: Some(Payload { data, request_info }) }.encode_to_vec().into()
}

fn decode<M: Message + Default>(message: &Bytes) -> Result<M, Status> {
    M::decode(&message[..]).map_err(|e| Status::internal(e.to_string()))
}

fn metadata<'a>(headers: impl IntoIterator<Item = &'a Header>) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    Header::add_all(headers, &mut metadata);
    metadata
}

/// The end of a success: tonic sends the metadata of a status as trailers.
fn trailers(headers: &[Header]) -> Status {
    Status::with_metadata(tonic::Code::Ok, "", metadata(headers))
}

async fn unary(request: Request<Bytes>) -> Result<Response<Replies>, Status> {
    let echo = Echo::new(&request, "type.googleapis.com/connectrpc.conformance.v1.UnaryRequest");
    respond_once(echo, tokio_stream::once(Ok(request.into_inner()))).await
}

async fn client_stream(request: Request<Streaming<Bytes>>) -> Result<Response<Replies>, Status> {
    let echo = Echo::new(&request, "type.googleapis.com/connectrpc.conformance.v1.ClientStreamRequest");
    respond_once(echo, request.into_inner()).await
}

async fn respond_once(
    mut echo: Echo,
    mut requests: impl Stream<Item = Result<Bytes, Status>> + Unpin,
) -> Result<Response<Replies>, Status> {
    while let Some(request) = requests.next().await {
        echo.add(request?);
    }
    let first: UnaryRequest =
        echo.requests.first().map_or(Ok(Default::default()), |any| decode(&any.value.clone().into()))?;
    let definition = first.response_definition.unwrap_or_default();
    sleep(Duration::from_millis(definition.response_delay_ms.into())).await;
    if let Some(mut error) = definition.error {
        echo.add_to(&mut error);
        // A response without messages has all of its metadata in one place.
        return Err(
            error.into_status(metadata(definition.response_headers.iter().chain(&definition.response_trailers)))
        );
    }
    let (sender, receiver) = mpsc::channel(2);
    let full = "an empty channel has room for two";
    sender.try_send(Ok(encode(definition.response_data, Some(echo.info())))).expect(full);
    sender.try_send(Err(trailers(&definition.response_trailers))).expect(full);
    Ok(with_headers(receiver, &definition.response_headers))
}

fn with_headers(replies: mpsc::Receiver<Result<Bytes, Status>>, headers: &[Header]) -> Response<Replies> {
    let mut response = Response::new(ReceiverStream::new(replies));
    Header::add_all(headers, response.metadata_mut());
    response
}

async fn server_stream(request: Request<Bytes>) -> Result<Response<Replies>, Status> {
    let mut echo = Echo::new(&request, "type.googleapis.com/connectrpc.conformance.v1.ServerStreamRequest");
    let definition = decode::<StreamRequest>(request.get_ref())?.response_definition.unwrap_or_default();
    echo.add(request.into_inner());
    Ok(respond(echo, definition, None))
}

async fn bidi_stream(request: Request<Streaming<Bytes>>) -> Result<Response<Replies>, Status> {
    let mut echo = Echo::new(&request, "type.googleapis.com/connectrpc.conformance.v1.BidiStreamRequest");
    let mut requests = request.into_inner();
    let mut first = BidiRequest::default();
    if let Some(request) = requests.next().await.transpose()? {
        first = decode(&request)?;
        echo.add(request);
    }
    let definition = first.response_definition.unwrap_or_default();
    if first.full_duplex {
        return Ok(respond(echo, definition, Some(requests)));
    }
    while let Some(request) = requests.next().await {
        echo.add(request?);
    }
    Ok(respond(echo, definition, None))
}

/// The head at once, and the messages from a task. `requests`: those of a full-duplex stream.
fn respond(echo: Echo, definition: StreamDefinition, requests: Option<Streaming<Bytes>>) -> Response<Replies> {
    let (sender, receiver) = mpsc::channel(1);
    let response = with_headers(receiver, &definition.response_headers);
    tokio::spawn(async move {
        let end = send_all(echo, definition, requests, &sender).await;
        // The call has ended if nobody receives.
        let _ = sender.send(Err(end)).await;
    });
    response
}

async fn send_all(
    mut echo: Echo,
    definition: StreamDefinition,
    mut requests: Option<Streaming<Bytes>>,
    sender: &mpsc::Sender<Result<Bytes, Status>>,
) -> Status {
    let mut is_first = true;
    for data in definition.response_data {
        sleep(Duration::from_millis(definition.response_delay_ms.into())).await;
        let info = match (&requests, is_first) {
            (_, true) => Some(echo.info()),
            (Some(_), false) => Some(RequestInfo { requests: echo.requests.clone(), ..Default::default() }),
            (None, false) => None,
        };
        is_first = false;
        if sender.send(Ok(encode(data, info))).await.is_err() {
            return Status::cancelled("the call has ended");
        }
        echo.requests.clear();
        if let Some(more) = &mut requests {
            match more.next().await {
                Some(Ok(request)) => echo.add(request),
                Some(Err(status)) => return status,
                None => requests = None,
            }
        }
    }
    match definition.error {
        Some(mut error) => {
            if is_first {
                echo.add_to(&mut error);
            }
            error.into_status(metadata(&definition.response_trailers))
        }
        None => trailers(&definition.response_trailers),
    }
}
