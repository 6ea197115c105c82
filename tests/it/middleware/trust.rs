//! R21: what is read from which caller, and what is sent to which callee.

use std::net::SocketAddr;
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, StatusCode};
use throughline::{
    ClientLayer, Code, Codec, Context, ContextLayer, Error, Key, Principal, SendWith, TimeoutHeader, Trust, telemetry,
};

use crate::support::{PATIENCE, Traced, client, serve, text};

static TENANT: Key<u64> = Key::baggage("tenant");
static SHARD: Key<u8> = Key::header("x-shard", Codec::text());
static NOTE: Key<String> = Key::baggage("note");

/// The contents of a request's context, in a line.
fn seen(ctx: &Context) -> String {
    let principal = ctx.principal().map_or("none", Principal::subject);
    let left = ctx.remaining().map_or("no limit".into(), |left| format!("{} s", left.as_secs_f64().ceil()));
    format!(
        "{principal} tenant {:?} shard {:?} note {:?} {left}",
        ctx.value(&TENANT),
        ctx.value(&SHARD),
        ctx.value(&NOTE)
    )
}

async fn show(Extension(ctx): Extension<Context>) -> String {
    seen(&ctx)
}

async fn names(headers: HeaderMap) -> String {
    let mut names: Vec<_> = headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    names.join(" ")
}

fn keyed(layer: ContextLayer) -> ContextLayer {
    layer.keys(&[&TENANT, &SHARD])
}

/// A request with every header that an untrusted client can forge.
fn forged(address: SocketAddr, path: &str) -> reqwest::RequestBuilder {
    reqwest::Client::new()
        .get(format!("http://{address}{path}"))
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .header("tracestate", "ot=th:0")
        .header("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d")
        .header("baggage", "tenant=7,note=mine")
        .header("x-shard", "3")
        .header("throughline-principal", "admin")
        .header("grpc-timeout", "1H")
}

#[tokio::test]
async fn r21_headers_of_an_untrusted_client_have_no_effect() {
    let memory = telemetry::MemoryExporter::default();
    // Records only if the caller has sampled.
    let unwilling = throughline::trace::ParentBased::new(throughline::trace::AlwaysOff);
    let guard = telemetry::builder("api").exporter(memory.clone()).sampler(unwilling).build().unwrap();
    let layer = keyed(ContextLayer::edge()).tracer(guard.tracer().clone()).max_timeout(Duration::from_secs(2));
    let app = Router::new().route("/", get(show)).route("/names", get(names)).layer(layer);
    let address = serve(app).await;
    let body = forged(address, "/").send().await.unwrap().text().await.unwrap();
    assert_eq!(body, "none tenant None shard None note None 2 s");
    let forwarded = forged(address, "/names").send().await.unwrap().text().await.unwrap();
    assert_eq!(forwarded, "accept grpc-timeout host");
    guard.shutdown(PATIENCE).await.unwrap();
    assert!(memory.spans().is_empty(), "the sampled flag of an untrusted client is ignored");
}

#[tokio::test]
async fn r21_an_edge_links_the_clients_trace_and_does_not_continue_it() {
    let traced = Traced::new("api");
    let address = serve(Router::new().route("/", get(show)).layer(traced.edge())).await;
    forged(address, "/").send().await.unwrap();
    let span = traced.span().await;
    assert_ne!(span.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span.parent_span_id, None);
    assert_eq!(span.links.len(), 1);
    assert_eq!(span.links[0].span_context.span_id().to_string(), "00f067aa0ba902b7");
    assert!(span.span_context.trace_state().is_empty());
}

#[tokio::test]
async fn r21_only_the_values_of_the_keys_are_read_from_internal_services() {
    let address = serve(Router::new().route("/", get(show)).layer(keyed(ContextLayer::internal()))).await;
    let body = forged(address, "/").send().await.unwrap().text().await.unwrap();
    assert_eq!(body, "admin tenant Some(7) shard Some(3) note None 3600 s");
}

#[tokio::test]
async fn r21_trust_is_decided_for_each_request() {
    let decide = |head: &http::request::Parts| match head.headers.get("x-peer") {
        Some(peer) if peer == "internal" => Trust::Internal,
        _ => Trust::Edge,
    };
    let layer = keyed(ContextLayer::trust_fn(decide)).max_timeout(Duration::from_secs(2));
    let address = serve(Router::new().route("/", get(show)).layer(layer)).await;
    for (peer, expected) in [
        ("internal", "admin tenant Some(7) shard Some(3) note None 2 s"),
        ("external", "none tenant None shard None note None 2 s"),
    ] {
        let body = forged(address, "/").header("x-peer", peer).send().await.unwrap().text().await.unwrap();
        assert_eq!(body, expected);
    }
}

#[tokio::test]
async fn r21_limits_can_be_lowered_and_not_raised_beyond_their_ceiling() {
    let far = ContextLayer::edge().max_timeout(Duration::MAX);
    let small = ContextLayer::internal().max_baggage(8, 1).keys(&[&TENANT, &NOTE]);
    let large = ContextLayer::internal().max_baggage(usize::MAX, usize::MAX).keys(&[&TENANT, &NOTE]);
    let lengths = |layer: ContextLayer| async {
        let show = |Extension(ctx): Extension<Context>| async move {
            format!("{} {:?}", ctx.baggage().as_str().len(), ctx.remaining().map(|left| left.as_secs() / 3600))
        };
        let address = serve(Router::new().route("/", get(show)).layer(layer)).await;
        let members: Vec<_> = (0..100).map(|n| format!("k{n}={n:05}")).collect();
        let request = reqwest::Client::new().get(format!("http://{address}/")).header("grpc-timeout", "99999999H");
        request.header("baggage", members.join(",")).send().await.unwrap().text().await.unwrap()
    };
    assert_eq!(lengths(far).await, "0 Some(23)");
    assert_eq!(lengths(small).await, "8 Some(99999998)");
    // 64 members, of which 10 have one digit less in their key.
    assert_eq!(lengths(large).await, format!("{} Some(99999998)", 64 * 10 - 10 - 1));
}

#[tokio::test]
async fn r21_a_principal_is_set_by_an_authenticator_and_read_three_hops_away() {
    let third = serve(Router::new().route("/", get(show)).layer(ContextLayer::internal())).await;
    let second = serve(relay(third).layer(ContextLayer::internal())).await;
    let first = serve(relay(second).layer(ContextLayer::internal())).await;
    let edge = ContextLayer::edge().max_timeout(Duration::from_secs(60)).authenticator(|head| {
        match head.headers.get("authorization").map(|token| token.as_bytes()) {
            Some(b"Bearer 7") => Ok(Principal::new("user:7 \u{e9}")),
            Some(_) => Err(Error::new(Code::Unauthenticated, "the token is not valid")),
            None => Ok(None),
        }
    });
    let edge_address = serve(relay(first).layer(edge)).await;
    for (token, expected) in [(Some("Bearer 7"), "user:7 \u{e9} "), (None, "none ")] {
        let mut request = forged(edge_address, "/");
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let body = request.send().await.unwrap().text().await.unwrap();
        assert!(body.starts_with(expected), "{body}");
    }
    let refused = forged(edge_address, "/").header("authorization", "Bearer 8").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(refused.text().await.unwrap().contains("the token is not valid"));
}

#[tokio::test]
async fn r21_an_authenticator_is_not_called_for_internal_services() {
    let layer =
        ContextLayer::internal().authenticator(|_| Err::<Principal, _>(Error::new(Code::Unauthenticated, "none")));
    let address = serve(Router::new().route("/", get(show)).layer(layer)).await;
    assert!(forged(address, "/").send().await.unwrap().text().await.unwrap().starts_with("admin "));
}

fn relay(to: SocketAddr) -> Router {
    Router::new().route(
        "/",
        get(move |Extension(ctx): Extension<Context>| async move {
            let response = reqwest::Client::new().get(format!("http://{to}/")).send_with(&ctx, &client()).await?;
            Ok::<_, Error>(response.text().await.unwrap())
        }),
    )
}

fn internal_context() -> Context {
    let ctx = Context::background().with_value(&TENANT, 7).with_value(&SHARD, 3).with_timeout(PATIENCE);
    ctx.with_principal(Principal::new("user:7").unwrap())
}

#[tokio::test]
async fn r21_typed_values_are_sent_to_internal_services_and_not_to_external_hosts() {
    let address = serve(Router::new().route("/", get(names))).await;
    let hosts = |host: &str| ClientLayer::internal_hosts([host.to_owned()]);
    let all = "accept baggage grpc-timeout host throughline-principal traceparent x-shard";
    for (layer, expected) in [
        (ClientLayer::internal(), all),
        (hosts("127.0.0.1"), all),
        (hosts("localhost"), "accept host traceparent"),
        (ClientLayer::external(), "accept host traceparent"),
    ] {
        let request = reqwest::Client::new().get(format!("http://{address}/"));
        let body = request.send_with(&internal_context(), &layer).await.unwrap().text().await.unwrap();
        assert_eq!(body, expected, "{layer:?}");
    }
    // Headers that are forwarded from a caller, of other formats and protocols.
    let mut request = forged(address, "/");
    for name in [
        "x-b3-traceid",
        "x-b3-spanid",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-flags",
        "uber-trace-id",
        "x-amzn-trace-id",
        "connect-timeout-ms",
        "request-timeout",
        "x-envoy-expected-rq-timeout-ms",
    ] {
        request = request.header(name, "1");
    }
    let request = request.send_with(&internal_context(), &ClientLayer::external()).await.unwrap();
    assert_eq!(request.text().await.unwrap(), "accept host traceparent");
}

#[tokio::test]
async fn r21_an_external_grpc_or_connect_host_gets_its_timeout() {
    let address = serve(Router::new().route("/", get(names))).await;
    for (name, value, expected) in [
        ("content-type", "application/grpc", "accept content-type grpc-timeout host traceparent"),
        ("connect-protocol-version", "1", "accept connect-protocol-version connect-timeout-ms host traceparent"),
        ("content-type", "application/connect+proto", "accept connect-timeout-ms content-type host traceparent"),
        ("content-type", "application/json", "accept content-type host traceparent"),
    ] {
        let request = reqwest::Client::new().get(format!("http://{address}/")).header(name, value);
        let body =
            request.send_with(&internal_context(), &ClientLayer::external()).await.unwrap().text().await.unwrap();
        assert_eq!(body, expected, "{value}");
    }
}

#[tokio::test]
async fn a_changed_or_removed_value_changes_the_baggage_that_is_sent() {
    let echo = |headers: HeaderMap| async move { format!("{:?}", headers.get("baggage")) };
    let below = serve(Router::new().route("/", get(echo))).await;
    for (change, sent) in [
        ((|ctx| ctx) as fn(Context) -> Context, r#"Some("other=1, tenant=7;ttl=60")"#),
        (|ctx| ctx.with_value(&TENANT, 7), r#"Some("other=1, tenant=7;ttl=60")"#),
        (|ctx| ctx.with_value(&TENANT, 8), r#"Some("other=1,tenant=8")"#),
        (|ctx| ctx.without_value(&TENANT), r#"Some("other=1")"#),
    ] {
        let handler = move |Extension(ctx): Extension<Context>| async move {
            let request = reqwest::Client::new().get(format!("http://{below}/"));
            request.send_with(&change(ctx), &client()).await.unwrap().text().await.unwrap()
        };
        let address = serve(Router::new().route("/", get(handler)).layer(keyed(ContextLayer::internal()))).await;
        let request = reqwest::Client::new().get(format!("http://{address}/"));
        let body = request.header("baggage", "other=1, tenant=7;ttl=60").send().await.unwrap().text().await.unwrap();
        assert_eq!(body, sent);
    }
}

#[tokio::test]
async fn a_malformed_value_is_absent() {
    let address = serve(Router::new().route("/", get(show)).layer(keyed(ContextLayer::internal()))).await;
    for (baggage, shard) in [("tenant=-1", "300"), ("tenant", ""), ("tenant=%FF", "3 "), ("=", "three")] {
        let request = reqwest::Client::new().get(format!("http://{address}/")).header("baggage", baggage);
        let body = request.header("x-shard", shard).send().await.unwrap().text().await.unwrap();
        let shard = if shard == "3 " { "Some(3)" } else { "None" };
        assert_eq!(body, format!("none tenant None shard {shard} note None no limit"));
    }
    let twice = reqwest::Client::new().get(format!("http://{address}/")).header("x-shard", "3").header("x-shard", "4");
    assert!(twice.send().await.unwrap().text().await.unwrap().contains("shard None"));
}

#[tokio::test]
async fn the_smallest_of_all_accepted_timeouts_counts() {
    let layer = ContextLayer::internal()
        .accept_timeouts([TimeoutHeader::XEnvoyExpectedRqTimeoutMs, TimeoutHeader::RequestTimeout])
        .timeout_header("x-time-left".parse().unwrap())
        .max_timeout(Duration::from_secs(60));
    let address = serve(Router::new().route("/", get(show)).layer(layer)).await;
    for (headers, left) in [
        (&[][..], "60 s"),
        (&[("grpc-timeout", "50S"), ("connect-timeout-ms", "40000")], "40 s"),
        (&[("x-envoy-expected-rq-timeout-ms", "0"), ("request-timeout", "30")], "30 s"),
        (&[("x-time-left", "20S"), ("grpc-timeout", "30S")], "20 s"),
        (&[("x-time-left", "20 S"), ("grpc-timeout", "1000000000S")], "60 s"),
    ] {
        let mut request = reqwest::Client::new().get(format!("http://{address}/"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = request.send().await.unwrap().text().await.unwrap();
        assert!(body.ends_with(left), "{headers:?}: {body}");
    }
}

#[tokio::test]
async fn the_timeout_header_can_be_chosen_for_plain_http() {
    let echo = |headers: HeaderMap| async move {
        let shown = |name| headers.get(name).is_some();
        format!("{} {}", shown("x-time-left"), shown("grpc-timeout"))
    };
    let address = serve(Router::new().route("/", get(echo))).await;
    let layer = client().timeout_header("x-time-left".parse().unwrap());
    for (media_type, expected) in [("text/plain", "true false"), ("application/grpc+proto", "false true")] {
        let request = reqwest::Client::new().get(format!("http://{address}/")).header("content-type", media_type);
        assert_eq!(request.send_with(&internal_context(), &layer).await.unwrap().text().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_shorter_timeout_on_the_request_is_kept() {
    let echo = |headers: HeaderMap| async move { format!("{:?}", headers["grpc-timeout"]) };
    let address = serve(Router::new().route("/", get(echo))).await;
    let request = reqwest::Client::new().get(format!("http://{address}/")).header("grpc-timeout", "1S");
    assert_eq!(request.send_with(&internal_context(), &client()).await.unwrap().text().await.unwrap(), r#""1S""#);
}

#[tokio::test]
async fn the_timeout_header_of_another_protocol_does_not_replace_the_callees() {
    let echo = |headers: HeaderMap| async move { format!("{}", headers.contains_key("connect-timeout-ms")) };
    let address = serve(Router::new().route("/", get(echo))).await;
    let request = reqwest::Client::new().get(format!("http://{address}/")).header("grpc-timeout", "1S");
    let request = request.header("connect-protocol-version", "1");
    assert_eq!(request.send_with(&internal_context(), &client()).await.unwrap().text().await.unwrap(), "true");
}

#[tokio::test]
async fn values_are_copied_onto_spans_and_log_lines_by_an_allow_list() {
    use tracing::instrument::WithSubscriber;
    use tracing_subscriber::layer::SubscriberExt;

    let memory = telemetry::MemoryExporter::default();
    let guard = telemetry::builder("cards").exporter(memory.clone()).copy_to_spans(["tenant", "note"]).build().unwrap();
    let lines = Lines::default();
    let format = guard.log_format().before(tracing_subscriber::fmt::format().without_time());
    let logged = tracing_subscriber::fmt::layer().event_format(format).with_ansi(false).with_writer(lines.clone());
    let subscriber = tracing_subscriber::registry().with(guard.layer()).with(logged);

    let ctx = Context::background().with_tracer(guard.tracer()).with_value(&TENANT, 7);
    let ctx = ctx.with_baggage(ctx.baggage().insert("note", "a\nb \"c\"").unwrap().insert("secret", "x").unwrap());
    let span = ctx.span("reserve").attribute("note", "its own").start();
    span.scope(async {
        tracing::info!("reserved");
        tracing::info_span!("inner").in_scope(|| tracing::info!("further in"));
    })
    .with_subscriber(subscriber)
    .await;
    let identity = span.span_context().unwrap().clone();
    span.end();
    guard.shutdown(PATIENCE).await.unwrap();

    let spans = memory.spans();
    let (inner, outer) = (&spans[0], &spans[1]);
    assert_eq!((text(outer, "tenant"), text(outer, "note"), text(outer, "secret")), (Some("7"), Some("its own"), None));
    assert_eq!((text(inner, "tenant"), text(inner, "note")), (Some("7"), Some("a\nb \"c\"")));
    let lines = lines.read();
    let lines: Vec<_> = lines.lines().collect();
    let (trace, outer, inner) = (identity.trace_id(), identity.span_id(), inner.span_context.span_id());
    assert!(
        lines[0].starts_with(&format!(r#"trace_id={trace} span_id={outer} tenant=7 note="a\nb \"c\""  INFO"#)),
        "{lines:?}"
    );
    assert!(lines[1].starts_with(&format!("trace_id={trace} span_id={inner} tenant=7 ")), "{lines:?}");
    assert_eq!(lines.len(), 2, "a value never starts a new line");
    assert!(lines.iter().all(|line| !line.contains("secret")));
}

/// Keeps the written bytes.
#[derive(Clone, Default)]
struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Lines {
    fn read(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}
