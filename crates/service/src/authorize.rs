//! A rule that decides who may call a route or a service.
//!
//! Authentication says who the caller is: the [`authenticator`] of a `ContextLayer` at the edge
//! sets the [`Principal`], and every service behind it reads the same one. Authorization says what
//! that caller may do. [`Authorize`] is a tower layer for it.
//!
//! [`authenticator`]: throughline::ContextLayer::authenticator

use std::any::type_name;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{Either, Full};
use throughline::trace::Value;
use throughline::{Code, Context, Error, FutureExt as _, Principal};
use tower_layer::Layer;
use tower_service::Service;

type Deciding = Pin<Box<dyn Future<Output = Decision> + Send>>;
type Rule = dyn Fn(&Context, &Principal, &Parts) -> Verdict + Send + Sync;

enum Verdict {
    Now(Decision),
    Later(Deciding),
}

/// A tower layer that refuses requests which its rule does not allow.
///
/// It fits around a handler (`Handler::layer` of axum), a router (`Router::layer`) and any tower
/// service for HTTP requests that is `Clone`. Put it inside the `ContextLayer`, which provides the
/// request's context and puts the refusal on the trace.
///
/// | | The request is refused with |
/// |---|---|
/// | the context has no principal | `UNAUTHENTICATED` (401); the rule is not called |
/// | the rule returns `false` | `PERMISSION_DENIED` (403) |
/// | the rule returns an error | that error |
/// | the rule panics | `INTERNAL` (500) |
/// | the context is done before an async rule has decided | the error of the context |
///
/// When each thing happens:
/// - The rule is called once per request, before the service inside is called and before any of the
///   body is read. It gets the head of the request, with the extensions of outer layers.
/// - A refused request never reaches the service inside.
/// - A refusal is a problem document. The `ContextLayer` records its code and adds the service as
///   its origin. The span of the request gets an event `throughline.authorization.denied` with the
///   [name](Self::name) of the rule and the code. No header and no principal is recorded.
///
/// Several layers are several rules: all of them must allow the request.
///
/// # gRPC
/// A refusal is the same HTTP response for a gRPC request. Its client derives the code from the
/// status, as gRPC prescribes: `UNAUTHENTICATED` from 401, `PERMISSION_DENIED` from 403. It does
/// not get the message, and other codes of a rule become others: a 404 is `UNIMPLEMENTED`. A tonic
/// service that needs them decides in its method or in an interceptor.
///
/// # Examples
/// ```
/// use axum::{Router, handler::Handler, routing::get};
/// use http::{Request, request::Parts};
/// use throughline::{ContextLayer, Principal};
/// use throughline_service::Authorize;
/// use tower::ServiceExt;
///
/// fn is_teller(principal: &Principal, _head: &Parts) -> bool {
///     principal.subject().starts_with("teller:")
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), http::Error> {
/// let app = Router::new()
///     .route("/balance", get(async || "100"))
///     .route("/vault", get((async || "gold").layer(Authorize::new(is_teller))))
///     .layer(ContextLayer::internal());
///
/// let vault = |principal| {
///     let request = Request::get("/vault").header("throughline-principal", principal);
///     app.clone().oneshot(request.body(axum::body::Body::empty()).expect("it is valid"))
/// };
/// assert_eq!(vault("teller:7").await.expect("a router never fails").status(), 200);
/// assert_eq!(vault("user:7").await.expect("a router never fails").status(), 403);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Authorize {
    rule: Arc<Rule>,
    name: Cow<'static, str>,
}

impl Authorize {
    /// A layer with a rule that decides at once. It must not block.
    ///
    /// The rule returns a `bool` or a `Result<(), Error>`.
    ///
    /// ```
    /// use throughline::{Code, Error};
    /// use throughline_service::Authorize;
    ///
    /// let layer = Authorize::new(|principal, head| {
    ///     if head.uri.path() == format!("/users/{}", principal.subject()) {
    ///         return Ok(());
    ///     }
    ///     // As if the account did not exist.
    ///     Err(Error::new(Code::NotFound, "no such account"))
    /// });
    /// # let _ = layer;
    /// ```
    pub fn new<F, D>(rule: F) -> Authorize
    where
        F: Fn(&Principal, &Parts) -> D + Send + Sync + 'static,
        D: Into<Decision>,
    {
        let name = type_name::<F>().into();
        Authorize { rule: Arc::new(move |_, principal, head| Verdict::Now(rule(principal, head).into())), name }
    }

    /// A layer with a rule that may wait, for example for a call to a policy service.
    ///
    /// The rule gets the request's context, for the calls that it makes. It takes what it needs
    /// from the head and returns a future. The future is part of the request: it is dropped when
    /// the client disconnects, and when the context is done.
    ///
    /// ```
    /// use throughline::{Code, Context, Error, Principal};
    /// use throughline_service::Authorize;
    ///
    /// /// Stands for a call to another service, with the time that the request has left.
    /// async fn may_read(ctx: &Context, user: &Principal, path: &str) -> Result<bool, Error> {
    ///     ctx.check()?;
    ///     Ok(path.ends_with(user.subject()))
    /// }
    ///
    /// let layer = Authorize::new_async(|ctx, user, head| {
    ///     let path = head.uri.path().to_owned();
    ///     async move {
    ///         let is_allowed = may_read(&ctx, &user, &path).await?;
    ///         let denied = || Error::new(Code::PermissionDenied, "not yours");
    ///         is_allowed.then_some(()).ok_or_else(denied)
    ///     }
    /// });
    /// # let _ = layer;
    /// ```
    pub fn new_async<F, Fut, D>(rule: F) -> Authorize
    where
        F: Fn(Context, Principal, &Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = D> + Send + 'static,
        D: Into<Decision>,
    {
        let name = type_name::<F>().into();
        let rule = move |ctx: &Context, principal: &Principal, head: &Parts| {
            let deciding = rule(ctx.clone(), principal.clone(), head);
            Verdict::Later(Box::pin(async move { deciding.await.into() }))
        };
        Authorize { rule: Arc::new(rule), name }
    }

    /// Sets the name of the rule on spans. The default is the path of the function in the code.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Authorize {
        self.name = name.into();
        self
    }

    async fn decide(&self, ctx: &Context, head: &Parts) -> Result<(), Error> {
        let Some(principal) = ctx.principal() else {
            return Err(self.denied(ctx, Error::new(Code::Unauthenticated, "authentication is required")));
        };
        let panicked = |_| Error::new(Code::Internal, "the authorization rule panicked");
        let verdict = catch_unwind(AssertUnwindSafe(|| ctx.enter(|| (self.rule)(ctx, principal, head))));
        let decision = match verdict.map_err(panicked) {
            Ok(Verdict::Now(decision)) => decision.0,
            Ok(Verdict::Later(deciding)) => {
                let deciding = CatchPanic(deciding).with_context(ctx);
                match ctx.run(deciding).await {
                    Ok(decided) => decided.map_err(panicked).and_then(|decision| decision.0),
                    // Nobody has refused anything.
                    Err(_) => return Err(Error::from_context(ctx)),
                }
            }
            Err(panicked) => Err(panicked),
        };
        decision.map_err(|error| self.denied(ctx, error))
    }

    /// Records a refusal.
    fn denied(&self, ctx: &Context, error: Error) -> Error {
        let rule = self.name.clone().into_owned();
        ctx.current_span().add_event(
            "throughline.authorization.denied",
            [
                ("throughline.authorization.rule", Value::from(rule)),
                ("throughline.error.code", Value::from(error.code().as_str())),
            ],
        );
        error
    }
}

impl fmt::Debug for Authorize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorize").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a rule returns: a `bool` or a `Result<(), Error>` becomes one.
///
/// `false` is `PERMISSION_DENIED`.
///
/// # Examples
/// ```
/// use throughline::Error;
/// use throughline_service::{Authorize, Decision};
///
/// fn never(_: &throughline::Principal, _: &http::request::Parts) -> Decision {
///     false.into()
/// }
/// let layer = Authorize::new(never);
/// # let _ = layer;
/// ```
#[derive(Debug)]
#[must_use]
pub struct Decision(Result<(), Error>);

impl From<bool> for Decision {
    fn from(is_allowed: bool) -> Decision {
        Decision(is_allowed.then_some(()).ok_or_else(|| Error::new(Code::PermissionDenied, "permission denied")))
    }
}

impl From<Result<(), Error>> for Decision {
    fn from(result: Result<(), Error>) -> Decision {
        Decision(result)
    }
}

/// Ends with an error if the future inside panics.
struct CatchPanic(Deciding);

impl Future for CatchPanic {
    type Output = std::thread::Result<Decision>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

impl<S> Layer<S> for Authorize {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized { inner, layer: self.clone() }
    }
}

/// A service that is called only by those whom a rule allows.
///
/// [`Authorize`] makes it.
#[derive(Clone, Debug)]
pub struct Authorized<S> {
    inner: S,
    layer: Authorize,
}

impl<S, B, R> Service<Request<B>> for Authorized<S>
where
    S: Service<Request<B>, Response = Response<R>, Future: Send> + Clone + Send + 'static,
    B: Send + 'static,
{
    /// The body is the service's own, or the document of the refusal.
    type Response = Response<Either<R, Full<Bytes>>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The clone may not be ready. This service is.
        let other = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, other);
        let layer = self.layer.clone();
        let ctx = request.extensions().get().cloned().unwrap_or_else(Context::current);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            match layer.decide(&ctx, &head).await {
                Ok(()) => Ok(ready.call(Request::from_parts(head, body)).await?.map(Either::Left)),
                Err(error) => Ok(error.to_response().map(|body| Either::Right(Full::new(body)))),
            }
        })
    }
}
