use std::time::Duration;

use serde::Deserialize;
use throughline_service::BreakerSettings;
use throughline_service::config::{ClientSettings, Config, RouteSettings, ServiceSettings};

use super::Place;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Balance {
    currency: String,
    service: ServiceSettings,
    ledger: ClientSettings,
}

/// The TOML of the guide.
fn guide() -> String {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/configuration.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let (_, toml) = guide.split_once("```toml\n").unwrap();
    toml.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_file_of_the_guide_sets_every_setting() {
    let place = Place::with(guide());
    let config = Config::<Balance>::builder().file(&place.path).load().unwrap();
    let balance = config.current();
    assert_eq!(balance.currency, "EUR");
    let ServiceSettings { max_timeout, default_timeout, max_in_flight, sampling_ratio, .. } = balance.service;
    let millis = |n| Some(Duration::from_millis(n));
    assert_eq!((max_timeout, default_timeout), (millis(2_000), millis(500)));
    assert_eq!((max_in_flight, sampling_ratio), (Some(256), Some(0.1)));
    let reserve = RouteSettings { timeout: millis(5_000), min_remaining: millis(20), stall_timeout: None };
    assert_eq!(balance.service.route("reserve"), reserve);
    assert_eq!(balance.service.route("/reports/{year}").stall_timeout, millis(30_000));
    assert_eq!((balance.ledger.timeout("reserve"), balance.ledger.timeout("search")), (millis(300), millis(1_000)));
    assert!(balance.ledger.route("search").idempotent);
    let retry = balance.ledger.retry;
    assert!(retry.max_attempts.is_some() && retry.backoff.is_some() && retry.max_retry_after.is_some());
    assert!(retry.hedge_after.is_some());
    // What the guide shows are the defaults, but for `min_requests`.
    let breaker = balance.ledger.breaker.apply(BreakerSettings::default());
    assert_eq!(breaker, BreakerSettings { min_requests: 20, ..BreakerSettings::default() });
    let breaker = format!("{:?}", balance.ledger.breaker);
    assert!(!breaker.contains("None"), "{breaker}");
}

#[test]
fn the_error_of_the_guide_is_the_one_that_is_logged() {
    let place = Place::with("currency = 'EUR'\n\n[service]\nmax_timeout = \"2\"\n[ledger]\n");
    let error = Config::<Balance>::builder().file(&place.path).load().unwrap_err();
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/configuration.md"));
    let shown = error.to_string().replace(place.path.to_str().unwrap(), "/etc/balance/balance.toml");
    assert!(guide.unwrap().contains(&shown), "{shown}");
}
