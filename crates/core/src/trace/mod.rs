//! Spans: a view of the context, never the other way round.
