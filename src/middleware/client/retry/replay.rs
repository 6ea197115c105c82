//! Bodies that can be sent more than once.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{Empty, Full};

/// The most bytes of a boxed body that are kept for a second attempt.
const MAX_KEPT: usize = 256 * 1024;

/// A request body that a retry can send again.
///
/// It must be known before the first attempt.
/// Implement it for a body type of your own, so that [`RetryLayer`](super::RetryLayer) accepts it.
/// A body that can never be sent again returns `None`.
///
/// - `Full`, `Empty`, `String`, `Bytes` and `()` are cloned.
/// - Boxed bodies (tonic, axum, `http_body_util`) are read before the first attempt, as far as
///   their frames are ready. So the message of a unary gRPC call is known. A body that is larger
///   than 256 KiB, or that has to wait for its next frame, is sent once and not retried.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use throughline::middleware::client::retry::Replay;
///
/// assert!(Full::new(Bytes::from("7")).replay().is_some());
/// let stream = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
/// assert!(axum::body::Body::from_stream(stream).replay().is_none());
/// ```
pub trait Replay: Sized {
    /// Returns a body with the same content. `None`: this body can be sent only once.
    ///
    /// The content of this body does not change.
    fn replay(&mut self) -> Option<Self>;
}

impl Replay for () {
    fn replay(&mut self) -> Option<Self> {
        Some(())
    }
}

impl Replay for String {
    fn replay(&mut self) -> Option<Self> {
        Some(self.clone())
    }
}

impl Replay for Bytes {
    fn replay(&mut self) -> Option<Self> {
        Some(self.clone())
    }
}

impl<D: Clone> Replay for Full<D> {
    fn replay(&mut self) -> Option<Self> {
        Some(self.clone())
    }
}

impl<D> Replay for Empty<D> {
    fn replay(&mut self) -> Option<Self> {
        Some(Empty::new())
    }
}

impl<E: Send + Sync + 'static> Replay for BoxBody<Bytes, E> {
    fn replay(&mut self) -> Option<Self> {
        replay(self, BoxBody::new)
    }
}

impl<E: Send + 'static> Replay for UnsyncBoxBody<Bytes, E> {
    fn replay(&mut self) -> Option<Self> {
        replay(self, UnsyncBoxBody::new)
    }
}

#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
impl Replay for tonic::body::Body {
    fn replay(&mut self) -> Option<Self> {
        replay(self, tonic::body::Body::new)
    }
}

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
impl Replay for axum::body::Body {
    fn replay(&mut self) -> Option<Self> {
        replay(self, axum::body::Body::new)
    }
}

/// Reads `body` as far as it is ready, and puts back what was read.
///
/// Returns a second body if it was read to its end.
fn replay<B>(body: &mut B, boxed: impl Fn(Kept<B>) -> B) -> Option<B>
where
    B: Body<Data = Bytes> + Default + Unpin,
{
    if body.size_hint().lower() > MAX_KEPT as u64 {
        return None;
    }
    let mut rest = std::mem::take(body);
    let (mut frames, mut copies) = (VecDeque::new(), VecDeque::new());
    let mut size = 0;
    // The body is polled again when it is sent. Its waker is registered then.
    let mut cx = Context::from_waker(Waker::noop());
    let is_known = loop {
        match Pin::new(&mut rest).poll_frame(&mut cx) {
            Poll::Ready(None) => break true,
            Poll::Ready(Some(frame)) => {
                let copy = frame.as_ref().ok().and_then(copy_of);
                size += copy.as_ref().map_or(0, |(_, size)| *size);
                frames.push_back(frame);
                match copy {
                    Some((copy, _)) if size <= MAX_KEPT => copies.push_back(Ok(copy)),
                    _ => break false,
                }
            }
            Poll::Pending => break false,
        }
    };
    *body = boxed(Kept { frames, rest: (!is_known).then_some(rest) });
    is_known.then(|| boxed(Kept { frames: copies, rest: None }))
}

/// A copy of a frame, with its size in memory.
fn copy_of(frame: &Frame<Bytes>) -> Option<(Frame<Bytes>, usize)> {
    // An empty frame counts, too: their number is limited.
    const OVERHEAD: usize = size_of::<Frame<Bytes>>();
    if let Some(data) = frame.data_ref() {
        return Some((Frame::data(data.clone()), data.len() + OVERHEAD));
    }
    let trailers: &HeaderMap = frame.trailers_ref()?;
    let size: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    Some((Frame::trailers(trailers.clone()), size + OVERHEAD))
}

/// Frames that were read before, and the rest of the body.
struct Kept<B: Body> {
    frames: VecDeque<Result<Frame<B::Data>, B::Error>>,
    rest: Option<B>,
}

/// No frame is pinned.
impl<B: Body + Unpin> Unpin for Kept<B> {}

impl<B: Body + Unpin> Body for Kept<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(frame));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let data = self.frames.iter().filter_map(|frame| frame.as_ref().ok()?.data_ref());
        let kept = data.map(|data| data.remaining() as u64).sum::<u64>();
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), B::size_hint);
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
            hint.set_upper(upper);
        }
        hint.set_lower(rest.lower().saturating_add(kept));
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt;

    use super::*;

    type Frames = Vec<Frame<Bytes>>;

    fn boxed(frames: Frames) -> UnsyncBoxBody<Bytes, Infallible> {
        UnsyncBoxBody::new(http_body_util::StreamBody::new(futures_util::stream::iter(frames.into_iter().map(Ok))))
    }

    #[tokio::test]
    async fn a_boxed_body_of_ready_frames_is_sent_twice_with_its_trailers() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("1"))]);
        let frames = vec![Frame::data(Bytes::from("a")), Frame::data(Bytes::from("b")), Frame::trailers(trailers)];
        let mut body = boxed(frames);
        let mut second = body.replay().expect("all frames are ready");
        let third = second.replay().expect("a copy can be copied");
        for body in [body, second, third] {
            assert_eq!(body.size_hint().exact(), Some(2));
            let read = body.collect().await.expect("it cannot fail");
            assert_eq!(read.trailers().map(HeaderMap::len), Some(1));
            assert_eq!(read.to_bytes(), "ab");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_sent_once_and_unchanged() {
        let half = || Frame::data(Bytes::from(vec![7; MAX_KEPT / 2]));
        let mut body = boxed(vec![half(), half(), half()]);
        assert!(body.replay().is_none());
        let read = body.collect().await.expect("it cannot fail").to_bytes();
        assert_eq!(read.len(), MAX_KEPT / 2 * 3);

        let mut many = boxed((0..MAX_KEPT).map(|_| Frame::data(Bytes::new())).collect());
        assert!(many.replay().is_none(), "empty frames take memory, too");
        let mut large = UnsyncBoxBody::new(Full::new(Bytes::from(vec![7; MAX_KEPT + 1])));
        assert!(large.replay().is_none(), "its size is known without reading it");
    }

    #[tokio::test]
    async fn a_body_that_waits_or_fails_is_sent_once_and_unchanged() {
        use futures_util::StreamExt;
        let waiting = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("a")))]);
        let later = futures_util::stream::once(async {
            tokio::task::yield_now().await;
            Ok(Frame::data(Bytes::from("b")))
        });
        let mut body = UnsyncBoxBody::new(http_body_util::StreamBody::new(waiting.chain(later)));
        assert!(body.replay().is_none());
        assert_eq!(body.collect().await.expect("it cannot fail").to_bytes(), "ab");

        let failing = futures_util::stream::iter([Err::<Frame<Bytes>, _>("no")]);
        let mut body = UnsyncBoxBody::new(http_body_util::StreamBody::new(failing));
        assert!(body.replay().is_none());
        assert_eq!(body.collect().await.expect_err("it fails"), "no");
    }
}
