//! Axum extractors for the context of a request.

use std::convert::Infallible;

use ::axum::extract::FromRequestParts;
use http::request::Parts;
use throughline_core::Context;

use super::server::StreamCtx;

/// An axum extractor for the context of a request.
///
/// It never fails. Without a [`ContextLayer`](crate::ContextLayer) it is [`Context::current`]: the
/// background, unless an outer service has entered another one. So a handler can be tested without
/// the layer. `Extension<Context>` responds with a 500 then.
///
/// For code that outlives the head of the response, use [`StreamCtx`].
///
/// # Examples
/// ```
/// use axum::{Router, routing::get};
/// use throughline::{ContextLayer, Ctx};
///
/// async fn remaining(Ctx(ctx): Ctx) -> String {
///     format!("{:?}", ctx.remaining())
/// }
///
/// let app: Router = Router::new().route("/", get(remaining)).layer(ContextLayer::internal());
/// # let _ = app;
/// ```
#[derive(Clone, Debug)]
pub struct Ctx(pub Context);

impl<S: Sync> FromRequestParts<S> for Ctx {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Ctx(head.extensions.get().cloned().unwrap_or_else(Context::current)))
    }
}

impl<S: Sync> FromRequestParts<S> for StreamCtx {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(StreamCtx::of(&head.extensions).unwrap_or_else(|| StreamCtx(Context::current())))
    }
}
