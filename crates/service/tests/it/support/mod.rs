//! What several modules use: a service on an in-process transport, a gate for handlers, spans.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use serde::Serialize;
use throughline::telemetry::{self, MemoryExporter, TelemetryGuard};
use throughline::trace::{Recorder, Tracer, TracerConfig};
use throughline::{CancelHandle, Context, Error, SpanRecord};
use throughline_service::Service;
use throughline_service::axum::handler::Handler;
use throughline_transport::Transport;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

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

/// The spans of a test.
#[derive(Clone, Default)]
pub(crate) struct Spans(Arc<Mutex<Vec<SpanRecord>>>);

impl Spans {
    pub(crate) fn tracer(&self) -> Tracer {
        Tracer::new(TracerConfig::new(Arc::new(self.clone())))
    }

    /// A context whose spans are recorded here.
    pub(crate) fn context(&self) -> Context {
        Context::background().with_tracer(&self.tracer())
    }

    pub(crate) fn take(&self) -> Vec<SpanRecord> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Recorder for Spans {
    fn record(&self, span: SpanRecord) {
        self.0.lock().unwrap().push(span);
    }
}

/// The telemetry of a service, with an exporter in memory.
pub(crate) struct Traced {
    memory: MemoryExporter,
    pub(crate) telemetry: TelemetryGuard,
    pub(crate) ctx: Context,
}

impl Traced {
    pub(crate) fn new(service: &str) -> Traced {
        let memory = MemoryExporter::default();
        let telemetry = telemetry::builder(service).exporter(memory.clone()).build().unwrap();
        let ctx = Context::background().with_tracer(telemetry.tracer());
        Traced { memory, telemetry, ctx }
    }

    pub(crate) async fn spans(&self) -> Vec<SpanRecord> {
        self.telemetry.force_flush(Duration::from_secs(20)).await.unwrap();
        self.memory.spans()
    }
}

/// Where handlers wait until a test lets them go on. A clone is the same gate.
#[derive(Clone)]
pub(crate) struct Gate(Arc<(Semaphore, Semaphore)>);

impl Gate {
    pub(crate) fn closed() -> Gate {
        Gate(Arc::new((Semaphore::new(0), Semaphore::new(0))))
    }

    /// What a handler does: it reports that it is there, and waits.
    pub(crate) async fn pass(&self) {
        self.0.0.add_permits(1);
        drop(self.0.1.acquire().await.unwrap());
    }

    /// A handler that waits here.
    pub(crate) fn handler(&self) -> impl Handler<((),), ()> {
        let gate = self.clone();
        async move || {
            gate.pass().await;
            "done"
        }
    }

    /// Waits until one more handler is there.
    pub(crate) async fn reached(&self) {
        self.0.0.acquire().await.unwrap().forget();
    }

    /// Lets all handlers pass, also those that come later.
    pub(crate) fn open(&self) {
        self.0.1.add_permits(1);
    }
}
