//! OTLP over HTTP, with binary protobuf.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use throughline_core::trace::Batch;

use super::{Config, encode, error_chain, rejected, unreachable};
use crate::telemetry::{ExportError, ExportFuture, Exporter};

/// Larger answers are not read.
const MAX_ANSWER: usize = 64 * 1024;

pub(super) struct HttpExporter {
    config: Config,
    url: String,
    /// The URL as messages show it.
    endpoint: String,
    /// Made on the export thread, whose runtime drives its connections.
    client: OnceLock<Client>,
}

impl HttpExporter {
    pub(super) fn new(config: Config, url: String, endpoint: String) -> Self {
        HttpExporter { config, url, endpoint, client: OnceLock::new() }
    }

    async fn post(&self, batch: &Batch) -> Result<(), ExportError> {
        let client = self.client.get_or_init(client);
        let body = encode::request(batch).encode_to_vec();
        let mut headers = self.config.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let sent = client.post(&self.url).headers(headers).body(body).send().await.map_err(|e| e.without_url());
        let answer = sent.map_err(|e| match e.is_connect() {
            true => unreachable(&self.endpoint, &e),
            false => ExportError::unavailable(format!("{}: {}", self.endpoint, error_chain(&e)), None),
        })?;
        let status = answer.status();
        if status.is_success() {
            let body = read(answer).await;
            // What can't be read was not said: the status counts.
            let partial = ExportTraceServiceResponse::decode(body).unwrap_or_default().partial_success;
            return rejected(partial).map_or(Ok(()), Err);
        }
        let message = format!("{} answered {status}", self.endpoint);
        Err(match status.as_u16() {
            429 | 502 | 503 | 504 => ExportError::unavailable(message, retry_after(answer.headers())),
            _ => ExportError::failed(message),
        })
    }
}

impl Exporter for HttpExporter {
    fn export<'a>(&'a self, batch: &'a Batch) -> ExportFuture<'a> {
        Box::pin(self.post(batch))
    }
}

/// Follows no redirect: that would make a GET without spans of the POST, and send the headers to whatever host the answer names.
fn client() -> Client {
    let client = Client::builder().redirect(Policy::none()).build();
    client.expect("nothing is asked of it that can be missing")
}

async fn read(mut answer: Response) -> Bytes {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Bytes::new();
        }
        body.extend_from_slice(&chunk);
    }
    body.into()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.parse().map(Duration::from_secs).ok().or_else(|| {
        let at = httpdate::parse_http_date(text).ok()?;
        Some(at.duration_since(SystemTime::now()).unwrap_or_default())
    })
}
