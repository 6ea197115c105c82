//! One suite for all media: what a transport promises, whatever moves its requests.
//!
//! A medium has a [`Harness`] and calls [`conformance!`](crate::conformance) in a module of its
//! own.

pub mod cancellation;
pub mod context;
pub mod limits;
pub mod listening;
pub mod requests;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use throughline::telemetry::{self, MemoryExporter, TelemetryGuard};
use throughline::{Context, ContextLayer, Error};
use throughline_transport::Transport;
use tokio::task::JoinHandle;
use tower::service_fn;

/// A medium to test.
pub trait Harness: Send + Sync + Sized + 'static {
    /// Starts the medium; `None`: it needs a server that is not installed.
    ///
    /// `configure` sets the options of both transports.
    fn start(configure: fn(Transport) -> Transport) -> impl Future<Output = Option<Self>> + Send;

    /// The transport that listens.
    fn server(&self) -> &Transport;

    /// The transport that sends. It finds the services `balance` and `cards` of the server.
    fn client(&self) -> &Transport;
}

/// Runs each test of the suite against a [`Harness`].
#[macro_export]
macro_rules! conformance {
    ($harness:ty) => {
        $crate::conformance! { @ $harness,
            requests: [a_request_and_its_response_arrive_unchanged, errors_of_a_service_arrive_with_their_origin,
                a_thousand_requests_at_once_get_their_own_responses, bodies_of_4_mib_arrive_in_both_directions,
                a_request_without_a_path_gets_one, a_panicking_handler_fails_only_its_own_call,
                a_dropped_responder_responds_with_internal]
            listening: [an_unknown_service_fails_at_once, a_name_has_one_listener, names_are_checked,
                nobody_listens_after_stop_listening, requests_in_flight_finish_before_the_listener_ends,
                requests_in_flight_are_cancelled_after_the_drain_time, a_listener_that_is_dropped_refuses_what_it_did_not_take,
                a_name_can_be_listened_to_again]
            cancellation: [a_cancelled_call_cancels_its_handler, a_dropped_call_cancels_its_handler,
                a_deadline_ends_the_call_and_its_handler, each_of_200_dropped_calls_cancels_its_handler,
                a_response_that_comes_too_late_is_counted]
            limits: [one_request_more_than_allowed_is_refused_at_once, a_listener_that_takes_nothing_fills_only_its_own_limit,
                a_request_body_over_the_limit_is_refused, a_response_body_over_the_limit_is_refused]
            context: [the_whole_context_arrives, a_call_has_one_client_and_one_server_span]
        }
    };
    (@ $harness:ty, $($module:ident: [$($test:ident),* $(,)?])*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let test = $crate::conformance::$module::$test::<$harness>();
                let in_time = tokio::time::timeout($crate::conformance::PATIENCE, test).await;
                in_time.expect("the test hangs");
            }
        )*)*
    };
}

/// After this time a test counts as hanging.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the medium, or returns from the test.
#[macro_export]
macro_rules! start {
    ($harness:ty) => {
        $crate::start!($harness, |transport| transport)
    };
    ($harness:ty, $configure:expr) => {
        match <$harness as $crate::conformance::Harness>::start($configure).await {
            Some(harness) => harness,
            None => return,
        }
    };
}

/// A request to `path`.
pub fn request(path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::post(path).body(body.into()).unwrap()
}

/// Calls `balance` on a task, without a deadline.
pub fn call(client: &Transport) -> JoinHandle<Result<Response<Bytes>, Error>> {
    let client = client.clone();
    tokio::spawn(async move { client.send(&Context::background(), "balance", request("/", "")).await })
}

/// Serves `name` with a handler that gets the context and the request.
pub async fn serve<F, Fut>(transport: &Transport, name: &str, handler: F) -> JoinHandle<()>
where
    F: Fn(Context, Request<Bytes>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Response<Bytes>, Error>> + Send + 'static,
{
    let listener = transport.listen(name).await.expect("nobody listens yet");
    let service = service_fn(move |request: Request<Full<Bytes>>| {
        let ctx = request.extensions().get::<Context>().cloned().expect("the layer inserts it");
        let (head, body) = request.into_parts();
        let handler = handler.clone();
        async move {
            let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
            let result = handler(ctx, Request::from_parts(head, body)).await;
            Ok::<_, std::convert::Infallible>(result.unwrap_or_else(|e| e.to_response()).map(Full::new))
        }
    });
    tokio::spawn(async move { listener.serve(&Context::background(), ContextLayer::internal(), service).await })
}

/// A telemetry that keeps its spans, for tests that look at them.
pub fn recording(service: &str) -> (TelemetryGuard, MemoryExporter) {
    let spans = MemoryExporter::default();
    (telemetry::builder(service).exporter(spans.clone()).build().unwrap(), spans)
}

/// Waits until a condition holds that other tasks bring about.
pub async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}
