//! Who an untrusted client is: the result of an authenticator, and how one is called.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;

use http::request::Parts;
use throughline_core::{Context, Key, Principal};

use crate::error::{Code, Error};

/// Who a client is: its principal, and values for the context of its request.
///
/// An authenticator returns it, or a [`Principal`] or an `Option<Principal>`, which become one.
/// The handler finds the values in its [`Context`], under their keys. Values whose key is declared
/// for the wire reach the internal services behind the edge, too.
///
/// # Examples
/// ```
/// use throughline::middleware::server::Authenticated;
/// use throughline::{ContextLayer, Error, Key, Principal};
///
/// static TENANT: Key<u64> = Key::baggage("tenant");
///
/// # fn verify(headers: &http::HeaderMap) -> Result<(Principal, u64), Error> {
/// #     let token = headers.get("authorization").and_then(|token| token.to_str().ok());
/// #     let user = token.and_then(|token| Principal::new(token.strip_prefix("Bearer ")?));
/// #     Ok((user.ok_or_else(|| Error::new(throughline::Code::Unauthenticated, "no valid token"))?, 7))
/// # }
/// let layer = ContextLayer::edge().authenticator(|head| {
///     let (user, tenant) = verify(&head.headers)?;
///     Ok(Authenticated::new(user).with(&TENANT, tenant))
/// });
/// # let _ = layer;
/// ```
#[derive(Default)]
#[must_use]
pub struct Authenticated {
    principal: Option<Principal>,
    values: Vec<AddValue>,
}

type AddValue = Box<dyn FnOnce(&Context) -> Context + Send>;

impl Authenticated {
    /// A client with this principal.
    pub fn new(principal: Principal) -> Self {
        Authenticated { principal: Some(principal), ..Self::default() }
    }

    /// A client without a principal.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Adds a value for the context of the request.
    pub fn with<T: Send + Sync + 'static>(mut self, key: &'static Key<T>, value: T) -> Self {
        self.values.push(Box::new(move |ctx| ctx.with_value(key, value)));
        self
    }

    /// The contexts of the client's request: of the whole exchange, and of its handler.
    pub(super) fn contexts(self, whole: &Context, handler: &Context) -> (Context, Context) {
        let authenticated = match self.principal {
            Some(principal) => whole.with_principal(principal),
            None => whole.clone(),
        };
        let authenticated = self.values.into_iter().fold(authenticated, |ctx, add| add(&ctx));
        let handler = match handler.deadline().filter(|_| handler != whole) {
            Some(limit) => authenticated.with_deadline(limit),
            None => authenticated.clone(),
        };
        (authenticated, handler)
    }
}

impl From<Principal> for Authenticated {
    fn from(principal: Principal) -> Self {
        Authenticated::new(principal)
    }
}

impl From<Option<Principal>> for Authenticated {
    fn from(principal: Option<Principal>) -> Self {
        Authenticated { principal, ..Authenticated::default() }
    }
}

/// Does not show the subject or the values, which may be private.
impl fmt::Debug for Authenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticated").field("principal", &self.principal).field("values", &self.values.len()).finish()
    }
}

type Outcome = Result<Authenticated, Error>;
pub(super) type Authenticator = dyn Fn(&Parts) -> Outcome + Send + Sync;
pub(super) type AsyncAuthenticator = dyn Fn(Context, &Parts) -> Authenticating + Send + Sync;
pub(super) type Authenticating = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// In the extensions of a response: an inner layer has refused the request with this error.
///
/// The rest of that response is ignored.
#[derive(Clone)]
pub(super) struct Refused(pub(super) Error);

/// Calls user code that authenticates. A panic becomes an error: it refuses the request.
pub(super) fn catch_panic<T>(authenticate: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(authenticate)).map_err(|_| Error::new(Code::Internal, "the authenticator panicked"))
}
