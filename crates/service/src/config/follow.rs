//! Layers and samplers that follow a watched value.

use std::sync::Arc;
use std::task::{Context, Poll};

use throughline::trace::{Sampler, SamplingParameters, SamplingResult};
use tower_layer::Layer;
use tower_service::Service;

use super::watched::Watched;

/// The service of a [`Watched`] layer.
///
/// When the layer has changed, the service is made again from the inner service, in `poll_ready`. A
/// call that is ready or runs keeps its layer. What the old service holds by itself, such as the
/// permits of a limit, is not carried over. What clones of a layer share, such as the counts of a
/// [`ContextLayer`](throughline::ContextLayer), is.
#[derive(Clone, Debug)]
pub struct Following<L: Layer<S>, S> {
    watched: Watched<L>,
    inner: S,
    layer: Arc<L>,
    service: L::Service,
}

impl<L, S> Layer<S> for Watched<L>
where
    L: Layer<S> + Send + Sync + 'static,
    S: Clone,
{
    type Service = Following<L, S>;

    fn layer(&self, inner: S) -> Following<L, S> {
        let layer = self.current();
        Following { watched: self.clone(), service: layer.layer(inner.clone()), inner, layer }
    }
}

impl<L, S, R> Service<R> for Following<L, S>
where
    L: Layer<S> + Send + Sync + 'static,
    L::Service: Service<R>,
    S: Clone,
{
    type Response = <L::Service as Service<R>>::Response;
    type Error = <L::Service as Service<R>>::Error;
    type Future = <L::Service as Service<R>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let layer = self.watched.current();
        if !Arc::ptr_eq(&layer, &self.layer) {
            self.service = layer.layer(self.inner.clone());
            self.layer = layer;
        }
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.service.call(request)
    }
}

/// Samples by the current sampler.
///
/// The decision is made once, when the first span of a trace starts in this process. A change holds
/// for the traces that start after it. Put it into a
/// [`ParentBased`](throughline::trace::ParentBased): then it decides only for the traces that start
/// in this process, and those of callers keep the decision of the service where they began.
impl<S: Sampler + 'static> Sampler for Watched<S> {
    fn sample(&self, span: &SamplingParameters<'_>) -> SamplingResult {
        self.current().sample(span)
    }
}
