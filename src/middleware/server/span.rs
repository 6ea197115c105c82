//! The start of the SERVER span, and its protocol.

use std::time::Duration;

use http::request::Parts;
use http::{Method, Uri, Version};
use throughline_core::trace::{SpanBuilder, SpanKind, Tracer, Value};
use throughline_core::{Context, Extractor, Span, SpanContext};

use super::layer::{Config, Trust};
use super::peer::with_client;
use super::route::uri;
use crate::middleware::{grpc, semconv};

/// A request that has gRPC's form.
///
/// It is gRPC only if its response has that form, too.
pub(super) struct Rpc {
    pub(super) uri: Uri,
    /// A handler has responded to the method before.
    ///
    /// The span has its name from the start.
    pub(super) is_known: bool,
    /// Set once there is a response in gRPC's form.
    pub(super) responder: Option<Responder>,
    /// The span's attributes if the response is not gRPC.
    http: Vec<(&'static str, Value)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Responder {
    Handler,
    Layer,
}

impl Rpc {
    /// gRPC over HTTP/2: "Call-Definition" is a POST with one of gRPC's content types.
    pub(super) fn of(config: &Config, head: &Parts, route: Option<&str>) -> Option<Rpc> {
        let has_form = head.version == Version::HTTP_2 && head.method == Method::POST && grpc::is_grpc(&head.headers);
        has_form.then(|| {
            let is_known = config.methods.contains(&semconv::rpc_method(uri(head)));
            let mut http = Vec::new();
            if !is_known {
                http_attributes(head, route, |key, value| http.push((key, value)));
            }
            Rpc { uri: uri(head).clone(), is_known, responder: None, http }
        })
    }

    /// Names the span after the method, which the handler knows.
    pub(super) fn set_span_name(&self, span: &Span) {
        if !self.is_known {
            span.set_name(semconv::rpc_method(&self.uri));
            span.set_attribute("rpc.system.name", "grpc");
            span.set_attribute(semconv::RPC_METHOD, semconv::rpc_method(&self.uri));
        }
    }

    /// Makes the span one of plain HTTP: the response is not gRPC.
    pub(super) fn record_as_http(self, span: &Span) {
        for (key, value) in self.http {
            span.set_attribute(key, value);
        }
    }
}

/// What a span starts with.
pub(super) struct SpanStart<'a> {
    pub(super) trust: Trust,
    pub(super) head: &'a Parts,
    /// The name of the route.
    pub(super) route: Option<&'a str>,
    pub(super) is_unrecorded: bool,
    pub(super) rpc: Option<&'a Rpc>,
    pub(super) ctx: &'a Context,
    /// The limit of the layer, which is not in the context.
    pub(super) limit: Option<Duration>,
}

/// For routes that are not recorded.
static UNRECORDED: Tracer = Tracer::noop();

pub(super) fn start_span(config: &Config, start: SpanStart<'_>, carrier: &impl Extractor) -> Span {
    let SpanStart { trust, head, route, is_unrecorded, rpc, ctx, limit } = start;
    let method = semconv::method(&head.method);
    let name = match (method, route) {
        _ if rpc.is_some_and(|rpc| rpc.is_known) => semconv::rpc_method(uri(head)).into(),
        ("_OTHER", Some(route)) => format!("HTTP {route}").into(),
        ("_OTHER", None) => "HTTP".into(),
        (method, Some(route)) => format!("{method} {route}").into(),
        (method, None) => std::borrow::Cow::Borrowed(method),
    };
    let mut span = ctx.span(name).kind(SpanKind::Server);
    if let Some(tracer) = Some(&UNRECORDED).filter(|_| is_unrecorded).or(config.tracer.as_ref()) {
        span = span.tracer(tracer);
    }
    if trust == Trust::Edge {
        span = span.new_root();
        if let Some(caller) = config.propagator.extract_span_context(carrier) {
            span = span.link(caller);
        }
    } else if !ctx.span_context().is_some_and(SpanContext::is_remote) {
        // The caller sent no trace. The base's own span is not the parent of the request.
        span = span.new_root();
    }
    span = semconv::with_server(span, uri(head), &head.headers);
    if let Some(peer_address) = &config.peer_address {
        span = with_client(span, &**peer_address, config.proxies.as_ref(), head);
    }
    span = match rpc {
        Some(rpc) if rpc.is_known => semconv::with_rpc(span, uri(head)),
        // The attributes follow when the response shows the protocol.
        Some(_) => span,
        None => with_http(span, head, route),
    };
    if let Some(remaining) = ctx.remaining().into_iter().chain(limit).min() {
        span = span.attribute(semconv::REMAINING_MS, semconv::millis(remaining));
    }
    span.start()
}

fn with_http<'a>(span: SpanBuilder<'a>, head: &Parts, route: Option<&str>) -> SpanBuilder<'a> {
    let mut span = Some(span);
    http_attributes(head, route, |key, value| span = span.take().map(|span| span.attribute(key, value)));
    span.expect("each step puts it back")
}

fn http_attributes(head: &Parts, route: Option<&str>, mut set: impl FnMut(&'static str, Value)) {
    let method = semconv::method(&head.method);
    set("http.request.method", method.into());
    if method == "_OTHER" {
        set("http.request.method_original", semconv::cut(head.method.as_str()).into());
    }
    set("url.path", semconv::cut(uri(head).path()).into());
    set("url.scheme", if uri(head).scheme_str() == Some("https") { "https" } else { "http" }.into());
    set("network.protocol.version", semconv::protocol_version(head.version).into());
    if let Some(route) = route {
        set("http.route", route.to_owned().into());
    }
    if let Some(agent) = semconv::user_agent(&head.headers) {
        set("user_agent.original", agent.into());
    }
}

/// Adds the route to the span of an outer layer.
///
/// That layer may not have seen the route.
pub(super) fn name_by_route(ctx: &Context, head: &Parts, route: Option<&str>) {
    let span = ctx.current_span();
    if let Some(route) = route.filter(|_| span.is_recording()) {
        let method = semconv::method(&head.method);
        span.set_name(format!("{} {route}", if method == "_OTHER" { "HTTP" } else { method }));
        span.set_attribute("http.route", route.to_owned());
    }
}
