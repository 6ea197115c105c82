//! Export by OTLP, OpenTelemetry's own protocol: over HTTP with binary protobuf, or over gRPC.
//!
//! A connection that is lost, a request without a response, and what the specification calls retryable are tried again with growing
//! pauses of random length, until the [`export_timeout`](super::Builder::export_timeout) of a batch has passed. A pause that the
//! receiver asks for (`Retry-After`, `RetryInfo`) is kept, and does not count. What a receiver has refused is not tried again.

mod encode;
mod grpc;
mod http;

use std::error::Error;
use std::io;
use std::iter::successors;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
use throughline_core::trace::Batch;
use tokio::time::timeout;
use tonic::transport::Endpoint;

use super::env::Env;
use super::{BuildError, ExportError, ExportFuture, Exporter};
use crate::url::redacted;
use grpc::GrpcExporter;
use http::HttpExporter;

/// How the messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `http/protobuf`: HTTP/1.1 POST.
    HttpProtobuf,
    /// `grpc`.
    Grpc,
}

/// What an exporter sends besides the spans, and how long it waits for a response.
#[derive(Clone, Debug)]
pub struct Config {
    /// Sent with each request, as for authentication.
    pub headers: HeaderMap,
    /// For one attempt: 10 s. A connection on which it has passed is not used again.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config { headers: HeaderMap::new(), timeout: Duration::from_secs(10) }
    }
}

/// Exports by OTLP.
///
/// # Examples
/// ```
/// use throughline::telemetry::otlp::{Config, OtlpExporter, Protocol};
///
/// let exporter = OtlpExporter::new(Protocol::HttpProtobuf, "http://localhost:4318/v1/traces", Config::default());
/// assert!(exporter.is_ok());
/// assert!(OtlpExporter::new(Protocol::Grpc, "localhost", Config::default()).is_err(), "that is no URL");
/// ```
pub struct OtlpExporter {
    exporter: Box<dyn Exporter>,
    timeout: Duration,
    /// The URL as messages show it.
    endpoint: String,
}

impl OtlpExporter {
    /// To `url`: over HTTP the whole of it, with the path; over gRPC scheme, host and port. Nothing is sent yet. Messages show it without
    /// its credentials.
    ///
    /// # Errors
    /// `url` is not one, or not `http`: for TLS put a collector on this host.
    pub fn new(protocol: Protocol, url: &str, config: Config) -> Result<Self, BuildError> {
        // What may be told of it.
        let endpoint = redacted(url);
        let invalid = |why: &str| BuildError(format!("{endpoint:?} is no endpoint for OTLP: {why}"));
        let uri: Uri = url.parse().unwrap_or_default();
        match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(_)) => {}
            (Some("https"), _) => return Err(invalid("TLS is not supported; send to a collector on this host")),
            _ => return Err(invalid("one begins with http:// and names a host")),
        }
        let timeout = config.timeout;
        let exporter: Box<dyn Exporter> = match protocol {
            Protocol::HttpProtobuf => Box::new(HttpExporter::new(config, url.to_owned(), endpoint.clone())),
            Protocol::Grpc => {
                let connector = Endpoint::from_shared(url.to_owned()).map_err(|e| invalid(&e.to_string()))?;
                Box::new(GrpcExporter::new(config, endpoint.clone(), connector))
            }
        };
        Ok(OtlpExporter { exporter, timeout, endpoint })
    }
}

impl Exporter for OtlpExporter {
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
        Box::pin(async move {
            timeout(self.timeout, self.exporter.export(batch)).await.unwrap_or_else(|_| {
                let message = format!("{} has not responded within {:?}", self.endpoint, self.timeout);
                Err(ExportError::unavailable(message, None))
            })
        })
    }
}

impl std::fmt::Debug for OtlpExporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtlpExporter").finish_non_exhaustive()
    }
}

/// The exporter that the `OTEL_EXPORTER_OTLP_*` variables ask for (OpenTelemetry specification, "OpenTelemetry Protocol Exporter").
pub(super) fn from_env(env: &mut Env<'_>, by_default: bool) -> Result<Option<Box<dyn Exporter>>, BuildError> {
    let own = env.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let general = env.text("OTEL_EXPORTER_OTLP_ENDPOINT");
    if own.is_none() && general.is_none() && !by_default {
        return Ok(None);
    }
    let protocol = match specific(env, "PROTOCOL") {
        Some((_, value)) if value == "grpc" => Protocol::Grpc,
        Some((_, value)) if value == "http/protobuf" => Protocol::HttpProtobuf,
        Some((name, value)) => {
            env.warn(&name, &value, &"neither grpc nor http/protobuf");
            Protocol::HttpProtobuf
        }
        None => Protocol::HttpProtobuf,
    };
    // The endpoint for all signals is a base for HTTP; the one for traces is taken as it is.
    let url = match (own, general, protocol) {
        (Some(url), _, _) => url,
        (None, Some(base), Protocol::HttpProtobuf) => format!("{}/v1/traces", base.trim_end_matches('/')),
        (None, Some(base), Protocol::Grpc) => base,
        (None, None, Protocol::HttpProtobuf) => "http://localhost:4318/v1/traces".to_owned(),
        (None, None, Protocol::Grpc) => "http://localhost:4317".to_owned(),
    };
    let mut config = Config::default();
    if let Some((name, _)) = specific(env, "TIMEOUT") {
        config.timeout = env.timeout(&name).unwrap_or(config.timeout);
    }
    if let Some((name, _)) = specific(env, "HEADERS") {
        for (key, value) in env.pairs(&name) {
            match (HeaderName::try_from(key.as_str()), HeaderValue::try_from(value)) {
                (Ok(key), Ok(value)) => drop(config.headers.append(key, value)),
                _ => env.warn(&name, "…", &"a member is no header"),
            }
        }
    }
    Ok(Some(Box::new(OtlpExporter::new(protocol, &url, config)?)))
}

/// The variable for traces, or else the one for all signals: its name and value.
fn specific(env: &Env<'_>, name: &str) -> Option<(String, String)> {
    let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
    names.into_iter().find_map(|name| env.text(&name).map(|value| (name, value)))
}

/// What a receiver that took a part of a batch has refused.
fn rejected(partial: Option<ExportTracePartialSuccess>) -> Option<ExportError> {
    let partial = partial?;
    let spans = u64::try_from(partial.rejected_spans).ok().filter(|spans| *spans > 0)?;
    Some(ExportError::Rejected { spans, message: partial.error_message.into() })
}

/// Why there is no connection.
fn unreachable(endpoint: &str, error: &(dyn Error + 'static)) -> ExportError {
    let is_refused = sources(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    let reason = if is_refused { "connection refused".to_owned() } else { error_chain(error) };
    ExportError::unreachable(format!("{endpoint} can't be reached: {reason}"))
}

/// An error with what it came from: the outermost of a client's errors says little.
fn error_chain(error: &(dyn Error + 'static)) -> String {
    sources(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// An error, its source, and so on.
fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}
