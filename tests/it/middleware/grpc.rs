//! The layers around tonic's server and client.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use throughline::trace;
use throughline::{Cause, Code, Context, ContextLayer, Error, Principal, SpanRecord};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tower::{Layer, ServiceExt, service_fn};

use crate::support::grpc::{call_grpc, serve_grpc};
use crate::support::{PATIENCE, Traced, client, text};

pub(super) const METHOD: &str = "/cards.Cards/Get";

/// A request in gRPC's form.
pub(super) fn grpc_request(path: &str) -> http::request::Builder {
    Request::post(path).version(http::Version::HTTP_2).header("content-type", "application/grpc")
}

pub(super) fn status_code(span: &SpanRecord) -> Option<&str> {
    text(span, "rpc.status_code")
}

#[tokio::test]
async fn a_method_gets_the_callers_trace_its_baggage_and_a_shorter_deadline() {
    let service = Traced::new("cards");
    let address = serve_grpc(service.internal(), async |request| {
        let ctx = request.extensions().get::<Context>().unwrap();
        assert_eq!(Context::current().span_context(), ctx.span_context());
        let left = ctx.remaining().unwrap();
        assert!(left > Duration::ZERO && left <= Duration::from_millis(59_950), "{left:?}");
        Ok(Bytes::from(ctx.baggage().get("tenant").unwrap().into_owned()))
    })
    .await;
    let caller = Traced::new("api");
    let ctx = Context::background().with_timeout(Duration::from_secs(60));
    let ctx = ctx.with_baggage(ctx.baggage().insert("tenant", "acme").unwrap());
    let layer = client().tracer(caller.telemetry.tracer().clone());
    assert_eq!(call_grpc(&layer, &ctx, address, METHOD, "").await.unwrap(), "acme");
    let (called, served) = (caller.span().await, service.span().await);
    assert_eq!(served.parent_span_id, Some(called.span_context.span_id()));
    assert_eq!((status_code(&called), status_code(&served)), (Some("OK"), Some("OK")), "from the trailers");
    for span in [&called, &served] {
        assert_eq!(span.name, "cards.Cards/Get");
        assert_eq!(text(span, "rpc.system.name"), Some("grpc"));
        assert_eq!(text(span, "rpc.method"), Some("cards.Cards/Get"));
        assert_eq!(text(span, "server.address"), Some("127.0.0.1"));
        assert!(span.attributes.iter().all(|(key, _)| !key.starts_with("http.") && !key.starts_with("url.")));
    }
}

#[tokio::test]
async fn an_unknown_method_does_not_name_the_span() {
    let (caller, unknown, edge) = (Traced::new("caller"), Traced::new("cards"), Traced::new("api"));
    let address = serve_grpc(unknown.internal(), async |_| Err(Status::unimplemented("no such method"))).await;
    let layer = client().tracer(caller.telemetry.tracer().clone());
    call_grpc(&layer, &Context::background(), address, METHOD, "").await.unwrap_err();
    assert_eq!(caller.span().await.name, "cards.Cards/Get", "the client knows the method");
    // The same if no handler has seen the request: no time is left, or it is refused.
    let layer = edge.edge().authenticator(|_| Err::<Principal, _>(Error::new(Code::Unauthenticated, "invalid token")));
    let service = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    for grpc_timeout in ["0n", "1H"] {
        let request = grpc_request(METHOD).header("grpc-timeout", grpc_timeout).body(Body::empty()).unwrap();
        layer.layer(service).oneshot(request).await.unwrap().into_body().collect().await.unwrap();
    }
    for span in std::iter::once(unknown.span().await).chain(edge.spans(2).await) {
        assert_eq!((span.name.as_ref(), text(&span, "rpc.method")), ("grpc", Some("_OTHER")));
        assert_eq!(text(&span, "rpc.method_original"), Some("cards.Cards/Get"));
    }
}

#[tokio::test]
async fn a_deadline_ends_the_method_and_is_deadline_exceeded_on_both_sides() {
    let (service, caller) = (Traced::new("cards"), Traced::new("api"));
    let (sender, mut receiver) = unbounded_channel();
    let layer = service.internal().max_timeout(Duration::from_millis(50));
    // After this the layer knows the method.
    status_through(layer.clone(), &Status::not_found("no such card"), true).await;
    let address = serve_grpc(layer, move |request| {
        sender.send(request.extensions().get::<Context>().unwrap().clone()).unwrap();
        std::future::pending()
    })
    .await;
    let ctx = Context::background().with_timeout(PATIENCE);
    let layer = client().tracer(caller.telemetry.tracer().clone());
    let status = call_grpc(&layer, &ctx, address, METHOD, "").await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "from the service");
    assert_eq!(Error::from_grpc_status(status).origin(), Some("cards"));
    let served = receiver.recv().await.unwrap();
    assert!(matches!(served.cause(), Some(Cause::DeadlineExceeded)), "{:?}", served.cause());
    for span in [caller.span().await, service.spans(2).await.remove(1)] {
        let status = status_code(&span);
        assert_eq!((text(&span, "error.type"), status), (Some("DEADLINE_EXCEEDED"), Some("DEADLINE_EXCEEDED")));
        assert_eq!(span.name, "cards.Cards/Get");
    }
}

#[tokio::test]
async fn a_callers_deadline_ends_the_method_too() {
    let (sender, mut receiver) = unbounded_channel();
    let address = serve_grpc(ContextLayer::internal(), move |request| {
        sender.send(request.extensions().get::<Context>().unwrap().clone()).unwrap();
        std::future::pending()
    })
    .await;
    let ctx = Context::background().with_timeout(Duration::from_millis(500));
    let status = call_grpc(&client(), &ctx, address, METHOD, "").await.unwrap_err();
    assert_eq!(Error::from_grpc_status(status).code(), Code::DeadlineExceeded);
    // By its deadline, or when tonic's channel gives up, whichever is first.
    let served = timeout(PATIENCE, receiver.recv()).await.unwrap().unwrap();
    timeout(PATIENCE, served.done()).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_is_cancelled_resets_the_stream_and_that_cancels_the_method() {
    let service = Traced::new("cards");
    let (sender, mut receiver) = unbounded_channel();
    let address = serve_grpc(service.internal(), move |request| {
        sender.send(request.extensions().get::<Context>().unwrap().clone()).unwrap();
        std::future::pending()
    })
    .await;
    let ctx = Context::background().with_cancel();
    let call = tokio::spawn({
        let ctx = ctx.context().clone();
        async move { call_grpc(&client(), &ctx, address, METHOD, "").await }
    });
    let served = receiver.recv().await.unwrap();
    ctx.cancel();
    assert_eq!(Error::from_grpc_status(call.await.unwrap().unwrap_err()).code(), Code::Cancelled);
    timeout(PATIENCE, served.done()).await.unwrap();
    assert!(matches!(served.cause(), Some(Cause::ClientDisconnected)), "{:?}", served.cause());
}

#[tokio::test]
async fn an_error_of_a_method_arrives_unchanged_and_is_on_both_spans() {
    let (service, caller) = (Traced::new("cards"), Traced::new("api"));
    let address = serve_grpc(service.internal(), async |_| {
        Err(Error::new(Code::Unavailable, "too many cards: 100 % full").with_retryable(true).into())
    })
    .await;
    let layer = client().tracer(caller.telemetry.tracer().clone());
    let status = call_grpc(&layer, &Context::background(), address, METHOD, "").await.unwrap_err();
    let error = Error::from_grpc_status(status);
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "too many cards: 100 % full"));
    assert_eq!((error.origin(), error.retryable()), (Some("cards"), Some(true)));
    let served = service.span().await;
    assert_eq!(served.status, trace::Status::Error("too many cards: 100 % full".into()));
    for span in [caller.span().await, served] {
        assert_eq!((status_code(&span), text(&span, "error.type")), (Some("UNAVAILABLE"), Some("UNAVAILABLE")));
    }
}

#[tokio::test]
async fn a_status_of_a_callee_is_passed_on_as_the_error_that_made_it() {
    let (below, service) = (Traced::new("cards"), Traced::new("api"));
    for (code, leaves_as) in
        [(Code::Unavailable, Code::Unavailable), (Code::NotFound, Code::Internal), (Code::Unknown, Code::Internal)]
    {
        let failing = move |_| async move { Err(Error::new(code, "account 7 is locked").into()) };
        let cards = serve_grpc(below.internal(), failing).await;
        for layer in [service.internal(), service.edge()] {
            let is_edge = format!("{layer:?}").contains("edge");
            let address = serve_grpc(layer, move |request| async move {
                let ctx = request.extensions().get::<Context>().unwrap();
                call_grpc(&client(), ctx, cards, METHOD, "").await
            })
            .await;
            let status = call_grpc(&client(), &Context::background(), address, METHOD, "").await.unwrap_err();
            assert_eq!(status.details().is_empty(), is_edge, "{status:?}");
            let error = Error::from_grpc_status(status);
            assert_eq!(error.code(), leaves_as);
            let path = error.path().collect::<Vec<_>>();
            match is_edge {
                true => {
                    assert_eq!(path, ["127.0.0.1"], "only the host that was called is known");
                    assert!(!error.message().contains("account"), "{error:?}");
                }
                false => assert_eq!((error.message(), path), ("account 7 is locked", vec!["cards", "api"])),
            }
        }
    }
}

/// The status that a client gets through `layer`.
///
/// The handler sends a stream of one message that ends with `status`, or only headers with it.
async fn status_through(layer: ContextLayer, status: &Status, is_stream: bool) -> HeaderMap {
    let mut sent = HeaderMap::new();
    status.add_header(&mut sent).unwrap();
    let responding = service_fn(|_: Request<Body>| {
        let frames = [Frame::data(Bytes::from("one")), Frame::trailers(sent.clone())];
        let frames = frames.into_iter().take(if is_stream { 2 } else { 0 }).map(Ok::<_, Infallible>);
        let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
        if !is_stream {
            *response.headers_mut() = sent.clone();
        }
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        response.headers_mut().insert("content-length", if is_stream { 3 } else { 0 }.into());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let request = grpc_request(METHOD).body(Body::empty()).unwrap();
    let (head, body) = layer.layer(responding).oneshot(request).await.unwrap().into_parts();
    let trailers = body.collect().await.unwrap().trailers().cloned();
    if is_stream { trailers.unwrap() } else { head.headers }
}

#[tokio::test]
async fn an_edge_redacts_a_status_in_headers_and_trailers() {
    let from_cards = |code| Status::from(Error::new(code, "row 7 of users").through_service(Some("cards")));
    let mut garbled = HeaderMap::from_iter([("grpc-status-details-bin".parse().unwrap(), "?".parse().unwrap())]);
    garbled.insert("x-mine", "1".parse().unwrap());
    let garbled = MetadataMap::from_headers(garbled);
    for (status, expected) in [
        (from_cards(Code::NotFound), "not%20found"),
        (from_cards(Code::Internal), "internal%20error"),
        (Status::not_found("no-such-card"), "no-such-card"),
        (Status::data_loss("row 7 of users"), "data%20loss"),
        (Status::with_metadata(tonic::Code::Aborted, "again", garbled), "aborted"),
    ] {
        for is_stream in [true, false] {
            let service = Traced::new("api");
            let (mut sent, internal) = (HeaderMap::new(), status_through(service.internal(), &status, is_stream).await);
            status.add_header(&mut sent).unwrap();
            for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
                assert_eq!(internal.get(name), sent.get(name));
            }
            let edge = status_through(service.edge(), &status, is_stream).await;
            assert_eq!(edge.get("grpc-status-details-bin"), None);
            let message = edge["grpc-message"].to_str().unwrap().replace(' ', "%20");
            assert_eq!((&edge["grpc-status"], message.as_str()), (&sent["grpc-status"], expected));
            for span in service.spans(2).await {
                let code = Code::from_grpc_number(status.code() as i32).unwrap();
                assert_eq!(status_code(&span), Some(code.as_str()), "also in trailers after a body of known length");
            }
        }
    }
}

#[tokio::test]
async fn an_edge_keeps_the_public_details_of_a_status_in_headers_and_trailers() {
    use tonic_types::StatusExt;

    let object = |name: &str, value: &str| [(name.to_owned(), value.into())].into_iter().collect();
    let error = Error::new(Code::FailedPrecondition, "account 7 has 30 cents")
        .with_detail("bank.example/Shard", object("shard", "secret"))
        .with_public_detail("bank.example/LowBalance", object("missing", "120"))
        .with_field_violation("amount", "more than the balance")
        .with_instance("/accounts/7")
        .through_service(Some("balance"));
    let status = Status::from(error);
    for is_stream in [true, false] {
        let edge = status_through(Traced::new("api").edge(), &status, is_stream).await;
        let edge = Status::from_header_map(&edge).unwrap();
        assert_eq!((edge.code(), edge.message()), (tonic::Code::FailedPrecondition, "failed precondition"));
        let details = edge.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "amount");
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!(metadata.keys().collect::<Vec<_>>(), ["details"]);
        assert_eq!(metadata["details"], r#"[{"@type":"bank.example/LowBalance","missing":"120"}]"#);
    }
}

#[tokio::test]
async fn a_request_dropped_before_its_response_has_only_a_known_methods_name() {
    let service = Traced::new("cards");
    let layer = service.internal();
    let name_of_dropped = async |expected: u64| {
        let never = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
        let mut call = Box::pin(layer.layer(never).oneshot(grpc_request(METHOD).body(Body::empty()).unwrap()));
        assert!(futures_util::poll!(&mut call).is_pending());
        drop(call);
        service.spans(expected).await.pop().unwrap().name
    };
    assert_eq!(name_of_dropped(1).await, "POST");
    status_through(layer.clone(), &Status::not_found("no such card"), true).await;
    assert_eq!(name_of_dropped(3).await, "cards.Cards/Get");
}

#[tokio::test]
async fn a_status_made_from_an_error_is_passed_on_as_one_and_redacted_by_an_edge() {
    let service = Traced::new("api");
    for layer in [service.internal(), service.edge()] {
        let is_edge = format!("{layer:?}").contains("edge");
        let address = serve_grpc(layer, async |_| {
            let sent = Status::from(Error::new(Code::NotFound, "row 7 of users").through_service(Some("cards")));
            let mut trailers = http::HeaderMap::new();
            sent.add_header(&mut trailers).unwrap();
            let from_cards = Error::from_grpc_status(Status::from_header_map(&trailers).unwrap());
            Err(from_cards.with_retry_after(Duration::from_secs(1)).into())
        })
        .await;
        let status = call_grpc(&client(), &Context::background(), address, METHOD, "").await.unwrap_err();
        assert_eq!(status.metadata().get_all("grpc-retry-pushback-ms").iter().count(), 1);
        let error = Error::from_grpc_status(status);
        assert_eq!((error.code(), error.retry_after()), (Code::Internal, Some(Duration::from_secs(1))));
        let (message, path) =
            if is_edge { ("internal error", vec!["127.0.0.1"]) } else { ("row 7 of users", vec!["cards", "api"]) };
        assert_eq!((error.message(), error.path().collect::<Vec<_>>()), (message, path));
    }
    let address = serve_grpc(service.internal(), async |_| Err(Status::not_found("of its own"))).await;
    let status = call_grpc(&client(), &Context::background(), address, METHOD, "").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::NotFound, "of its own"));
}
