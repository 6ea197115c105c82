//! A service on an in-process transport, and calls to it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use serde::Serialize;
use throughline::trace::{Recorder, Tracer, TracerConfig};
use throughline::{CancelHandle, Context, Error, SpanRecord};
use throughline_service::Service;
use throughline_transport::Transport;
use tokio::task::JoinHandle;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A service that is served until it is stopped.
pub(crate) struct Served {
    pub(crate) transport: Transport,
    process: CancelHandle,
    serving: JoinHandle<Result<(), Error>>,
    name: String,
}

impl Served {
    pub(crate) async fn start(service: Service) -> Served {
        Served::start_on(Transport::in_process(), service).await
    }

    pub(crate) async fn start_on(transport: Transport, service: Service) -> Served {
        let process = Context::background().with_cancel();
        let (name, ctx, on) = (service.name().to_owned(), process.context().clone(), transport.clone());
        let serving = tokio::spawn(async move { service.serve_until(&on, &ctx).await });
        while transport.counters(&name).is_none() {
            tokio::task::yield_now().await;
        }
        Served { transport, process, serving, name }
    }

    /// A POST of JSON, as a client sends it.
    pub(crate) async fn post(&self, route: &str, body: &impl Serialize) -> Result<Response<Bytes>, Error> {
        self.post_in(&Context::background(), route, body).await
    }

    pub(crate) async fn post_in(
        &self,
        ctx: &Context,
        route: &str,
        body: &impl Serialize,
    ) -> Result<Response<Bytes>, Error> {
        self.transport.send(ctx, &self.name, post(route, body)).await
    }

    pub(crate) async fn request(&self, method: Method, route: &str) -> Result<Response<Bytes>, Error> {
        let request = Request::builder().method(method).uri(route).body(Bytes::new()).unwrap();
        self.transport.send(&Context::background(), &self.name, request).await
    }

    pub(crate) async fn get(&self, route: &str) -> Result<Response<Bytes>, Error> {
        self.request(Method::GET, route).await
    }

    /// The response of the service itself, which `send` makes an error for a status of 400 or more.
    pub(crate) async fn raw(&self, request: Request<Bytes>) -> Response<Bytes> {
        use http_body_util::{BodyExt as _, Full};
        use tower::ServiceExt as _;
        let endpoint = self.transport.endpoint(&self.name, None);
        let request = endpoint.address(request.map(Full::new)).unwrap();
        let (head, body) = endpoint.oneshot(request).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    pub(crate) async fn stop(self) {
        self.process.cancel();
        self.serving.await.unwrap().unwrap();
    }
}

pub(crate) fn post(route: &str, body: &impl Serialize) -> Request<Bytes> {
    let body = serde_json::to_vec(body).unwrap();
    let request = Request::builder().method(Method::POST).uri(route);
    request.header(header::CONTENT_TYPE, "application/json").body(Bytes::from(body)).unwrap()
}

/// The spans that a tracer has recorded.
#[derive(Clone, Default)]
pub(crate) struct Spans(Arc<Mutex<Vec<SpanRecord>>>);

impl Spans {
    pub(crate) fn take(&self) -> Vec<SpanRecord> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Recorder for Spans {
    fn record(&self, span: SpanRecord) {
        self.0.lock().unwrap().push(span);
    }
}

pub(crate) fn recorder() -> (Spans, Tracer) {
    let spans = Spans::default();
    let tracer = Tracer::new(TracerConfig::new(Arc::new(spans.clone())));
    (spans, tracer)
}
