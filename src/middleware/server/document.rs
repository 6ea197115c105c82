//! Responses that report an error in a document: decides which of them the layer rewrites.
//!
//! A handler's response is its own. The layer rewrites two kinds of bodies:
//! - The body of [`Error::to_response`], byte for byte: the layer adds the service to the error's
//!   path.
//! - The document of an internal service that an edge passes on: the layer redacts it.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::response::Parts;
use http::{Method, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use throughline_core::Context;

use super::exchange::Exchange;
use crate::error::{Error, MAX_DOCUMENT, is_problem_json};
use crate::middleware::grpc;

/// What to do with a handler's response.
pub(super) enum Plan<R> {
    Pass(Response<R>),
    Read(Document<R>),
    Found(Found),
}

/// What a response has turned out to be.
pub(super) enum Found {
    /// The body reports this error, made by `Error::to_response`.
    Error(Parts, Error),
    /// The body is an internal service's document, or cannot be read at an edge.
    FromCallee(Parts, Error),
    /// The body is the handler's own.
    Unchanged(Response<Bytes>),
}

pin_project! {
    /// A body that is read before its head is passed on.
    pub(super) struct Document<R> {
        parts: Option<Parts>,
        #[pin]
        body: R,
        read: Vec<u8>,
        // The error that may have made the body, and the body that it makes.
        error: Option<(Error, Bytes)>,
    }
}

impl<R: Body<Data = Bytes>> Plan<R> {
    pub(super) fn of(exchange: &mut Exchange, response: Response<R>) -> Plan<R> {
        exchange.decide_protocol(&response);
        if exchange.is_grpc() {
            return match grpc::error_in(&response) {
                Some(error) => Plan::Found(Found::Error(response.into_parts().0, error)),
                None => Plan::Pass(response),
            };
        }
        let headers = response.headers();
        let is_document = headers.get(CONTENT_TYPE).is_some_and(is_problem_json);
        let is_head = *exchange.method() == Method::HEAD;
        // An inner layer has encoded the body, or HEAD has removed it.
        let is_unreadable = headers.contains_key(CONTENT_ENCODING) || is_head;
        let Some(error) = response.extensions().get::<Error>().cloned() else {
            if !exchange.is_edge() || !is_document || is_head {
                return Plan::Pass(response);
            }
            return Document::plan(response, None, is_unreadable);
        };
        if is_document && is_unreadable {
            return Plan::Found(Found::Error(response.into_parts().0, error));
        }
        let own = error.to_response().into_body();
        match response.body().size_hint().exact() {
            Some(exact) if exact != own.len() as u64 => Plan::Pass(response),
            None if !is_document => Plan::Pass(response),
            _ => Document::plan(response, Some((error, own)), false),
        }
    }
}

impl<R: Body<Data = Bytes>> Document<R> {
    fn plan(response: Response<R>, error: Option<(Error, Bytes)>, is_unreadable: bool) -> Plan<R> {
        let (parts, body) = response.into_parts();
        if is_unreadable {
            return Plan::Found(unreadable(parts, None));
        }
        Plan::Read(Document { parts: Some(parts), body, read: Vec::new(), error })
    }

    /// Reads the body, at most 64 KiB.
    pub(super) fn poll(self: Pin<&mut Self>, ctx: &Context, cx: &mut TaskContext<'_>) -> Poll<Found> {
        let mut this = self.project();
        let is_whole = loop {
            match ready!(ctx.enter(|| this.body.as_mut().poll_frame(cx))) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if this.read.len() + data.len() > MAX_DOCUMENT {
                        break false;
                    }
                    this.read.extend_from_slice(&data);
                }
                Some(Err(_)) => break false,
                None => break true,
            }
        };
        let parts = this.parts.take().expect("a future that was ready is not polled again");
        let (error, read) = (this.error.take(), Bytes::from(std::mem::take(this.read)));
        Poll::Ready(match error {
            _ if !is_whole => unreadable(parts, error.map(|(error, _)| error)),
            Some((error, own)) if own == read => Found::Error(parts, error),
            Some(_) => Found::Unchanged(Response::from_parts(parts, read)),
            None => match Error::from_internal_document(parts.status, &parts.headers, &read) {
                Some(error) => Found::FromCallee(parts, error),
                None => Found::Unchanged(Response::from_parts(parts, read)),
            },
        })
    }
}

/// What a response means without its body: its error, or its status.
fn unreadable(parts: Parts, error: Option<Error>) -> Found {
    match error {
        Some(error) => Found::Error(parts, error),
        None => {
            let error = Error::from_status_or_unknown(parts.status, &parts.headers);
            Found::FromCallee(parts, error)
        }
    }
}
