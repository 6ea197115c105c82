//! Errors of services that do not use this library.

use std::error::Error as _;

use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use throughline::{Code, ContextError, Error, SharedError};

fn response(status: u16, media_type: &str, body: impl AsRef<[u8]>) -> Error {
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, media_type.parse().unwrap())]);
    Error::from_response(StatusCode::from_u16(status).unwrap(), &headers, body.as_ref())
        .expect("the status is an error")
}

#[test]
fn json_and_text_bodies_are_kept_and_never_passed_on() {
    for media_type in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"] {
        let error = response(402, media_type, r#"{"decline_code":"expired","code":"NOT_FOUND"}"#);
        assert_eq!((error.code(), error.message()), (Code::FailedPrecondition, "failed precondition"));
        assert_eq!(error.received(), Some(&json!({"decline_code": "expired", "code": "NOT_FOUND"})));
        let sent = String::from_utf8(error.through_service(Some("api")).to_response().body().to_vec()).unwrap();
        assert!(!sent.contains("expired"), "{sent}");
    }
    assert_eq!(response(503, "text/plain", "db is down").received(), Some(&json!("db is down")));
    assert_eq!(response(503, "text/html", b"<p>\xff").received(), Some(&json!("<p>\u{fffd}")));
}

#[test]
fn the_kept_part_of_a_body_is_bounded() {
    let kept = |error: Error| error.received().cloned();
    let text = kept(response(500, "text/plain", "é".repeat(5000))).unwrap();
    assert!(text.as_str().unwrap().len() <= 4096);
    assert_eq!(kept(response(500, "text/plain", "x".repeat(64 * 1024 + 1))), None);
    assert_eq!(kept(response(500, "text/plain", "")), None);
    assert_eq!(kept(response(500, "application/octet-stream", "x")), None);
    assert_eq!(kept(response(500, "application/json", "{")), None);
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(kept(response(500, "application/json", deep)), None);
}

#[test]
fn the_members_of_a_foreign_problem_document_are_kept() {
    const PROBLEM: &str = "application/problem+json";
    let document = json!({
        "type": "https://example.com/probs/out-of-credit", "title": "You do not have enough credit.", "status": 403,
        "detail": "Your balance is 30.", "instance": "/account/12345", "balance": 30, "code": "out_of_credit",
        "details": ["one", {"@type": "example.com/Credit", "missing": 20}],
    });
    let error = response(403, PROBLEM, document.to_string());
    assert_eq!((error.code(), error.message()), (Code::PermissionDenied, "Your balance is 30."));
    assert_eq!(error.details()[0]["missing"], 20);
    assert_eq!(error.problem_type(), Some("https://example.com/probs/out-of-credit"));
    assert_eq!((error.title(), error.instance()), (Some("You do not have enough credit."), Some("/account/12345")));
    let rest = json!({"balance": 30, "code": "out_of_credit", "details": ["one"]});
    assert_eq!(error.received(), Some(&rest));

    let detail = [("missing".to_owned(), json!(20))].into_iter().collect();
    let own = Error::new(Code::Aborted, "again").with_retryable(true).with_detail("example.com/Credit", detail);
    let sent = own.through_service(Some("cards")).to_response();
    let read = Error::from_response(sent.status(), sent.headers(), sent.body()).unwrap();
    assert_eq!(read.received(), None, "other methods return all members of this library");
    let other = json!({"type": 7, "title": ["x"], "status": "x", "path": [], "retryable": "yes"});
    let error = response(503, PROBLEM, other.to_string());
    assert_eq!((error.code(), error.retryable(), error.origin()), (Code::Unavailable, None, None));
    assert_eq!(error.received().unwrap()["retryable"], "yes");
}

#[cfg(all(feature = "tonic", feature = "otlp"))]
mod grpc {
    use std::collections::HashMap;
    use std::time::Duration;

    use tonic::Status;
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn foreign() -> Status {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("amount", "must be positive");
        details.set_error_info("LIMIT", "limits.example.com", HashMap::from([("limit".to_owned(), "7".to_owned())]));
        details.set_retry_info(Some(Duration::from_secs(2)));
        details.add_precondition_failure_violation("TOS", "user:7", "not accepted");
        details.add_quota_failure_violation("user:7", "7 a day");
        details.set_request_info("r-1", "shard 3");
        details.set_resource_info("card", "cards/7", "", "expired");
        details.add_help_link("docs", "https://example.com");
        details.set_localized_message("de", "Betrag");
        details.set_debug_info(vec!["main.go:7".to_owned()], "boom");
        let status = Status::with_error_details(tonic::Code::InvalidArgument, "invalid", details);
        super::super::grpc::sent(&status)
    }

    fn by_name<'a>(
        details: impl IntoIterator<Item = &'a serde_json::Map<String, Value>>,
    ) -> HashMap<String, &'a Value> {
        let name = |kind: &Value| kind.as_str().unwrap().rsplit('.').next().unwrap().to_owned();
        let detail = |detail: &'a serde_json::Map<String, Value>| {
            let value = detail.iter().find(|(name, _)| *name != "@type").unwrap().1;
            (name(&detail["@type"]), value)
        };
        details.into_iter().map(detail).collect()
    }

    #[test]
    fn the_standard_details_of_a_foreign_status_are_kept() {
        let error = Error::from_grpc_status(foreign());
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "invalid"));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
        let info = error.details().iter().find(|detail| detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo");
        let info = info.unwrap();
        assert_eq!((&info["reason"], &info["domain"]), (&json!("LIMIT"), &json!("limits.example.com")));
        assert_eq!(info["metadata"], json!({"limit": "7"}));
        let details = by_name(error.details());
        assert_eq!(details["BadRequest"], &json!([{"field": "amount", "description": "must be positive"}]));
        assert_eq!(details.len(), 8, "{details:?}");
        // An error that is passed on keeps the details, but no stack trace.
        let again = Error::from_grpc_status(super::super::grpc::sent(&error.clone().preserve_code().into()));
        assert_eq!(again.details(), error.details());
        assert!(error.received().unwrap().to_string().contains("main.go:7"));
        assert!(!format!("{:?}", again.details()).contains("main.go"));
    }

    #[test]
    fn the_details_of_an_external_status_are_readable_and_not_trusted() {
        let error = Error::from_external_grpc_status(foreign());
        assert_eq!(
            (error.code(), error.message(), error.details().len()),
            (Code::InvalidArgument, "invalid argument", 0)
        );
        let received = error.received().unwrap();
        assert_eq!(received["message"], "invalid");
        assert_eq!(received["details"].as_array().unwrap().len(), 9);
        let sent = Status::from(error);
        assert!(!format!("{:?} {:?}", sent.message(), sent.details()).contains("invalid\""));
        assert!(sent.get_error_details().bad_request().is_none());
    }
}

#[tokio::test]
async fn a_status_that_reqwest_reports_is_the_callees_error() {
    let response = http::Response::builder().status(401).body("").expect("the parts are valid");
    let error = reqwest::Response::from(response).error_for_status().expect_err("a 401 is an error");
    let error = Error::from(error);
    assert_eq!(error.code(), Code::Unauthenticated);
    assert_eq!(error.clone().through_service(Some("api")).code(), Code::Internal);
    assert_eq!(error.preserve_code().through_service(Some("api")).code(), Code::Unauthenticated);
}

#[tokio::test]
async fn the_ends_of_tasks_and_of_groups_convert() {
    let panicked = tokio::spawn(async { panic!("a task") }).await.expect_err("it panics");
    assert_eq!(Error::from(panicked).code(), Code::Internal);

    let own = SharedError::from(Error::new(Code::NotFound, "no such card"));
    assert_eq!(Error::from(own).code(), Code::NotFound);
    let done = SharedError::from(ContextError::DeadlineExceeded);
    assert_eq!(Error::from(done).code(), Code::DeadlineExceeded);
    let other = Error::from(SharedError::from("the disk is full"));
    assert_eq!((other.code(), other.message()), (Code::Internal, "internal error"));
    assert_eq!(other.source().map(ToString::to_string).as_deref(), Some("the disk is full"));
}
