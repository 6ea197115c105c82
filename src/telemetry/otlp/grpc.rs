//! OTLP over gRPC.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use throughline_core::trace::Batch;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Request, Status};

use super::{Config, USER_AGENT, encode, error_chain, rejected, sources, unreachable};
use crate::telemetry::{ExportError, ExportFuture, Exporter};

/// How long a connection with a request in flight may be idle before a ping.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The timeout for the response to a ping.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct GrpcExporter {
    config: Config,
    /// The URL without credentials, for messages.
    endpoint: String,
    connector: Endpoint,
    /// Made on the export thread, whose runtime drives the connection.
    ///
    /// `None` while a request is in flight.
    channel: Mutex<Option<Channel>>,
}

impl GrpcExporter {
    pub(super) fn new(config: Config, uri: Uri, endpoint: String) -> Self {
        let connector =
            Endpoint::from(uri).user_agent(USER_AGENT).expect("a constant of visible ASCII is a valid header value");
        let connector = connector.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        GrpcExporter { config, endpoint, connector, channel: Mutex::new(None) }
    }

    async fn call(&self, batch: &Batch) -> Result<(), ExportError> {
        let kept = self.channel.lock().unwrap_or_else(PoisonError::into_inner).take();
        let channel = kept.unwrap_or_else(|| self.connector.connect_lazy());
        let headers = MetadataMap::from_headers(self.config.headers.clone());
        let request = Request::from_parts(headers, Default::default(), encode::request(batch));
        let response = TraceServiceClient::new(channel.clone()).export(request).await;
        // If this future is dropped earlier, the channel is not kept: the connection may be dead,
        // and nothing else would detect that.
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel);
        match response {
            Ok(response) => rejected(response.into_inner().partial_success).map_or(Ok(()), Err),
            Err(status) => Err(status_error(&self.endpoint, &status)),
        }
    }
}

impl Exporter for GrpcExporter {
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
        Box::pin(self.call(batch))
    }
}

/// Maps a status to an error.
///
/// The retryable codes are from the table of the OTLP specification.
fn status_error(endpoint: &str, status: &Status) -> ExportError {
    if sources(status).any(|error| error.is::<ConnectError>()) {
        return unreachable(endpoint, status);
    }
    let message = format!("{endpoint} responded with {:?}: {}", status.code(), error_chain(status));
    let after = retry_info(status.details());
    let is_transient = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => after.is_some(),
        // tonic reports a lost connection with these codes and a source.
        Code::Unknown | Code::Internal => status.source().is_some(),
        _ => false,
    };
    if is_transient { ExportError::unavailable(message, after) } else { ExportError::failed(message) }
}

/// `google.rpc.Status`, with the field that is used.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|any| any.type_url.ends_with("google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay.unwrap_or_default();
    Some(Duration::try_from(delay).unwrap_or_default())
}
