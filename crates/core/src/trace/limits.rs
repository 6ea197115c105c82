use std::borrow::Cow;

/// How much one span may hold. What exceeds a limit is dropped or cut.
///
/// The record's `dropped_*_count` fields count what is dropped. The default counts are
/// OpenTelemetry's. OpenTelemetry has no default for lengths; the default here bounds the memory of
/// a span.
///
/// # Examples
/// ```
/// use throughline_core::trace::SpanLimits;
///
/// let limits = SpanLimits { events: 16, ..SpanLimits::default() };
/// assert_eq!((limits.attributes, limits.value_length), (128, 16 * 1024));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanLimits {
    /// Attributes of a span (`OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`): 128.
    pub attributes: u32,
    /// Events of a span (`OTEL_SPAN_EVENT_COUNT_LIMIT`): 128.
    pub events: u32,
    /// Links of a span (`OTEL_SPAN_LINK_COUNT_LIMIT`): 128.
    pub links: u32,
    /// Attributes of an event (`OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT`): 128.
    pub event_attributes: u32,
    /// Attributes of a link (`OTEL_LINK_ATTRIBUTE_COUNT_LIMIT`): 128.
    pub link_attributes: u32,
    /// Characters of a text, or of each text of an array
    /// (`OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`): 16,384.
    ///
    /// It does not apply to names of spans and events or descriptions of statuses. Each of these
    /// holds at most 16 KiB, whatever this limit is.
    pub value_length: u32,
}

impl SpanLimits {
    /// The default of each limit.
    pub const DEFAULT: Self = Self {
        attributes: 128,
        events: 128,
        links: 128,
        event_attributes: 128,
        link_attributes: 128,
        value_length: 16 * 1024,
    };

    #[inline]
    pub(super) fn characters(&self) -> usize {
        usize::try_from(self.value_length).unwrap_or(usize::MAX)
    }
}

impl Default for SpanLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The limit in bytes of names and descriptions.
const MAX_TEXT: usize = 16 * 1024;

/// Cuts an attribute's value to at most so many characters. Frees the rest.
///
/// OpenTelemetry, "Attribute Limits": "counting any character in it as 1".
#[inline]
pub(super) fn truncate(text: &mut Cow<'static, str>, characters: usize) {
    // A text has at most as many characters as bytes.
    if text.len() > characters
        && let Some((end, _)) = text.char_indices().nth(characters)
    {
        cut(text, end);
    }
}

/// Cuts a name or a description to the limit, at the boundary of a character.
#[inline]
pub(super) fn bound(text: &mut Cow<'static, str>) {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        cut(text, end);
    }
}

#[cold]
fn cut(text: &mut Cow<'static, str>, end: usize) {
    match text {
        Cow::Borrowed(text) => *text = &text[..end],
        Cow::Owned(text) => {
            text.truncate(end);
            text.shrink_to_fit();
        }
    }
}
