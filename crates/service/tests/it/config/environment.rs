use std::ffi::OsString;
use std::time::Duration;

use throughline_service::config::{Config, ConfigError};

use super::{Bank, Ledger, Place};

fn load(variables: &[(&str, &str)]) -> Result<Bank, ConfigError> {
    let config = Config::<Bank>::builder().environment("BANK").variables(variables.iter().copied()).load()?;
    Ok(Bank::clone(&config.current()))
}

#[test]
fn the_environment_overrides_the_file_and_the_file_the_defaults() {
    let place = Place::with("currency = 'CHF'\nlimit = 3\n[ledger]\nurl = 'a'\nshards = 1\n");
    let variables = [("BANK__LIMIT", "4"), ("BANK__LEDGER__SHARDS", "2"), ("BANKER__LIMIT", "9"), ("OTHER", "x")];
    let config = place.builder().environment("BANK").variables(variables).load().unwrap();
    let ledger = Ledger { url: Some("a".to_owned()), shards: 2 };
    let expected = Bank { currency: "CHF".to_owned(), limit: 4, ledger, ..Bank::default() };
    assert_eq!(*config.current(), expected);
}

#[test]
fn the_type_decides_how_a_text_is_read() {
    let bank = load(&[
        ("BANK__CURRENCY", "123"),
        ("BANK__LIMIT", "7"),
        ("BANK__IS_OPEN", "false"),
        ("BANK__RATE", "1"),
        ("BANK__PATIENCE", "250ms"),
        ("BANK__PEERS", "1, true,cards"),
        ("BANK__PORTS", "80,443"),
        ("BANK__LEDGER__URL", "true # not a comment"),
    ]);
    let expected = Bank {
        currency: "123".to_owned(),
        limit: 7,
        is_open: false,
        rate: 1.0,
        patience: Duration::from_millis(250),
        peers: vec!["1".to_owned(), "true".to_owned(), "cards".to_owned()],
        ports: vec![80, 443],
        ledger: Ledger { url: Some("true # not a comment".to_owned()), shards: 0 },
    };
    assert_eq!(bank.unwrap(), expected);
}

#[test]
fn lists_and_tables_can_be_toml() {
    let bank = load(&[("BANK__PEERS", "[\"a,b\", 'c']"), ("BANK__LEDGER", "{ url = 'x', shards = 3 }")]).unwrap();
    assert_eq!(bank.peers, ["a,b", "c"]);
    assert_eq!(bank.ledger, Ledger { url: Some("x".to_owned()), shards: 3 });
}

#[test]
fn a_list_of_one_and_quotes_are_taken_as_they_are() {
    let bank = load(&[("BANK__PEERS", "cards"), ("BANK__CURRENCY", "\"EUR\"")]).unwrap();
    assert_eq!((bank.peers, bank.currency), (vec!["cards".to_owned()], "\"EUR\"".to_owned()));
}

#[test]
fn an_error_names_the_variable() {
    let error = load(&[("BANK__RATE", "1"), ("BANK__LEDGER__SHARDS", "many")]).unwrap_err();
    assert_eq!(error.variable(), Some("BANK__LEDGER__SHARDS"));
    let expected = "BANK__LEDGER__SHARDS: invalid type: string \"many\", expected u32, in `ledger.shards`";
    assert_eq!(error.to_string(), expected);
    assert_eq!((error.file(), error.line(), error.column()), (None, None, None));

    let error = load(&[("BANK__LEDGER", "{ shards = 'x' }")]).unwrap_err();
    assert_eq!(error.variable(), Some("BANK__LEDGER"), "{error}");
    let error = load(&[("BANK__LEDGER", "postgres")]).unwrap_err();
    assert!(error.message().starts_with("invalid type: string \"postgres\", expected struct Ledger"), "{error}");
    let error = load(&[("BANK__PORTS", "80,x")]).unwrap_err();
    assert_eq!(error.to_string(), "BANK__PORTS: invalid type: string \"x\", expected u16, in `ports`");
    let error = load(&[("BANK__PATIENCE", "250")]).unwrap_err();
    assert_eq!(error.variable(), Some("BANK__PATIENCE"), "{error}");
    assert!(error.message().contains("a time with its unit"), "{error}");
}

#[test]
fn an_unknown_key_names_the_variable() {
    let error = load(&[("BANK__LIMITS", "3")]).unwrap_err();
    assert_eq!(error.variable(), Some("BANK__LIMITS"));
    assert!(error.message().starts_with("unknown field `limits`"), "{error}");
}

#[test]
fn an_error_in_the_file_has_its_position_beside_variables() {
    let place = Place::with("currency = 'CHF'\nlimit = 'x'\n");
    let builder = place.builder().environment("BANK").variables([("BANK__CURRENCY", "EUR")]);
    let error = builder.load().unwrap_err();
    assert_eq!((error.line(), error.column(), error.variable()), (Some(2), Some(9), None));
}

#[test]
fn a_variable_repairs_a_wrong_value_of_the_file() {
    let place = Place::with("limit = 'x'\n[ledger]\nshards = 'x'\n");
    let variables = [("BANK__LIMIT", "1"), ("BANK__LEDGER__SHARDS", "2")];
    let config = place.builder().environment("BANK").variables(variables).load().unwrap();
    assert_eq!((config.current().limit, config.current().ledger.shards), (1, 2));
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    assert_eq!(load(&[("BANK__LIMIT", ""), ("BANK__CURRENCY", "")]).unwrap(), Bank::default());
}

#[test]
fn two_variables_for_one_key_are_an_error() {
    let error = load(&[("BANK__LEDGER", "{}"), ("BANK__LEDGER__SHARDS", "3")]).unwrap_err();
    assert_eq!(error.variable(), Some("BANK__LEDGER__SHARDS"));
    assert!(error.message().starts_with("BANK__LEDGER sets"), "{error}");
    let error = load(&[("BANK__LIMIT", "1"), ("BANK__limit", "2")]).unwrap_err();
    assert_eq!(error.variable(), Some("BANK__limit"));
}

#[test]
fn names_with_an_empty_key_or_with_too_many_keys_are_errors() {
    let deep = format!("BANK{}", "__A".repeat(10_000));
    for name in ["BANK__", "BANK__LEDGER__", "BANK____LIMIT", &deep] {
        let error = load(&[(name, "1")]).unwrap_err();
        assert_eq!(error.variable(), Some(name));
    }
}

#[test]
#[cfg(unix)]
fn a_value_that_is_not_utf_8_is_an_error() {
    use std::os::unix::ffi::OsStringExt;

    let variables = [(OsString::from("BANK__CURRENCY"), OsString::from_vec(vec![0xff]))];
    let error = Config::<Bank>::builder().environment("BANK").variables(variables).load().unwrap_err();
    assert_eq!(error.to_string(), "BANK__CURRENCY: the value is not UTF-8");
}

#[test]
fn a_deeply_nested_value_is_an_error_and_no_overflow() {
    let error = load(&[("BANK__PORTS", &"[".repeat(100_000))]).unwrap_err();
    assert_eq!(error.variable(), Some("BANK__PORTS"));
}

#[test]
fn the_keys_of_the_file_are_found_in_any_case_and_with_hyphens() {
    let place = Place::with("[routes.Create-Order]\nshards = 1\n");
    type Routes = std::collections::BTreeMap<String, std::collections::BTreeMap<String, Ledger>>;
    let builder = Config::<Routes>::builder().file(&place.path).environment("BANK");
    let config = builder.variables([("BANK__ROUTES__CREATE_ORDER__SHARDS", "2")]).load().unwrap();
    assert_eq!(config.current()["routes"].len(), 1);
    assert_eq!(config.current()["routes"]["Create-Order"].shards, 2);
}
