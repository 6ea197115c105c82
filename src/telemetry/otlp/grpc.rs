//! OTLP over gRPC.

use std::sync::OnceLock;
use std::time::Duration;

use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use throughline_core::trace::Batch;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::retry::{Failure, retry};
use super::{Config, encode, error_chain, rejected};
use crate::telemetry::{ExportError, ExportFuture, Exporter};

pub(super) struct GrpcExporter {
    config: Config,
    /// The URL as messages show it.
    endpoint: String,
    connector: Endpoint,
    /// Made on the export thread, whose runtime drives its connection.
    channel: OnceLock<Channel>,
}

impl GrpcExporter {
    pub(super) fn new(config: Config, endpoint: String, connector: Endpoint) -> Self {
        GrpcExporter { config, endpoint, connector, channel: OnceLock::new() }
    }

    async fn call(&self, message: ExportTraceServiceRequest, headers: HeaderMap) -> Result<(), Failure> {
        let channel = self.channel.get_or_init(|| self.connector.connect_lazy());
        let request = Request::from_parts(MetadataMap::from_headers(headers), Default::default(), message);
        match TraceServiceClient::new(channel.clone()).export(request).await {
            Ok(answer) => {
                rejected(answer.into_inner().partial_success).map_or(Ok(()), |error| Err(Failure::Permanent(error)))
            }
            Err(status) => Err(failure(&self.endpoint, &status)),
        }
    }
}

impl Exporter for GrpcExporter {
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
        Box::pin(async move {
            let message = encode::request(batch);
            let headers = &self.config.headers;
            retry(self.config.timeout, &self.endpoint, || self.call(message.clone(), headers.clone())).await
        })
    }
}

/// Which codes are worth another attempt: the OTLP specification's table.
fn failure(endpoint: &str, status: &Status) -> Failure {
    let message = format!("{endpoint} answered {:?}: {}", status.code(), error_chain(status));
    let after = retry_info(status.details());
    let is_transient = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => after.is_some(),
        // How tonic reports a connection that was lost.
        Code::Unknown | Code::Internal => std::error::Error::source(status).is_some(),
        _ => false,
    };
    if is_transient { Failure::Transient { message, after } } else { Failure::Permanent(ExportError::failed(message)) }
}

/// `google.rpc.Status`, as far as it is needed.
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
