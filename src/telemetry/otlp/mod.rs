//! Exports spans with OTLP, the protocol of OpenTelemetry.
//!
//! OTLP runs over HTTP with binary protobuf, or over gRPC.
//!
//! A batch is retried when the connection is lost, when there is no response, and when the
//! specification calls the response retryable. Pauses between attempts grow and are partly random.
//! Retries end when the [`export_timeout`](super::Builder::export_timeout) of the batch has passed.
//!
//! A pause that the receiver requests (`Retry-After`, `RetryInfo`) is kept and does not count
//! towards the timeout. Spans that a receiver rejects are not retried.

mod encode;
mod grpc;
mod http;

use std::error::Error;
use std::fmt;
use std::io;
use std::iter::successors;
use std::time::Duration;

use ::http::header::AUTHORIZATION;
use ::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
use throughline_core::trace::Batch;
use tokio::time::timeout;

use super::env::Env;
use super::{BuildError, ExportError, ExportFuture, Exporter};
use crate::url::redacted;
use grpc::GrpcExporter;
use http::HttpExporter;

/// The exporter, its language and its version.
///
/// OpenTelemetry specification, "OpenTelemetry Protocol Exporter", "User Agent".
const USER_AGENT: &str = concat!("throughline-otlp-exporter-rust/", env!("CARGO_PKG_VERSION"));

/// The transport of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `http/protobuf`: binary protobuf in HTTP/1.1 POST requests.
    HttpProtobuf,
    /// `grpc`: gRPC over HTTP/2.
    Grpc,
}

/// The headers and the timeout of an OTLP exporter.
#[derive(Clone)]
pub struct Config {
    /// Headers of each request, for example for authentication.
    pub headers: HeaderMap,
    /// The timeout of one attempt. The default is 10 s.
    ///
    /// After a timeout, the connection is not used again.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config { headers: HeaderMap::new(), timeout: Duration::from_secs(10) }
    }
}

/// Shows no header values: they may be secrets.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().collect();
        f.debug_struct("Config").field("headers", &names).field("timeout", &self.timeout).finish()
    }
}

/// Exports spans with OTLP.
///
/// A collector on this host (`localhost`, loopback addresses) is always reached without a proxy.
/// For other collectors, OTLP over HTTP uses the variables `HTTP_PROXY`, `ALL_PROXY` and
/// `NO_PROXY`. OTLP over gRPC ignores them.
///
/// # Examples
/// ```
/// use throughline::telemetry::otlp::{Config, OtlpExporter, Protocol};
///
/// let exporter = OtlpExporter::new(Protocol::HttpProtobuf, "http://localhost:4318/v1/traces", Config::default());
/// assert!(exporter.is_ok());
/// assert!(OtlpExporter::new(Protocol::Grpc, "localhost", Config::default()).is_err(), "not a URL");
/// ```
pub struct OtlpExporter {
    exporter: Box<dyn Exporter>,
    timeout: Duration,
    /// The URL without credentials, for messages.
    endpoint: String,
}

impl OtlpExporter {
    /// Makes an exporter that sends to `url`. It does not connect yet.
    ///
    /// Over HTTP, `url` is the full URL with the path. Over gRPC, it has a scheme, a host and a
    /// port.
    ///
    /// Credentials in `url` are sent as an `Authorization` header, unless `config` has one.
    /// Messages show `url` without credentials.
    ///
    /// # Errors
    /// `url` is not a URL, or its scheme is not `http`. For TLS, run a collector on this host.
    pub fn new(protocol: Protocol, url: &str, mut config: Config) -> Result<Self, BuildError> {
        // The URL without credentials, for messages.
        let endpoint = redacted(url);
        let invalid = |why: &str| BuildError(format!("{endpoint:?} is not a valid OTLP endpoint: {why}"));
        let uri: Uri = url.parse().unwrap_or_default();
        match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(_)) => {}
            (Some("https"), _) => return Err(invalid("TLS is not supported; send to a collector on this host")),
            _ => return Err(invalid("it must start with http:// and contain a host")),
        }
        let (uri, credentials) = without_credentials(uri);
        if let Some(credentials) = credentials {
            config.headers.entry(AUTHORIZATION).or_insert(credentials);
        }
        // HTTP/2 does not index sensitive values, and `Debug` does not show them.
        config.headers.values_mut().for_each(|value| value.set_sensitive(true));
        let timeout = config.timeout;
        let exporter: Box<dyn Exporter> = match protocol {
            Protocol::HttpProtobuf => Box::new(HttpExporter::new(config, uri, endpoint.clone())),
            Protocol::Grpc => Box::new(GrpcExporter::new(config, uri, endpoint.clone())),
        };
        Ok(OtlpExporter { exporter, timeout, endpoint })
    }
}

impl Exporter for OtlpExporter {
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
        Box::pin(async move {
            timeout(self.timeout, self.exporter.export(batch)).await.unwrap_or_else(|_| {
                let message = format!("{} did not respond within {:?}", self.endpoint, self.timeout);
                Err(ExportError::unavailable(message, None))
            })
        })
    }
}

impl fmt::Debug for OtlpExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpExporter").finish_non_exhaustive()
    }
}

/// Makes the exporter that the `OTEL_EXPORTER_OTLP_*` variables configure.
///
/// OpenTelemetry specification, "OpenTelemetry Protocol Exporter".
pub(super) fn from_env(env: &mut Env<'_>, by_default: bool) -> Result<Option<Box<dyn Exporter>>, BuildError> {
    let for_traces = env.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let general = env.text("OTEL_EXPORTER_OTLP_ENDPOINT");
    if for_traces.is_none() && general.is_none() && !by_default {
        return Ok(None);
    }
    let protocol = match variable_for_traces(env, "PROTOCOL") {
        Some((_, value)) if value == "grpc" => Protocol::Grpc,
        Some((_, value)) if value == "http/protobuf" => Protocol::HttpProtobuf,
        Some((name, value)) => {
            env.warn(&name, &value, &"neither grpc nor http/protobuf");
            Protocol::HttpProtobuf
        }
        None => Protocol::HttpProtobuf,
    };
    let is_insecure = variable_for_traces(env, "INSECURE").is_some_and(|(name, _)| env.is_true(&name));
    warn_of_unsupported(env);
    // Over HTTP, the endpoint for all signals is a base URL. The endpoint for traces is a full URL.
    let url = match (for_traces, general, protocol) {
        (Some(url), _, _) => url,
        (None, Some(base), Protocol::HttpProtobuf) => format!("{}/v1/traces", base.trim_end_matches('/')),
        (None, Some(base), Protocol::Grpc) => base,
        (None, None, Protocol::HttpProtobuf) => "http://localhost:4318/v1/traces".to_owned(),
        (None, None, Protocol::Grpc) => "http://localhost:4317".to_owned(),
    };
    // A gRPC endpoint may have no scheme. Then this variable says whether TLS is used.
    let has_scheme = url.contains("://");
    let url = if is_insecure && !has_scheme && protocol == Protocol::Grpc { format!("http://{url}") } else { url };
    let mut config = Config::default();
    if let Some((name, _)) = variable_for_traces(env, "TIMEOUT") {
        config.timeout = env.timeout(&name).unwrap_or(config.timeout);
    }
    if let Some((name, _)) = variable_for_traces(env, "HEADERS") {
        for (key, value) in env.pairs(&name) {
            match (HeaderName::try_from(key.as_str()), HeaderValue::try_from(value)) {
                (Ok(key), Ok(value)) => drop(config.headers.append(key, value)),
                _ => env.warn(&name, "…", &"a member is not a valid header"),
            }
        }
    }
    Ok(Some(Box::new(OtlpExporter::new(protocol, &url, config)?)))
}

/// Warns about variables that are set but not supported.
fn warn_of_unsupported(env: &mut Env<'_>) {
    match variable_for_traces(env, "COMPRESSION") {
        Some((name, value)) if value == "gzip" => {
            env.warn(&name, &value, &"compression is not supported, batches are sent uncompressed");
        }
        Some((name, value)) if value != "none" => env.warn(&name, &value, &"neither gzip nor none"),
        _ => {}
    }
    for name in ["CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"] {
        if let Some((name, value)) = variable_for_traces(env, name) {
            env.warn(&name, &value, &"TLS is not supported");
        }
    }
}

/// Reads the variable for traces, or else the variable for all signals.
///
/// Returns its name and value.
fn variable_for_traces(env: &Env<'_>, name: &str) -> Option<(String, String)> {
    let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
    names.into_iter().find_map(|name| env.text(&name).map(|value| (name, value)))
}

/// Splits a URL into the URL without `user:password@` and a header for it (RFC 7617).
fn without_credentials(uri: Uri) -> (Uri, Option<HeaderValue>) {
    let Some((user, host)) = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@')) else {
        return (uri, None);
    };
    let user: Vec<u8> = percent_encoding::percent_decode_str(user).collect();
    let header = HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(user))).ok();
    let mut parts = uri.clone().into_parts();
    parts.authority = host.parse().ok();
    (Uri::from_parts(parts).unwrap_or(uri), header)
}

/// The error for a batch that the receiver accepted only in part.
fn rejected(partial: Option<ExportTracePartialSuccess>) -> Option<ExportError> {
    let partial = partial?;
    let spans = u64::try_from(partial.rejected_spans).ok().filter(|spans| *spans > 0)?;
    Some(ExportError::Rejected { spans, message: partial.error_message.into() })
}

/// The error for a connection that can't be opened.
fn unreachable(endpoint: &str, error: &(dyn Error + 'static)) -> ExportError {
    let is_refused = sources(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    let reason = if is_refused { "connection refused".to_owned() } else { error_chain(error) };
    ExportError::unreachable(format!("{endpoint} can't be reached: {reason}"))
}

/// The messages of an error and its sources. The outermost client error alone says little.
fn error_chain(error: &(dyn Error + 'static)) -> String {
    sources(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Iterates over an error, its source, the source of that, and so on.
fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}
