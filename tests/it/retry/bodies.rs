//! A body is sent again in full, or the call is not retried.

use std::io;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use throughline::RetryPolicy;
use throughline::middleware::client::retry::Replay;
use tower::{Layer, ServiceExt, service_fn};

use super::retrying;

/// What arrived of the body, attempt by attempt. The first attempt fails when it has `first_takes`
/// frames.
async fn arrived<B>(body: B, first_takes: usize) -> (Result<StatusCode, throughline::Error>, Vec<String>)
where
    B: Replay + http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send + Unpin + 'static,
{
    let arrived: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = arrived.clone();
    let service = service_fn(move |request: Request<B>| {
        let seen = seen.clone();
        async move {
            let is_first = seen.lock().unwrap().is_empty();
            seen.lock().unwrap().push("-".to_owned());
            let mut body = request.into_body();
            let mut taken = 0;
            while taken < first_takes || !is_first {
                let Some(frame) = body.frame().await else { break };
                let data = frame.unwrap().into_data().unwrap();
                seen.lock().unwrap().last_mut().unwrap().push_str(std::str::from_utf8(&data).unwrap());
                taken += 1;
            }
            if is_first {
                Err(io::Error::from(io::ErrorKind::ConnectionReset))
            } else {
                Ok(Response::new(Empty::<Bytes>::new()))
            }
        }
    });
    let request = Request::put("http://cards/7").body(body).unwrap();
    let result = retrying(&RetryPolicy::new()).layer(service).oneshot(request).await;
    let arrived = arrived.lock().unwrap().clone();
    (result.map(|response| response.status()), arrived)
}

fn chunks() -> impl futures_util::Stream<Item = Result<&'static str, io::Error>> + Send {
    futures_util::stream::iter([Ok("half"), Ok("whole")])
}

#[tokio::test(start_paused = true)]
async fn a_body_of_known_bytes_is_sent_again_in_full() {
    let (result, seen) = arrived(Full::new(Bytes::from("7")), 1).await;
    assert_eq!((result.unwrap(), seen), (StatusCode::OK, vec!["-7".to_owned(), "-7".to_owned()]));
    let (result, seen) = arrived("7".to_owned(), 0).await;
    assert_eq!((result.unwrap(), seen), (StatusCode::OK, vec!["-".to_owned(), "-7".to_owned()]));
    let (result, seen) = arrived(Body::from_stream(chunks()), 1).await;
    assert_eq!((result.unwrap(), seen), (StatusCode::OK, vec!["-half".to_owned(), "-halfwhole".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_was_sent_half_and_cannot_be_had_again_is_not_retried() {
    let later = futures_util::stream::once(async {
        tokio::task::yield_now().await;
        Ok("later")
    });
    let (result, seen) = arrived(Body::from_stream(chunks().chain(later)), 1).await;
    assert!(result.is_err());
    assert_eq!(seen, ["-half"]);
    let (result, seen) = arrived(Body::from_stream(chunks().chain(futures_util::stream::pending())), 2).await;
    assert!(result.is_err());
    assert_eq!(seen, ["-halfwhole"], "what was read before the send arrives");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_to_keep_is_not_retried_and_arrives_in_full() {
    let large = || futures_util::stream::iter((0..40).map(|_| Ok::<_, io::Error>("x".repeat(10_000))));
    let (result, seen) = arrived(Body::from_stream(large()), 100).await;
    assert!(result.is_err());
    assert_eq!(seen.iter().map(String::len).collect::<Vec<_>>(), [400_001]);
}
