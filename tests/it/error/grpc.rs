//! `Error` as a gRPC status.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use serde_json::json;
use throughline::{ClientLayer, Code, Context, Error, FutureExt};
use tonic::Status;
use tonic::body::Body;
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Layer, service_fn};

/// The headers or trailers that report the status.
fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).unwrap();
    trailers
}

/// The status as the peer reads it.
pub(super) fn sent(status: &Status) -> Status {
    Status::from_header_map(&trailers(status)).unwrap()
}

fn back(error: Error) -> Error {
    Error::from_grpc_status(sent(&error.into()))
}

#[test]
fn every_code_has_its_number() {
    for code in Code::ALL {
        let status = Status::from(Error::new(code, "why"));
        assert_eq!(trailers(&status)["grpc-status"], code.grpc_number().to_string().as_str());
        assert_eq!(back(Error::new(code, "why")).code(), code);
    }
    assert_eq!(Error::from_grpc_status(Status::ok("fine")).code(), Code::Unknown);
}

#[test]
fn the_status_has_error_info_and_retry_info() {
    let detail = [("shard".to_owned(), json!(3))].into_iter().collect();
    let error = Error::new(Code::Unavailable, "restarting")
        .with_retryable(true)
        .with_retry_after(Duration::from_micros(1_500_001))
        .with_detail("example.com/Shard", detail)
        .through_service(Some("balance"))
        .through_service(Some("cards"));
    let status = sent(&error.into());
    assert_eq!(trailers(&status)["grpc-retry-pushback-ms"], "1501");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("UNAVAILABLE", "throughline"));
    let metadata = |name: &str| info.metadata.get(name).map(String::as_str);
    assert_eq!(metadata("origin"), Some("balance"));
    assert_eq!(metadata("path"), Some(r#"["balance","cards"]"#));
    assert_eq!(metadata("retryable"), Some("true"));
    assert_eq!(metadata("details"), Some(r#"[{"@type":"example.com/Shard","shard":3}]"#));
    assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_micros(1_500_001)));
}

#[test]
fn a_status_with_only_a_code_and_a_message_has_no_details() {
    let headers = trailers(&Error::new(Code::NotFound, "no such card").into());
    assert_eq!(headers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["grpc-status", "grpc-message"]);
}

#[test]
fn pushback_is_read_and_written() {
    let written = |error: Error| {
        trailers(&error.into()).get("grpc-retry-pushback-ms").map(|value| value.to_str().unwrap().to_owned())
    };
    let error = || Error::new(Code::Unavailable, "restarting");
    assert_eq!(written(error()), None);
    assert_eq!(written(error().with_retryable(true)), None);
    assert_eq!(written(error().with_retryable(false).with_retry_after(Duration::from_secs(1))), Some("-1".into()));
    assert_eq!(written(error().with_retry_after(Duration::MAX)), Some(i32::MAX.to_string()));

    for read in [Error::from_grpc_status, Error::from_external_grpc_status] {
        let pushed = |value: &str| {
            let mut status = Status::unavailable("restarting");
            status.metadata_mut().insert("grpc-retry-pushback-ms", value.parse().unwrap());
            let error = read(status);
            (error.retryable(), error.retry_after())
        };
        assert_eq!(pushed("250"), (None, Some(Duration::from_millis(250))));
        assert_eq!(pushed("4000000000"), (None, Some(Duration::from_secs(3600))));
        for none in ["-1", "", "soon", "99999999999999999999"] {
            assert_eq!(pushed(none), (Some(false), None), "{none}");
        }
    }
}

#[test]
fn the_largest_status_fits_into_8_kib_of_headers() {
    let large = [("text".to_owned(), json!("\u{1}".repeat(70_000)))].into_iter().collect();
    let mut error = Error::new(Code::Unavailable, "é".repeat(100_000)).with_detail("example.com/Large", large);
    let size = |error: &Error| {
        trailers(&error.clone().into())
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum::<usize>()
    };
    assert!(size(&error) <= 8192);
    for hop in 0..16 {
        error = error.through_service(Some(&format!("{hop}{}", "\u{2}".repeat(300))));
    }
    assert!(size(&error) <= 8192);
    let read = back(error.clone());
    assert_eq!((read.code(), read.message()), (Code::Unavailable, &error.message()[..1024]));
    assert_eq!((read.origin(), read.path().len(), read.details().len()), (error.origin(), 1, 0));
}

#[test]
fn hostile_details_are_ignored() {
    let of = |metadata: &[(&str, &str)], domain: &str| {
        let metadata: HashMap<_, _> =
            metadata.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        let details = ErrorDetails::with_error_info("X", domain, metadata);
        Error::from_grpc_status(sent(&Status::with_error_details(tonic::Code::Aborted, "again", details)))
    };
    let deep = "[".repeat(10_000);
    let long = json!(vec!["s"; 1000]).to_string();
    let odd = of(
        &[("path", &deep), ("details", "[1,{\"a\":1}]"), ("retryable", "yes"), ("code", "OK"), ("x", "1")],
        "throughline",
    );
    assert_eq!((odd.code(), odd.message(), odd.retryable()), (Code::Aborted, "again", None));
    assert_eq!((odd.path().len(), odd.details()), (0, &[][..]));
    assert_eq!(of(&[("path", &long)], "throughline").path().len(), 16);
    assert_eq!(of(&[("origin", "balance"), ("retryable", "true")], "example.com").retryable(), None);

    for bytes in [&b"\xff\xff\xff\xff\xff"[..], &[0x1a; 4096], b"\x1a\x7f", &vec![0; 100_000]] {
        let status = Status::with_details(tonic::Code::Aborted, "again", bytes.to_vec().into());
        let error = Error::from_grpc_status(sent(&status));
        assert_eq!((error.code(), error.message()), (Code::Aborted, "again"));
    }
}

#[test]
fn only_the_code_and_the_wait_of_an_external_status_are_read() {
    let error = Error::new(Code::Unavailable, "row 7")
        .with_retry_after(Duration::from_millis(20))
        .through_service(Some("balance"));
    let read = Error::from_external_grpc_status(sent(&error.into()));
    assert_eq!((read.code(), read.message(), read.origin()), (Code::Unavailable, "unavailable", None));
    assert_eq!(read.retry_after(), Some(Duration::from_millis(20)));
    assert!(!format!("{:?}", trailers(&read.into())).contains("row 7"), "its message stays in this process");
}

#[test]
fn a_status_made_in_this_process_is_the_error_it_was_made_from() {
    let error = Error::wrap(Code::Internal, io::Error::other("password=hunter2"));
    let status = Status::from(error);
    assert!(!format!("{:?}", trailers(&status)).contains("hunter2"));
    assert!(format!("{:#}", Error::from_grpc_status(status)).contains("hunter2"));

    let failure = Status::from_error(Box::new(io::Error::other("connection refused")));
    let error = Error::from_grpc_status(failure);
    assert_eq!((error.code(), error.message()), (Code::Unknown, "unknown error"));
    assert!(format!("{:#}", error.through_service(Some("cards"))).contains("connection refused"));
}

/// The error of a tonic client under `ctx`, whose service sends `response`.
async fn call_with_response(ctx: Context, response: Response<Body>) -> Error {
    let mut response = Some(response);
    let service = service_fn(move |_: Request<Body>| std::future::ready(Ok::<_, Infallible>(response.take().unwrap())));
    let mut client = TraceServiceClient::new(ClientLayer::internal().layer(service));
    let response: Result<tonic::Response<ExportTraceServiceResponse>, Status> =
        client.export(ExportTraceServiceRequest::default()).with_context(&ctx).await;
    Error::from_grpc_status(response.unwrap_err())
}

/// The same for a service that responds with `error`.
async fn call(ctx: Context, error: Error) -> Error {
    call_with_response(ctx, Status::from(error).into_http()).await
}

#[tokio::test]
async fn details_that_are_not_base64_do_not_fail_the_status() {
    for details in ["!", "=", "a", "AAAA=", "\u{e9}", "A A="] {
        let mut head = Response::builder().header("content-type", "application/grpc");
        let mut trailers = HeaderMap::new();
        for (name, value) in [("grpc-status", "10"), ("grpc-message", "again"), ("grpc-status-details-bin", details)] {
            trailers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let late = Response::builder().header("content-type", "application/grpc");
        head.headers_mut().unwrap().extend(trailers.clone());
        let trailers =
            StreamBody::new(futures_util::stream::iter([Ok::<_, Status>(Frame::<Bytes>::trailers(trailers))]));
        for response in [head.body(Body::empty()).unwrap(), late.body(Body::new(trailers)).unwrap()] {
            let error = call_with_response(Context::background(), response).await;
            assert_eq!((error.code(), error.message()), (Code::Aborted, "again"), "{details}");
        }
    }
}

#[tokio::test]
async fn a_tonic_client_gets_the_error_of_the_service_or_of_its_own_context() {
    let own = Error::new(Code::Aborted, "again").with_retryable(true).through_service(Some("cards"));
    let error = call(Context::background(), own).await;
    assert_eq!((error.code(), error.message(), error.origin()), (Code::Aborted, "again", Some("cards")));
    assert_eq!(error.through_service(Some("api")).code(), Code::Internal);

    let late = Context::background().with_timeout(Duration::ZERO);
    let error = call(late, Error::new(Code::Aborted, "again")).await;
    assert_eq!(error.code(), Code::DeadlineExceeded);
}
