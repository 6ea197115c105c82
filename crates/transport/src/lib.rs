//! Throughline: one `Context` for every request, and the spans it leaves.
