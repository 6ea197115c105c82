//! The size of an error, and of what is sent or read of it, is bounded.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use throughline::{Code, Error};

use super::{received, received_bytes};

fn back(error: &Error) -> Error {
    let sent = error.to_response();
    Error::from_response(sent.status(), sent.headers(), sent.body()).expect("an error")
}

#[test]
fn an_error_is_one_pointer() {
    assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
}

#[test]
fn an_endless_wait_is_read_as_an_hour() {
    let error = Error::new(Code::Unavailable, "never").with_retry_after(Duration::MAX);
    assert_eq!(error.to_response().headers()[header::RETRY_AFTER], u64::MAX.to_string().as_str());
    assert_eq!(back(&error).retry_after(), Some(Duration::from_secs(3600)));
}

#[test]
fn details_that_are_too_large_to_read_are_not_sent_and_the_code_arrives() {
    let large = [("text".to_owned(), json!("x".repeat(70_000)))].into_iter().collect();
    let error = Error::new(Code::Aborted, "again").with_retryable(true).with_detail("example.com/Large", large);
    assert!(error.to_response().body().len() <= 64 * 1024);
    let read = back(&error);
    assert_eq!((read.code(), read.message(), read.retryable()), (Code::Aborted, "again", Some(true)));
    assert_eq!(read.details(), &[][..]);

    // The worst text: each byte becomes six.
    let mut error = Error::new(Code::Aborted, "\u{1}".repeat(1_000_000));
    for _ in 0..20 {
        error = error.through_service(Some(&"\u{2}".repeat(1_000_000)));
    }
    assert!(error.to_response().body().len() <= 64 * 1024);
    let read = back(&error);
    assert_eq!((read.code(), read.message().len()), (Code::Aborted, 4096));
    assert!(read.path().len() == 16 && read.path().all(|service| service.len() == 256));
}

#[test]
fn a_document_of_64_kib_is_read_and_one_byte_more_is_not() {
    let of = |len: usize| {
        let text = |pad: usize| json!({"code": "NOT_FOUND", "pad": "x".repeat(pad)}).to_string();
        text(len - text(0).len())
    };
    assert_eq!(received_bytes(503, of(64 * 1024).as_bytes()).code(), Code::NotFound);
    assert_eq!(received_bytes(503, of(64 * 1024 + 1).as_bytes()).code(), Code::Unavailable);
}

#[test]
fn duplicate_and_unknown_members_do_not_fail_a_document() {
    let twice =
        br#"{"code":"NOT_FOUND","code":"ABORTED","detail":"a","detail":"b","path":[],"path":["x"],"new":{"a":[1]}}"#;
    let error = received_bytes(500, twice);
    assert_eq!((error.code(), error.message(), error.origin()), (Code::Aborted, "b", Some("x")));
    let nested = format!(r#"{{"code":"ABORTED","new":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    assert_eq!(received_bytes(503, nested.as_bytes()).code(), Code::Unavailable);
    assert_eq!(received_bytes(503, b"{\"code\":\"ABORTED\",\"detail\":\"\xff\"}").code(), Code::Unavailable);
    assert_eq!(received(503, &json!({"code": "aborted"})).code(), Code::Unavailable, "names are upper-case");
}

#[test]
fn an_empty_detail_leaves_the_message_of_the_code() {
    let read = received(503, &json!({ "code": "UNAVAILABLE", "detail": "" }));
    assert_eq!(
        read.message(),
        Error::from_status(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new()).unwrap().message()
    );
}

#[test]
fn only_a_problem_document_is_read() {
    let mut headers = HeaderMap::new();
    let body = br#"{"code":"NOT_FOUND"}"#;
    let read = |headers: &HeaderMap| Error::from_response(StatusCode::CONFLICT, headers, body).unwrap().code();
    assert_eq!(read(&headers), Code::Aborted);
    headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    assert_eq!(read(&headers), Code::Aborted);
    headers.insert(header::CONTENT_TYPE, "Application/Problem+JSON ; charset=utf-8".parse().unwrap());
    assert_eq!(read(&headers), Code::NotFound);
}
