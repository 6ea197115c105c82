//! What any error says arrives, by every way.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value};
use throughline::{Code, Error};

/// Small enough that nothing of an error is left out on its way. Without floats: `serde_json` reads them to within one unit in the
/// last place.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 2, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec((".{0,6}", inner), 0..3).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

prop_compose! {
    /// An error that has crossed up to 16 services, with a wait of so many units.
    fn error(unit: Duration, longest: u32)(
        code in proptest::sample::select(&Code::ALL[..]),
        message in ".{1,60}",
        retryable in option::of(any::<bool>()),
        wait in option::of(0..=longest),
        details in vec(("[a-z./]{1,20}", vec((".{0,6}", json()), 0..3)), 0..2),
        path in vec(".{1,6}", 0..=16),
    ) -> Error {
        let mut error = Error::new(code, message);
        if let Some(retryable) = retryable {
            error = error.with_retryable(retryable);
        }
        if let Some(wait) = wait {
            error = error.with_retry_after(unit * wait);
        }
        for (type_url, members) in details {
            error = error.with_detail(&type_url, members.into_iter().collect::<Map<_, _>>());
        }
        path.iter().fold(error, |error, service| error.leaving(Some(service)))
    }
}

/// All that a peer is told.
fn said(error: &Error) -> impl PartialEq + std::fmt::Debug {
    (
        (error.code(), error.message().to_owned(), error.origin().map(str::to_owned)),
        error.path().map(str::to_owned).collect::<Vec<_>>(),
        (error.retryable(), error.retry_after()),
        error.details().to_vec(),
    )
}

proptest! {
    #[test]
    fn an_error_is_the_same_behind_http(error in error(Duration::from_secs(1), 3600)) {
        let sent = error.to_response();
        let read = Error::from_response(sent.status(), sent.headers(), sent.body()).unwrap();
        prop_assert_eq!(said(&read), said(&error));
    }

    #[test]
    fn any_answer_is_read(status in 100u16..1000, content_type in "(application/problem\\+json)?.{0,4}", body in vec(any::<u8>(), 0..200)) {
        let mut headers = http::HeaderMap::new();
        if let Ok(value) = content_type.parse() {
            headers.insert(http::header::CONTENT_TYPE, value);
        }
        let status = http::StatusCode::from_u16(status).unwrap();
        prop_assert_eq!(Error::from_response(status, &headers, &body).is_some(), status.as_u16() >= 400);
    }

    #[test]
    fn any_document_is_read(members in vec((prop_oneof![
        Just("code"), Just("detail"), Just("retryable"), Just("origin"), Just("path"), Just("details"), Just("status"),
    ], json()), 0..8)) {
        let document = Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        super::received(503, &document);
    }
}

#[cfg(all(feature = "tonic", feature = "otlp"))]
proptest! {
    #[test]
    fn an_error_is_the_same_behind_grpc(error in error(Duration::from_nanos(1_000_001), 3_599_000)) {
        let status = tonic::Status::from(error.clone());
        let read = Error::from_grpc_status(super::grpc::sent(&status));
        prop_assert_eq!(said(&read), said(&error));
    }

    #[test]
    fn any_status_is_read(code in any::<i32>(), message in ".{0,40}", details in vec(any::<u8>(), 0..200)) {
        let status = tonic::Status::with_details(tonic::Code::from_i32(code), message, details.into());
        let error = Error::from_grpc_status(status.clone());
        prop_assert_eq!(error.code(), Error::from_external_grpc_status(status).code());
    }
}
