//! The layer that waits for an authenticator, inside the layer that makes the context.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use throughline_core::{Context, WithContext};
use tower_layer::Layer;
use tower_service::Service;

use super::authenticated::{AsyncAuthenticator, Authenticated, Authenticating, Refused, catch_panic};
use super::extract::Served;
use super::layer::{ContextLayer, Trust};
use super::service::ContextService;
use crate::error::Error;

/// # Authentication
impl ContextLayer {
    /// Determines the principal of an untrusted client's request.
    ///
    /// Internal services send the principal themselves. The authenticator returns:
    /// - A [`Principal`](crate::Principal), or `None` for a request without one.
    /// - An [`Authenticated`]: a principal and values for the context.
    /// - An error: the layer responds with it and does not call the handler. Use the code
    ///   [`Code::Unauthenticated`](crate::Code::Unauthenticated), and
    ///   [`Error::with_www_authenticate`] for the header that HTTP wants with it.
    ///
    /// It is called once, after the check of the deadline and before the handler. The request's
    /// context is the ambient one. It must not block: for work that waits, such as a query to a
    /// session store, use [`async_authenticator`](Self::async_authenticator). If it panics, the
    /// request is refused with `INTERNAL`.
    ///
    /// ```
    /// use http::HeaderValue;
    /// use throughline::{Code, ContextLayer, Error, Principal};
    ///
    /// # fn verify(_token: &[u8]) -> Option<String> { None }
    /// let layer = ContextLayer::edge().authenticator(|head| {
    ///     let Some(token) = head.headers.get("authorization") else { return Ok(None) };
    ///     let user = verify(token.as_bytes()).and_then(Principal::new);
    ///     user.map(Some).ok_or_else(|| {
    ///         Error::new(Code::Unauthenticated, "invalid token")
    ///             .with_www_authenticate(HeaderValue::from_static("Bearer"))
    ///     })
    /// });
    /// # let _ = layer;
    /// ```
    pub fn authenticator<A: Into<Authenticated>>(
        self,
        authenticate: impl Fn(&Parts) -> Result<A, Error> + Send + Sync + 'static,
    ) -> Self {
        let authenticator = move |head: &Parts| authenticate(head).map(Into::into);
        self.change(|config| config.authenticator = Some(Arc::new(authenticator)))
    }

    /// Determines the principal of an untrusted client's request, and may wait.
    ///
    /// Like [`authenticator`](Self::authenticator), with these differences:
    /// - `authenticate` gets the request's context, for the calls that it makes. It takes what it
    ///   needs from the head of the request, and returns a future.
    /// - The future is inside the request: its span is the parent, its deadline ends it with a 504,
    ///   and a client that disconnects ends it, too. Dropping it is the only way it is cancelled.
    ///   Under [`OnDisconnect::Detach`](crate::OnDisconnect::Detach) it continues, like a handler.
    /// - The service inside must be `Clone`, as the services of axum and tonic are.
    ///
    /// Call it last: it returns a layer without the other settings. If both authenticators are set,
    /// the one that does not wait is called first.
    ///
    /// # Examples
    /// ```
    /// use throughline::middleware::server::Authenticated;
    /// use throughline::{Code, Context, ContextLayer, Error, Key, Principal};
    ///
    /// static TENANT: Key<u64> = Key::baggage("tenant");
    ///
    /// #[derive(Clone)]
    /// struct Sessions;
    ///
    /// impl Sessions {
    ///     /// Stands for a call to another service, with the time that the request has left.
    ///     async fn find(&self, ctx: &Context, token: &str) -> Result<(Principal, u64), Error> {
    ///         ctx.check()?;
    ///         let user = token.strip_prefix("Bearer ").and_then(Principal::new);
    ///         user.map(|user| (user, 7)).ok_or_else(|| Error::new(Code::Unauthenticated, "no session"))
    ///     }
    /// }
    ///
    /// let sessions = Sessions;
    /// let layer = ContextLayer::edge().async_authenticator(move |ctx, head| {
    ///     let token = head.headers.get("authorization").and_then(|token| token.to_str().ok());
    ///     let (token, sessions) = (token.map(str::to_owned), sessions.clone());
    ///     async move {
    ///         let Some(token) = token else { return Ok(Authenticated::anonymous()) };
    ///         let (user, tenant) = sessions.find(&ctx, &token).await?;
    ///         Ok(Authenticated::new(user).with(&TENANT, tenant))
    ///     }
    /// });
    /// # let _ = layer;
    /// ```
    pub fn async_authenticator<A, F>(
        self,
        authenticate: impl Fn(Context, &Parts) -> F + Send + Sync + 'static,
    ) -> AuthenticatingLayer
    where
        A: Into<Authenticated>,
        F: Future<Output = Result<A, Error>> + Send + 'static,
    {
        let layer = self.change(|config| config.inner_may_refuse = true);
        let authenticator = move |ctx: Context, head: &Parts| -> Authenticating {
            let authenticating = authenticate(ctx, head);
            Box::pin(async move { authenticating.await.map(Into::into) })
        };
        AuthenticatingLayer { layer, authenticator: Arc::new(authenticator) }
    }
}

/// A [`ContextLayer`] with an authenticator that waits.
///
/// [`ContextLayer::async_authenticator`] makes it.
#[derive(Clone)]
#[must_use]
pub struct AuthenticatingLayer {
    layer: ContextLayer,
    authenticator: Arc<AsyncAuthenticator>,
}

impl<S> Layer<S> for AuthenticatingLayer {
    type Service = ContextService<AuthenticatingService<S>>;

    fn layer(&self, inner: S) -> Self::Service {
        self.layer.layer(AuthenticatingService { inner, authenticator: Arc::clone(&self.authenticator) })
    }
}

impl fmt::Debug for AuthenticatingLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AuthenticatingLayer").field(&self.layer).finish()
    }
}

/// Authenticates untrusted clients before their handler is called.
///
/// Made by [`AuthenticatingLayer`], inside a [`ContextService`].
#[derive(Clone)]
pub struct AuthenticatingService<S> {
    inner: S,
    authenticator: Arc<AsyncAuthenticator>,
}

impl<S, B, R> Service<Request<B>> for AuthenticatingService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Response = Response<AuthenticatedBody<R>>;
    type Error = S::Error;
    type Future = AuthenticatingFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let ctx = Context::current();
        let served = request.extensions().get().filter(|served: &&Served| served.trust == Trust::Edge).cloned();
        let Some(served) = served else {
            let handler = ctx.scope(self.inner.call(request));
            return AuthenticatingFuture { state: State::Handling { handler }, ctx };
        };
        let (head, body) = request.into_parts();
        let work = catch_panic(|| (self.authenticator)(ctx.clone(), &head));
        // The clone may not be ready. This service is.
        let other = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, other);
        let next = Some((ready, Request::from_parts(head, body), served));
        AuthenticatingFuture { state: State::Authenticating { work: Some(work), next }, ctx }
    }
}

impl<S: fmt::Debug> fmt::Debug for AuthenticatingService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticatingService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of an [`AuthenticatingService`]: waits for the authenticator, then the handler.
    pub struct AuthenticatingFuture<S, B, F> {
        #[pin]
        state: State<S, B, F>,
        // Of the whole exchange, with the principal and values, once the client is authenticated.
        ctx: Context,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B, F> {
        Authenticating {
            // An error if the authenticator panicked when it was called. `None` once it is ready.
            work: Option<Result<Authenticating, Error>>,
            next: Option<(S, Request<B>, Served)>,
        },
        Handling {
            #[pin]
            handler: WithContext<F>,
        },
    }
}

impl<S, B, R> Future for AuthenticatingFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<Response<AuthenticatedBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let (outcome, next) = match this.state.as_mut().project() {
                StateProjection::Handling { handler } => {
                    let response = ready!(handler.poll(cx))?;
                    let ctx = this.ctx.clone();
                    return Poll::Ready(Ok(response.map(|body| AuthenticatedBody { body: Some(body), ctx })));
                }
                StateProjection::Authenticating { work, next } => {
                    let outcome = match work {
                        Some(Ok(authenticating)) => match catch_panic(|| authenticating.as_mut().poll(cx)) {
                            Ok(polled) => ready!(polled),
                            Err(panicked) => Err(panicked),
                        },
                        Some(Err(panicked)) => Err(panicked.clone()),
                        None => unreachable!("a future that was ready is not polled again"),
                    };
                    *work = None;
                    (outcome, next.take())
                }
            };
            match outcome {
                Ok(authenticated) => {
                    let next = next.expect("only this takes it, and changes the state");
                    let (mut service, mut request, Served { trust, whole, handler }) = next;
                    let (whole, ctx) = authenticated.contexts(&whole, &handler);
                    *this.ctx = whole.clone();
                    Served { trust, whole, handler: ctx.clone() }.insert_into(request.extensions_mut());
                    let handler = ctx.scope(ctx.enter(|| service.call(request)));
                    this.state.set(State::Handling { handler });
                }
                Err(error) => {
                    let mut refusal = Response::new(AuthenticatedBody { body: None, ctx: this.ctx.clone() });
                    *refusal.status_mut() = error.code().http_status();
                    refusal.extensions_mut().insert(Refused(error));
                    return Poll::Ready(Ok(refusal));
                }
            }
        }
    }
}

impl<S, B, F> fmt::Debug for AuthenticatingFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticatingFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// The body of a response to an authenticated client: the handler's own.
    ///
    /// The context with the principal is ambient while it is polled.
    pub struct AuthenticatedBody<R> {
        // `None`: the request was refused. The outer layer writes the body.
        #[pin]
        body: Option<R>,
        ctx: Context,
    }
}

impl<R: Body<Data = Bytes>> Body for AuthenticatedBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let this = self.project();
        match this.body.as_pin_mut() {
            Some(body) => this.ctx.enter(|| body.poll_frame(cx)),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(R::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), R::size_hint)
    }
}

impl<R> fmt::Debug for AuthenticatedBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticatedBody").finish_non_exhaustive()
    }
}
