use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll};

use http::{Extensions, Request};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use throughline_core::{Context, DoneOwned};

pin_project! {
    /// A request body that ends with its call.
    ///
    /// **Why.** Over HTTP/2, hyper sends the body of a request in its own task. After the head of
    /// the response has arrived, that task outlives the call. So hyper does not reset a cancelled
    /// or dropped call while its body has more to send. This body ends with an error then. Over
    /// HTTP/2 hyper resets the stream (CANCEL), and over HTTP/1 it closes the connection.
    ///
    /// **When to use it.** [`ClientLayer`](super::ClientLayer) wraps the bodies of tonic, axum and
    /// reqwest itself. For a client with other bodies, [`wrap`](Self::wrap) the requests before
    /// they reach the layer. Without a `ClientLayer`, the body passes unchanged.
    ///
    /// **Limit.** Hyper does not poll a body while the peer's flow-control window is closed. The
    /// reset then waits until the window opens.
    ///
    /// # Examples
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::{Empty, Full};
    /// use throughline::ClientLayer;
    /// use throughline::middleware::client::RequestBody;
    /// use tower::{Layer, Service, ServiceExt, service_fn};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// // With hyper-util: `Client<HttpConnector, RequestBody<Full<Bytes>>>`.
    /// let client = service_fn(async |_: Request<RequestBody<Full<Bytes>>>| {
    ///     Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new()))
    /// });
    /// let mut client = ClientLayer::internal().layer(client).map_request(RequestBody::wrap);
    /// let response = client.call(Request::new(Full::new(Bytes::from("7")))).await?;
    /// assert_eq!(response.status(), 200);
    /// # Ok::<(), throughline::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub struct RequestBody<B> {
        #[pin]
        body: B,
        call: CallSlot,
        // Set by the first poll below a call. Boxed because hyper needs bodies that are `Unpin`.
        end: Option<Pin<Box<DoneOwned>>>,
    }
}

impl<B> RequestBody<B> {
    /// Wraps the body of `request` so that it ends with its call.
    pub fn wrap(mut request: Request<B>) -> Request<RequestBody<B>> {
        let call = CallSlot::default();
        request.extensions_mut().insert(call.clone());
        request.map(|body| RequestBody { body, call, end: None })
    }

    #[cfg(any(feature = "tonic", feature = "axum", feature = "reqwest"))]
    pub(super) fn ending_with(body: B, call: &Context) -> Self {
        RequestBody { body, call: CallSlot::default(), end: Some(Box::pin(call.done_owned())) }
    }
}

/// Gives a wrapped body its call: a context that is done when the call ends.
#[derive(Clone, Default)]
struct CallSlot(Arc<OnceLock<Context>>);

/// Makes the body of a request end with its call.
///
/// `call` returns the context that is done when the call ends.
pub(super) fn end_with_call<B: 'static>(body: B, extensions: &mut Extensions, call: impl FnOnce() -> Context) -> B {
    if let Some(slot) = extensions.remove::<CallSlot>() {
        // A slot that is already set belongs to an outer layer, whose call does not end earlier.
        let _ = slot.0.set(call());
        return body;
    }
    let mut body = Some(body);
    wrap_known(&mut body, call);
    body.expect("wrap_known puts back every body that it takes")
}

/// Wraps a body whose type can hold any other body: tonic's and axum's.
fn wrap_known(body: &mut dyn Any, call: impl FnOnce() -> Context) {
    #[cfg(feature = "tonic")]
    if let Some(body) = body.downcast_mut::<Option<tonic::body::Body>>() {
        if let Some(inner) = body.take_if(|body| !body.is_end_stream()) {
            *body = Some(tonic::body::Body::new(RequestBody::ending_with(inner, &call())));
        }
        return;
    }
    #[cfg(feature = "axum")]
    if let Some(body) = body.downcast_mut::<Option<axum::body::Body>>() {
        if let Some(inner) = body.take_if(|body| !body.is_end_stream()) {
            *body = Some(axum::body::Body::new(RequestBody::ending_with(inner, &call())));
        }
        return;
    }
    let _ = (body, call);
}

impl<B> Body for RequestBody<B>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let this = self.project();
        if this.end.is_none() {
            *this.end = this.call.0.get().map(|call| Box::pin(call.done_owned()));
        }
        if let Some(end) = this.end
            && end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(Box::new(CallEnded(h2::Reason::CANCEL.into())))));
        }
        this.body.poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}

/// The error of a request body whose call has ended.
///
/// Its source is the code with which hyper resets the stream.
#[derive(Debug)]
struct CallEnded(h2::Error);

impl fmt::Display for CallEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call is over")
    }
}

impl StdError for CallEnded {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}
