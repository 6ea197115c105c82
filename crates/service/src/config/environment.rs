//! Environment variables as values of a TOML table.

use std::borrow::Cow;
use std::ffi::OsString;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::ConfigError;

/// The separator of nested keys in a variable's name.
const SEPARATOR: &str = "__";
/// The most keys in one name.
const MAX_DEPTH: usize = 32;

/// A variable of the configuration.
#[derive(Clone, Debug)]
pub(super) struct Variable {
    pub(super) name: String,
    /// The keys, in lower case.
    keys: Vec<String>,
    text: String,
}

/// How the text of a variable is read. The type that is deserialized decides: the first that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// As a TOML value: `true`, `3`, `["a", "b"]`, `{ a = 1 }`. Anything else is text.
    Value,
    Text,
    /// As a list with commas. Each element is read as a value.
    List,
    /// As a list with commas. Each element is text.
    TextList,
}

impl Reading {
    pub(super) fn next(self) -> Option<Reading> {
        match self {
            Reading::Value => Some(Reading::Text),
            Reading::Text => Some(Reading::List),
            Reading::List => Some(Reading::TextList),
            Reading::TextList => None,
        }
    }
}

/// Collects the variables whose names begin with `prefix` and the separator.
///
/// An empty variable counts as not set.
pub(super) fn collect(
    prefix: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<Variable>, ConfigError> {
    let mut found: Vec<Variable> = Vec::new();
    for (name, text) in variables {
        let Some(name) = name.to_str() else { continue };
        let Some(keys) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(SEPARATOR)) else { continue };
        if text.is_empty() {
            continue;
        }
        let Ok(text) = text.into_string() else { return Err(ConfigError::in_variable(name, "the value is not UTF-8")) };
        let keys: Vec<String> = keys.split(SEPARATOR).map(str::to_lowercase).collect();
        if keys.len() > MAX_DEPTH {
            return Err(ConfigError::in_variable(name, &format!("the name has more than {MAX_DEPTH} keys")));
        }
        if keys.iter().any(String::is_empty) {
            return Err(ConfigError::in_variable(name, "a key in the name is empty"));
        }
        found.push(Variable { name: name.to_owned(), keys, text });
    }
    // In this order, a variable for a table stands directly before those for the table's keys.
    found.sort_by(|a, b| (&a.keys, &a.name).cmp(&(&b.keys, &b.name)));
    for pair in found.windows(2) {
        if pair[1].keys.starts_with(&pair[0].keys) {
            let message = format!("{} sets the same key, or the table that the key is in", pair[0].name);
            return Err(ConfigError::in_variable(&pair[1].name, &message));
        }
    }
    Ok(found)
}

impl Variable {
    /// Sets the variable's key in `table`.
    ///
    /// `own` is the span of the value, `outer` that of tables that are made for it.
    pub(super) fn set<'i>(&'i self, table: &mut DeTable<'i>, reading: Reading, own: Range<usize>, outer: Range<usize>) {
        let (last, parents) = self.keys.split_last().expect("a name has at least one key");
        let mut table = table;
        for key in parents {
            let slot = slot(table, key, &outer);
            if !matches!(slot.get_ref(), DeValue::Table(_)) {
                *slot = Spanned::new(outer.clone(), DeValue::Table(DeTable::new()));
            }
            let DeValue::Table(inner) = slot.get_mut() else { unreachable!("the value is a table by now") };
            table = inner;
        }
        *slot(table, last, &own) = self.value(reading, &own);
    }

    fn value(&self, reading: Reading, span: &Range<usize>) -> Spanned<DeValue<'_>> {
        let value = match reading {
            Reading::Value => return scalar(&self.text, span),
            Reading::Text => text(&self.text),
            Reading::List | Reading::TextList => {
                let mut list = DeArray::new();
                for element in self.text.split(',').map(str::trim).filter(|element| !element.is_empty()) {
                    list.push(match reading {
                        Reading::List => scalar(element, span),
                        _ => Spanned::new(span.clone(), text(element)),
                    });
                }
                DeValue::Array(list)
            }
        };
        Spanned::new(span.clone(), value)
    }
}

/// The value of `key`, by its name in the table: case, `-` and `_` make no difference.
fn slot<'a, 'i>(table: &'a mut DeTable<'i>, key: &str, span: &Range<usize>) -> &'a mut Spanned<DeValue<'i>> {
    let same = |name: &str| name.chars().map(plain).eq(key.chars().map(plain));
    let known = table.keys().find(|name| same(name.get_ref())).map(|name| name.get_ref().clone());
    let name = known.unwrap_or_else(|| Cow::Owned(key.to_owned()));
    let nothing = || Spanned::new(span.clone(), DeValue::Boolean(false));
    table.entry(Spanned::new(span.clone(), name)).or_insert_with(nothing)
}

fn plain(c: char) -> char {
    if c == '-' { '_' } else { c.to_ascii_lowercase() }
}

fn text(text: &str) -> DeValue<'_> {
    DeValue::String(Cow::Borrowed(text))
}

/// Reads a TOML value that is not a string, or else text. Quotes stay.
fn scalar<'i>(raw: &'i str, span: &Range<usize>) -> Spanned<DeValue<'i>> {
    match DeValue::parse(raw) {
        Ok(value) if !value.get_ref().is_str() => respan(value.into_inner(), span),
        _ => Spanned::new(span.clone(), text(raw)),
    }
}

/// Moves a value, and those within it, to `span`. The parser has limited the depth to 80.
fn respan<'i>(value: DeValue<'i>, span: &Range<usize>) -> Spanned<DeValue<'i>> {
    let value = match value {
        DeValue::Array(array) => {
            let mut moved = DeArray::new();
            for element in array {
                moved.push(respan(element.into_inner(), span));
            }
            DeValue::Array(moved)
        }
        DeValue::Table(table) => {
            let entries = table.into_iter();
            let moved = entries.map(|(key, element)| {
                (Spanned::new(span.clone(), key.into_inner()), respan(element.into_inner(), span))
            });
            DeValue::Table(moved.collect())
        }
        plain => plain,
    };
    Spanned::new(span.clone(), value)
}
