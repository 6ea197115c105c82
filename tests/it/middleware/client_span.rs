//! What names the span of a call.

use std::convert::Infallible;

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Empty;
use throughline::middleware::client::UrlTemplate;
use throughline::{ClientLayer, Context, SendWith, SpanRecord};
use tower::{Layer, Service, service_fn};

use crate::support::{Traced, serve, text};

/// The span of a call through `layer`, which is sent as `prepare` leaves it.
async fn span_of(layer: &ClientLayer, prepare: impl FnOnce(&mut Request<()>)) -> SpanRecord {
    let service = Traced::new("cards");
    let peer = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())));
    let mut request = Request::get("http://balance/accounts/7?q=1").body(()).unwrap();
    prepare(&mut request);
    drop(layer.clone().tracer(service.telemetry.tracer().clone()).layer(peer).call(request).await.unwrap());
    service.span().await
}

#[tokio::test]
async fn a_template_names_the_span_and_the_one_of_the_request_comes_first() {
    let layer = ClientLayer::internal();
    let bare = span_of(&layer, |_| ()).await;
    assert_eq!((&*bare.name, text(&bare, "url.template")), ("GET", None));

    let of_layer = layer.template("/accounts/{id}");
    let named = span_of(&of_layer, |_| ()).await;
    assert_eq!((&*named.name, text(&named, "url.template")), ("GET /accounts/{id}", Some("/accounts/{id}")));
    assert_eq!(text(&named, "url.full"), Some("http://balance/accounts/7?q=1"));

    let own = |request: &mut Request<()>| {
        request.extensions_mut().insert(UrlTemplate::new(format!("/{}/{{id}}", "own")));
        *request.method_mut() = Method::from_bytes(b"BREW").unwrap();
    };
    assert_eq!(&*span_of(&of_layer, own).await.name, "HTTP /own/{id}", "an unknown method names no span");
}

#[tokio::test]
async fn a_template_does_not_name_a_grpc_call() {
    let grpc = |request: &mut Request<()>| {
        *request.method_mut() = Method::POST;
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    };
    let span = span_of(&ClientLayer::internal().template("/accounts/{id}"), grpc).await;
    assert_eq!((&*span.name, text(&span, "url.template")), ("accounts/7", None));
}

#[tokio::test]
async fn the_peer_is_on_every_span_in_both_names() {
    let span = span_of(&ClientLayer::external().peer("balance"), |_| ()).await;
    assert_eq!((text(&span, "service.peer.name"), text(&span, "peer.service")), (Some("balance"), Some("balance")));
    let span = span_of(&ClientLayer::external(), |_| ()).await;
    assert_eq!((text(&span, "service.peer.name"), text(&span, "peer.service")), (None, None));
}

#[tokio::test]
async fn a_template_of_reqwest_names_the_first_call_and_not_the_redirect() {
    let service = Traced::new("cards");
    let app = Router::new()
        .route("/cards/{id}", get(|| async { Redirect::temporary("/moved") }))
        .route("/moved", get(|| async { "7" }));
    let address = serve(app).await;
    let layer = ClientLayer::internal().tracer(service.telemetry.tracer().clone()).follow_redirects(1);
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let request = http.get(format!("http://{address}/cards/7"));
    let response = request.send_with(&Context::background(), &layer.template("/cards/{id}")).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "7");
    let names: Vec<_> = service.spans(2).await.into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["GET /cards/{id}", "GET"]);
}

#[tokio::test]
async fn a_layer_inside_finds_the_context_of_the_call_in_place_of_the_callers() {
    let service = Traced::new("cards");
    let ctx = Context::background().with_tracer(service.telemetry.tracer());
    let peer = service_fn(async |request: Request<()>| {
        if let Some(ctx) = request.extensions().get::<Context>() {
            ctx.current_span().set_attribute("inside", true);
            assert_eq!(
                ctx.span_context().map(|span| span.span_id().to_string()).as_deref(),
                request.headers()["traceparent"].to_str().unwrap().get(36..52)
            );
        }
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let mut client = ClientLayer::internal().layer(peer);
    let mut request = Request::new(());
    request.extensions_mut().insert(ctx.clone());
    drop(client.call(request).await.unwrap());
    // Without one in the extensions, none is added: that allocates.
    drop(ctx.scope(async { client.call(Request::new(())).await }).await.unwrap());
    let spans = service.spans(2).await;
    let is_inside = |span: &SpanRecord| span.attributes.iter().any(|(key, _)| key == "inside");
    assert_eq!(spans.iter().map(is_inside).collect::<Vec<_>>(), [true, false]);
}
