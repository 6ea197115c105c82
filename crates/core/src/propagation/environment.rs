//! Propagation to child processes, through environment variables.

use std::ffi::OsString;
use std::process::Command;

use http::header::{HeaderName, HeaderValue};

use super::carrier::{Extractor, Injector, text};

/// A copy of a process's environment, to extract from.
///
/// The variables are `TRACEPARENT`, `TRACESTATE` and `BAGGAGE` (OpenTelemetry, "Environment
/// Variables as Context Propagation Carriers"). The name of a variable is the name of the header in
/// upper case, with `_` for each character that is neither a letter nor a digit.
///
/// To pass a context to a child process, inject it into its [`Command`]. A child inherits every
/// variable that the `Command` does not set. So a process that starts a child without injecting
/// passes on the variables that it received from its own parent.
///
/// # Examples
/// ```
/// use std::process::Command;
/// use throughline_core::propagation::{Environment, w3c};
/// use throughline_core::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
///
/// let span = SpanContext::new(TraceId::random(), SpanId::random(), TraceFlags::SAMPLED, TraceState::EMPTY, false);
/// let mut child = Command::new("backup");
/// w3c::inject(&span, &mut child);
///
/// // In the child: `Environment::current()`.
/// let given: Environment = child.get_envs().filter_map(|(name, value)| Some((name, value?))).collect();
/// assert_eq!(w3c::extract(&given).map(|parent| parent.span_id()), Some(span.span_id()));
/// ```
pub struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// Copies the environment of this process.
    pub fn current() -> Self {
        Environment(std::env::vars_os().collect())
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Environment(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl Extractor for Environment {
    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        let is_it = move |variable: &OsString| variable.as_encoded_bytes().iter().copied().eq(variable_name(name));
        self.0.iter().filter(move |(variable, _)| is_it(variable)).map(|(_, value)| value.as_encoded_bytes())
    }
}

/// Writes to the environment of a child process that has not started yet.
impl Injector for Command {
    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        match text(value) {
            Some(value) => drop(self.env(variable(name), value)),
            None => Injector::remove(self, name),
        }
    }

    fn remove(&mut self, name: &HeaderName) {
        self.env_remove(variable(name));
    }
}

/// Returns the name of the variable for the header `name`.
fn variable(name: &HeaderName) -> String {
    variable_name(name).map(char::from).collect()
}

fn variable_name(name: &HeaderName) -> impl Iterator<Item = u8> + '_ {
    name.as_str().bytes().map(|byte| if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase() } else { b'_' })
}
