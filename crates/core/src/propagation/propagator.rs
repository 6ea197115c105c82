//! The propagator: the formats that a process extracts and injects.

use std::io::{Write, stderr};
use std::sync::OnceLock;

use http::header::HeaderName;

use super::b3::Sampling;
use super::{b3, baggage, jaeger, values, w3c, xray};
use crate::{Context, Extractor, Injector, Key, SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The trace that the caller marked as debug (B3, Jaeger). Callees get the same mark.
///
/// It holds the trace id: a new trace that starts below inherits this value, but is not debugged.
static DEBUG: Key<TraceId> = Key::new("trace debug");

/// A format in which a context crosses process boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// [`w3c`], named `tracecontext`.
    TraceContext,
    /// [`baggage`], named `baggage`.
    Baggage,
    /// [`b3`] in one header, named `b3`. Extracts from several headers too.
    B3,
    /// [`b3`] in several headers, named `b3multi`. Extracts from one header too.
    B3Multi,
    /// [`jaeger`], named `jaeger`.
    Jaeger,
    /// [`xray`], named `xray`.
    XRay,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 6] =
        [Format::TraceContext, Format::Baggage, Format::B3, Format::B3Multi, Format::Jaeger, Format::XRay];

    /// Returns the name of this format in `OTEL_PROPAGATORS`.
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

/// The caller's trace, as extracted from a carrier.
#[derive(Default)]
struct Caller {
    span: Option<SpanContext>,
    /// What the span's flags do not hold: debug, or a decision without a span.
    sampling: Sampling,
}

impl Caller {
    /// Adds what `other`, extracted from another format, says about the same trace.
    fn merge(self, other: Caller) -> Caller {
        let (Some(span), Some(same)) = (&self.span, &other.span) else { return self };
        if same.trace_id() != span.trace_id() {
            return self;
        }
        // No flag means "undecided". B3 can leave a span undecided that another format's flag calls
        // not sampled.
        let is_open = same.is_undecided() && same.span_id() == span.span_id() && !span.is_sampled();
        Caller {
            sampling: if other.sampling == Sampling::Debug { Sampling::Debug } else { self.sampling },
            span: self.span.map(|span| if is_open { span.into_undecided() } else { span }),
        }
    }
}

/// Extracts and injects contexts in a list of [`Format`]s, in order.
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
    /// No formats: nothing is extracted or injected.
    pub const NONE: Propagator = Propagator { formats: [None; Format::ALL.len()] };

    /// Creates a propagator of these formats. Repeated formats count once.
    pub fn new(formats: impl IntoIterator<Item = Format>) -> Self {
        let mut propagator = Propagator::NONE;
        for format in formats {
            // There are as many slots as formats, so each format finds itself or a free slot.
            let slot = propagator.formats.iter_mut().find(|slot| slot.is_none_or(|it| it == format));
            if let Some(slot) = slot {
                *slot = Some(format);
            }
        }
        propagator
    }

    /// Creates a propagator of the formats listed in `OTEL_PROPAGATORS`.
    ///
    /// If the variable is unset or empty, this is the [`default`](Self::default). See
    /// [`from_names`](Self::from_names) for the syntax.
    pub fn from_env(unknown: impl FnMut(&str)) -> Self {
        let names = std::env::var_os("OTEL_PROPAGATORS").unwrap_or_default();
        Propagator::from_names(&names.to_string_lossy(), unknown)
    }

    /// Returns the propagator of this process, from `OTEL_PROPAGATORS`.
    ///
    /// The variable is read at the first call only. Unknown names are reported on stderr, once.
    pub fn current_default() -> Self {
        static DEFAULT: OnceLock<Propagator> = OnceLock::new();
        *DEFAULT.get_or_init(|| {
            Propagator::from_env(|name| {
                let name: String = name.chars().take(64).collect();
                // `eprintln!` would panic if stderr is closed.
                let message = "ignoring an unknown propagator in OTEL_PROPAGATORS";
                let _ = writeln!(stderr(), "throughline: {message}: {name:?}");
            })
        })
    }

    /// Creates a propagator from a comma-separated list of names.
    ///
    /// The names are `tracecontext`, `baggage`, `b3`, `b3multi`, `jaeger` and `xray`, in any case.
    /// `none` adds no format. Each unknown name is passed to `unknown` and ignored. If the list has
    /// no known name, this is the [`default`](Self::default).
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
        let (mut formats, mut has_known_name) = (Vec::new(), false);
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let format = Format::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name));
            if format.is_some() || name.eq_ignore_ascii_case("none") {
                formats.extend(format);
                has_known_name = true;
            } else {
                unknown(name);
            }
        }
        if has_known_name { Propagator::new(formats) } else { Propagator::default() }
    }

    /// Returns the formats, in order.
    pub fn formats(&self) -> impl DoubleEndedIterator<Item = Format> {
        self.formats.into_iter().flatten()
    }

    /// Returns the names of the headers that [`inject`](Self::inject) may write.
    ///
    /// The headers of wire keys are not included: see [`header_names`](values::header_names).
    pub fn fields(&self) -> impl Iterator<Item = &'static HeaderName> {
        self.formats().flat_map(Format::fields).copied()
    }

    /// Extracts the caller's span and baggage, and returns a child of `ctx` with them.
    ///
    /// - The span becomes the remote parent.
    /// - What the carrier does not have stays as it is in `ctx`.
    /// - If several formats have a span, the last format counts, as in other implementations of
    ///   OpenTelemetry.
    /// - A sampling decision without a span (`b3: 0` or `b3: 1`) applies to the new trace. The
    ///   remote parent is then a generated span context that no service recorded.
    pub fn extract<E: Extractor + ?Sized>(&self, ctx: &Context, carrier: &E) -> Context {
        let caller = self.caller(carrier);
        let mut ctx = ctx.clone();
        if let Some(span) = caller.span.or_else(|| generated_parent(caller.sampling)) {
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

    /// Extracts only the caller's span, for example to link to it.
    pub fn extract_span_context<E: Extractor + ?Sized>(&self, carrier: &E) -> Option<SpanContext> {
        self.caller(carrier).span
    }

    /// Injects the span, the baggage and the values of wire keys of `ctx`.
    ///
    /// Replaces existing values. What `ctx` does not have stays as it is in the carrier.
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
        let mut decision_only = Caller::default();
        // Both B3 formats read the same headers, so only the later one is used.
        let mut has_b3 = false;
        let is_b3 = |format: &Format| matches!(format, Format::B3 | Format::B3Multi);
        let mut formats = self.formats().rev().filter(|it| !(is_b3(it) && std::mem::replace(&mut has_b3, true)));
        while let Some(format) = formats.next() {
            let caller = format.extract_caller(carrier);
            let Some(span) = caller.span else {
                // Only B3 can have a decision without a span.
                if caller.sampling != Sampling::Deferred {
                    decision_only = caller;
                }
                continue;
            };
            // Other formats may carry the same trace. Their debug mark and open decision count too.
            let others = formats.filter(|it| it.has_debug()).map(|it| it.extract_caller(carrier));
            return others.fold(Caller { span: Some(span), sampling: caller.sampling }, Caller::merge);
        }
        decision_only
    }
}

impl Default for Propagator {
    /// `tracecontext,baggage`.
    fn default() -> Self {
        Propagator::new([Format::TraceContext, Format::Baggage])
    }
}

/// Creates a remote parent for a sampling decision that came without a span.
///
/// Its random ids belong to no recorded span. They carry the decision to every format and sampler.
fn generated_parent(sampling: Sampling) -> Option<SpanContext> {
    let flags = TraceFlags::NONE.with_sampled(sampling.is_sampled());
    let parent = || SpanContext::new(TraceId::random(), SpanId::random(), flags, TraceState::EMPTY, true);
    (sampling != Sampling::Deferred).then(parent)
}
