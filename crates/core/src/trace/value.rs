use std::borrow::Cow;

use super::limits::truncate;

/// The value of an attribute.
///
/// It is a bool, an integer, a float, a text, or an array of one of them.
///
/// # Examples
/// ```
/// use throughline_core::trace::Value;
///
/// assert_eq!(Value::from(200_u16), Value::I64(200));
/// assert_eq!(Value::from(vec!["eu", "us"]).to_string(), r#"["eu","us"]"#);
/// assert_eq!(Value::from(u64::MAX), Value::Str("18446744073709551615".into()), "too great for an i64");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// An integer.
    I64(i64),
    /// A floating-point number.
    F64(f64),
    /// A text. Static text costs no allocation.
    Str(Cow<'static, str>),
    /// An array of [`Bool`](Self::Bool).
    BoolArray(Box<[bool]>),
    /// An array of [`I64`](Self::I64).
    I64Array(Box<[i64]>),
    /// An array of [`F64`](Self::F64).
    F64Array(Box<[f64]>),
    /// An array of [`Str`](Self::Str).
    StrArray(Box<[Cow<'static, str>]>),
}

impl Value {
    /// Returns the text, if the value is a text.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// Returns the integer, if the value is one.
    pub fn as_i64(&self) -> Option<i64> {
        if let Self::I64(number) = self { Some(*number) } else { None }
    }

    /// Returns the floating-point number, if the value is one.
    pub fn as_f64(&self) -> Option<f64> {
        if let Self::F64(number) = self { Some(*number) } else { None }
    }

    /// Returns the bool, if the value is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(truth) = self { Some(*truth) } else { None }
    }

    /// Cuts each text to at most so many characters.
    #[inline]
    pub(super) fn truncate(&mut self, characters: usize) {
        match self {
            Self::Str(text) => truncate(text, characters),
            Self::StrArray(texts) => texts.iter_mut().for_each(|text| truncate(text, characters)),
            _ => {}
        }
    }
}

impl std::fmt::Display for Value {
    /// Writes a text as it is, and an array as JSON.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(truth) => truth.fmt(f),
            Self::I64(number) => number.fmt(f),
            Self::F64(number) => number.fmt(f),
            Self::Str(text) => text.fmt(f),
            Self::BoolArray(truths) => array(f, truths, |f, truth| write!(f, "{truth}")),
            Self::I64Array(numbers) => array(f, numbers, |f, number| write!(f, "{number}")),
            Self::F64Array(numbers) => array(f, numbers, |f, number| write!(f, "{number}")),
            Self::StrArray(texts) => array(f, texts, |f, text| json(f, text)),
        }
    }
}

type Formatter<'a, 'b> = &'a mut std::fmt::Formatter<'b>;

fn array<T>(
    f: Formatter<'_, '_>,
    items: &[T],
    each: impl Fn(Formatter<'_, '_>, &T) -> std::fmt::Result,
) -> std::fmt::Result {
    f.write_str("[")?;
    for (index, item) in items.iter().enumerate() {
        f.write_str(if index > 0 { "," } else { "" })?;
        each(f, item)?;
    }
    f.write_str("]")
}

fn json(f: Formatter<'_, '_>, text: &str) -> std::fmt::Result {
    use std::fmt::Write;
    f.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(f, "\\{character}")?,
            character if character.is_control() => write!(f, "\\u{:04x}", u32::from(character))?,
            character => f.write_char(character)?,
        }
    }
    f.write_char('"')
}

macro_rules! from {
    ($($($from:ty),+ => |$value:ident| $into:expr;)+) => {
        $($(impl From<$from> for Value {
            #[inline]
            fn from($value: $from) -> Self {
                $into
            }
        })+)+
    };
}

from! {
    bool => |value| Self::Bool(value);
    i64 => |value| Self::I64(value);
    i8, i16, i32, u8, u16, u32 => |value| Self::I64(i64::from(value));
    u64, usize, isize, u128, i128 => |value| i64::try_from(value).map_or_else(|_| value.to_string().into(), Self::I64);
    f64 => |value| Self::F64(value);
    f32 => |value| Self::F64(f64::from(value));
    &'static str => |value| Self::Str(Cow::Borrowed(value));
    String => |value| Self::Str(Cow::Owned(value));
    Cow<'static, str> => |value| Self::Str(value);
    Vec<bool> => |value| Self::BoolArray(value.into());
    Vec<i64> => |value| Self::I64Array(value.into());
    Vec<f64> => |value| Self::F64Array(value.into());
    Vec<Cow<'static, str>> => |value| Self::StrArray(value.into());
    Vec<&'static str> => |value| Self::StrArray(value.into_iter().map(Cow::Borrowed).collect());
    Vec<String> => |value| Self::StrArray(value.into_iter().map(Cow::Owned).collect());
}
