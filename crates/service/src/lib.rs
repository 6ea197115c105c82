//! Services that are their handlers, and clients of one line, on any transport.
