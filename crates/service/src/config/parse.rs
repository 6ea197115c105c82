//! From the text of a file and the variables to a value.

use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, Deserializer, Error};

use super::environment::{Reading, Variable};
use super::error::ConfigError;
use super::file::MAX_BYTES;

/// The span of a table that only variables have made. It is behind the end of every file.
const OUTER: Range<usize> = MAX_BYTES + 1..MAX_BYTES + 1;

/// Deserializes the file's table with the variables in it.
///
/// A variable's value has a span behind the end of the file, so that an error says which one it is.
/// Its text is read in several ways until one fits the type: a failure at a variable tries its next
/// reading. If none fits, the first failure is returned, or the first one of an element.
pub(super) fn parse<T: DeserializeOwned>(
    file: Option<&Path>,
    text: &str,
    variables: &[Variable],
) -> Result<T, ConfigError> {
    let sources = Sources { file, text, variables };
    let table = DeTable::parse(text).map_err(|e| sources.locate(e))?;
    let mut readings = vec![(Reading::Value, None); variables.len()];
    loop {
        let mut table = table.clone();
        for (index, (variable, (reading, _))) in variables.iter().zip(&readings).enumerate() {
            variable.set(table.get_mut(), *reading, span_of(index), OUTER);
        }
        let error = match T::deserialize(Deserializer::from(table)) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let Some(index) = sources.variable_at(&error) else { return Err(sources.locate(error)) };
        let (reading, first) = &mut readings[index];
        let next = reading.next().filter(|next| *next != Reading::List || wants_list(&error));
        let Some(next) = next else { return Err(sources.locate(first.take().unwrap_or(error))) };
        *reading = next;
        if next == Reading::List {
            // It is a list that is wanted. What is wrong is in its elements.
            *first = None;
        } else {
            first.get_or_insert(error);
        }
    }
}

/// Whether the type is a list. A struct could be read from a list, too, by its fields in order.
fn wants_list(error: &Error) -> bool {
    // These are serde's texts for its collections, arrays and tuples.
    ["expected a sequence", "expected an array", "expected a tuple"].iter().any(|text| error.message().contains(text))
}

fn span_of(variable: usize) -> Range<usize> {
    OUTER.end + 1 + variable..OUTER.end + 2 + variable
}

struct Sources<'a> {
    file: Option<&'a Path>,
    text: &'a str,
    variables: &'a [Variable],
}

impl Sources<'_> {
    fn variable_at(&self, error: &Error) -> Option<usize> {
        let index = error.span()?.start.checked_sub(OUTER.end + 1)?;
        (index < self.variables.len()).then_some(index)
    }

    fn locate(&self, mut error: Error) -> ConfigError {
        // Without its input, the error's text has no line of the file, which may hold a secret. It
        // has the keys that lead to the value.
        error.set_input(None);
        let message = error.to_string().trim_end().replace('\n', ", ");
        if let Some(index) = self.variable_at(&error) {
            return ConfigError::in_variable(&self.variables[index].name, &message);
        }
        match (self.file, error.span()) {
            (Some(path), Some(span)) if span.start < OUTER.start => {
                ConfigError::at(path, self.text.as_bytes(), span.start, &message)
            }
            _ => ConfigError::elsewhere(&message),
        }
    }
}
