use std::borrow::Cow;

/// How much one span may hold. What is beyond is dropped and counted in the record's `dropped_*_count`.
///
/// The counts are OpenTelemetry's defaults. It has no default for lengths; ours bounds a span's memory.
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
    /// Bytes of a text, each of an array (`OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`): 16 KiB. Names and descriptions too.
    pub value_length: u32,
}

impl SpanLimits {
    /// Each limit's default.
    pub const DEFAULT: Self = Self {
        attributes: 128,
        events: 128,
        links: 128,
        event_attributes: 128,
        link_attributes: 128,
        value_length: 16 * 1024,
    };

    #[inline]
    pub(super) fn bytes(&self) -> usize {
        usize::try_from(self.value_length).unwrap_or(usize::MAX)
    }
}

impl Default for SpanLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Cuts `text` to at most `bytes`, at a character's boundary, and gives back the memory of the rest.
#[inline]
pub(super) fn truncate(text: &mut Cow<'static, str>, bytes: usize) {
    if text.len() > bytes {
        truncate_long(text, bytes);
    }
}

#[cold]
fn truncate_long(text: &mut Cow<'static, str>, bytes: usize) {
    let end = (0..=bytes).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    match text {
        Cow::Borrowed(text) => *text = &text[..end],
        Cow::Owned(text) => {
            text.truncate(end);
            text.shrink_to_fit();
        }
    }
}
