use std::future::Future;
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, ready};

use http::Response;
use throughline_core::{DoneOwned, WithContext};
use tokio::task::JoinHandle;

use super::exchange::Exchange;

/// A handler in a task of its own, for [`OnDisconnect::Detach`](super::OnDisconnect::Detach).
///
/// The response future keeps the exchange. So only the future responds, also at a deadline that the
/// task has not noticed yet. A future that is dropped first hands the exchange over to the task.
pub(super) struct Detached<R, E> {
    /// `None`: the deadline has passed, or the exchange was handed over to the task.
    task: JoinHandle<Option<Result<Response<R>, E>>>,
    handover: Arc<Handover>,
}

#[derive(Default)]
struct Handover(Mutex<Option<Exchange>>);

impl Handover {
    fn take(&self) -> Option<Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<R: Send + 'static, E: Send + 'static> Detached<R, E> {
    pub(super) fn spawn<F>(handler: WithContext<F>, done: DoneOwned) -> Self
    where
        F: Future<Output = Result<Response<R>, E>> + Send + 'static,
    {
        let handover = Arc::new(Handover::default());
        Detached { task: tokio::spawn(run(handler, done, Arc::clone(&handover))), handover }
    }
}

impl<R, E> Detached<R, E> {
    pub(super) fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Response<R>, E>> {
        match ready!(Pin::new(&mut self.task).poll(cx)) {
            Ok(Some(response)) => Poll::Ready(response),
            // The context is done.
            Ok(None) => Poll::Pending,
            Err(e) => match e.try_into_panic() {
                Ok(payload) => resume_unwind(payload),
                // The task's runtime is shutting down, and this future's with it.
                Err(_) => Poll::Pending,
            },
        }
    }

    /// Lets the task end the exchange.
    ///
    /// If the task has already ended, its response is not read: the exchange ends when this value
    /// is dropped.
    pub(super) fn hand_over(&self, exchange: Exchange) {
        *self.handover.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(exchange);
    }
}

async fn run<F, R, E>(
    handler: WithContext<F>,
    done: DoneOwned,
    handover: Arc<Handover>,
) -> Option<Result<Response<R>, E>>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: 'static,
{
    let (response, exchange) = {
        let mut handler = pin!(handler);
        let response = tokio::select! {
            biased;
            response = handler.as_mut() => Some(response),
            () = done => None,
        };
        let mut exchange = handover.take();
        if let (None, Some(exchange)) = (&response, &mut exchange) {
            // Before the handler is dropped, so that code that ends with it sees the cause.
            exchange.interrupt();
        }
        (response, exchange)
    };
    let Some(mut exchange) = exchange else { return response };
    match response {
        Some(Ok(response)) => exchange.response_not_sent(&response),
        Some(Err(error)) => exchange.failed(&error),
        None => {}
    }
    None
}
