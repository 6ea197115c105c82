//! The principal: the user, service or account that a request is made for.

use std::fmt;
use std::sync::Arc;

use http::header::HeaderName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::context::WireKind;
use crate::{Codec, Context, Key};

const NAME: &str = "throughline-principal";
/// `throughline-principal`: the subject, percent-encoded except unreserved characters, `@` and `:`.
pub(super) static HEADER: HeaderName = HeaderName::from_static(NAME);
static PRINCIPAL: Key<Principal> = Key::on_the_wire(NAME, WireKind::Header, Codec::new(encode, decode));

/// The characters that are percent-encoded.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@').remove(b':');

/// The identity behind a request, set by an authenticator at the edge.
///
/// It travels with the context to every internal service that the request reaches, over HTTP and in
/// messages. It is never sent to external hosts. At an edge, its header is removed from the
/// requests of untrusted clients before any code reads it: bytes from an untrusted client never
/// become a principal.
///
/// # Security
/// Between internal services the principal is as safe as the network. A client that can send
/// requests to an internal service can claim any principal. If that is not safe enough, use mutual
/// TLS, or propagate a signed token and verify it.
///
/// [`Debug`](fmt::Debug) does not show the subject.
///
/// # Examples
/// ```
/// use throughline_core::{Context, Principal};
///
/// let ctx = Context::background().with_principal(Principal::new("user:7").expect("the subject is valid"));
/// assert_eq!(ctx.principal().map(Principal::subject), Some("user:7"));
/// assert_eq!(Principal::new(""), None);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// The maximum length of a subject, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 512;

    /// Creates a principal; `None` if `subject` is empty, too long, or has control characters.
    pub fn new(subject: impl AsRef<str>) -> Option<Principal> {
        let subject = subject.as_ref();
        let is_valid = (1..=Self::MAX_BYTES).contains(&subject.len()) && !subject.chars().any(char::is_control);
        is_valid.then(|| Principal(subject.into()))
    }

    /// Returns the authenticator's name for the user, service or account.
    pub fn subject(&self) -> &str {
        &self.0
    }
}

/// Omits the subject, which may be private.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Principal")
    }
}

/// # Principal
impl Context {
    /// Returns the principal of this request; `None` if nobody was authenticated.
    pub fn principal(&self) -> Option<&Principal> {
        self.value(&PRINCIPAL)
    }

    /// Returns a child context for work on behalf of `principal`.
    ///
    /// Call this only after authenticating the principal. For requests, the `authenticator` of the
    /// server layer does both.
    pub fn with_principal(&self, principal: Principal) -> Context {
        self.with_value(&PRINCIPAL, principal)
    }

    /// Returns a child context without a principal, even if this context has one.
    pub fn without_principal(&self) -> Context {
        self.without_value(&PRINCIPAL)
    }
}

fn encode(principal: &Principal) -> String {
    utf8_percent_encode(&principal.0, ENCODED).to_string()
}

pub(super) fn decode(text: &str) -> Option<Principal> {
    if text.len() > 3 * Principal::MAX_BYTES {
        return None;
    }
    Principal::new(percent_decode_str(text).decode_utf8().ok()?)
}
