//! Decides whether a call goes to an internal service or to an external host.

use std::sync::Arc;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// The hosts that are internal services.
#[derive(Clone)]
pub(super) enum Hosts {
    All,
    None,
    /// Names in lower case, without a dot at the end.
    ///
    /// A name that begins with a dot matches all names below it.
    Listed(Arc<[String]>),
}

impl Hosts {
    pub(super) fn listed<H: Into<String>>(hosts: impl IntoIterator<Item = H>) -> Self {
        let normal = |host: H| {
            let host = host.into().to_ascii_lowercase();
            let host = host.strip_prefix('*').unwrap_or(&host);
            host.strip_suffix('.').unwrap_or(host).to_owned()
        };
        Hosts::Listed(hosts.into_iter().map(normal).filter(|host| !host.trim_matches('.').is_empty()).collect())
    }

    /// Whether a call to this address goes to an internal service.
    ///
    /// Without a host, it does not.
    ///
    /// `is_cross_origin`: a redirect led to this address, and it has another origin than the first
    /// request. Then only a listed host is internal.
    pub(super) fn contains(&self, uri: &Uri, headers: &HeaderMap, is_cross_origin: bool) -> bool {
        let listed = match self {
            Hosts::All => return !is_cross_origin,
            Hosts::None => return false,
            Hosts::Listed(listed) => listed,
        };
        let Some(authority) = authority(uri, headers) else { return false };
        let host = authority.host().to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        listed.iter().any(|name| match name.starts_with('.') {
            // The suffix includes the dot: "evilbank.internal" is not below "bank.internal".
            true => host.len() > name.len() && host.ends_with(name.as_str()),
            false => host == name,
        })
    }
}

fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let named = || headers.get(HOST)?.to_str().ok()?.parse().ok();
    uri.authority().cloned().or_else(named)
}

/// The host that is called: a name, or an IP address without brackets.
pub(super) fn host(uri: &Uri, headers: &HeaderMap) -> Option<Box<str>> {
    let authority = authority(uri, headers)?;
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then(|| host.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_internal_if_its_whole_name_or_a_domain_above_it_is_listed() {
        let hosts = Hosts::listed(["Balance", "*.bank.internal.", ".cards", "127.0.0.1", "[::1]", "", "*", "*."]);
        for (uri, is_internal) in [
            ("http://balance/", true),
            ("http://BALANCE.:8080/", true),
            ("http://ledger.bank.internal/", true),
            ("http://a.b.bank.internal./", true),
            ("http://x.cards/", true),
            ("http://127.0.0.1:80/", true),
            ("http://[::1]:80/", true),
            ("http://bank.internal/", false),
            ("http://evilbank.internal/", false),
            ("http://.bank.internal/", false),
            ("http://balance.evil.com/", false),
            ("http://balance@evil.com/", false),
            ("http://evil.com/balance", false),
            ("/balance", false),
        ] {
            let uri: Uri = uri.parse().expect("an address");
            assert_eq!(hosts.contains(&uri, &HeaderMap::new(), true), is_internal, "{uri}");
        }
    }

    #[test]
    fn an_address_without_a_host_takes_the_one_of_the_host_header() {
        let hosts = Hosts::listed(["balance"]);
        for (host, is_internal) in [("balance:80", true), ("evil", false), ("\u{fe}", false)] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, http::HeaderValue::from_bytes(host.as_bytes()).expect("a value"));
            assert_eq!(hosts.contains(&Uri::from_static("/reserve"), &headers, false), is_internal, "{host}");
        }
    }
}
