//! Who a request is made for.

use std::fmt;
use std::sync::Arc;

use http::header::HeaderName;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::context::WireKind;
use crate::{Codec, Context, Key};

const NAME: &str = "throughline-principal";
/// `throughline-principal`: the subject, percent-encoded but for unreserved characters and `@` and `:`.
pub(super) static HEADER: HeaderName = HeaderName::from_static(NAME);
static PRINCIPAL: Key<Principal> = Key::on_the_wire(NAME, WireKind::Header, Codec::new(encode, decode));

const NOT_PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@').remove(b':');

/// Who a request is made for, as an authenticator at the edge has found.
///
/// It goes with the context to every service of ours that the request reaches, over HTTP and with messages, and to no stranger. What
/// comes in at an edge under its name is removed before anybody reads it: bytes of a stranger never become one.
///
/// Between internal hosts it is as safe as the network: whoever can send a request to an internal service can name anybody. Where that
/// is too little, use mutual TLS, or pass on a signed token and check it.
///
/// [`Debug`](fmt::Debug) does not tell the subject.
///
/// # Examples
/// ```
/// use throughline_core::{Context, Principal};
///
/// let ctx = Context::background().with_principal(Principal::new("user:7").expect("it is short"));
/// assert_eq!(ctx.principal().map(Principal::subject), Some("user:7"));
/// assert_eq!(Principal::new(""), None);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// The longest subject, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 512;

    /// The principal of that subject; `None` if it is empty, too long, or has control characters.
    pub fn new(subject: impl AsRef<str>) -> Option<Principal> {
        let subject = subject.as_ref();
        let is_valid = (1..=Self::MAX_BYTES).contains(&subject.len()) && !subject.chars().any(char::is_control);
        is_valid.then(|| Principal(subject.into()))
    }

    /// What the authenticator calls it: a user, a service, an account.
    pub fn subject(&self) -> &str {
        &self.0
    }
}

/// Not the subject, which may be private.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Principal")
    }
}

/// # Principal
impl Context {
    /// Who the request is made for; `None`: nobody has been authenticated.
    pub fn principal(&self) -> Option<&Principal> {
        self.value(&PRINCIPAL)
    }

    /// A context of work that is done for `principal`: for whoever has authenticated it. Requests are given theirs by the server
    /// layer's `authenticator`.
    pub fn with_principal(&self, principal: Principal) -> Context {
        self.with_value(&PRINCIPAL, principal)
    }

    /// A context of work that is done for nobody in particular, whoever it was above.
    pub fn without_principal(&self) -> Context {
        self.without_value(&PRINCIPAL)
    }
}

fn encode(principal: &Principal) -> String {
    utf8_percent_encode(&principal.0, NOT_PLAIN).to_string()
}

pub(super) fn decode(text: &str) -> Option<Principal> {
    if text.len() > 3 * Principal::MAX_BYTES {
        return None;
    }
    Principal::new(percent_decode_str(text).decode_utf8().ok()?)
}
