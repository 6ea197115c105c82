use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use throughline::{ClientLayer, Code, Context, ContextLayer, Error, RetryPolicy, Route};
use throughline_service::config::{
    BackoffSettings, ClientSettings, Config, ConfigError, RetrySettings, ServiceSettings, Watched,
};
use tokio::sync::watch;
use tower::{Layer, Service, ServiceExt, service_fn};

use super::Place;

fn load<T: serde::de::DeserializeOwned + Clone + Send + Sync + 'static>(text: &str) -> Result<T, ConfigError> {
    let place = Place::with(text);
    Ok(T::clone(&Config::<T>::builder().file(&place.path).load()?.current()))
}

/// The time that a handler of `path` has, behind `layer`.
async fn time_left(layer: &ContextLayer, path: &str, timeout: Option<&str>) -> Result<Duration, StatusCode> {
    let handler = service_fn(async |request: Request<Full<Bytes>>| {
        let left = request.extensions().get::<Context>().unwrap().remaining().unwrap();
        Ok::<_, Infallible>(
            Response::builder().header("left", left.as_millis().to_string()).body(Full::<Bytes>::default()).unwrap(),
        )
    });
    let mut request = Request::post(path);
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let response = layer.layer(handler).oneshot(request.body(Full::default()).unwrap()).await.unwrap();
    let left = response.headers().get("left").ok_or(response.status())?;
    Ok(Duration::from_millis(left.to_str().unwrap().parse().unwrap()))
}

#[tokio::test(start_paused = true)]
async fn settings_of_a_service_hold_for_its_layer() {
    let settings: ServiceSettings = load(
        "max_timeout = '2s'\ndefault_timeout = '500ms'\n\
         [routes.reserve]\ntimeout = '5s'\nmin_remaining = '20ms'\n[routes.'/cards/{id}']\ntimeout = '1m'\n",
    )
    .unwrap();
    let layer = settings.apply(ContextLayer::internal());
    let millis = |n| Ok(Duration::from_millis(n));
    assert_eq!(time_left(&layer, "/other", None).await, millis(500));
    assert_eq!(time_left(&layer, "/other", Some("9S")).await, millis(2_000));
    assert_eq!(time_left(&layer, "/reserve", None).await, millis(5_000));
    assert_eq!(time_left(&layer, "/cards/{id}", None).await, millis(60_000));
    assert_eq!(time_left(&layer, "/reserve", Some("19m")).await, Err(StatusCode::GATEWAY_TIMEOUT));
    assert_eq!(layer.shed_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn absent_settings_keep_the_options_of_the_code() {
    let seconds = Duration::from_secs;
    let route = Route::new().timeout(seconds(7)).min_remaining(seconds(1));
    let layer = ContextLayer::internal().max_timeout(seconds(3)).route("/reserve", route);
    let same = ServiceSettings::default().apply(layer.clone());
    assert_eq!(time_left(&same, "/other", None).await, Ok(seconds(3)));
    assert_eq!(time_left(&same, "/reserve", None).await, Ok(seconds(7)));

    let settings: ServiceSettings = load("[routes.reserve]\ntimeout = '4s'\n").unwrap();
    let changed = settings.apply(layer);
    assert_eq!(time_left(&changed, "/reserve", None).await, Ok(seconds(4)));
    assert_eq!(time_left(&changed, "/reserve", Some("900m")).await, Err(StatusCode::GATEWAY_TIMEOUT));
}

#[test]
fn settings_of_a_client_are_read() {
    let settings: ClientSettings = load(
        "timeout = '500ms'\n\
         [retry]\nmax_attempts = 4\nbackoff = { initial = '20ms', max = '500ms' }\nmax_retry_after = '0s'\n\
         [routes.search]\ntimeout = '2s'\nidempotent = true\n",
    )
    .unwrap();
    let millis = |n| Some(Duration::from_millis(n));
    assert_eq!((settings.timeout("search"), settings.timeout("/search")), (millis(2_000), millis(2_000)));
    assert_eq!(settings.timeout("reserve"), millis(500));
    assert_eq!((settings.route("search").idempotent, settings.route("reserve").idempotent), (true, false));
    let backoff = BackoffSettings { initial: Duration::from_millis(20), max: Duration::from_millis(500) };
    assert_eq!((settings.retry.max_attempts, settings.retry.backoff), (Some(4), Some(backoff)));
    assert_eq!(settings.retry.max_retry_after, Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn settings_of_a_client_hold_for_its_retries() {
    let settings: ClientSettings = load("[retry]\nmax_attempts = 4\n[routes.search]\nidempotent = true\n").unwrap();
    let base = RetryPolicy::new();
    let layer = ClientLayer::internal().retry(settings.retry_policy(base.clone()));
    let callee = service_fn(async |_: Request<Full<Bytes>>| {
        Err::<Response<Full<Bytes>>, _>(Error::new(Code::Unavailable, "no instance"))
    });
    let attempts = async |path: &str| {
        let before = base.retry_count();
        let mut request = Request::post(path).body(Full::<Bytes>::default()).unwrap();
        request.extensions_mut().insert(Context::background());
        assert!(layer.layer(callee).oneshot(request).await.is_err());
        base.retry_count() - before + 1
    };
    assert_eq!((attempts("http://bank/search").await, attempts("http://bank/reserve").await), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn a_client_layer_has_the_retries_of_the_current_settings_and_keeps_its_counts() {
    let attempts = |max_attempts| {
        let retry = RetrySettings { max_attempts: Some(max_attempts), ..RetrySettings::default() };
        Arc::new(ClientSettings { retry, ..ClientSettings::default() })
    };
    let (sender, receiver) = watch::channel(attempts(3));
    let policy = RetryPolicy::new();
    let counts = policy.clone();
    let layer = Watched::from(receiver)
        .map(move |settings: &ClientSettings| ClientLayer::internal().retry(settings.retry_policy(policy.clone())));
    let mut client = layer.layer(service_fn(async |_: Request<Full<Bytes>>| {
        Err::<Response<Full<Bytes>>, _>(Error::new(Code::Unavailable, "no instance"))
    }));
    let mut call = async || {
        let mut request = Request::get("http://bank/search").body(Full::<Bytes>::default()).unwrap();
        request.extensions_mut().insert(Context::background());
        assert!(client.ready().await.unwrap().call(request).await.is_err());
    };
    call().await;
    assert_eq!(counts.retry_count(), 2);
    sender.send_replace(attempts(1));
    call().await;
    assert_eq!(counts.retry_count(), 2);
    sender.send_replace(attempts(5));
    call().await;
    assert_eq!(counts.retry_count(), 6);
}

#[test]
fn values_out_of_range_are_errors_with_line_and_column() {
    for (text, column, message) in [
        ("max_timeout = '0s'", 15, "the time must be longer than zero"),
        ("max_timeout = 250", 15, "a time with its unit"),
        ("max_timeout = '250'", 15, "a time with its unit"),
        ("sampling_ratio = 1.5", 18, "a share between 0 and 1"),
        ("sampling_ratio = nan", 18, "a share between 0 and 1"),
        ("max_in_flight = 0", 17, "the number must be at least 1"),
        ("max_in_flight = -1", 17, "expected usize"),
        ("maxtimeout = '1s'", 1, "unknown field `maxtimeout`"),
        ("[routes.reserve]\n max_timeout = '1s'", 2, "unknown field `max_timeout`"),
    ] {
        let error = load::<ServiceSettings>(text).unwrap_err();
        assert_eq!((error.line(), error.column()), (Some(text.lines().count()), Some(column)), "{error}");
        assert!(error.message().contains(message), "{error}");
    }
    for text in [
        "[breaker]\nfailure_ratio = 2",
        "[breaker]\nopen_time = 5",
        "[breaker]\nprobes = 0",
        "[retry]\nmax_attempts = 0",
        "[retry]\nattempts = 3",
        "[retry.backoff]\nmax = '1s'",
    ] {
        let error = load::<ClientSettings>(text).unwrap_err();
        assert!(error.line().is_some() && error.column().is_some(), "{error}");
    }
}
