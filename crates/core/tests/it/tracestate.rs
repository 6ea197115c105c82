//! `tracestate`: W3C Trace Context Level 2, §3.3.

use proptest::prelude::*;
use throughline_core::TraceState;

fn parse(text: &str) -> Option<TraceState> {
    text.parse().ok()
}

fn members(count: usize) -> String {
    (0..count).map(|i| format!("k{i}=v{i}")).collect::<Vec<_>>().join(",")
}

#[test]
fn tracestate_accepts_what_the_grammar_allows_and_rejects_the_rest() {
    let long_key = format!("{}=v", "k".repeat(256));
    let long_value = format!("k={}", "v".repeat(256));
    for good in [
        "a=1",
        "0a=1",
        "a_-*/@b=1",
        "t@v@w=1",
        "a=!~ \"#;:<>x",
        "a= 1",
        " a=1 ,\tb=2\t",
        "a=1,,b=2,",
        ",a=1",
        "a=1,a=2",
        "a=1,a=1",
        long_key.as_str(),
        long_value.as_str(),
        &members(32),
    ] {
        assert_eq!(parse(good).expect(good).as_str(), good, "kept byte for byte");
    }
    for bad in [
        "a",
        "=1",
        "a=",
        "a= ",
        "A=1",
        "_a=1",
        "a.b=1",
        "a =1",
        "a=1=2",
        "a=\u{e9}",
        "a=\u{7f}",
        "a=1\t2",
        "a=1\nb=2",
        "a=1,b",
        &format!("{}=v", "k".repeat(257)),
        &format!("k={}", "v".repeat(257)),
        &members(33),
    ] {
        assert_eq!(parse(bad), None, "{bad:?}");
    }
}

#[test]
fn tracestate_without_members_is_empty() {
    for text in ["", " ", ",", " ,\t, "] {
        assert_eq!(parse(text), Some(TraceState::EMPTY), "{text:?}");
    }
    assert_eq!(TraceState::from_lines([]), Ok(TraceState::EMPTY));
}

#[test]
fn tracestate_lines_are_combined_in_order() {
    let from = |lines: &[&'static str]| TraceState::from_lines(lines.iter().map(|line| line.as_bytes()));
    assert_eq!(from(&["a=1", "b=2,c=3"]).unwrap().as_str(), "a=1,b=2,c=3");
    assert_eq!(from(&["", "b=2"]).unwrap().get("b"), Some("2"));
    assert_eq!(from(&["a=1", "a=2"]).unwrap().as_str(), "a=1,a=2", "a repeated key is accepted");
    assert!(from(&["a=1", "B=2"]).is_err(), "one bad line rejects the list");
    assert!(TraceState::from_lines([b"a=\xff".as_slice()]).is_err());
}

#[test]
fn tracestate_is_bounded_in_bytes_across_lines() {
    let line = ",".repeat(4_096);
    assert!(TraceState::from_lines([line.as_bytes(), &line.as_bytes()[1..]]).is_ok(), "8,192 bytes with the comma");
    assert!(TraceState::from_lines([line.as_bytes(), line.as_bytes()]).is_err());
}

#[test]
fn tracestate_insert_puts_the_member_first_and_drops_the_33rd() {
    let full = parse(&members(32)).unwrap();
    let more = full.insert("ours", "x").unwrap();
    assert_eq!((more.iter().next(), more.iter().count()), (Some(("ours", "x")), 32));
    assert_eq!((more.get("k30"), more.get("k31")), (Some("v30"), None));

    let again = full.insert("k31", "x").unwrap();
    assert_eq!((again.iter().next(), again.iter().count()), (Some(("k31", "x")), 32));
    assert_eq!(again.get("k30"), Some("v30"), "no other member was dropped");

    for (key, value) in [("Bad", "x"), ("k", "a,b"), ("k", ""), ("k", "x "), ("", "x")] {
        assert!(full.insert(key, value).is_err(), "{key}={value}");
    }
}

#[test]
fn tracestate_of_a_repeated_key_reads_the_first_and_a_change_removes_the_others() {
    let state = parse("a=1,b=2,a=3").unwrap();
    assert_eq!(state.get("a"), Some("1"), "the most recent");
    assert_eq!(state.insert("a", "4").unwrap().as_str(), "a=4,b=2", "W3C Trace Context Level 2, §3.5");
    assert_eq!(state.insert("c", "4").unwrap().as_str(), "c=4,a=1,b=2,a=3", "other members stay");
    assert_eq!(state.remove("a").as_str(), "b=2");
    assert_eq!(parse(&format!("a=1,{}", "a=1,".repeat(31))).unwrap().iter().count(), 32);
    assert_eq!(parse(&"a=1,".repeat(33)), None, "repeated keys count as members");
}

#[test]
fn tracestate_remove_keeps_the_other_members() {
    let state = parse("a=1 , b=2,c=3").unwrap();
    assert_eq!(state.remove("b").as_str(), "a=1,c=3");
    assert_eq!(state.remove("x").as_str(), "a=1 , b=2,c=3", "unchanged");
    assert_eq!(parse("a=1").unwrap().remove("a"), TraceState::EMPTY);
}

/// Returns the number of members of a valid list, by a slow, simple parser of the grammar
/// (§3.3.1.3).
fn simple_parse(text: &str) -> Option<usize> {
    let trimmed = text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty());
    let is_valid = |member: &str| {
        let Some((key, value)) = member.split_once('=') else { return false };
        let begins = key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let in_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-*/@".contains(c);
        let in_value = |c: char| (' '..='~').contains(&c) && c != '=';
        begins && key.chars().all(in_key) && !value.is_empty() && value.chars().all(in_value)
    };
    let members: Vec<_> = trimmed.collect();
    (members.len() <= 32 && members.into_iter().all(is_valid)).then(|| text.matches('=').count())
}

proptest! {
    #[test]
    fn tracestate_never_panics_and_keeps_what_it_accepts(text in "[ -~\t\u{0}\u{e9}]{0,80}|([a-z@]{1,3}=[ -+--<>-~]{1,4},? ?){0,40}") {
        if let Some(state) = parse(&text) {
            let count = state.iter().count();
            prop_assert!(count <= 32);
            prop_assert!(count == 0 || state.as_str() == text);
            let set = state.insert("zz@zz", "1").unwrap();
            prop_assert_eq!(parse(set.as_str()), Some(set.clone()), "a written list can be parsed");
            for (key, _) in state.iter().take(31) {
                prop_assert_eq!(set.get(key), state.get(key));
            }
        }
    }

    #[test]
    fn tracestate_accepts_the_same_lists_as_a_simple_parser(text in "([ab0=, \t]|[ -~\t]|a=1|,){0,30}") {
        prop_assert_eq!(parse(&text).map(|state| state.iter().count()), simple_parse(&text));
    }
}
