//! W3C Baggage: the vectors of the specification, and properties.

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use throughline_core::propagation::baggage::{extract, inject};
use throughline_core::{Baggage, Context};

fn headers(lines: &[&[u8]]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append("baggage", HeaderValue::from_bytes(line).unwrap());
    }
    headers
}

fn passed_on(lines: &[&[u8]]) -> Option<String> {
    let mut sent = headers(&[b"stale=1"]);
    inject(&extract(&headers(lines)), &mut sent);
    assert!(sent.get_all("baggage").iter().count() <= 1);
    sent.get("baggage").map(|line| line.to_str().unwrap().to_owned())
}

fn of(text: &str) -> Baggage {
    Baggage::from_lines([text.as_bytes()])
}

fn read(text: &str) -> Vec<(String, String)> {
    of(text).iter().map(|member| (member.key().to_owned(), member.value().into_owned())).collect()
}

/// W3C Baggage §3.3.1 and §3.3.1.3.
#[test]
fn members_are_parsed_and_decoded() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("key1=value1,key2=value2", &[("key1", "value1"), ("key2", "value2")]),
        (" key1 = value1 \t, key2 = value2;p ", &[("key1", "value1"), ("key2", "value2")]),
        ("k=", &[("k", "")]),
        ("k=a=b==", &[("k", "a=b==")]),
        ("k=a+b", &[("k", "a+b")]),
        ("k=%20%2C%3b%25%C3%A9", &[("k", " ,;%\u{e9}")]),
        ("k=%ff%C3", &[("k", "\u{fffd}\u{fffd}")]),
        ("k=100%,%41=%zz", &[("k", "100%"), ("%41", "%zz")]),
        ("!#$%&'*+-.^_`|~=x", &[("!#$%&'*+-.^_`|~", "x")]),
        (",, k=v ,", &[("k", "v")]),
    ];
    for (text, members) in cases {
        let members: Vec<_> = members.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        assert_eq!(read(text), members, "{text}");
    }
}

/// §3.3.1.3: "Code points which are not required to be percent-encoded MAY be percent-encoded."
#[test]
fn a_plus_is_encoded_because_some_peers_decode_it_as_a_blank() {
    let baggage = Baggage::EMPTY.insert_with("k", "a+b c", [("p", Some("+"))]).unwrap();
    assert_eq!(baggage.as_str(), "k=a%2Bb%20c;p=%2B");
    assert_eq!(baggage.get("k").as_deref(), Some("a+b c"));
}

#[test]
fn an_invalid_member_is_absent_but_is_passed_on() {
    for text in
        ["k", "=v", "k k=v", "k=a b", "k=\"v\"", "k=a\\b", "k=v;", "k=v;=p", "k=v;p q", "k=v;p=\"q\"", "(k)=v", ";k=v"]
    {
        assert_eq!(read(text), [], "{text}");
        assert_eq!(of(text).get("k"), None, "{text}");
        assert_eq!(passed_on(&[text.as_bytes()]).as_deref(), Some(text));
    }
}

#[test]
fn unchanged_baggage_is_passed_on_byte_for_byte() {
    for text in ["k=v", " k = %7a ;p;q = 1\t,k=2,, ", "what is this", "%"] {
        assert_eq!(passed_on(&[text.as_bytes()]).as_deref(), Some(text));
    }
    assert_eq!(passed_on(&[b"a=1 ", b"", b"b=2"]).as_deref(), Some("a=1 ,,b=2"), "lines are combined in order");
    for nothing in [&[][..], &[b"" as &[u8]], &[b" ,\t", b","]] {
        assert_eq!(passed_on(nothing), None);
    }
}

#[test]
fn the_last_member_of_a_key_is_read_and_insert_replaces_all_of_them() {
    let baggage = of("k=1, j=2 ,k=3;p");
    assert_eq!(baggage.get("k").as_deref(), Some("3"));
    assert_eq!(baggage.insert("k", "4").unwrap().as_str(), "j=2,k=4");
    assert_eq!(baggage.remove("k").as_str(), "j=2");
    assert_eq!(baggage.remove("x").as_str(), baggage.as_str(), "untouched");
    assert_eq!(baggage.get("K"), None, "keys are case-sensitive");
    assert!(baggage.remove("k").remove("j").is_empty());
}

#[test]
fn an_invalid_key_finds_no_member() {
    for (text, key) in
        [("a=b=c", "a=b"), ("a=b;c=d", "a=b;c"), (" a =b", "a "), ("=v", ""), ("a=b", "a=b"), ("k=1,a=b", "k=1,a")]
    {
        assert_eq!(of(text).get(key), None, "{key:?} of {text:?}");
    }
}

#[test]
fn a_change_drops_and_counts_invalid_members() {
    let baggage = Baggage::from_lines([b"what is this, k=v;p ,,a,e=\xff".as_slice()]);
    assert_eq!((baggage.as_str(), baggage.dropped_count()), ("what is this,k=v;p,a", 1));
    let set = baggage.insert("j", "1").unwrap();
    assert_eq!((set.as_str(), set.dropped_count()), ("k=v;p,j=1", 3));
    assert_eq!(set.insert("j", "2").unwrap().dropped_count(), 3);
    let removed = baggage.remove("k");
    assert_eq!((removed.as_str(), removed.dropped_count()), ("", 3));
    let same = baggage.remove("x");
    assert_eq!((same.as_str(), same.dropped_count()), (baggage.as_str(), 1), "the baggage is unchanged");
}

#[test]
fn properties_stay_with_their_member() {
    let baggage = of("a=1;ttl = 60 ; x, b=2;y=%20").insert("c", "3").unwrap();
    assert_eq!(baggage.as_str(), "a=1;ttl = 60 ; x,b=2;y=%20,c=3");
    let member = baggage.iter().next().unwrap();
    let properties: Vec<_> = member.properties().collect();
    assert_eq!(properties, [("ttl", Some("60".into())), ("x", None)]);
}

#[test]
fn a_value_never_becomes_a_member() {
    let baggage = of("k=v;p=%2Crole%3Dadmin").insert("j", "1,role=admin;x\r\n\u{e9}\"\\%2C").unwrap();
    assert_eq!(baggage.as_str(), "k=v;p=%2Crole%3Dadmin,j=1%2Crole=admin%3Bx%0D%0A%C3%A9%22%5C%252C");
    assert_eq!(baggage.get("role"), None);
    assert_eq!(baggage.get("j").as_deref(), Some("1,role=admin;x\r\n\u{e9}\"\\%2C"));
    for key in ["", "k=v", "a,b", "a;b", "a b", "\u{e9}", "a\n", "a\"", "[a]"] {
        assert!(Baggage::EMPTY.insert(key, "v").is_err(), "{key:?}");
        assert!(Baggage::EMPTY.insert_with("k", "v", [(key, Some("v"))]).is_err(), "{key:?}");
    }
}

/// §3.3.2: 64 members and 8,192 bytes go on in full.
#[test]
fn the_limits_apply_to_all_lines_together_and_drop_whole_members() {
    let list = |count: usize| (0..count).map(|i| format!("k{i}=v{i}")).collect::<Vec<_>>().join(",");
    let (full, over) = (list(64), list(67));
    assert_eq!(passed_on(&[full.as_bytes()]), Some(full.clone()));
    assert_eq!(passed_on(&[over.as_bytes()]), Some(full.clone()));
    assert_eq!(extract(&headers(&[full.as_bytes(), b"x=1,y=2", b"z=3"])).dropped_count(), 3);
    assert_eq!(
        passed_on(&[format!("{},{full}", ",".repeat(100)).as_bytes()]),
        Some(full.clone()),
        "empty ones are none"
    );

    let long = |key: &str, length: usize| format!("{key}={}", "x".repeat(length - key.len() - 1));
    let (exact, most) = (long("a", 8_192), long("a", 8_188));
    assert_eq!(passed_on(&[exact.as_bytes()]), Some(exact));
    let baggage = extract(&headers(&[long("b", 8_193).as_bytes(), most.as_bytes(), b"long=1", b"c=1"]));
    assert_eq!((baggage.as_str(), baggage.dropped_count()), (format!("{most},c=1").as_str(), 2));
}

#[test]
fn a_member_that_does_not_fit_is_an_error() {
    let full = of(&(0..64).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(","));
    assert!(full.insert("x", "1").is_err());
    assert_eq!(full.insert("k3", "1").unwrap().iter().count(), 64);
    assert!(Baggage::EMPTY.insert("k", &"x".repeat(8_190)).is_ok());
    assert!(Baggage::EMPTY.insert("k", &"x".repeat(8_191)).is_err());
    assert!(Baggage::EMPTY.insert("k", &",".repeat(2_731)).is_err(), "the limit applies to the encoded value");
    assert!(Baggage::EMPTY.insert_with("k", "v", [("p", Some("x".repeat(8_192).as_str()))]).is_err());
}

#[test]
fn len_counts_valid_members_only() {
    let cases = [("", 0), ("a=1", 1), (" a=1 ,, b=2;p,", 2), ("a=1,a=2", 2), ("no value", 0), ("a=1,=2,b=\"", 1)];
    for (text, len) in cases {
        assert_eq!(of(text).len(), len, "{text:?}");
        assert_eq!(of(text).is_empty(), text.is_empty(), "{text:?}");
    }
}

#[test]
fn collected_pairs_are_encoded_and_the_last_value_of_a_key_counts() {
    let pairs = [("a", "1"), ("b", "x,y=z"), ("a", "2")];
    let baggage: Baggage = pairs.into_iter().collect();
    assert_eq!((baggage.as_str(), baggage.len(), baggage.dropped_count()), ("b=x%2Cy=z,a=2", 2, 0));
    let owned: Baggage = vec![(String::from("a"), String::from("1"))].into_iter().collect();
    assert_eq!(owned, of("a=1"));
    assert_eq!(std::iter::empty::<(&str, &str)>().collect::<Baggage>(), Baggage::EMPTY);
}

#[test]
fn collected_pairs_that_do_not_fit_are_dropped_and_counted() {
    let baggage: Baggage = (0..100).map(|n| (format!("k{n}"), "v")).collect();
    assert_eq!((baggage.len(), baggage.dropped_count()), (Baggage::MAX_MEMBERS, 36));
    let long = "v".repeat(Baggage::MAX_BYTES);
    let baggage: Baggage = [("a", "1"), ("long", &long), ("no key", "v"), ("", "v"), ("b", "2")].into_iter().collect();
    assert_eq!((baggage.as_str(), baggage.dropped_count()), ("a=1,b=2", 3));
}

#[test]
fn a_member_with_an_invalid_byte_is_dropped() {
    let baggage = Baggage::from_lines([b"a=1,b=\x00".as_slice(), b"c=\xff, d=2,e\n=3"]);
    assert_eq!((baggage.as_str(), baggage.dropped_count()), ("a=1,d=2", 3));
    assert_eq!(passed_on(&[b"a=1,b=\xe9"]).as_deref(), Some("a=1"));
}

#[test]
fn a_context_carries_baggage() {
    let ctx = Context::background();
    assert!(ctx.baggage().is_empty());
    let below = ctx.with_baggage(of("k=v")).with_cancel();
    assert_eq!(below.baggage().get("k").as_deref(), Some("v"));
    assert_eq!(below.detach().baggage(), below.baggage(), "baggage is a value like others");
    assert_eq!(format!("{:?}", of("card=4111;p,b=2")), r#"Baggage{"card", "b"}"#, "values may be private");
}

/// A simple and slow parser of the grammar (§3.3.1): key, value and properties, not decoded.
type Plain<'a> = (&'a str, &'a str, Vec<(&'a str, Option<&'a str>)>);

fn bare(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn plainly(member: &str) -> Option<Plain<'_>> {
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char::from(b)))
    };
    let octets = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !"\",;\\".contains(char::from(b)));
    let mut parts = member.split(';').map(|part| match part.split_once('=') {
        Some((key, value)) => (bare(key), Some(bare(value))),
        None => (bare(part), None),
    });
    let (key, value) = parts.next()?;
    let properties: Vec<_> = parts.collect();
    let mut pairs = std::iter::once((key, value)).chain(properties.clone());
    let is_valid = pairs.all(|(key, value)| token(key) && value.is_none_or(octets));
    is_valid.then_some((key, value?, properties))
}

proptest! {
    #[test]
    fn any_text_is_set_and_read_back_unchanged(key in "[a-z!#$%&'*+.^_`|~-]{1,9}", value in any::<String>(), property in any::<String>()) {
        let before = of("a=1,,b=2;p=3");
        let baggage = before.insert_with(&key, &value, [("p", Some(property.as_str()))]).unwrap();
        prop_assert_eq!(baggage.get(&key).unwrap(), value.as_str());
        let read = of(baggage.as_str());
        prop_assert_eq!(&read, &baggage);
        let member = read.iter().last().unwrap();
        prop_assert_eq!(member.properties().collect::<Vec<_>>(), [("p", Some(property.into()))]);
        prop_assert_eq!(read.iter().count(), if key == "a" || key == "b" { 2 } else { 3 });
    }

    #[test]
    fn baggage_from_any_bytes_is_within_its_limits(
        lines in proptest::collection::vec(proptest::collection::vec(prop_oneof![any::<u8>(), Just(b','), Just(b'='), Just(b';'), b'a'..b'd'], 0..300), 0..5)
    ) {
        let baggage = Baggage::from_lines(lines.iter().map(Vec::as_slice));
        prop_assert!(baggage.as_str().bytes().all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\t'));
        prop_assert!(baggage.as_str().len() <= 8_192 && baggage.iter().count() <= 64);
        let members = |text: &[u8]| text.split(|byte| *byte == b',').filter(|member| !member.trim_ascii().is_empty()).count();
        let came: usize = lines.iter().map(|line| members(line)).sum();
        prop_assert!(members(baggage.as_str().as_bytes()) + baggage.dropped_count() == came);
        prop_assert_eq!(of(baggage.as_str()), baggage.clone(), "sent baggage is read back unchanged");
        let set = baggage.insert("zz", "1").unwrap_or(baggage.clone());
        prop_assert!(set.iter().count() <= baggage.iter().count() + 1);
        for member in baggage.iter() {
            prop_assert!(baggage.get(member.key()).is_some());
        }
    }

    #[test]
    fn members_match_a_simple_parser_of_the_grammar(text in "([ab%=;, \t]|[!-~]|k=v|;p=1){0,40}") {
        let expected: Vec<_> = text.split(',').filter_map(plainly).collect();
        let baggage = of(&text);
        let decoded = |value: &str| percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
        prop_assert_eq!(baggage.iter().count(), expected.len());
        for (member, (key, value, properties)) in baggage.iter().zip(&expected) {
            prop_assert_eq!((member.key(), member.value().into_owned()), (*key, decoded(value)));
            let properties = properties.iter().map(|(key, value)| (*key, value.map(decoded)));
            let read = member.properties().map(|(key, value)| (key, value.map(|value| value.into_owned())));
            prop_assert_eq!(read.collect::<Vec<_>>(), properties.collect::<Vec<_>>());
            let last = expected.iter().rfind(|(other, ..)| other == key).map(|(_, value, _)| decoded(value));
            prop_assert_eq!(baggage.get(key).map(|value| value.into_owned()), last);
        }
    }
}
