//! JSON bodies: what is refused, with which message, and what no message contains.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use http::{Method, Request, header};
use serde::{Deserialize, Deserializer, Serialize, de};
use throughline::Code;
use throughline_service::{Json, Service};

use crate::support::Served;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only deserialized")]
struct Payment {
    card: Card,
    #[serde(default)]
    items: Vec<Item>,
    #[serde(default)]
    limits: BTreeMap<String, u8>,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    iban: Iban,
    #[serde(default)]
    pair: (u8, u8),
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only deserialized")]
struct Card {
    number: u64,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only deserialized")]
struct Item {
    amount: u8,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    #[default]
    Online,
    InStore,
}

#[derive(Debug, Default)]
struct Iban;

impl<'de> Deserialize<'de> for Iban {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Err(de::Error::custom(format!("no bank has the account {text}")))
    }
}

fn message(json: &str) -> String {
    let error = Json::<Payment>::from_bytes(json.as_bytes()).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(std::error::Error::source(&error).is_none(), "a source would be logged with the values");
    error.message().to_owned()
}

#[test]
fn messages_have_the_path_and_the_position_and_what_is_expected() {
    assert_eq!(message(r#"{"card":{}}"#), "card: missing field `number` at line 1 column 10");
    assert_eq!(
        message("{\"card\":{\"number\":1},\n\"items\":[{\"amount\":1},{\"amount\":256}]}"),
        "items[1].amount: invalid value: integer, expected u8 at line 2 column 35"
    );
    assert_eq!(message("[]"), "invalid length 0, expected struct Payment with 6 elements at line 1 column 2");
    assert_eq!(message(""), "EOF while parsing a value at line 1 column 0");
    assert_eq!(message(r#"{"card":{"number":1}} x"#), "trailing characters at line 1 column 23");
    assert_eq!(
        message(r#"{"card":{"number":1},"pair":[1]}"#),
        "pair: invalid length 1, expected a tuple of size 2 at line 1 column 31"
    );
}

#[test]
fn no_message_contains_a_value_of_the_body() {
    const SECRET: &str = "4111-1111";
    let bodies = [
        r#"{"card":"4111-1111"}"#,
        r#"{"card":{"number":"4111-1111"}}"#,
        r#"{"card":{"number":"a\", expected 4111-1111"}}"#,
        r#"{"card":{"number":"x` at line 1 column 4111-1111"}}"#,
        r#"{"card":{"number":1},"4111-1111":true}"#,
        r#"{"card":{"number":1},"a`, expected 4111-1111":true}"#,
        r#"{"card":{"number":1},"kind":"4111-1111"}"#,
        r#"{"card":{"number":1},"kind":{"4111-1111":1}}"#,
        r#"{"card":{"number":1},"limits":{"4111-1111":300}}"#,
        r#"{"card":{"number":1},"limits":{"a":"4111-1111"}}"#,
        r#"{"card":{"number":1},"iban":"4111-1111"}"#,
    ];
    for body in bodies {
        let message = message(body);
        assert!(!message.contains(SECRET), "{body}: {message}");
        assert!(message.contains("line 1 column "), "{body}: {message}");
    }
    assert_eq!(message(bodies[10]), "iban: the value is not valid at line 1 column 40");
    assert_eq!(message(bodies[6]), "kind: unknown variant, expected `online` or `in_store` at line 1 column 39");
    for number in ["-41111111", "4111.1111", "41111111111111111111"] {
        let message = message(&format!(r#"{{"card":{{"number":{number}}}}}"#));
        assert!(message.starts_with("card.number: invalid ") && !message.contains("4111"), "{message}");
    }
}

#[test]
fn input_that_is_nested_too_deep_is_an_error_and_no_stack_overflow() {
    let deep = "[".repeat(1_000_000);
    let error = Json::<serde_json::Value>::from_bytes(deep.as_bytes()).unwrap_err();
    assert!(error.message().contains("…: recursion limit exceeded at line 1 column "), "{}", error.message());
    let keys = r#"{"a":"#.repeat(100) + "true";
    let error = Json::<serde_json::Value>::from_bytes(keys.as_bytes()).unwrap_err();
    assert!(error.message().len() < 200, "the path of a message is bounded: {}", error.message());
}

#[tokio::test]
async fn a_request_that_does_not_say_that_it_is_json_is_refused() {
    let service: Service = Service::new("cards").route("block", async |Json(id): Json<u32>| id.to_string());
    let served = Served::start(service).await;
    let send = |content_type: Option<&'static str>| {
        let request = Request::builder().method(Method::POST).uri("/block");
        let request =
            content_type.into_iter().fold(request, |request, kind| request.header(header::CONTENT_TYPE, kind));
        let request = request.body(Bytes::from("7")).unwrap();
        let transport = served.transport.clone();
        async move { transport.send(&throughline::Context::background(), "cards", request).await }
    };
    for accepted in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.bank+json"] {
        assert_eq!(send(Some(accepted)).await.unwrap().body(), "7", "{accepted}");
    }
    for refused in [None, Some("text/json"), Some("application/jsonx"), Some("application/x-www-form-urlencoded")] {
        let error = send(refused).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{refused:?}");
        assert_eq!(error.message(), "the content type is not application/json");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_response_that_cannot_be_serialized_is_internal_and_keeps_its_reason() {
    #[derive(Serialize)]
    struct Limits {
        by_pair: HashMap<(u8, u8), u8>,
    }
    let limits = || Json(Limits { by_pair: HashMap::from([((1, 2), 3)]) });
    let service: Service = Service::new("limits").route("all", async move || limits());
    let served = Served::start(service).await;
    let error = served.post("/all", &()).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(!error.message().contains("key"), "the reason stays in the process: {}", error.message());
    served.stop().await;
}
