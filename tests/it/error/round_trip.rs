//! Every error arrives complete, over HTTP and gRPC.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample;
use serde_json::{Map, Value};
use throughline::{Code, Error};

use super::properties::{self as hold, content};

/// JSON that is small enough to be sent whole.
///
/// Without floats: `serde_json` reads them to within one unit in the last place.
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
        code in sample::select(&Code::ALL[..]),
        message in ".{1,60}",
        retryable in option::of(any::<bool>()),
        wait in option::of(0..=longest),
        details in vec((any::<bool>(), "[a-z./]{1,20}", vec((".{0,6}", json()), 0..3)), 0..2),
        fields in vec((".{0,6}", ".{0,6}"), 0..3),
        problem in option::of((".{1,20}", ".{1,20}", ".{1,20}")),
        path in vec(".{1,6}", 0..=16),
    ) -> Error {
        let mut error = Error::new(code, message);
        if let Some(retryable) = retryable {
            error = error.with_retryable(retryable);
        }
        if let Some(wait) = wait {
            error = error.with_retry_after(unit * wait);
        }
        for (is_public, type_url, members) in details {
            let members = members.into_iter().collect::<Map<_, _>>();
            error = match is_public {
                true => error.with_public_detail(&type_url, members),
                false => error.with_detail(&type_url, members),
            };
        }
        error = fields.iter().fold(error, |error, (field, why)| error.with_field_violation(field, why));
        if let Some((kind, title, instance)) = problem {
            error = error.with_problem_type(kind).with_title(title).with_instance(instance);
        }
        path.iter().fold(error, |error, service| error.through_service(Some(service)))
    }
}

proptest! {
    #[test]
    fn an_error_is_the_same_behind_http(error in error(Duration::from_secs(1), 3600)) {
        let sent = error.to_response();
        let read = Error::from_response(sent.status(), sent.headers(), sent.body()).unwrap();
        prop_assert_eq!((content(&read), read.retry_after()), (content(&error), error.retry_after()));
    }

    #[test]
    fn any_response_is_read_within_bounds_and_can_be_redacted(status in "[0-9]{3}", wait in ".{0,12}|[0-9]{1,20}", body in vec(any::<u8>(), 0..200)) {
        hold::problem(&[status.as_bytes(), b"\n", wait.as_bytes(), b"\n", &body].concat());
    }

    #[test]
    fn any_document_is_read(members in vec((prop_oneof![
        Just("code"), Just("detail"), Just("retryable"), Just("origin"), Just("path"), Just("details"), Just("status"),
        Just("type"), Just("title"), Just("instance"),
    ], json()), 0..8)) {
        let document = Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        super::received(503, &document);
        hold::problem(format!("503\n7\n{document}").as_bytes());
    }
}

#[cfg(all(feature = "tonic", feature = "otlp"))]
proptest! {
    #[test]
    fn an_error_is_the_same_behind_grpc(error in error(Duration::from_nanos(1_000_001), 3_599_000)) {
        let status = tonic::Status::from(error.clone());
        let read = Error::from_grpc_status(super::grpc::sent(&status));
        prop_assert_eq!((content(&read), read.retry_after()), (content(&error), error.retry_after()));
    }

    #[test]
    fn any_status_is_read_within_bounds_and_can_be_redacted(code in any::<u8>(), details in vec(any::<u8>(), 0..200), pieces in vec(sample::select(PIECES), 0..8)) {
        hold::grpc_details(&[&[code], &details[..]].concat());
        hold::grpc_details(&[&[code], &pieces.concat()[..]].concat());
    }
}

#[cfg(all(feature = "tonic", feature = "otlp"))]
proptest! {
    #[test]
    fn any_trailers_are_read_through_the_client_layer(code in "[0-9]{0,3}", message in "[ -~\u{80}-\u{ff}]{0,20}", pushback in "-?[0-9]{0,20}", details in "[A-Za-z0-9+/]{0,40}={0,2}|.{0,9}") {
        hold::grpc_trailers(format!("grpc-status: {code}\ngrpc-message: {message}\ngrpc-retry-pushback-ms: {pushback}\ngrpc-status-details-bin: {details}").as_bytes());
    }
}

/// Of `google.rpc.Status` with an `ErrorInfo`.
#[cfg(all(feature = "tonic", feature = "otlp"))]
const PIECES: &[&[u8]] = &[
    b"\x1a\x50\x0a\x28type.googleapis.com/google.rpc.ErrorInfo\x12",
    b"\x24\x0a\x01X\x12\x0bthroughline",
    b"\x1a\x12\x0a\x06origin\x12\x08balances",
    b"\x1a\x0d\x0a\x04path\x12\x05[\"a\"]",
    b"\x1a\x33\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12\x07\x0a\x05\x08\xff\xff\xff\x0f",
    b"\x08\x0e\x12\x05again",
];
