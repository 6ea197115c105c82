//! W3C Baggage: the header `baggage`, names and values that travel with a request.

mod error;
pub(super) mod grammar;
mod list;
mod member;
pub(crate) mod value;

use http::header::HeaderName;

pub use error::BaggageError;
pub use member::Member;
use value::Baggage;

use crate::{Context, Extractor, Injector, Key};

/// `baggage` (§3.1).
pub static BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// The baggage of a context.
static CURRENT: Key<Baggage> = Key::new("baggage");

/// Extracts the baggage of a request; [`Baggage::EMPTY`] if there is none.
///
/// Nothing is decoded. A single header line is shared, not copied.
///
/// # Examples
/// ```
/// use http::HeaderMap;
/// use throughline_core::propagation::baggage;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("baggage", "tenant=acme".parse()?);
/// assert_eq!(baggage::extract(&headers).get("tenant").as_deref(), Some("acme"));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
pub fn extract<E: Extractor + ?Sized>(carrier: &E) -> Baggage {
    let baggage = read(carrier);
    if baggage.dropped_count() > 0 {
        carrier.record_dropped(&BAGGAGE, baggage.dropped_count());
    }
    baggage
}

fn read<E: Extractor + ?Sized>(carrier: &E) -> Baggage {
    let mut lines = carrier.get_all(&BAGGAGE);
    match (lines.next(), lines.next()) {
        (None, _) => Baggage::EMPTY,
        (Some(line), None) => match carrier.header_value(&BAGGAGE) {
            Some(line) => Baggage::from_header(line),
            None => Baggage::from_lines([line]),
        },
        (Some(_), Some(_)) => Baggage::combined(|| carrier.get_all(&BAGGAGE)),
    }
}

/// Writes `baggage`. Replaces an existing value.
///
/// If `baggage` is empty, the header is removed.
pub fn inject<I: Injector + ?Sized>(baggage: &Baggage, carrier: &mut I) {
    if baggage.is_empty() {
        carrier.remove(&BAGGAGE);
    } else {
        carrier.set(&BAGGAGE, baggage.header().clone());
    }
}

/// # Baggage
impl Context {
    /// Returns the baggage of this context; empty by default.
    pub fn baggage(&self) -> &Baggage {
        static NONE: Baggage = Baggage::EMPTY;
        self.value(&CURRENT).unwrap_or(&NONE)
    }

    /// Returns a child context with `baggage`, which replaces the baggage of this context.
    ///
    /// # Examples
    /// ```
    /// use throughline_core::Context;
    ///
    /// let ctx = Context::background();
    /// let ctx = ctx.with_baggage(ctx.baggage().insert("tenant", "acme")?);
    /// assert_eq!(ctx.baggage().get("tenant").as_deref(), Some("acme"));
    /// # Ok::<(), throughline_core::propagation::baggage::BaggageError>(())
    /// ```
    pub fn with_baggage(&self, baggage: Baggage) -> Context {
        self.with_value(&CURRENT, baggage)
    }
}
