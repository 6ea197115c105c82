//! An OTLP receiver over HTTP and gRPC that decodes requests and sends scripted responses.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic_types::{ErrorDetails, StatusExt};

/// A scripted response. Without one, a request is accepted.
#[derive(Clone, Debug)]
pub enum Reply {
    /// An HTTP status with `Retry-After`, or for gRPC a code with `RetryInfo`, in seconds.
    Refuse(u16, Option<&'static str>),
    /// A partial success with this number of rejected spans.
    Partial(i64),
}

#[derive(Clone, Default)]
pub struct Collector {
    pub replies: Arc<Mutex<VecDeque<Reply>>>,
    pub headers: Arc<Mutex<Vec<HeaderMap>>>,
    received: Arc<Mutex<Vec<(String, Span)>>>,
    attempts: Arc<Mutex<usize>>,
    peers: Arc<Mutex<HashSet<SocketAddr>>>,
}

impl Collector {
    pub async fn http(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.serve_http(listener);
        address
    }

    pub fn serve_http(&self, listener: TcpListener) {
        let app = Router::new().route("/v1/traces", post(export)).with_state(self.clone());
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, app).await });
    }

    pub async fn grpc(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.serve_grpc(listener);
        address
    }

    pub fn serve_grpc(&self, listener: TcpListener) {
        let service = TraceServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    }

    /// The accepted spans, each with its service name.
    pub fn received(&self) -> Vec<(String, Span)> {
        self.received.lock().unwrap().clone()
    }

    /// The number of requests, accepted or not.
    pub fn attempts(&self) -> usize {
        *self.attempts.lock().unwrap()
    }

    /// The number of connections that sent requests.
    #[allow(dead_code, reason = "one of the test binaries that share this file does not use it")]
    pub fn peers(&self) -> usize {
        self.peers.lock().unwrap().len()
    }

    fn next_reply(&self) -> Option<Reply> {
        *self.attempts.lock().unwrap() += 1;
        self.replies.lock().unwrap().pop_front()
    }

    fn accept(&self, request: ExportTraceServiceRequest) {
        for resource_spans in request.resource_spans {
            let attributes = resource_spans.resource.map(|resource| resource.attributes).unwrap_or_default();
            let name = attributes.into_iter().find(|attribute| attribute.key == "service.name");
            let name = name.and_then(|name| Some(format!("{:?}", name.value?.value?))).unwrap_or_default();
            let name = name.trim_start_matches("StringValue(\"").trim_end_matches("\")").to_owned();
            for scope_spans in resource_spans.scope_spans {
                let spans = scope_spans.spans.into_iter().map(|span| (name.clone(), span));
                self.received.lock().unwrap().extend(spans);
            }
        }
    }
}

fn partial(rejected_spans: i64) -> ExportTraceServiceResponse {
    let partial = ExportTracePartialSuccess { rejected_spans, error_message: "too odd".into() };
    ExportTraceServiceResponse { partial_success: Some(partial) }
}

async fn export(
    State(collector): State<Collector>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    collector.peers.lock().unwrap().insert(peer);
    assert_eq!(headers["content-type"], "application/x-protobuf");
    collector.headers.lock().unwrap().push(headers);
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    match collector.next_reply() {
        None => {
            collector.accept(request);
            ExportTraceServiceResponse::default().encode_to_vec().into_response()
        }
        Some(Reply::Partial(rejected)) => partial(rejected).encode_to_vec().into_response(),
        Some(Reply::Refuse(status, after)) => {
            let mut response = StatusCode::from_u16(status).unwrap().into_response();
            response.headers_mut().extend(after.map(|after| (http::header::RETRY_AFTER, after.parse().unwrap())));
            response
        }
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.peers.lock().unwrap().extend(request.remote_addr());
        let (metadata, _, request) = request.into_parts();
        self.headers.lock().unwrap().push(metadata.into_headers());
        match self.next_reply() {
            None => {
                self.accept(request);
                Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
            }
            Some(Reply::Partial(rejected)) => Ok(tonic::Response::new(partial(rejected))),
            Some(Reply::Refuse(code, after)) => {
                let code = tonic::Code::from_i32(code.into());
                let after = after.map(|after| Duration::from_secs(after.parse().unwrap()));
                let details = after.map(|after| ErrorDetails::with_retry_info(Some(after))).unwrap_or_default();
                Err(tonic::Status::with_error_details(code, "no", details))
            }
        }
    }
}
