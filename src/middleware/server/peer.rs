//! The address of a client: of the connection, or as the proxies in front of the server say.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use http::request::Parts;
use throughline_core::trace::SpanBuilder;

/// The header in which proxies add the address that they were called from.
///
/// Choose the one that your proxies write. A proxy passes on the other one as the client sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For: 203.0.113.7, 10.0.0.2`
    XForwardedFor,
    /// `Forwarded: for=203.0.113.7;proto=https, for=10.0.0.2` (RFC 7239)
    Forwarded,
}

pub(super) type PeerAddress = dyn Fn(&Parts) -> Option<SocketAddr> + Send + Sync;

#[derive(Clone)]
pub(super) struct Proxies {
    pub(super) header: ProxyHeader,
    pub(super) is_proxy: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

/// The most proxies in a row. A header in which more are named is ignored.
const MAX_PROXIES: usize = 32;
/// The most bytes of such a header, over all of its lines. A longer one is ignored.
const MAX_BYTES: usize = 8192;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Adds `network.peer.*` and `client.address`.
pub(super) fn with_client<'a>(
    span: SpanBuilder<'a>,
    peer_address: &PeerAddress,
    proxies: Option<&Proxies>,
    head: &Parts,
) -> SpanBuilder<'a> {
    // The functions are the user's.
    let Ok(Some(peer)) = catch_unwind(AssertUnwindSafe(|| peer_address(head))) else { return span };
    let client = || {
        let forwarded = |proxies| catch_unwind(AssertUnwindSafe(|| client(proxies, peer.ip(), &head.headers)));
        let client = proxies.and_then(|proxies| forwarded(proxies).ok());
        client.unwrap_or(peer.ip().to_canonical()).to_string()
    };
    span.attribute_with("client.address", client)
        .attribute_with("network.peer.address", || peer.ip().to_canonical().to_string())
        .attribute("network.peer.port", peer.port())
}

/// The right-most address that is not a proxy's. If all are, the left-most.
///
/// The client can write anything into the left part of the header. What lies left of the result is
/// not looked at.
fn client(proxies: &Proxies, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let peer = peer.to_canonical();
    if !(proxies.is_proxy)(peer) {
        return peer;
    }
    let name = if proxies.header == ProxyHeader::Forwarded { &FORWARDED } else { &X_FORWARDED_FOR };
    let lines = || headers.get_all(name).iter();
    if lines().map(|line| line.len()).sum::<usize>() > MAX_BYTES {
        return peer;
    }
    let mut farthest = peer;
    let mut seen = 0;
    for line in lines().rev() {
        let elements = line.to_str().ok().and_then(|line| split(line, ',', proxies.header == ProxyHeader::Forwarded));
        for element in elements.unwrap_or_else(|| vec!["unreadable"]).into_iter().rev() {
            let element = element.trim();
            if element.is_empty() {
                continue;
            }
            let node = match proxies.header {
                ProxyHeader::XForwardedFor => Some(element),
                ProxyHeader::Forwarded => forwarded_for(element),
            };
            seen += 1;
            let Some(address) = node.and_then(address).filter(|_| seen <= MAX_PROXIES) else { return peer };
            farthest = address;
            if !(proxies.is_proxy)(address) {
                return address;
            }
        }
    }
    farthest
}

/// The node of a `for` parameter (RFC 7239 §4), without its quotes.
fn forwarded_for(element: &str) -> Option<&str> {
    let pairs = split(element, ';', true)?;
    let mut pairs = pairs.into_iter().filter_map(|pair| pair.trim().split_once('='));
    let (_, node) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    match node.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"'),
        None => Some(node),
    }
}

/// Splits a header at `separator`, but not inside of quoted strings (RFC 9110 §5.6.4).
///
/// A proxy may quote what the client has sent: its `Host`. `None`: a quote has no end.
fn split(text: &str, separator: char, has_quotes: bool) -> Option<Vec<&str>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' if has_quotes => is_quoted = !is_quoted,
            _ if character == separator && !is_quoted => {
                parts.push(&text[start..at]);
                start = at + character.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!is_quoted).then_some(parts)
}

/// An address with or without a port. IPv6 may have brackets.
fn address(node: &str) -> Option<IpAddr> {
    let bare = || node.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let address = node.parse().ok().or_else(|| node.parse().ok().map(|address: SocketAddr| address.ip()));
    address.or_else(bare).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The client as a server sees it behind proxies with addresses in `10.0.0.0/8`.
    fn seen(header: ProxyHeader, peer: &str, lines: &[&str]) -> String {
        let is_proxy = |ip| matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 10);
        let name = if header == ProxyHeader::Forwarded { &FORWARDED } else { &X_FORWARDED_FOR };
        let lines = lines.iter().map(|line| (name.clone(), HeaderValue::from_bytes(line.as_bytes()).expect("a value")));
        let mut headers = HeaderMap::new();
        for (name, line) in lines {
            headers.append(name, line);
        }
        client(&Proxies { header, is_proxy: Arc::new(is_proxy) }, peer.parse().expect("an address"), &headers)
            .to_string()
    }

    #[test]
    fn the_right_most_address_that_is_no_proxys_is_the_client() {
        let many = vec!["10.0.0.9"; 31].join(", ");
        let too_many = format!("203.0.113.7, {many}, 10.0.0.9");
        let just_enough = format!("203.0.113.7, {many}");
        let long = format!("{}203.0.113.7", " ".repeat(MAX_BYTES));
        for (peer, lines, client) in [
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
            ("10.0.0.1", &["198.51.100.1", "203.0.113.7", "10.0.0.2"], "203.0.113.7"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["203.0.113.7:4711"], "203.0.113.7"),
            ("10.0.0.1", &["2001:db8::7"], "2001:db8::7"),
            ("10.0.0.1", &["[2001:db8::7]:4711 ,"], "2001:db8::7"),
            ("10.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
            ("::ffff:10.0.0.1", &["::ffff:203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["anything, 203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", &["203.0.113.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.7, \u{fe}"], "10.0.0.1"),
            ("10.0.0.1", &["999.0.113.7"], "10.0.0.1"),
            ("10.0.0.1", &[&just_enough], "203.0.113.7"),
            ("10.0.0.1", &[&too_many], "10.0.0.1"),
            ("10.0.0.1", &[&long], "10.0.0.1"),
        ] {
            assert_eq!(seen(ProxyHeader::XForwardedFor, peer, lines), client, "{peer} {lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_has_it() {
        for (line, client) in [
            ("for=203.0.113.7;proto=https;by=10.0.0.1", "203.0.113.7"),
            ("proto=https; For=\"203.0.113.7:4711\"", "203.0.113.7"),
            ("for=198.51.100.1, for=\"[2001:db8::7]:4711\", for=10.0.0.2", "2001:db8::7"),
            ("for=\"[2001:db8::7]\"", "2001:db8::7"),
            ("for=203.0.113.7, for=_hidden", "10.0.0.1"),
            ("for=\"203.0.113.7", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
            ("host=\"a, for=203.0.113.7", "10.0.0.1"),
            ("203.0.113.7", "10.0.0.1"),
            ("for=203.0.113.7;host=\"a,b\"", "203.0.113.7"),
            ("for=203.0.113.7;host=\"a,for=198.51.100.1;x=\"", "203.0.113.7"),
            ("for=203.0.113.7;host=\"\\\",for=198.51.100.1;x=\"", "203.0.113.7"),
            ("host=\"for=198.51.100.1;\";for=203.0.113.7", "203.0.113.7"),
        ] {
            assert_eq!(seen(ProxyHeader::Forwarded, "10.0.0.1", &[line]), client, "{line}");
        }
    }
}
