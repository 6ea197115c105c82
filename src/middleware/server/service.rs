use std::fmt;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::detached::Detached;
use super::exchange::Exchange;
use super::future::{ResponseFuture, Work};
use super::layer::Config;
use super::route::OnDisconnect;
use super::{ContextLayer, ResponseBody};

/// A service that gives every request its context. Made by [`ContextLayer`].
#[derive(Clone)]
pub struct ContextService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> ContextService<S> {
    pub(super) fn new(inner: S, config: Arc<Config>) -> Self {
        ContextService { inner, config }
    }
}

impl<S, B, R> Service<Request<B>> for ContextService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, R, S::Error>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let mut exchange = Exchange::begin(&self.config, &mut head);
        if exchange.is_shed() {
            self.config.counts.add_shed();
            exchange.record_shed();
            return ResponseFuture::new(exchange, Work::None);
        }
        if !exchange.authenticate(&head) {
            return ResponseFuture::new(exchange, Work::None);
        }
        let ctx = exchange.context().clone();
        exchange.insert_into(&mut head.extensions);
        let handler = ctx.scope(ctx.enter(|| self.inner.call(Request::from_parts(head, body))));
        let work = match exchange.on_disconnect() {
            OnDisconnect::Cancel => Work::Inline { handler },
            OnDisconnect::Detach => Work::Detached { task: Detached::spawn(handler, ctx.done_owned()) },
        };
        ResponseFuture::new(exchange, work)
    }
}

impl<S: fmt::Debug> fmt::Debug for ContextService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = ContextLayer::from_config(Arc::clone(&self.config));
        f.debug_struct("ContextService").field("inner", &self.inner).field("layer", &layer).finish()
    }
}
