//! A timeout in milliseconds, in a header of choice.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::Full;
use throughline::{ClientLayer, Code, Context, ContextLayer, Error, ReplyReserve};
use tower::{Layer, ServiceExt, service_fn};

const NAME: HeaderName = HeaderName::from_static("x-timeout-ms");

fn client() -> ClientLayer {
    ClientLayer::internal().timeout_header_ms(NAME)
}

/// The headers that a callee gets.
async fn sent(layer: ClientLayer, ctx: &Context, mut request: Request<()>) -> Result<HeaderMap, Error> {
    let callee = service_fn(async |request: Request<()>| {
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.headers_mut() = request.headers().clone();
        Ok::<_, Infallible>(response)
    });
    request.extensions_mut().insert(ctx.clone());
    Ok(layer.layer(callee).oneshot(request).await?.into_parts().0.headers)
}

fn get() -> Request<()> {
    Request::get("http://cards/7").body(()).unwrap()
}

fn with_header(name: &'static str, value: &'static str) -> Request<()> {
    Request::post("http://cards/7").header(name, value).body(()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_client_writes_the_time_left_less_the_reserve_in_whole_milliseconds() {
    for (left, reserve, written) in [
        (Duration::from_secs(2), ReplyReserve::DEFAULT, "1980"),
        (Duration::from_micros(10_999), ReplyReserve::DEFAULT, "5"),
        (Duration::from_micros(1_999), ReplyReserve::NONE, "1"),
        (Duration::from_secs(200 * 24 * 3600), ReplyReserve::NONE, "9999999999"),
    ] {
        let ctx = Context::background().with_timeout(left);
        let headers = sent(client().reserve(reserve), &ctx, get()).await.unwrap();
        assert_eq!(headers[NAME], written, "{left:?}");
        assert!(!headers.contains_key("grpc-timeout"), "{headers:?}");
    }
    let headers = sent(client(), &Context::background(), get()).await.unwrap();
    assert!(!headers.contains_key(NAME), "a context without a deadline has no timeout");
}

#[tokio::test(start_paused = true)]
async fn a_call_with_less_than_a_millisecond_is_not_sent() {
    let ctx = Context::background().with_timeout(Duration::from_micros(999));
    let error = sent(client().reserve(ReplyReserve::NONE), &ctx, get()).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_timeout_of_the_request_stays_and_a_longer_or_malformed_one_is_replaced() {
    let ctx = Context::background().with_timeout(Duration::from_secs(2));
    for (given, written) in [("1000", "1000"), ("1981", "1980"), ("soon", "1980"), ("-1", "1980"), ("1.5", "1980")] {
        let headers = sent(client(), &ctx, with_header("x-timeout-ms", given)).await.unwrap();
        assert_eq!(headers.get_all(NAME).iter().collect::<Vec<_>>(), [written], "{given}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_protocols_keep_their_own_header_and_external_hosts_get_none() {
    let ctx = Context::background().with_timeout(Duration::from_secs(2));
    for (layer, name, value, kept) in [
        (client(), "content-type", "application/grpc", Some("grpc-timeout")),
        (client(), "connect-protocol-version", "1", Some("connect-timeout-ms")),
        (ClientLayer::external().timeout_header_ms(NAME), "x-timeout-ms", "1", None),
    ] {
        let headers = sent(layer, &ctx, with_header(name, value)).await.unwrap();
        let timeouts: Vec<_> = headers.keys().filter(|name| name.as_str().contains("timeout")).collect();
        assert_eq!(timeouts, Vec::from_iter(kept), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_choice_of_a_header_counts() {
    let ctx = Context::background().with_timeout(Duration::from_secs(2));
    let layer = client().timeout_header(HeaderName::from_static("x-time-left"));
    let headers = sent(layer.clone(), &ctx, get()).await.unwrap();
    assert_eq!((headers.get(NAME), &headers["x-time-left"]), (None, &"1980000u".parse().unwrap()));
    let headers = sent(layer.timeout_header_ms(NAME), &ctx, get()).await.unwrap();
    assert_eq!((headers.get("x-time-left"), &headers[NAME]), (None, &"1980".parse().unwrap()));
}

/// The time that a handler has, and whether the layer counted a malformed header.
async fn left(layer: &ContextLayer, headers: &[(&str, &str)]) -> (u16, Option<Duration>) {
    let handler = service_fn(async |request: Request<()>| {
        let mut response = Response::new(Full::new(Bytes::new()));
        let left = request.extensions().get::<Context>().unwrap().remaining();
        response.extensions_mut().insert(left);
        Ok::<_, Infallible>(response)
    });
    let mut request = Request::get("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = layer.layer(handler).oneshot(request.body(()).unwrap()).await.unwrap();
    (response.status().as_u16(), response.extensions().get::<Option<Duration>>().copied().flatten())
}

#[tokio::test(start_paused = true)]
async fn the_server_reads_milliseconds_and_the_smallest_timeout_counts() {
    let layer = ContextLayer::internal()
        .timeout_header(HeaderName::from_static("x-time-left"))
        .timeout_header_ms(NAME)
        .max_timeout(Duration::from_secs(60));
    let ms = |ms| Some(Duration::from_millis(ms));
    for (headers, expected) in [
        (&[][..], (200, ms(60_000))),
        (&[("x-timeout-ms", "250")], (200, ms(250))),
        (&[("x-timeout-ms", "250"), ("x-timeout-ms", "240")], (200, ms(240))),
        (&[("x-timeout-ms", "250"), ("grpc-timeout", "200m")], (200, ms(200))),
        (&[("x-timeout-ms", "250"), ("x-time-left", "100m")], (200, ms(100))),
        (&[("x-timeout-ms", "9999999999")], (200, ms(60_000))),
        (&[("x-timeout-ms", "0")], (504, None)),
    ] {
        assert_eq!(left(&layer, headers).await, expected, "{headers:?}");
    }
    assert_eq!(layer.dropped_context().deadlines, 0);
    for (index, malformed) in ["", "-1", "+1", "1.0", "250m", "10000000000", "0x10", "1e3", "1 000"].iter().enumerate()
    {
        let (status, left) = left(&layer, &[("x-timeout-ms", malformed)]).await;
        assert_eq!((status, left), (200, ms(60_000)), "{malformed}");
        assert_eq!(layer.dropped_context().deadlines, index as u64 + 1, "{malformed}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_untrusted_clients_milliseconds_only_shorten_the_edges_timeout() {
    let layer = ContextLayer::edge().timeout_header_ms(NAME);
    for (value, expected) in [("250", Duration::from_millis(250)), ("9999999999", ContextLayer::EDGE_TIMEOUT)] {
        assert_eq!(left(&layer, &[("x-timeout-ms", value)]).await.1, Some(expected));
    }
}
