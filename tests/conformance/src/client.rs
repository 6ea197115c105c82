//! A tonic client that makes the calls that the suite describes.
//!
//! With the layer, a call's timeout and its cancellation are those of its context. Without, they
//! are tonic's: the request's timeout, and the drop of the call.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use throughline::middleware::tonic::Channel;
use throughline::{CancelHandle, ClientLayer, Context};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::CompressionEncoding;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status, Streaming};
use tower::Layer;

use crate::codec::Raw;
use crate::messages::*;
use crate::{BoxError, read, write};

const UNARY: i32 = 1;
const CLIENT_STREAM: i32 = 2;
const SERVER_STREAM: i32 = 3;
const FULL_DUPLEX: i32 = 5;
const GZIP: i32 = 2;

/// What makes the calls.
#[derive(Clone, Copy)]
pub(crate) enum Over {
    /// A channel of tonic.
    Tonic,
    /// The layer around a channel of tonic.
    Layer,
    /// The channel of `throughline`.
    Channel,
}

pub(crate) async fn run(over: Over) -> Result<(), BoxError> {
    let (sender, mut requests) = mpsc::channel(8);
    std::thread::spawn(move || {
        while let Ok(Some(request)) = read::<ClientCompatRequest>() {
            if sender.blocking_send(request).is_err() {
                return;
            }
        }
    });
    let mut calls = tokio::task::JoinSet::<io::Result<()>>::new();
    while let Some(request) = requests.recv().await {
        // More calls at a time only make the machine slower than their timeouts.
        while calls.len() >= 16 {
            calls.join_next().await.expect("there are calls")??;
        }
        calls.spawn(async move {
            let test_name = request.test_name.clone();
            let (response, error) = match respond(request, over).await {
                Ok(result) => (Some(result), None),
                Err(e) => (None, Some(ClientError { message: e.to_string() })),
            };
            write(&ClientCompatResponse { test_name, response, error })
        });
    }
    while let Some(written) = calls.join_next().await {
        written??;
    }
    Ok(())
}

async fn respond(request: ClientCompatRequest, over: Over) -> Result<ClientResult, BoxError> {
    let origin = format!("http://{}:{}", request.host, request.port);
    let endpoint = Endpoint::from_shared(origin.clone())?;
    let (layer, mut result) = (ClientLayer::internal(), ClientResult::default());
    let ended = match over {
        Over::Tonic => Call::new(request, false).make(Grpc::new(endpoint.connect().await?), &mut result).await,
        Over::Layer => {
            let client = Grpc::with_origin(layer.layer(endpoint.connect().await?), endpoint.uri().clone());
            Call::new(request, true).make(client, &mut result).await
        }
        Over::Channel => Call::new(request, true).make(Grpc::new(Channel::new(layer, &origin)?), &mut result).await,
    };
    if let Err(status) = ended {
        result.error = Some(Error::of_status(&status));
        result.response_trailers = Header::all(status.metadata());
    }
    Ok(result)
}

struct Call {
    request: ClientCompatRequest,
    /// Cancelling it cancels the call.
    ctx: Arc<CancelHandle>,
    has_layer: bool,
}

impl Call {
    fn new(request: ClientCompatRequest, has_layer: bool) -> Self {
        let ctx = match request.timeout_ms.filter(|_| has_layer) {
            Some(timeout) => Context::background().with_timeout(Duration::from_millis(timeout.into())).with_cancel(),
            None => Context::background().with_cancel(),
        };
        Call { request, ctx: Arc::new(ctx), has_layer }
    }

    async fn make<T>(self, client: Grpc<T>, result: &mut ClientResult) -> Result<(), Status>
    where
        T: GrpcService<Body> + Send,
        T::Future: Send,
        T::ResponseBody: Send + 'static,
        <T::ResponseBody as http_body::Body>::Error: Into<BoxError>,
    {
        let mut client = client.accept_compressed(CompressionEncoding::Gzip);
        if self.request.compression == GZIP {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        if self.request.message_receive_limit > 0 {
            client = client.max_decoding_message_size(self.request.message_receive_limit as usize);
        }
        client.ready().await.map_err(|e| Status::from_error(e.into()))?;
        let path = format!("/{}/{}", self.request.service, self.request.method);
        let path = PathAndQuery::try_from(path).map_err(|e| Status::internal(e.to_string()))?;
        match self.request.stream_type {
            UNARY => {
                let request = self.tonic_request(self.messages().next().unwrap_or_default());
                self.close_after_one();
                let response = self.wait(client.unary(request, path, Raw)).await??;
                record_only(response, result)
            }
            CLIENT_STREAM => {
                let request = self.tonic_request(self.send_all());
                let response = self.wait(client.client_streaming(request, path, Raw)).await??;
                record_only(response, result)
            }
            SERVER_STREAM => {
                let request = self.tonic_request(self.messages().next().unwrap_or_default());
                self.close_after_one();
                let response = self.wait(client.server_streaming(request, path, Raw)).await??;
                self.receive_rest(open(response, result), result).await
            }
            FULL_DUPLEX => {
                let (sender, receiver) = mpsc::channel(1);
                let request = self.tonic_request(ReceiverStream::new(receiver));
                let mut messages = self.messages();
                sender.try_send(messages.next().unwrap_or_default()).expect("an empty channel has room for one");
                let response = self.wait(client.streaming(request, path, Raw)).await??;
                let mut stream = open(response, result);
                loop {
                    if !self.receive(&mut stream, result).await? {
                        break;
                    }
                    let Some(message) = messages.next() else { break };
                    // The receiver has gone if the call has ended, which the next message says.
                    let _ = sender.send(message).await;
                }
                let (timing, ctx) = (self.timing(), Arc::clone(&self.ctx));
                tokio::spawn(async move { close_send(sender, timing, &ctx).await });
                self.receive_rest(stream, result).await
            }
            _ => {
                let request = self.tonic_request(self.send_all());
                let response = self.wait(client.streaming(request, path, Raw)).await??;
                self.receive_rest(open(response, result), result).await
            }
        }
    }

    fn messages(&self) -> impl Iterator<Item = Bytes> + use<> {
        self.request.request_messages.clone().into_iter().map(|message| message.value.into())
    }

    fn tonic_request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        Header::add_all(&self.request.request_headers, request.metadata_mut());
        if self.has_layer {
            request.extensions_mut().insert(self.ctx.context().clone());
        } else if let Some(timeout) = self.request.timeout_ms {
            request.set_timeout(Duration::from_millis(timeout.into()));
        }
        request
    }

    /// Sends all messages, each after the delay, and then closes.
    fn send_all(&self) -> ReceiverStream<Bytes> {
        let (sender, receiver) = mpsc::channel(1);
        let delay = Duration::from_millis(self.request.request_delay_ms.into());
        let (messages, timing, ctx) = (self.messages(), self.timing(), Arc::clone(&self.ctx));
        tokio::spawn(async move {
            for message in messages {
                sleep(delay).await;
                if sender.send(message).await.is_err() {
                    return;
                }
            }
            close_send(sender, timing, &ctx).await;
        });
        ReceiverStream::new(receiver)
    }

    fn timing(&self) -> Option<CancelTiming> {
        // Without a time, a call is cancelled as soon as it has sent its messages.
        let now = CancelTiming::AfterCloseSendMs(0);
        self.request.cancel.as_ref().map(|cancel| cancel.timing.clone().unwrap_or(now))
    }

    /// A call with one message closes its side itself.
    fn close_after_one(&self) {
        if let Some(CancelTiming::AfterCloseSendMs(milliseconds)) = self.timing() {
            let ctx = Arc::clone(&self.ctx);
            tokio::spawn(async move {
                sleep(Duration::from_millis(milliseconds.into())).await;
                ctx.cancel();
            });
        }
    }

    /// Without the layer, a cancelled call is dropped.
    async fn wait<F: Future>(&self, call: F) -> Result<F::Output, Status> {
        if self.has_layer {
            return Ok(call.await);
        }
        tokio::select! {
            biased;
            () = self.ctx.context().done() => Err(Status::cancelled("the call was dropped")),
            output = call => Ok(output),
        }
    }

    /// Receives the next message. `false`: there is none.
    async fn receive(&self, stream: &mut Streaming<Bytes>, result: &mut ClientResult) -> Result<bool, Status> {
        let Some(message) = self.wait(stream.message()).await?? else { return Ok(false) };
        record(&message, result)?;
        if self.timing() == Some(CancelTiming::AfterNumResponses(result.payloads.len() as u32)) {
            self.ctx.cancel();
        }
        Ok(true)
    }

    async fn receive_rest(&self, mut stream: Streaming<Bytes>, result: &mut ClientResult) -> Result<(), Status> {
        while self.receive(&mut stream, result).await? {}
        let trailers = self.wait(stream.trailers()).await??;
        result.response_trailers = trailers.as_ref().map(Header::all).unwrap_or_default();
        Ok(())
    }
}

async fn close_send(sender: mpsc::Sender<Bytes>, timing: Option<CancelTiming>, ctx: &CancelHandle) {
    match timing {
        Some(CancelTiming::BeforeCloseSend(())) => {
            ctx.cancel();
            sender.closed().await;
        }
        Some(CancelTiming::AfterCloseSendMs(milliseconds)) => {
            drop(sender);
            sleep(Duration::from_millis(milliseconds.into())).await;
            ctx.cancel();
        }
        Some(CancelTiming::AfterNumResponses(_)) | None => {}
    }
}

fn record(message: &Bytes, result: &mut ClientResult) -> Result<(), Status> {
    let reply = Reply::decode(&message[..]).map_err(|e| Status::internal(e.to_string()))?;
    result.payloads.push(reply.payload.unwrap_or_default());
    Ok(())
}

/// The only message of a response. Tonic returns its headers and its trailers together.
fn record_only(response: Response<Bytes>, result: &mut ClientResult) -> Result<(), Status> {
    result.response_headers = Header::all(response.metadata());
    result.response_trailers = result.response_headers.clone();
    record(response.get_ref(), result)
}

fn open(response: Response<Streaming<Bytes>>, result: &mut ClientResult) -> Streaming<Bytes> {
    result.response_headers = Header::all(response.metadata());
    response.into_inner()
}
