//! `Error` and `Code`, in the process and as problem documents.

mod crossing;
mod foreign;
#[cfg(all(feature = "tonic", feature = "otlp"))]
mod grpc;
mod limits;
mod properties;
mod public;
mod round_trip;

use std::io;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use throughline::{Cause, Code, Context, ContextError, Error, Group};

const PROBLEM: &str = "application/problem+json; charset=utf-8";

fn received(status: u16, document: &Value) -> Error {
    received_bytes(status, document.to_string().as_bytes())
}

fn received_bytes(status: u16, body: &[u8]) -> Error {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, PROBLEM.parse().unwrap());
    Error::from_response(StatusCode::from_u16(status).unwrap(), &headers, body).expect("the status is one of an error")
}

#[test]
fn every_code_survives_the_wire() {
    for code in Code::ALL {
        let sent = Error::new(code, "why").with_retryable(false).to_response();
        let read = Error::from_response(sent.status(), sent.headers(), sent.body()).expect("an error");
        assert_eq!((read.code(), read.message(), read.retryable()), (code, "why", Some(false)));
        assert_eq!(code.as_str().parse(), Ok(code));
        assert_eq!(Code::from_grpc_number(code.grpc_number()), Some(code));
    }
}

#[test]
fn codes_have_the_http_statuses_of_the_table() {
    let status = |code: Code| code.http_status().as_u16();
    let table = [499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
    assert_eq!(Code::ALL.map(status), table);
}

#[test]
fn only_unavailable_is_retryable_where_the_service_says_nothing() {
    let retryable: Vec<_> = Code::ALL.into_iter().filter(|code| code.is_retryable()).collect();
    assert_eq!(retryable, [Code::Unavailable]);
    assert_eq!(Error::new(Code::Unavailable, "restarting").retryable(), None, "the code says nothing on the wire");
}

#[test]
fn responses_without_a_code_have_the_codes_of_the_table() {
    let plain = |status: u16| Code::from_http_status(StatusCode::from_u16(status).unwrap());
    use Code::*;
    for (status, code) in [
        (400, InvalidArgument),
        (401, Unauthenticated),
        (403, PermissionDenied),
        (404, NotFound),
        (408, DeadlineExceeded),
        (409, Aborted),
        (410, FailedPrecondition),
        (429, ResourceExhausted),
        (499, Cancelled),
        (500, Internal),
        (501, Unimplemented),
        (502, Unavailable),
        (503, Unavailable),
        (504, DeadlineExceeded),
        (599, Internal),
    ] {
        assert_eq!(plain(status), Some(code), "{status}");
    }
    assert_eq!([plain(200), plain(204), plain(304)], [None; 3]);
    let grpc = |status: u16| Code::from_http_status_of_grpc(StatusCode::from_u16(status).unwrap());
    assert_eq!([grpc(400), grpc(431)], [Internal, Unknown]);
    assert_eq!([429, 502, 503, 504].map(grpc), [Unavailable; 4]);
    assert_eq!([401, 403, 404, 500].map(grpc), [Unauthenticated, PermissionDenied, Unimplemented, Unknown]);
}

#[test]
fn the_document_has_the_members_of_rfc_9457_and_of_this_library() {
    let detail = [("shard".to_owned(), json!(3))].into_iter().collect();
    let error = Error::new(Code::Unavailable, "restarting")
        .with_retryable(true)
        .with_retry_after(Duration::from_millis(1500))
        .with_detail("example.com/Shard", detail);
    let response = error.to_response();
    let document: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(
        document,
        json!({
            "type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": "restarting",
            "code": "UNAVAILABLE", "retryable": true, "details": [{"@type": "example.com/Shard", "shard": 3}],
        })
    );
    assert_eq!(response.headers()[header::RETRY_AFTER], "2", "rounded up");
    let read = Error::from_response(response.status(), response.headers(), response.body()).unwrap();
    assert_eq!(read.retry_after(), Some(Duration::from_secs(2)));
    assert_eq!(read.details(), error.details());
}

#[test]
fn a_malformed_problem_document_counts_for_its_status_alone() {
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let large = json!({"code": "NOT_FOUND", "detail": "x".repeat(70_000)}).to_string();
    for body in ["", "null", "[1]", "{\"code\":", "\u{feff}{}", &deep, &large] {
        let error = received_bytes(503, body.as_bytes());
        assert_eq!((error.code(), error.message()), (Code::Unavailable, "unavailable"));
    }
    let odd = json!({"code": 7, "detail": ["x"], "retryable": "yes", "path": "balance", "origin": 1, "details": [1, {"a": 1}]});
    let error = received(400, &odd);
    assert_eq!((error.code(), error.message(), error.retryable()), (Code::InvalidArgument, "invalid argument", None));
    assert_eq!((error.origin(), error.details()), (None, &[][..]));
}

#[test]
fn values_from_a_peer_are_bounded() {
    let error = received(500, &json!({"path": vec!["s"; 1000], "detail": "é".repeat(5000)}));
    assert_eq!(error.path().len(), 16);
    assert!(error.message().len() <= 4096);
    let mut headers = HeaderMap::new();
    headers.insert(header::RETRY_AFTER, "99999999999".parse().unwrap());
    let retry =
        |headers: &HeaderMap| Error::from_status(StatusCode::SERVICE_UNAVAILABLE, headers).unwrap().retry_after();
    assert_eq!(retry(&headers), Some(Duration::from_secs(3600)));
    headers.insert(header::RETRY_AFTER, "Wed, 21 Oct 2015 07:28:00 GMT".parse().unwrap());
    assert_eq!(retry(&headers), Some(Duration::ZERO));
    headers.insert(header::RETRY_AFTER, "-1".parse().unwrap());
    assert_eq!(retry(&headers), None);
}

#[test]
fn a_source_stays_in_the_process() {
    let error = Error::wrap(Code::Internal, io::Error::other("password=hunter2"));
    assert!(!error.to_string().contains("hunter2"), "only source() returns it");
    assert_eq!(format!("{error:#}"), "INTERNAL: internal error: password=hunter2");
    assert!(!String::from_utf8_lossy(error.to_response().body()).contains("hunter2"));
}

#[test]
fn the_error_of_a_context_has_its_cause() {
    let request = Context::background().with_cancel();
    request.cancel_with(Cause::Shutdown);
    let error = Error::from_context(&request);
    assert_eq!((error.code(), error.message()), (Code::Cancelled, "shutting down"));
    let ctx = Context::background().with_cancel().with_timeout(Duration::from_secs(1));
    let dropped = Error::from_context(&ctx);
    assert_eq!((dropped.code(), dropped.message()), (Code::Cancelled, "cancel handle dropped"));

    let request = Context::background().with_cancel();
    request.cancel_with(Error::new(Code::NotFound, "no such card"));
    let error = Error::from_context(&request);
    assert_eq!(error.code(), Code::Cancelled);
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Error>());
    assert_eq!(source.map(Error::code), Some(Code::NotFound));
}

#[test]
fn an_error_inside_an_io_error_comes_back_unchanged() {
    let error = Error::new(Code::NotFound, "no such card");
    let io = io::Error::from(error);
    assert_eq!(io.kind(), io::ErrorKind::NotFound);
    assert_eq!(Error::from(io).message(), "no such card");
    assert_eq!(Error::from(io::Error::from(io::ErrorKind::ConnectionRefused)).code(), Code::Unavailable);
}

#[test]
fn a_context_error_inside_an_io_error_keeps_its_code() {
    for (context_error, code) in
        [(ContextError::Canceled, Code::Cancelled), (ContextError::DeadlineExceeded, Code::DeadlineExceeded)]
    {
        for io in [io::Error::from(context_error), io::Error::other(context_error)] {
            let error = Error::from(io);
            assert_eq!((error.code(), error.message()), (code, Error::from(context_error).message()));
            let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
            assert_eq!(source.unwrap().to_string(), context_error.to_string());
        }
    }
}

#[test]
fn a_context_error_takes_the_cause_of_the_ambient_context() {
    let request = Context::background().with_cancel();
    let child = request.with_cancel();
    request.cancel_with(Error::new(Code::NotFound, "no such card"));
    let check = || -> Result<(), Error> { Ok(child.check()?) };
    let read = || -> Result<(), Error> { Ok(Err(io::Error::from(ContextError::Canceled))?) };
    for error in [request.enter(check).unwrap_err(), request.enter(read).unwrap_err()] {
        assert_eq!((error.code(), error.message()), (Code::Cancelled, "no such card"));
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Error>());
        assert_eq!(source.map(Error::code), Some(Code::NotFound));
    }
}

#[test]
fn a_context_error_of_another_context_takes_no_cause() {
    let late = Context::background().with_timeout(Duration::ZERO);
    let cancelled = Context::background().with_cancel();
    cancelled.cancel_with(Cause::Shutdown);
    for ambient in [Context::background(), Context::background().with_cancel().disarm(), cancelled.context().clone()] {
        let error = ambient.enter(|| Error::from(late.err().unwrap()));
        assert_eq!((error.code(), error.message()), (Code::DeadlineExceeded, "deadline exceeded"), "{ambient:?}");
    }
}

#[tokio::test]
async fn a_stopped_task_of_a_group_has_the_cause_of_its_stop() {
    let request = Context::background().with_cancel();
    let mut group: Group<Error> = Group::new(&request);
    let stopped = group.spawn(async |_| Ok(std::future::pending::<u8>().await));
    tokio::task::yield_now().await;
    request.cancel_with(Cause::ClientDisconnected);
    for error in [group.join().await.unwrap_err(), stopped.await.unwrap_err()] {
        assert_eq!((error.code(), error.message()), (Code::Cancelled, "client disconnected"));
    }
}
