//! What a context carries across a process boundary.
