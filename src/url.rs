//! URLs as spans and messages show them.

/// The URL without credentials: those of its authority, and what query parameters that are known for it carry.
pub(crate) fn redacted(url: &str) -> String {
    const SECRET: [&str; 4] = ["AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature"];
    let (url, fragment) = url.split_once('#').map_or((url, None), |(url, fragment)| (url, Some(fragment)));
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    // One without a scheme may have lost it, and have an authority.
    let (scheme, rest) = base.split_at(base.find("://").map_or(0, |at| at + 3));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut text = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}REDACTED:REDACTED@{host}{path}"),
        None => base.to_owned(),
    };
    for (index, parameter) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if SECRET.contains(&name) => text.extend([name, "=REDACTED"]),
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
    fn credentials_are_not_shown() {
        for (url, shown) in [
            ("http://host/path?q=1#part", "http://host/path?q=1#part"),
            ("https://user:secret@host:8443/a@b", "https://REDACTED:REDACTED@host:8443/a@b"),
            ("https://host?sig=abc&x=1&Signature=2", "https://host?sig=REDACTED&x=1&Signature=REDACTED"),
            ("/path@x?sig", "/path@x?sig"),
            ("user:secret@host:4318", "REDACTED:REDACTED@host:4318"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }
}
