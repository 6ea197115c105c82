use std::fs::{self, File};

use serde::Deserialize;
use throughline_service::config::{Config, ConfigError};

use super::{Bank, Ledger, Place};

fn refused(text: impl AsRef<[u8]>) -> (Place, ConfigError) {
    let place = Place::with(text);
    let error = place.builder().load().unwrap_err();
    (place, error)
}

#[test]
fn the_file_overrides_the_defaults() {
    let place = Place::with("currency = 'CHF'\nports = [80, 443]\n[ledger]\nshards = 4\n");
    let config = place.builder().load().unwrap();
    let ledger = Ledger { shards: 4, ..Ledger::default() };
    let expected = Bank { currency: "CHF".to_owned(), ports: vec![80, 443], ledger, ..Bank::default() };
    assert_eq!(*config.current(), expected);
}

#[test]
fn a_wrong_type_is_an_error_with_line_and_column() {
    let (place, error) = refused("currency = 'CHF'\n\nlimit   = 'many'\n");
    assert_eq!((error.line(), error.column()), (Some(3), Some(11)));
    let expected = format!("{}:3:11: invalid type: string \"many\", expected u64, in `limit`", place.path.display());
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.file(), Some(place.path.as_path()));
    assert_eq!(error.variable(), None);
}

#[test]
fn a_wrong_type_in_a_table_has_all_its_keys() {
    let (_, error) = refused("[ledger]\nshards = -1\n");
    assert_eq!((error.line(), error.column()), (Some(2), Some(10)));
    assert!(error.message().ends_with("in `ledger.shards`"), "{error}");
}

#[test]
fn text_that_is_not_toml_is_an_error_with_line_and_column() {
    let (_, error) = refused("currency = 'CHF'\nlimit = = 3\n");
    assert_eq!((error.line(), error.column()), (Some(2), Some(9)), "{error}");
}

#[test]
fn columns_are_characters_and_not_bytes() {
    let (_, error) = refused("currency = 'äöü'  x\n");
    assert_eq!((error.line(), error.column()), (Some(1), Some(19)), "{error}");
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    let (_, error) = refused("limit = 3\ncurency = 'CHF'\n");
    assert_eq!((error.line(), error.column()), (Some(2), Some(1)));
    assert!(error.message().starts_with("unknown field `curency`, expected one of `currency`"), "{error}");
}

#[test]
fn an_error_does_not_show_the_other_values_of_the_file() {
    let (_, error) = refused("ledger = { url = 'postgres://user:secret@db', shards = 'x' }\n");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
}

#[test]
fn an_error_is_short_and_on_one_line() {
    let (_, error) = refused(format!("limit = \"\"\"{}\\u0007\n\"\"\"\n", "x".repeat(100_000)));
    assert!(error.message().len() <= 500, "{}", error.message().len());
    let (_, error) = refused("limit = \"\"\"a\nb\"\"\"\n");
    assert!(!error.to_string().contains(char::is_control), "{error}");
}

#[test]
fn a_missing_file_is_an_error_unless_it_is_optional() {
    let place = Place::empty();
    let error = place.builder().load().unwrap_err();
    assert_eq!(error.to_string(), format!("{}: there is no such file", place.path.display()));

    let config: Config<Bank> = Config::builder().optional_file(&place.path).load().unwrap();
    assert_eq!(*config.current(), Bank::default());
}

#[test]
fn a_required_value_that_is_missing_is_named() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Required {
        name: String,
    }
    let place = Place::with("");
    let error = Config::<Required>::builder().file(&place.path).load().unwrap_err();
    assert_eq!(error.to_string(), format!("{}:1:1: missing field `name`", place.path.display()));
    let error = Config::<Required>::builder().load().unwrap_err();
    assert_eq!(error.to_string(), "missing field `name`");
}

#[test]
fn a_file_above_1_mib_is_refused_before_it_is_read() {
    let place = Place::empty();
    // It has no content on the disk. Reading it would take all memory.
    File::create(&place.path).unwrap().set_len(1 << 40).unwrap();
    let error = place.builder().load().unwrap_err();
    assert_eq!(error.message(), "the file is larger than 1 MiB");
}

#[test]
fn a_file_of_1_mib_is_read() {
    let text = "currency = 'CHF'\n#";
    let place = Place::with(format!("{text}{}", "x".repeat((1 << 20) - text.len())));
    assert_eq!(place.builder().load().unwrap().current().currency, "CHF");
}

#[test]
fn a_directory_is_refused() {
    let place = Place::empty();
    fs::create_dir(&place.path).unwrap();
    assert_eq!(place.builder().load().unwrap_err().message(), "it is not a regular file");
}

#[test]
fn bytes_that_are_not_utf_8_are_an_error_with_line_and_column() {
    let (_, error) = refused(b"limit = 3\ncurrency = '\xff'\n");
    assert_eq!((error.line(), error.column()), (Some(2), Some(13)));
}

#[test]
fn a_value_that_the_validation_refuses_is_an_error() {
    let place = Place::with("limit = 0\n");
    let positive = |bank: &Bank| if bank.limit > 0 { Ok(()) } else { Err("limit: it must be positive".to_owned()) };
    let error = place.builder().validate(positive).load().unwrap_err();
    assert_eq!(error.to_string(), format!("{}: limit: it must be positive", place.path.display()));
    assert_eq!(error.line(), None);
}

#[test]
fn a_relative_path_is_made_absolute() {
    let error = Config::<Bank>::builder().file("not-there.toml").load().unwrap_err();
    assert!(error.file().unwrap().is_absolute());
}
