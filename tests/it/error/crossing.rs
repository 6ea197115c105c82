//! Errors that cross services.

use throughline::{Code, Context, Error};

/// The error as the caller of `service` gets it.
fn through(service: &str, error: Error) -> Error {
    let sent = error.through_service(Some(service)).to_response();
    Error::from_response(sent.status(), sent.headers(), sent.body()).expect("an error")
}

#[test]
fn four_codes_cross_a_service_and_the_others_become_internal() {
    for code in Code::ALL {
        let at_caller = through("balance", Error::new(code, "why"));
        assert_eq!(at_caller.code(), code, "the error is the service's own");
        let passed_on = through("cards", at_caller.clone());
        let crosses =
            [Code::DeadlineExceeded, Code::Cancelled, Code::Unavailable, Code::ResourceExhausted].contains(&code);
        assert_eq!(passed_on.code(), if crosses { code } else { Code::Internal });
        assert_eq!(passed_on.path().collect::<Vec<_>>(), ["balance", "cards"]);
        assert_eq!(through("cards", at_caller.preserve_code()).code(), code);
    }
}

#[test]
fn a_code_is_preserved_for_one_service_at_a_time() {
    let at_api = through("cards", through("balance", Error::new(Code::NotFound, "no such card")).preserve_code());
    assert_eq!(through("api", at_api).code(), Code::Internal);
}

#[test]
fn the_origin_is_set_once_and_stays() {
    let mut error = Error::new(Code::Unavailable, "restarting");
    assert_eq!((error.origin(), error.path().len()), (None, 0));
    for hop in 0..40 {
        error = through(&format!("s{hop}"), error);
        assert_eq!((error.origin(), error.path().len()), (Some("s0"), 16.min(hop + 1)));
    }
    assert_eq!(error.path().last(), Some("s39"));
}

#[test]
fn a_service_without_a_name_adds_nothing_to_the_path() {
    assert_eq!(Error::new(Code::Aborted, "again").through_service(None).path().len(), 0);
}

#[test]
fn a_redacted_error_keeps_only_messages_of_this_service() {
    let detail = || [("shard".to_owned(), 3.into())].into_iter().collect();
    let own =
        Error::new(Code::Aborted, "again").with_detail("example.com/Shard", detail()).through_service(Some("cards"));
    let redacted = own.redacted();
    assert_eq!((redacted.code(), redacted.message(), redacted.origin()), (Code::Aborted, "again", None));
    assert_eq!((redacted.path().len(), redacted.details().len()), (0, 0));

    let foreign = through("balance", Error::new(Code::Aborted, "account 7 is locked"));
    assert_eq!(foreign.clone().redacted().message(), "aborted");
    assert_eq!(foreign.preserve_code().with_message("try later").redacted().message(), "try later");
    assert_eq!(Error::new(Code::Internal, "index 7 of 3").redacted().message(), "internal error");
}

#[test]
fn an_error_that_cancelled_a_context_gives_its_message() {
    let request = Context::background().with_cancel();
    request.cancel_with(Error::new(Code::NotFound, "no such card"));
    let error = Error::from_context(&request);
    assert_eq!((error.code(), error.message()), (Code::Cancelled, "no such card"));
    assert_eq!(error.redacted().message(), "no such card");
}

#[test]
fn a_private_message_stays_private_when_it_cancels_a_context() {
    let foreign = through("balance", Error::new(Code::Aborted, "account 7 is locked"));
    for cause in [foreign, Error::new(Code::Internal, "index 7 of 3")] {
        let request = Context::background().with_cancel();
        request.cancel_with(cause.clone());
        let error = Error::from_context(&request);
        assert_eq!((error.message(), error.origin()), (cause.message(), cause.origin()));
        assert_eq!(error.through_service(Some("api")).redacted().message(), "cancelled");
    }
}
