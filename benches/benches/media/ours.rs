//! The transport over a medium: without layers, with them, with sampled spans, and with services.

use std::convert::Infallible;
use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use throughline::telemetry::Telemetry;
use throughline::trace::Tracer;
use throughline::{ClientLayer, Context, ContextLayer};
use throughline_service::{Client, Json, Service};
use throughline_transport::Transport;
use tower::{Service as _, service_fn};

use crate::BODY;
use crate::measure::Way;

/// Twice the most that are in flight: a request counts until its task has ended.
const LIMIT: NonZeroUsize = NonZeroUsize::new(2048).expect("it is not zero");

/// The names of the services that [`ways`] listens to.
pub(crate) const SERVICES: [&str; 4] = ["endpoint", "layers", "sampled", "service"];

/// The ways to call over the transports `client` and `server`, which find each other.
pub(crate) async fn ways(client: &Transport, server: &Transport, telemetry: &Telemetry) -> io::Result<Vec<Way>> {
    let [endpoint, layers, sampled, service] = SERVICES;
    let server = server.clone().max_in_flight(LIMIT);
    let unsampled = Tracer::noop();
    Ok(vec![
        without_layers(client, &server, endpoint).await?,
        with_layers("`send` and `serve`", client, &server, layers, &unsampled).await?,
        with_layers("`send` and `serve`, sampled", client, &server, sampled, telemetry.tracer()).await?,
        service_library(client, &server, service, &unsampled).await?,
    ])
}

async fn without_layers(client: &Transport, server: &Transport, name: &'static str) -> io::Result<Way> {
    let mut listener = server.listen(name).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        while let Some(incoming) = listener.next().await {
            incoming.responder.respond(Response::new(incoming.request.into_body()));
        }
    });
    let endpoint = client.endpoint(name, None);
    Ok(Way::new("`Transport::endpoint`", move || {
        let mut endpoint = endpoint.clone();
        async move {
            let uri = format!("http://{}/reserve", endpoint.service());
            let request = Request::post(uri).body(Full::new(BODY)).expect("the URI is valid");
            let response = endpoint.call(request).await.expect("the service responds");
            assert_eq!(response.status(), 200);
        }
    }))
}

async fn with_layers(
    title: &'static str,
    client: &Transport,
    server: &Transport,
    name: &'static str,
    tracer: &Tracer,
) -> io::Result<Way> {
    let listener = server.listen(name).await.map_err(io::Error::other)?;
    let layer = ContextLayer::internal().tracer(tracer.clone());
    let echo =
        service_fn(async |request: Request<Full<Bytes>>| Ok::<_, Infallible>(Response::new(request.into_body())));
    tokio::spawn(async move { listener.serve(&Context::background(), layer, echo).await });
    let client = client.clone().client_layer(ClientLayer::internal().tracer(tracer.clone()));
    Ok(Way::new(title, move || {
        let client = client.clone();
        async move {
            let ctx = Context::background().with_timeout(Duration::from_secs(10));
            let request = Request::post("/reserve").body(BODY).expect("the path is valid");
            let response = client.send(&ctx, name, request).await.expect("the service responds");
            assert_eq!(response.body().len(), BODY.len());
        }
    }))
}

/// JSON, routing, statistics, balancing and the breaker come on top of the layers.
async fn service_library(
    client: &Transport,
    server: &Transport,
    name: &'static str,
    tracer: &Tracer,
) -> io::Result<Way> {
    let service: Service = Service::new(name)
        .context_layer(ContextLayer::internal().tracer(tracer.clone()))
        .route("reserve", async |Json(text): Json<String>| Json(text));
    let (health, server) = (service.health(), server.clone());
    tokio::spawn(async move { service.serve_until(&server, &Context::background()).await });
    health.serving().await;
    let client = Client::new(name, client).client_layer(ClientLayer::internal().tracer(tracer.clone()));
    let text = "x".repeat(BODY.len() - 2); // JSON adds two quotes
    Ok(Way::new("`Client` and `Service`", move || {
        let (client, text) = (client.clone(), text.clone());
        async move {
            let ctx = Context::background().with_timeout(Duration::from_secs(10));
            let response: String = client.call(&ctx, "reserve", &text).await.expect("the service responds");
            assert_eq!(response.len(), text.len());
        }
    }))
}
