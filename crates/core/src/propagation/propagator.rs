//! Which formats a process speaks.

use std::io::{Write, stderr};
use std::sync::OnceLock;

use http::header::HeaderName;

use super::b3::Sampling;
use super::{b3, baggage, jaeger, values, w3c, xray};
use crate::{Context, Extractor, Injector, Key, SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The trace for which the caller asked for debug (B3, Jaeger), so that the callees are asked, too. Another one that begins below, with the
/// values of the request, is not debugged.
static DEBUG: Key<TraceId> = Key::new("trace debug");

/// A format in which a context crosses process boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// [`w3c`], named `tracecontext`.
    TraceContext,
    /// [`baggage`], named `baggage`.
    Baggage,
    /// [`b3`] in one header, named `b3`. Reads several, too.
    B3,
    /// [`b3`] in several headers, named `b3multi`. Reads a single one, too.
    B3Multi,
    /// [`jaeger`], named `jaeger`.
    Jaeger,
    /// [`xray`], named `xray`.
    XRay,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 6] =
        [Format::TraceContext, Format::Baggage, Format::B3, Format::B3Multi, Format::Jaeger, Format::XRay];

    /// Its name in `OTEL_PROPAGATORS`.
    pub const fn name(self) -> &'static str {
        match self {
            Format::TraceContext => "tracecontext",
            Format::Baggage => "baggage",
            Format::B3 => "b3",
            Format::B3Multi => "b3multi",
            Format::Jaeger => "jaeger",
            Format::XRay => "xray",
        }
    }

    fn fields(self) -> &'static [&'static HeaderName] {
        static TRACE_CONTEXT: [&HeaderName; 2] = [&w3c::TRACEPARENT, &w3c::TRACESTATE];
        static BAGGAGE: [&HeaderName; 1] = [&baggage::BAGGAGE];
        static B3: [&HeaderName; 1] = [&b3::B3];
        static B3_MULTI: [&HeaderName; 5] =
            [&b3::TRACE_ID, &b3::SPAN_ID, &b3::PARENT_SPAN_ID, &b3::SAMPLED, &b3::FLAGS];
        static JAEGER: [&HeaderName; 1] = [&jaeger::UBER_TRACE_ID];
        static XRAY: [&HeaderName; 1] = [&xray::X_AMZN_TRACE_ID];
        match self {
            Format::TraceContext => &TRACE_CONTEXT,
            Format::Baggage => &BAGGAGE,
            Format::B3 => &B3,
            Format::B3Multi => &B3_MULTI,
            Format::Jaeger => &JAEGER,
            Format::XRay => &XRAY,
        }
    }

    fn has_debug(self) -> bool {
        matches!(self, Format::B3 | Format::B3Multi | Format::Jaeger)
    }

    fn extract_caller<E: Extractor + ?Sized>(self, carrier: &E) -> Caller {
        match self {
            Format::TraceContext => Caller { span: w3c::extract(carrier), ..Caller::default() },
            Format::Baggage => Caller::default(),
            Format::B3 | Format::B3Multi => {
                b3::extract(carrier).map_or_else(Caller::default, |it| Caller { span: it.span, sampling: it.sampling })
            }
            Format::Jaeger => jaeger::extract(carrier).map_or_else(Caller::default, |it| Caller {
                sampling: if it.debug { Sampling::Debug } else { Sampling::Deferred },
                span: Some(it.span),
            }),
            Format::XRay => Caller { span: xray::extract(carrier), ..Caller::default() },
        }
    }
}

/// What a carrier says of the caller's trace.
#[derive(Default)]
struct Caller {
    span: Option<SpanContext>,
    /// What it says beyond the span's flag: debug, or without a span a decision alone.
    sampling: Sampling,
}

impl Caller {
    /// With what `other`, in another format, says of the same trace.
    fn and(self, other: Caller) -> Caller {
        let (Some(span), Some(same)) = (&self.span, &other.span) else { return self };
        if same.trace_id() != span.trace_id() {
            return self;
        }
        // That nothing is decided has no flag: B3 can say it of the very span that a flag calls not sampled.
        let is_open = same.is_undecided() && same.span_id() == span.span_id() && !span.is_sampled();
        Caller {
            sampling: if other.sampling == Sampling::Debug { Sampling::Debug } else { self.sampling },
            span: self.span.map(|span| if is_open { span.into_undecided() } else { span }),
        }
    }
}

/// The [`Format`]s in which contexts are extracted and injected, in their order.
///
/// # Examples
/// ```
/// use http::HeaderMap;
/// use throughline_core::propagation::Format;
/// use throughline_core::{Context, Propagator};
///
/// let mut request = HeaderMap::new();
/// request.insert("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d".parse()?);
/// request.insert("baggage", "tenant=acme".parse()?);
///
/// let propagator = Propagator::new([Format::B3, Format::Baggage]);
/// let ctx = propagator.extract(&Context::background(), &request);
/// assert_eq!(ctx.baggage().get("tenant").as_deref(), Some("acme"));
///
/// let mut onward = HeaderMap::new();
/// propagator.inject(&ctx, &mut onward);
/// assert_eq!(onward, request);
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagator {
    formats: [Option<Format>; Format::ALL.len()],
}

impl Propagator {
    /// Nothing crosses the boundary.
    pub const NONE: Propagator = Propagator { formats: [None; Format::ALL.len()] };

    /// These formats, each once.
    pub fn new(formats: impl IntoIterator<Item = Format>) -> Self {
        let mut propagator = Propagator::NONE;
        for format in formats {
            // There are as many places as formats, so each finds itself or a free one.
            let place = propagator.formats.iter_mut().find(|place| place.is_none_or(|it| it == format));
            if let Some(place) = place {
                *place = Some(format);
            }
        }
        propagator
    }

    /// The formats that `OTEL_PROPAGATORS` names; [`default`](Self::default) where it is unset or empty. See
    /// [`from_names`](Self::from_names).
    pub fn from_env(unknown: impl FnMut(&str)) -> Self {
        let names = std::env::var_os("OTEL_PROPAGATORS").unwrap_or_default();
        Propagator::from_names(&names.to_string_lossy(), unknown)
    }

    /// The formats of this process: what `OTEL_PROPAGATORS` named when this was first called. Names that it does not know are told on
    /// stderr, once.
    pub fn current_default() -> Self {
        static DEFAULT: OnceLock<Propagator> = OnceLock::new();
        *DEFAULT.get_or_init(|| {
            Propagator::from_env(|name| {
                let name: String = name.chars().take(64).collect();
                // `eprintln!` panics where stderr is closed.
                let message = "in OTEL_PROPAGATORS is ignored: there is no such propagator";
                let _ = writeln!(stderr(), "throughline: {name:?} {message}");
            })
        })
    }

    /// The formats named in a list with commas, in any case: `tracecontext`, `baggage`, `b3`, `b3multi`, `jaeger`, `xray`; `none` adds
    /// nothing. Names that it does not know are given to `unknown` and left aside; if no other is left, it is the
    /// [`default`](Self::default).
    ///
    /// # Examples
    /// ```
    /// use throughline_core::Propagator;
    /// use throughline_core::propagation::Format;
    ///
    /// let mut unknown = Vec::new();
    /// let propagator = Propagator::from_names("b3, Baggage,ottrace,b3", |name| unknown.push(name.to_owned()));
    /// assert_eq!((propagator, unknown), (Propagator::new([Format::B3, Format::Baggage]), vec!["ottrace".to_owned()]));
    /// assert_eq!(Propagator::from_names("none", |_| {}), Propagator::NONE);
    /// assert_eq!(Propagator::from_names("", |_| {}), Propagator::default());
    /// ```
    pub fn from_names(names: &str, mut unknown: impl FnMut(&str)) -> Self {
        let (mut formats, mut any) = (Vec::new(), false);
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let format = Format::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name));
            if format.is_some() || name.eq_ignore_ascii_case("none") {
                formats.extend(format);
                any = true;
            } else {
                unknown(name);
            }
        }
        if any { Propagator::new(formats) } else { Propagator::default() }
    }

    /// The formats, in order.
    pub fn formats(&self) -> impl DoubleEndedIterator<Item = Format> {
        self.formats.into_iter().flatten()
    }

    /// The names that [`inject`](Self::inject) may write, but for those of [values](values::header_names).
    pub fn fields(&self) -> impl Iterator<Item = &'static HeaderName> {
        self.formats().flat_map(Format::fields).copied()
    }

    /// A context below `ctx` with what the carrier has: the caller's span as remote parent, and its baggage. What the carrier does not
    /// have stays as it is in `ctx`.
    ///
    /// Where several formats have a span, the last one's counts, as with other implementations of OpenTelemetry. A decision alone, as
    /// `b3: 0` or `b3: 1` where no format has a span, holds for the trace that begins: its remote parent is a span that nobody has seen.
    pub fn extract<E: Extractor + ?Sized>(&self, ctx: &Context, carrier: &E) -> Context {
        let caller = self.caller(carrier);
        let mut ctx = ctx.clone();
        if let Some(span) = caller.span.or_else(|| unseen(caller.sampling)) {
            if caller.sampling == Sampling::Debug {
                ctx = ctx.with_value(&DEBUG, span.trace_id());
            }
            ctx = ctx.with_remote_parent(span);
        }
        if self.formats().any(|format| format == Format::Baggage) {
            let baggage = baggage::extract(carrier);
            if !baggage.is_empty() || baggage.dropped_count() > 0 {
                ctx = ctx.with_baggage(baggage);
            }
        }
        ctx
    }

    /// The caller's span alone, to link to it rather than to go on with its trace.
    pub fn extract_span_context<E: Extractor + ?Sized>(&self, carrier: &E) -> Option<SpanContext> {
        self.caller(carrier).span
    }

    /// Writes what `ctx` has: its span, its baggage, and the values of keys that are declared for the wire, in place of what was there. Of
    /// what it has not, the carrier is left as it was.
    pub fn inject<I: Injector + ?Sized>(&self, ctx: &Context, carrier: &mut I) {
        let debug = |span: &SpanContext| span.is_sampled() && ctx.value(&DEBUG) == Some(&span.trace_id());
        for format in self.formats() {
            match (format, ctx.span_context()) {
                (Format::Baggage, _) => {
                    let sent = values::baggage(ctx);
                    if !sent.is_empty() || !ctx.baggage().is_empty() {
                        baggage::inject(&sent, carrier);
                    }
                }
                (_, None) => {}
                (Format::TraceContext, Some(span)) => w3c::inject(span, carrier),
                (Format::B3, Some(span)) => b3::inject(span, debug(span), carrier),
                (Format::B3Multi, Some(span)) => b3::inject_multi(span, debug(span), carrier),
                (Format::Jaeger, Some(span)) => jaeger::inject(span, debug(span), carrier),
                (Format::XRay, Some(span)) => xray::inject(span, carrier),
            }
        }
        if *self != Propagator::NONE {
            values::inject_headers(ctx, carrier);
        }
    }

    fn caller<E: Extractor + ?Sized>(&self, carrier: &E) -> Caller {
        let mut alone = Caller::default();
        // Both read the same headers: the later of them is enough.
        let mut has_b3 = false;
        let is_b3 = |format: &Format| matches!(format, Format::B3 | Format::B3Multi);
        let mut formats = self.formats().rev().filter(|it| !(is_b3(it) && std::mem::replace(&mut has_b3, true)));
        while let Some(format) = formats.next() {
            let caller = format.extract_caller(carrier);
            let Some(span) = caller.span else {
                // B3 alone says something without a span.
                if caller.sampling != Sampling::Deferred {
                    alone = caller;
                }
                continue;
            };
            // Others write the same span, too, and what they ask of its trace holds.
            let others = formats.filter(|it| it.has_debug()).map(|it| it.extract_caller(carrier));
            return others.fold(Caller { span: Some(span), sampling: caller.sampling }, Caller::and);
        }
        alone
    }
}

impl Default for Propagator {
    /// `tracecontext,baggage`.
    fn default() -> Self {
        Propagator::new([Format::TraceContext, Format::Baggage])
    }
}

/// The parent of a trace of which a decision came and no span. Nobody has seen a span of these ids, and nobody will: they say what was
/// said, in every format and to every sampler.
fn unseen(sampling: Sampling) -> Option<SpanContext> {
    let flags = TraceFlags::NONE.with_sampled(sampling.is_sampled());
    let unseen = || SpanContext::new(TraceId::random(), SpanId::random(), flags, TraceState::EMPTY, true);
    (sampling != Sampling::Deferred).then(unseen)
}
