//! Values of configuration files, and their checks.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Unexpected, Visitor};

/// Deserializes a time with its unit, such as `"250ms"`, `"2s"` or `"1m 30s"`.
///
/// For fields of type `Duration` and `Option<Duration>`. A number without a unit is an error. The
/// grammar is that of the crate `humantime`.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use serde::Deserialize;
/// use throughline_service::config;
///
/// #[derive(Deserialize)]
/// struct Cache {
///     #[serde(deserialize_with = "config::duration")]
///     lifetime: Duration,
///     #[serde(default, deserialize_with = "config::duration")]
///     grace: Option<Duration>,
/// }
///
/// let cache: Cache = serde_json::from_str(r#"{ "lifetime": "1m 30s" }"#)?;
/// assert_eq!((cache.lifetime, cache.grace), (Duration::from_secs(90), None));
/// assert!(serde_json::from_str::<Cache>(r#"{ "lifetime": 90 }"#).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn duration<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: From<Duration>,
{
    deserializer.deserialize_str(Text).map(T::from)
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time with its unit, such as \"250ms\" or \"2s\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        humantime::parse_duration(text).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// A time above zero. As a timeout, zero would fail every call.
pub(super) fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let timeout: Duration = duration(deserializer)?;
    if timeout.is_zero() { Err(D::Error::custom("the time must be longer than zero")) } else { Ok(Some(timeout)) }
}

/// A share between 0 and 1.
pub(super) fn ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let ratio: f64 = serde::Deserialize::deserialize(deserializer)?;
    if (0.0..=1.0).contains(&ratio) {
        Ok(Some(ratio))
    } else {
        Err(D::Error::invalid_value(Unexpected::Float(ratio), &"a share between 0 and 1"))
    }
}

/// A number above zero.
pub(super) fn positive<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::Deserialize<'de> + Default + PartialEq,
{
    let number = T::deserialize(deserializer)?;
    if number == T::default() { Err(D::Error::custom("the number must be at least 1")) } else { Ok(Some(number)) }
}
