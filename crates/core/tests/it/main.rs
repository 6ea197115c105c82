//! Public behaviour of the core, one module per behaviour.
