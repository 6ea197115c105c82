//! Public behaviour, one module per behaviour.
