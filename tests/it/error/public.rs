//! What a service may show to untrusted clients, and what an edge keeps of it.

use http::{HeaderValue, header};
use serde_json::{Map, Value, json};
use throughline::{Code, Error};

fn object(name: &str, value: impl Into<Value>) -> Map<String, Value> {
    Map::from_iter([(name.to_owned(), value.into())])
}

fn back(error: &Error) -> Error {
    let sent = error.to_response();
    Error::from_response(sent.status(), sent.headers(), sent.body()).expect("an error")
}

fn document(error: &Error) -> Value {
    serde_json::from_slice(error.to_response().body()).expect("it is JSON")
}

fn low_balance() -> Error {
    Error::new(Code::FailedPrecondition, "account 7 has 30 cents")
        .with_detail("bank.example/Shard", object("shard", 3))
        .with_public_detail("bank.example/LowBalance", object("missing", 120))
}

#[test]
fn an_edge_keeps_public_details_of_its_own_and_of_services_behind_it() {
    let own = low_balance();
    let received = back(&own.clone().through_service(Some("balance")));
    let passed_on = back(&received.preserve_code().through_service(Some("cards")));
    for error in [own, passed_on] {
        assert_eq!(error.details().len(), 2, "internal services get all");
        let sent = document(&error.redacted());
        assert_eq!(sent["details"], json!([{"@type": "bank.example/LowBalance", "missing": 120}]));
        assert!(!sent.to_string().contains("public"), "a client does not see the mark: {sent}");
    }
}

#[test]
fn details_of_a_callee_are_not_public_once_the_code_has_become_internal() {
    let passed_on = back(&low_balance().through_service(Some("balance"))).through_service(Some("cards"));
    assert_eq!((passed_on.code(), passed_on.details().len()), (Code::Internal, 2), "internal services get all");
    assert_eq!(document(&passed_on.redacted()).get("details"), None);
}

#[test]
fn an_error_can_be_redacted_twice() {
    let twice = low_balance().redacted().redacted();
    assert_eq!(document(&twice)["details"], json!([{"@type": "bank.example/LowBalance", "missing": 120}]));
}

#[test]
fn a_private_detail_cannot_be_made_public_by_its_members() {
    let members = Map::from_iter([("@public".to_owned(), true.into()), ("shard".to_owned(), 3.into())]);
    let error = Error::new(Code::Aborted, "again").with_detail("bank.example/Shard", members);
    assert_eq!(error.redacted().details(), &[][..]);
    let odd = json!({"code": "ABORTED", "details": [{"@type": "x", "@public": "yes"}, {"@type": "y", "@public": 1}]});
    assert_eq!(super::received(409, &odd).redacted().details(), &[][..], "only `true` is a mark");
}

#[test]
fn all_wrong_fields_are_in_one_bad_request() {
    let error = Error::new(Code::InvalidArgument, "3 fields")
        .with_detail("type.googleapis.com/google.rpc.BadRequest", object("fieldViolations", json!([])))
        .with_field_violation("amount", "must be positive")
        .with_public_detail("bank.example/Other", Map::new())
        .with_field_violation("currency", "unknown");
    let sent = document(&error.redacted());
    let fields = json!([
        {"field": "amount", "description": "must be positive"}, {"field": "currency", "description": "unknown"},
    ]);
    assert_eq!(sent["details"][0]["fieldViolations"], fields, "the private one has no part in it");
    assert_eq!(sent["details"].as_array().map(Vec::len), Some(2));
}

#[test]
fn type_title_and_instance_are_sent_and_read_and_are_this_services_own_at_an_edge() {
    let error = low_balance()
        .with_problem_type("https://bank.example/low-balance")
        .with_title("The balance is too low")
        .with_instance("/transactions/7");
    let shown = |error: &Error| ["type", "title", "instance"].map(|name| document(error)[name].clone());
    let all = ["https://bank.example/low-balance", "The balance is too low", "/transactions/7"].map(Value::from);
    assert_eq!(shown(&error.clone().redacted()), all);

    let read = back(&error.through_service(Some("balance")));
    assert_eq!(read.problem_type(), Some("https://bank.example/low-balance"));
    assert_eq!((read.title(), read.instance()), (Some("The balance is too low"), Some("/transactions/7")));
    let kept = read.clone().preserve_code().through_service(Some("cards"));
    assert_eq!(shown(&kept), all, "an internal service gets what another one says");
    let blank = [Value::from("about:blank"), "Bad Request".into(), Value::Null];
    assert_eq!(shown(&kept.redacted()), blank, "an untrusted client does not");

    let renamed = read.clone().preserve_code().with_problem_type("https://api.example/declined").redacted();
    assert_eq!(shown(&renamed), ["https://api.example/declined".into(), Value::Null, Value::Null]);
    let internal = read.through_service(Some("cards"));
    assert_eq!((internal.code(), internal.problem_type(), internal.title()), (Code::Internal, None, None));
}

#[test]
fn a_title_that_repeats_the_status_is_not_a_title() {
    let read = back(&Error::new(Code::NotFound, "no such card"));
    assert_eq!((read.problem_type(), read.title(), read.instance(), read.received()), (None, None, None, None));
    assert_eq!(back(&Error::new(Code::NotFound, "no such card").with_title("No card")).title(), Some("No card"));
}

#[test]
fn long_members_do_not_make_a_document_unreadable() {
    let long = "\u{1}".repeat(1_000_000);
    let mut error = Error::new(Code::Aborted, long.clone()).with_title(long.clone());
    for _ in 0..20 {
        error = error.through_service(Some(&long));
    }
    let read = back(&error.with_problem_type(long.clone()).with_instance(long));
    assert_eq!((read.code(), read.problem_type(), read.instance()), (Code::Aborted, None, None));
    assert_eq!(read.title().map(str::len), Some(512));
}

#[test]
fn challenges_are_sent_as_headers_and_not_passed_on() {
    let error = Error::new(Code::Unauthenticated, "no token")
        .with_www_authenticate(HeaderValue::from_static("Bearer realm=\"bank\""))
        .with_www_authenticate(HeaderValue::from_static("Basic"));
    let sent = error.clone().redacted().to_response();
    let challenges: Vec<_> =
        sent.headers().get_all(header::WWW_AUTHENTICATE).iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!((sent.status().as_u16(), challenges), (401, vec!["Bearer realm=\"bank\"", "Basic"]));
    let passed_on = back(&error).preserve_code().through_service(Some("api")).to_response();
    assert_eq!(passed_on.headers().get(header::WWW_AUTHENTICATE), None);
}

#[cfg(all(feature = "tonic", feature = "otlp"))]
mod grpc {
    use tonic::Status;
    use tonic_types::StatusExt;

    use super::super::grpc::sent;
    use super::*;

    fn over_grpc(error: Error) -> Error {
        Error::from_grpc_status(sent(&error.into()))
    }

    #[test]
    fn field_violations_are_the_standard_message_for_clients_without_this_library() {
        let error = low_balance().with_field_violation("amount", "must be positive");
        for status in [Status::from(error.clone()), error.clone().redacted().into()] {
            let details = sent(&status).get_error_details();
            let violations = &details.bad_request().expect("there is one").field_violations;
            assert_eq!((violations[0].field.as_str(), violations.len()), ("amount", 1));
        }
        let edge = sent(&error.clone().redacted().into());
        let json = edge.get_error_details().error_info().unwrap().metadata["details"].clone();
        assert_eq!(json, r#"[{"@type":"bank.example/LowBalance","missing":120}]"#, "each detail is sent once");
        assert_eq!(over_grpc(error.clone()).details(), error.details(), "internal services get each detail once");
    }

    #[test]
    fn every_standard_message_is_sent_as_one_if_nothing_is_lost() {
        let of = |name: &str, members: Value| {
            let Value::Object(members) = members else { panic!("an object") };
            Error::new(Code::Aborted, "again")
                .with_public_detail(&format!("type.googleapis.com/google.rpc.{name}"), members)
        };
        let two = |kind: &str| json!({"subject": "user:7", "description": "no", "type": kind});
        let quota = json!([{"subject": "user:7", "description": "7 a day"}]);
        for (error, is_standard) in [
            (of("PreconditionFailure", json!({"violations": [two("TOS"), two("AGE")]})), true),
            (of("QuotaFailure", json!({"violations": quota})), true),
            (of("Help", json!({"links": [{"description": "docs", "url": "https://bank.example"}]})), true),
            (of("RequestInfo", json!({"requestId": "r-1", "servingData": ""})), true),
            (of("LocalizedMessage", json!({"locale": "de", "message": "Betrag"})), true),
            (
                of(
                    "ResourceInfo",
                    json!({"resourceType": "card", "resourceName": "7", "owner": "", "description": ""}),
                ),
                true,
            ),
            (of("Help", json!({"links": [{"description": "docs", "url": "https://bank.example", "more": 1}]})), false),
            (of("Help", json!({"links": 7})), false),
            (of("Unknown", json!({"a": 1})), false),
            (of("DebugInfo", json!({"stackEntries": [], "detail": ""})), false),
        ] {
            let status = sent(&error.clone().redacted().into());
            let standard =
                status.get_error_details_vec().len() - usize::from(status.get_error_details().error_info().is_some());
            assert_eq!(standard > 0, is_standard, "{error:?}");
            assert_eq!(over_grpc(error.clone()).details(), error.details());
            let read = over_grpc(error.clone().redacted());
            assert_eq!(document(&read)["details"], document(&error.redacted())["details"]);
        }
    }

    #[test]
    fn details_that_do_not_fit_are_left_out_and_the_public_ones_stay_longest() {
        let large = || object("text", "x".repeat(3000));
        let error = low_balance().with_detail("bank.example/Large", large());
        let read = over_grpc(error);
        assert_eq!(read.details().len(), 1);
        assert_eq!(read.details()[0]["missing"], 120);
        let read = over_grpc(low_balance().with_public_detail("bank.example/Large", large()));
        assert_eq!((read.code(), read.details().len()), (Code::FailedPrecondition, 0));
    }
}
