//! Redacts URLs before they appear in spans and messages.

use percent_encoding::percent_decode_str;

/// Query keys whose values are credentials. They are case-sensitive.
///
/// Source: OpenTelemetry semantic conventions 1.45, `url.full`.
pub(crate) const SENSITIVE_QUERY_KEYS: [&str; 7] = [
    "AWSAccessKeyId",
    "Signature",
    "sig",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Goog-Signature",
];

/// Redacts the user and password, and the values of [`SENSITIVE_QUERY_KEYS`].
#[cfg(any(test, feature = "otlp"))]
pub(crate) fn redacted(url: &str) -> String {
    redacted_with(url, &[])
}

/// Like [`redacted`]. Redacts the values of the keys in `more`, too.
pub(crate) fn redacted_with(url: &str, more: &[Box<str>]) -> String {
    let is_sensitive = |name: &str| {
        // A receiver decodes the name before it compares it.
        let name = percent_decode_str(name).decode_utf8_lossy();
        SENSITIVE_QUERY_KEYS.contains(&&*name) || more.iter().any(|key| **key == *name)
    };
    let (url, fragment) = url.split_once('#').map_or((url, None), |(url, fragment)| (url, Some(fragment)));
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    // A URL without a scheme may still have an authority with credentials.
    let (scheme, rest) = base.split_at(base.find("://").map_or(0, |at| at + 3));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut text = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}REDACTED:REDACTED@{host}{path}"),
        None => base.to_owned(),
    };
    for (index, parameter) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if is_sensitive(name) => text.extend([name, "=REDACTED"]),
            _ => text.push_str(parameter),
        }
    }
    text.extend(fragment.into_iter().flat_map(|fragment| ["#", fragment]));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_keys_are_redacted_in_any_percent_encoding() {
        let more = ["token".into(), "api key".into()];
        for (url, shown) in [
            ("https://host?token=abc&x=1", "https://host?token=REDACTED&x=1"),
            (
                "https://host?sig=1&api%20key=2&tok%65n=3#top",
                "https://host?sig=REDACTED&api%20key=REDACTED&tok%65n=REDACTED#top",
            ),
            ("https://host?Token=1&tokens=2&%ff=3&token", "https://host?Token=1&tokens=2&%ff=3&token"),
        ] {
            assert_eq!(redacted_with(url, &more), shown);
        }
    }

    #[test]
    fn credentials_are_redacted() {
        for (url, shown) in [
            ("http://host/path?q=1#part", "http://host/path?q=1#part"),
            ("https://user:secret@host:8443/a@b", "https://REDACTED:REDACTED@host:8443/a@b"),
            ("https://host?sig=abc&x=1&Signature=2", "https://host?sig=REDACTED&x=1&Signature=REDACTED"),
            (
                "https://s3/b?X-Amz-Credential=AK%2F1&X-Amz-Date=2&X-Amz-Security-Token=t&X-Amz-Signature=f#top",
                "https://s3/b?X-Amz-Credential=REDACTED&X-Amz-Date=2&X-Amz-Security-Token=REDACTED&X-Amz-Signature=REDACTED#top",
            ),
            (
                "https://s3/b?AWSAccessKeyId=1&X-Goog-Signature=2",
                "https://s3/b?AWSAccessKeyId=REDACTED&X-Goog-Signature=REDACTED",
            ),
            ("/path@x?sig", "/path@x?sig"),
            ("user:secret@host:4318", "REDACTED:REDACTED@host:4318"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }
}
