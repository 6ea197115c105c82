//! Tonic metadata as a carrier, for code that injects or extracts by hand.
//!
//! Interceptors need it. [`ContextLayer`](crate::ContextLayer) and
//! [`ClientLayer`](crate::ClientLayer) do not: they read and write the HTTP headers themselves.

use std::borrow::{Borrow, BorrowMut};

use http::header::{HeaderName, HeaderValue};
use throughline_core::{Extractor, Injector};
use tonic::metadata::MetadataMap;

/// Tonic metadata, borrowed or owned, as an [`Extractor`] and an [`Injector`].
///
/// # Examples
/// ```
/// use throughline::middleware::tonic::Metadata;
/// use throughline::{Context, Propagator};
/// use tonic::metadata::MetadataMap;
///
/// let ctx = Context::background();
/// let span = ctx.span("ask").start();
/// let mut metadata = MetadataMap::new();
/// Propagator::default().inject(&span, &mut Metadata(&mut metadata));
///
/// let received = Propagator::default().extract(&ctx, &Metadata(&metadata));
/// let parent = received.span_context().expect("the span was injected");
/// assert_eq!(Some(parent.span_id()), span.span_context().map(|sent| sent.span_id()));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Metadata<M>(pub M);

impl<M: Borrow<MetadataMap>> Extractor for Metadata<M> {
    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        Extractor::get_all(self.0.borrow().as_ref(), name)
    }

    fn header_value(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0.borrow().as_ref().get(name)
    }
}

impl<M: BorrowMut<MetadataMap>> Injector for Metadata<M> {
    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.0.borrow_mut().as_mut().set(name, value);
    }

    fn remove(&mut self, name: &HeaderName) {
        Injector::remove(self.0.borrow_mut().as_mut(), name);
    }
}
