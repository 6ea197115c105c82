//! Errors that cross services.

use axum::routing::get;
use axum::{Extension, Router};
use serde_json::Value;
use throughline::{Code, Context, Error, SendWith};

use crate::support::{Traced, client, serve, text};

async fn call(ctx: &Context, address: std::net::SocketAddr) -> Result<String, Error> {
    let response = reqwest::Client::new().get(format!("http://{address}/")).send_with(ctx, &client()).await?;
    Ok(response.text().await?)
}

/// Service api (an edge) calls cards, which calls balance, which fails with `code`.
async fn fail(code: Code) -> (u16, Value, [Traced; 3]) {
    let services = [Traced::new("api"), Traced::new("cards"), Traced::new("balance")];
    let failing = move || async move { Err::<(), _>(Error::new(code, "account 7 is locked").with_retryable(false)) };
    let balance = serve(Router::new().route("/", get(failing)).layer(services[2].internal())).await;
    let ask_balance = move |Extension(ctx): Extension<Context>| async move { call(&ctx, balance).await };
    let cards = serve(Router::new().route("/", get(ask_balance)).layer(services[1].internal())).await;
    let ask_cards = move |Extension(ctx): Extension<Context>| async move { call(&ctx, cards).await };
    let api = serve(Router::new().route("/", get(ask_cards)).layer(services[0].edge())).await;
    let response = reqwest::get(format!("http://{api}/")).await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap(), services)
}

#[tokio::test]
async fn a_code_that_crosses_services_is_kept_and_every_span_has_the_origin() {
    let (status, problem, services) = fail(Code::Unavailable).await;
    assert_eq!((status, &problem["code"]), (503, &"UNAVAILABLE".into()));
    for (service, spans) in services.iter().zip([2, 2, 1]) {
        for span in service.spans(spans).await {
            assert_eq!(text(&span, "throughline.error.origin"), Some("balance"), "{}", span.name);
            assert_eq!(text(&span, "error.type"), Some("UNAVAILABLE"), "{}", span.name);
        }
    }
}

#[tokio::test]
async fn a_not_found_of_a_callee_becomes_internal() {
    let (status, problem, services) = fail(Code::NotFound).await;
    assert_eq!((status, &problem["code"]), (500, &"INTERNAL".into()));
    let cards = services[1].spans(2).await;
    let types: Vec<_> = cards.iter().map(|span| text(span, "error.type")).collect();
    assert_eq!(types, [Some("NOT_FOUND"), Some("INTERNAL")], "the call has the code, the response does not");
    let balance = services[2].span().await;
    assert_eq!(text(&balance, "error.type"), None, "a 4xx is not a failure of the server");
    assert_eq!(text(&balance, "throughline.error.code"), Some("NOT_FOUND"), "the span has the code");
    assert_eq!(text(&balance, "throughline.error.message"), Some("account 7 is locked"));
    let codes: Vec<_> = cards.iter().map(|span| text(span, "throughline.error.code")).collect();
    assert_eq!(codes, [Some("NOT_FOUND"), Some("INTERNAL")]);
    assert_eq!(text(&cards[1], "throughline.error.message"), None, "the message is in the status");
}

#[tokio::test]
async fn an_edge_sends_nothing_internal() {
    for code in Code::ALL {
        let (_, problem, _) = fail(code).await;
        let text = problem.to_string();
        for internal in ["balance", "cards", "origin", "path", "account 7"] {
            assert!(!text.contains(internal), "{text}");
        }
    }
}

#[tokio::test]
async fn internal_services_get_the_path() {
    let service = Traced::new("cards");
    let failing = || async { Err::<(), _>(Error::new(Code::Aborted, "again")) };
    let address = serve(Router::new().route("/", get(failing)).layer(service.internal())).await;
    let error = call(&Context::background(), address).await.unwrap_err();
    assert_eq!((error.code(), error.message(), error.origin()), (Code::Aborted, "again", Some("cards")));
    assert_eq!(error.path().collect::<Vec<_>>(), ["cards"]);
}

#[tokio::test]
async fn headers_that_describe_a_replaced_body_are_removed() {
    use axum::response::IntoResponse;

    let service = Traced::new("cards");
    let body_headers = [
        ("content-encoding", "gzip"),
        ("content-range", "bytes 0-1/9"),
        ("trailer", "checksum"),
        ("etag", "\"7\""),
        ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("accept-ranges", "bytes"),
    ];
    // As inner layers may have changed the response.
    let failing = move || async move {
        let mut response = Error::new(Code::NotFound, "no such card").into_response();
        for (name, value) in body_headers.into_iter().chain([("vary", "accept-encoding")]) {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    };
    let address = serve(Router::new().route("/", get(failing)).layer(service.internal())).await;
    let response = reqwest::get(format!("http://{address}/")).await.unwrap();
    for (name, _) in body_headers {
        assert_eq!(response.headers().get(name), None);
    }
    assert_eq!(response.headers()["vary"], "accept-encoding");
    assert_eq!(response.json::<Value>().await.unwrap()["origin"], "cards");
}

#[tokio::test]
async fn origin_and_path_are_sent_with_telemetry_off() {
    let disabled = |name: &str| (name == "OTEL_SDK_DISABLED").then(|| "true".to_owned());
    let telemetry = throughline::telemetry::builder("cards").from_variables(&disabled).build().unwrap();
    let layer = throughline::ContextLayer::internal().tracer(telemetry.tracer().clone());
    let failing = || async { Err::<(), _>(Error::new(Code::Aborted, "again")) };
    let address = serve(Router::new().route("/", get(failing)).layer(layer)).await;
    let error = call(&Context::background(), address).await.unwrap_err();
    assert_eq!((error.origin(), error.path().collect::<Vec<_>>()), (Some("cards"), vec!["cards"]));
}

/// The balance is too low, which any client may know, and where it is stored, which none may.
fn low_balance() -> Error {
    let object = |name: &str, value: u32| [(name.to_owned(), value.into())].into_iter().collect();
    Error::new(Code::FailedPrecondition, "account 7 has 30 cents")
        .with_detail("bank.example/Shard", object("shard", 3))
        .with_public_detail("bank.example/LowBalance", object("missing", 120))
        .with_field_violation("amount", "more than the balance")
}

#[tokio::test]
async fn an_edge_shows_the_public_details_of_a_service_behind_it() {
    let services = [Traced::new("api"), Traced::new("cards"), Traced::new("balance")];
    let failing = || async { Err::<(), _>(low_balance()) };
    let balance = serve(Router::new().route("/", get(failing)).layer(services[2].internal())).await;
    let ask_balance = move |Extension(ctx): Extension<Context>| async move {
        call(&ctx, balance).await.map_err(Error::preserve_code)
    };
    let cards = serve(Router::new().route("/", get(ask_balance)).layer(services[1].internal())).await;
    let ask_cards = move |Extension(ctx): Extension<Context>| async move {
        let declined = |e: Error| e.preserve_code().with_message("declined").with_problem_type("https://x/declined");
        call(&ctx, cards).await.map_err(declined)
    };
    let api = serve(Router::new().route("/", get(ask_cards)).layer(services[0].edge())).await;
    let response = reqwest::get(format!("http://{api}/")).await.unwrap();
    assert_eq!(response.status(), 400);
    let shown = serde_json::json!({
        "type": "https://x/declined", "status": 400, "detail": "declined", "code": "FAILED_PRECONDITION",
        "details": [
            {"@type": "bank.example/LowBalance", "missing": 120},
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": "amount", "description": "more than the balance"}],
            },
        ],
    });
    assert_eq!(response.json::<Value>().await.unwrap(), shown);
}

#[tokio::test]
async fn an_edge_inside_an_edge_shows_public_details_too() {
    let service = Traced::new("api");
    let failing = || async { Err::<(), _>(low_balance()) };
    let app = Router::new().route("/", get(failing)).layer(service.edge()).layer(service.edge());
    let problem: Value = reqwest::get(format!("http://{}/", serve(app).await)).await.unwrap().json().await.unwrap();
    assert_eq!(problem["details"].as_array().map(Vec::len), Some(2), "{problem}");
}

#[tokio::test]
async fn a_challenge_reaches_the_client() {
    let service = Traced::new("api");
    let challenge = http::HeaderValue::from_static("Bearer");
    let refusing = move || async move {
        Err::<(), _>(Error::new(Code::Unauthenticated, "no token").with_www_authenticate(challenge))
    };
    let app = Router::new().route("/", get(refusing)).layer(service.edge());
    let response = reqwest::get(format!("http://{}/", serve(app).await)).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["www-authenticate"]),
        (401, &"Bearer".parse().unwrap())
    );
}
