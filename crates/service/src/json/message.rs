//! Messages about bodies that are not what a type needs, without the values of the body.
//!
//! serde writes a value that it does not expect into its message. The value may be a card number,
//! and messages go to the caller, to logs and to traces.

use std::fmt::Write as _;

use serde_json::error::{Category, Error};
use serde_path_to_error::{Path, Segment};

/// The longest part of a path, in bytes.
const MAX_SEGMENT: usize = 64;
/// The most parts of a path.
const MAX_SEGMENTS: usize = 16;

/// Says where and why deserializing has failed.
pub(super) fn describe(path: &Path, error: &Error) -> String {
    let mut text = describe_path(path);
    if !text.is_empty() {
        text.push_str(": ");
    }
    match error.classify() {
        Category::Data => {
            text.push_str(&without_values(&error.to_string(), &position(error)));
            text.push_str(&position(error));
        }
        // These messages are constants.
        Category::Syntax | Category::Eof | Category::Io => {
            let _ = write!(text, "{error}");
        }
    }
    text
}

fn position(error: &Error) -> String {
    match (error.line(), error.column()) {
        (0, _) => String::new(),
        (line, column) => format!(" at line {line} column {column}"),
    }
}

/// The path of a field: `items[3].amount`. A part that may be a value is `?`.
fn describe_path(path: &Path) -> String {
    let mut text = String::new();
    for (depth, segment) in path.iter().enumerate() {
        if depth == MAX_SEGMENTS {
            text.push('…');
            break;
        }
        let name = match segment {
            Segment::Seq { index } => {
                let _ = write!(text, "[{index}]");
                continue;
            }
            // The key of a map, too, which may be any text.
            Segment::Map { key } => Some(key).filter(|key| is_identifier(key)),
            Segment::Enum { variant } => Some(variant).filter(|variant| is_identifier(variant)),
            Segment::Unknown => None,
        };
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(name.map_or("?", String::as_str));
    }
    if text == "?" { String::new() } else { text }
}

fn is_identifier(text: &str) -> bool {
    text.len() <= MAX_SEGMENT
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// serde's message of a data error, without the position and without values of the body.
fn without_values(message: &str, position: &str) -> String {
    let message = message.strip_suffix(position).unwrap_or(message);
    // The expectation is the type's own text. It comes last, so a value cannot imitate it.
    let expected = |separator: &str| message.rfind(separator).map(|at| &message[at + separator.len()..]);
    for kind in ["invalid type", "invalid value"] {
        let Some(unexpected) = message.strip_prefix(kind).and_then(|rest| rest.strip_prefix(": ")) else { continue };
        return match expected(", expected ") {
            Some(expected) => format!("{kind}: {}, expected {expected}", kind_of(unexpected)),
            None => kind.to_owned(),
        };
    }
    for kind in ["unknown field", "unknown variant"] {
        if message.starts_with(kind) {
            return match expected("`, expected ") {
                Some(expected) => format!("{kind}, expected {expected}"),
                None => kind.to_owned(),
            };
        }
    }
    // These name a field of the type, or a length.
    let is_safe =
        ["missing field `", "duplicate field `", "invalid length "].iter().any(|kind| message.starts_with(kind));
    if is_safe { message.to_owned() } else { "the value is not valid".to_owned() }
}

/// The kind of a value that serde did not expect: of ``integer `5` `` it is `integer`.
fn kind_of(unexpected: &str) -> &'static str {
    const KINDS: [&str; 14] = [
        "boolean",
        "integer",
        "floating point",
        "character",
        "string",
        "byte array",
        "unit value",
        "null",
        "Option value",
        "newtype struct",
        "sequence",
        "map",
        "enum",
        "unit variant",
    ];
    KINDS.into_iter().find(|kind| unexpected.starts_with(kind)).unwrap_or("a value")
}
