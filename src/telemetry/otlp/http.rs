//! OTLP over HTTP, with binary protobuf.
//!
//! It uses one connection, with hyper directly. A full HTTP client has two problems here:
//! - It sets up TLS, which fails without CA certificates even if no URL uses TLS.
//! - It follows redirects, which turns the POST into a GET without spans.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use throughline_core::trace::Batch;
use tokio::net::TcpStream;
use tower_service::Service;

use super::{Config, USER_AGENT, encode, error_chain, rejected, unreachable};
use crate::telemetry::{ExportError, ExportFuture, Exporter};
use crate::url::redacted;

/// The largest response body, in bytes.
///
/// A larger one is not read, and its connection is closed.
const MAX_RESPONSE: usize = 64 * 1024;

pub(super) struct HttpExporter {
    headers: HeaderMap,
    /// The peer of the connection: the collector or a proxy.
    connect_to: Uri,
    /// The request target: a path, or the full URL if a proxy is used.
    target: Uri,
    /// The URL without credentials, with the proxy, for messages.
    endpoint: String,
    connector: HttpConnector,
    /// Opened on the export thread, whose runtime drives it.
    ///
    /// `None` while a request is in flight.
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl HttpExporter {
    pub(super) fn new(config: Config, uri: Uri, endpoint: String) -> Self {
        let mut exporter = HttpExporter {
            headers: config.headers,
            target: uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")).into(),
            connect_to: uri.clone(),
            endpoint,
            connector: HttpConnector::new(),
            connection: Mutex::new(None),
        };
        let headers = &mut exporter.headers;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
        let host = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        headers.extend(host.map(|host| (header::HOST, host)));
        if let Some(proxy) = Matcher::from_env().intercept(&uri).filter(|_| !is_on_this_host(&uri)) {
            headers.extend(proxy.basic_auth().map(|value| (header::PROXY_AUTHORIZATION, value.clone())));
            exporter.endpoint.push_str(" through the proxy ");
            exporter.endpoint.push_str(&redacted(&proxy.uri().to_string()));
            (exporter.connect_to, exporter.target) = (proxy.uri().clone(), uri);
        }
        exporter
    }

    async fn post(&self, batch: &Batch) -> Result<(), ExportError> {
        let mut request = Request::new(Full::from(encode::request(batch).encode_to_vec()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();

        let mut connection = self.connection().await?;
        let response = connection.send_request(request).await.map_err(|e| self.connection_error(&e))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_RESPONSE).collect().await;
        if body.is_ok() {
            // If this future is dropped earlier, the connection is not kept: it may be dead.
            *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
        if head.status.is_success() {
            // A body that can't be read is ignored: the status counts.
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let partial = ExportTraceServiceResponse::decode(body).unwrap_or_default().partial_success;
            return rejected(partial).map_or(Ok(()), Err);
        }
        let message = format!("{} responded with {}", self.endpoint, head.status);
        Err(match head.status.as_u16() {
            429 | 502 | 503 | 504 => ExportError::unavailable(message, retry_after(&head.headers)),
            _ => ExportError::failed(message),
        })
    }

    /// Returns the kept connection, or a new one if it is closed.
    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, ExportError> {
        let kept = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut kept) = kept
            && kept.ready().await.is_ok()
        {
            return Ok(kept);
        }
        let connected = self.connector.clone().call(self.connect_to.clone()).await;
        let stream: TokioIo<TcpStream> = connected.map_err(|e| unreachable(&self.endpoint, &e))?;
        let (sender, connection) = handshake(stream).await.map_err(|e| self.connection_error(&e))?;
        // Its errors are reported by the requests on it.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn connection_error(&self, error: &hyper::Error) -> ExportError {
        ExportError::unavailable(format!("{}: {}", self.endpoint, error_chain(error)), None)
    }
}

impl Exporter for HttpExporter {
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
        Box::pin(self.post(batch))
    }
}

/// Whether the collector is on this host.
///
/// A proxy would look for it on the proxy's host.
fn is_on_this_host(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback() || ip.is_unspecified())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.parse().map(Duration::from_secs).ok().or_else(|| {
        let at = httpdate::parse_http_date(text).ok()?;
        Some(at.duration_since(SystemTime::now()).unwrap_or_default())
    })
}
