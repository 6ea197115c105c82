//! The context of a whole exchange, for streams and for upgraded connections.

use std::future::Future;

use http::Extensions;
use throughline_core::{Cause, Context};

use super::extract::Served;

/// The context of a whole exchange: for streams and for upgraded connections.
///
/// The handler's context ends at the limits of its layer ([`max_timeout`]) even if the response is
/// still being sent. Code that outlives the head of the response uses this context instead: for
/// example the task that feeds a stream of server-sent events. It has the same values and the same
/// span.
///
/// It is done:
/// - when the response body has ended, with [`Cause::RequestFinished`];
/// - at the deadline that the caller has sent, if any;
/// - when the client disconnects, or the layer's [`base`](super::ContextLayer::base) is done;
/// - when the layer ends the response, because it had no head, or no next frame, within the limit.
///
/// With the feature `axum` it is an extractor, which never fails. Without a
/// [`ContextLayer`](super::ContextLayer) it is [`Context::current`].
///
/// [`max_timeout`]: super::ContextLayer::max_timeout
///
/// # Examples
/// ```
/// use std::convert::Infallible;
/// use std::time::Duration;
/// use axum::response::sse::{Event, Sse};
/// use axum::{Router, routing::get};
/// use futures_util::{Stream, stream};
/// use throughline::{ContextLayer, StreamCtx};
///
/// async fn ticks(StreamCtx(ctx): StreamCtx) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
///     Sse::new(stream::unfold(ctx, async |ctx| {
///         ctx.run(tokio::time::sleep(Duration::from_secs(1))).await.ok()?;
///         Some((Ok(Event::default().data("tick")), ctx))
///     }))
/// }
///
/// // It may tick for days: 60 s is the limit for the head, and for each frame.
/// let app: Router = Router::new().route("/ticks", get(ticks)).layer(ContextLayer::edge());
/// # let _ = app;
/// ```
#[derive(Clone, Debug)]
pub struct StreamCtx(pub Context);

impl StreamCtx {
    /// The context of the exchange whose request has these extensions.
    ///
    /// `None` if no [`ContextLayer`](super::ContextLayer) has handled it. For handlers without
    /// extractors, such as those of tonic.
    ///
    /// ```
    /// use http::Extensions;
    /// use throughline::StreamCtx;
    ///
    /// assert!(StreamCtx::of(&Extensions::new()).is_none());
    /// ```
    pub fn of(extensions: &Extensions) -> Option<StreamCtx> {
        extensions.get::<Served>().map(|served| StreamCtx(served.whole.clone()))
    }

    /// Runs the task of an upgraded connection: a session, such as one over a websocket.
    ///
    /// The span of a request ends at the head of a `101`, and no `RequestFinished` cancels its
    /// context. This gives the session a context and a span of its own.
    ///
    /// - The context is a child of this one. It is the argument of `work`, and it is ambient while
    ///   `work` is polled.
    /// - A span with `name` is a child of the request's span. It ends with the session.
    /// - When `work` is ready, the context is cancelled with [`Cause::RequestFinished`], and so all
    ///   work that was started below it. When the future is dropped, the cause is `HandleDropped`.
    /// - When this context is done first, for example by a shutdown, `work` is dropped, and the
    ///   connection with it. The result is then `None`.
    ///
    /// It does not read from the connection. `work` must read it to see that the peer has closed
    /// it.
    ///
    /// # Cancellation safety
    /// Dropping the future drops `work`, and cancels its context.
    ///
    /// # Examples
    /// With axum's `WebSocketUpgrade`, call it in `on_upgrade`:
    /// `async move |socket| { ctx.session("chat", |ctx| chat(ctx, socket)).await; }`.
    /// ```
    /// use throughline::{Context, StreamCtx};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let ctx = StreamCtx(Context::background());
    /// let mut session = None;
    /// let result = ctx.session("chat", async |ctx| session.insert(ctx).remaining()).await;
    /// assert_eq!(result, Some(None), "it has no deadline");
    /// assert!(session.is_some_and(|ctx| ctx.is_done()), "its context ends with it");
    /// # });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn session<F, T>(self, name: impl Into<String>, work: impl FnOnce(Context) -> F) -> Option<T>
    where
        F: Future<Output = T>,
    {
        let handle = self.0.with_cancel();
        let span = handle.span(name.into()).start();
        let ctx = span.context().clone();
        let work = ctx.enter(|| work(ctx.clone()));
        let result = ctx.run(ctx.scope(work)).await;
        if let (Err(_), Some(cause)) = (&result, ctx.cause()) {
            span.record_cancelled(&cause);
        }
        span.end();
        handle.cancel_with(Cause::RequestFinished);
        result.ok()
    }
}
