use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::Full;
use throughline_service::config::{MaxInFlight, Watched};
use tokio::sync::{Semaphore, watch};
use tower::{Layer, ServiceExt, service_fn};

#[tokio::test]
async fn requests_beyond_the_limit_are_refused_and_a_new_limit_holds_for_the_next() {
    let (sender, receiver) = watch::channel(Arc::new(Some(2)));
    let layer = MaxInFlight::new(Watched::from(receiver));
    let gate = Arc::new(Semaphore::new(0));
    let handler = service_fn({
        let gate = Arc::clone(&gate);
        move |_: Request<()>| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            }
        }
    });
    // Two services of one layer count together.
    let (first, second) = (layer.layer(handler.clone()), layer.layer(handler));
    let mut one = Box::pin(first.clone().oneshot(Request::new(())));
    let mut two = Box::pin(second.oneshot(Request::new(())));
    assert!((&mut one).now_or_never().is_none() && (&mut two).now_or_never().is_none());
    assert_eq!(layer.in_flight(), 2);
    let status = async || first.clone().oneshot(Request::new(())).await.unwrap().status();
    assert_eq!(status().await, 429);

    // A higher limit lets further requests in. A lower one leaves those in flight alone.
    sender.send_replace(Arc::new(Some(3)));
    let mut three = Box::pin(first.clone().oneshot(Request::new(())));
    assert!((&mut three).now_or_never().is_none());
    sender.send_replace(Arc::new(Some(1)));
    assert_eq!((layer.in_flight(), status().await.as_u16()), (3, 429));
    drop((two, three));
    assert_eq!((layer.in_flight(), status().await.as_u16()), (1, 429));
    gate.add_permits(1);
    assert_eq!(one.await.unwrap().status(), 200);

    gate.add_permits(2);
    assert_eq!((layer.in_flight(), status().await.as_u16()), (0, 200));
    sender.send_replace(Arc::new(None));
    assert_eq!(status().await, 200);
}
