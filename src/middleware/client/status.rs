use std::error::Error as StdError;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Buf;
use http::Response;
use http_body::Body;

use super::CallBody;
use crate::error::{Error, MAX_DOCUMENT};

/// Turns a 4xx or 5xx response into the error that it describes.
///
/// - From an [internal](super::ClientLayer::internal) service, the error is that of the problem
///   document in the body. It reads at most 64 KiB, and only until the context is done.
/// - From an external host, or without a document, the error is the meaning of the status:
///   [over gRPC](crate::Code::from_http_status_of_grpc) or
///   [over plain HTTP](crate::Code::from_http_status). The body of an external host is not read.
///
/// # Errors
/// The status is a 4xx or 5xx.
///
/// # Cancellation safety
/// Dropping the future drops the response and the call.
///
/// # Examples
/// ```
/// use http::{Request, Response};
/// use throughline::middleware::client::error_for_status;
/// use throughline::{ClientLayer, Code, Error};
/// use tower::{Layer, Service, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let peer = service_fn(async |_: Request<()>| {
///     let response = Error::new(Code::NotFound, "no such card").to_response();
///     Ok::<_, std::convert::Infallible>(response.map(http_body_util::Full::new))
/// });
/// let response = ClientLayer::internal().layer(peer).call(Request::new(())).await?;
/// let error = error_for_status(response).await.expect_err("it is a 404");
/// assert_eq!(error.message(), "no such card");
/// # Ok::<(), Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn error_for_status<R>(response: Response<CallBody<R>>) -> Result<Response<CallBody<R>>, Error>
where
    R: Body,
    R::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    if !response.status().is_client_error() && !response.status().is_server_error() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let mut body = pin!(body);
    if body.is_external() {
        return Err(body.as_mut().body_and_call().1.error_of(parts.status, &parts.headers, &[]));
    }
    let ctx = body.context().clone();
    let mut document = Vec::new();
    let read = ctx.run(poll_fn(|cx| {
        loop {
            let Some(body) = body.as_mut().body_and_call().0 else { return Poll::Ready(()) };
            match body.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(mut data) = frame.into_data() else { continue };
                    // One byte past the limit shows that the document is too long.
                    let room = (MAX_DOCUMENT + 1 - document.len()).min(data.remaining());
                    document.extend_from_slice(&data.copy_to_bytes(room));
                    if document.len() > MAX_DOCUMENT {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(None | Some(Err(_))) => return Poll::Ready(()),
            }
        }
    }));
    // A document that was not read in time is ignored: the error is the meaning of the status.
    if read.await.is_err() {
        document.clear();
    }
    let (_, call) = body.as_mut().body_and_call();
    Err(call.error_of(parts.status, &parts.headers, &document))
}
