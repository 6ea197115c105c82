//! The `Context`: deadline, Done signal, errors and typed values of one request.
