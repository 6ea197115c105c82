//! The cases of the suite: the header lines of a request, and the expected headers of the calls.

/// The caller's trace, and its span.
pub const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub const SPAN: &str = "00f067aa0ba902b7";

pub struct Request {
    pub lines: Vec<(String, String)>,
    /// The number of calls that the service makes.
    pub calls: usize,
    pub trace: Trace,
    /// The expected `tracestate` of the calls; empty if there is none.
    pub state: String,
}

pub enum Trace {
    /// The caller's trace continues, with these flags.
    Continued { flags: &'static str },
    /// A new trace starts, independent of the caller.
    Started,
}

impl Request {
    fn new(lines: &[(&str, &str)], trace: Trace) -> Request {
        let lines = lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Request { lines, calls: 1, trace, state: String::new() }
    }

    fn calls(self, calls: usize) -> Request {
        Request { calls, ..self }
    }
}

/// A valid `traceparent` under this name.
fn named(name: &str, value: &str) -> Request {
    Request::new(&[(name, value)], Trace::Continued { flags: "01" })
}

fn continued(traceparent: &str) -> Request {
    named("traceparent", traceparent)
}

/// An invalid `traceparent`.
fn started(traceparent: &str) -> Request {
    Request::new(&[("traceparent", traceparent)], Trace::Started)
}

/// Lines of `tracestate` with a valid `traceparent`, and the expected `tracestate`.
fn state(lines: &[&str], out: &str) -> Request {
    state_named("tracestate", lines, out)
}

fn state_named(name: &str, lines: &[&str], out: &str) -> Request {
    let traceparent = format!("00-{TRACE}-{SPAN}-00");
    let mut all = vec![("traceparent", traceparent.as_str())];
    all.extend(lines.iter().map(|line| (name, *line)));
    let request = Request::new(&all, Trace::Continued { flags: "00" });
    Request { state: out.to_owned(), ..request }
}

/// A `tracestate` that is passed on unchanged.
fn kept(line: &str) -> Request {
    state(&[line], line)
}

/// A `tracestate` that is dropped. The trace continues.
fn dropped(lines: &[&str]) -> Request {
    state(lines, "")
}

pub fn cases() -> Vec<(&'static str, Vec<Request>)> {
    let ids = format!("{TRACE}-{SPAN}");
    let valid = format!("00-{ids}-01");
    let long = |trace: &str, span: &str| started(&format!("00-{trace}-{span}-01"));
    let members = |from: u32, to: u32| (from..=to).map(|i| format!("m{i}={i}")).collect::<Vec<_>>().join(",");
    let key = "abcdefghijklmnopqrstuvwxyz0123456789_-*/";
    let value: String = (' '..='~').filter(|c| !",=".contains(*c)).collect();

    vec![
        // traceparent: which trace
        ("no header at all", vec![Request::new(&[], Trace::Started)]),
        ("a traceparent alone", vec![continued(&valid)]),
        (
            "two traceparents are invalid, equal or not",
            vec![
                Request::new(&[("traceparent", &valid), ("traceparent", &valid)], Trace::Started),
                Request::new(&[("traceparent", &valid), ("traceparent", &valid.replace("4b", "5b"))], Trace::Started),
            ],
        ),
        (
            "names that are almost right",
            ["trace-parent", "trace.parent"].map(|name| Request::new(&[(name, &valid)], Trace::Started)).into(),
        ),
        ("names in any case", ["TraceParent", "TRACEPARENT", "tRaCePaReNt"].map(|name| named(name, &valid)).into()),
        (
            "blanks around the value",
            [" {}", "\t{}", "{} ", "{}\t", "\t {} \t"].map(|it| continued(&it.replace("{}", &valid))).into(),
        ),
        // traceparent: the version
        ("version 00 with extra characters", [".", "-", "-and-more"].map(|it| started(&format!("{valid}{it}"))).into()),
        (
            "a later version is read like version 00, and may have more fields after a dash",
            vec![
                continued(&format!("cc-{ids}-01")),
                continued(&format!("cc-{ids}-01-and-more")),
                started(&format!("cc-{ids}-01.and-more")),
            ],
        ),
        ("version ff is invalid", vec![started(&format!("ff-{ids}-01"))]),
        ("a version with invalid characters", [".0", "0.", "0A"].map(|it| started(&format!("{it}-{ids}-01"))).into()),
        ("a version too long", ["000", "0000"].map(|it| started(&format!("{it}-{ids}-01"))).into()),
        ("a version too short", vec![started(&format!("0-{ids}-01"))]),
        // traceparent: the trace-id
        ("a trace-id of zeros", vec![long(&"0".repeat(32), SPAN)]),
        (
            "a trace-id with invalid characters",
            vec![long(&format!(".{}", &TRACE[1..]), SPAN), long(&format!("{}.", &TRACE[..31]), SPAN)],
        ),
        ("a trace-id too long", vec![long(&format!("{TRACE}3"), SPAN), long(&format!("3{TRACE}"), SPAN)]),
        ("a trace-id too short", vec![long(&TRACE[1..], SPAN)]),
        // traceparent: the parent-id
        ("a parent-id of zeros", vec![long(TRACE, &"0".repeat(16))]),
        (
            "a parent-id with invalid characters",
            vec![long(TRACE, &format!(".{}", &SPAN[1..])), long(TRACE, &format!("{}.", &SPAN[..15]))],
        ),
        ("a parent-id too long", vec![long(TRACE, &format!("{SPAN}7"))]),
        ("a parent-id too short", vec![long(TRACE, &SPAN[1..])]),
        // traceparent: the flags
        ("flags with invalid characters", [".0", "0.", "0F"].map(|it| started(&format!("00-{ids}-{it}"))).into()),
        ("flags too long", vec![started(&format!("00-{ids}-001"))]),
        ("flags too short", vec![started(&format!("00-{ids}-1"))]),
        (
            "the random flag is passed on, and undefined flags are not",
            [("00", "00"), ("02", "02"), ("03", "03"), ("fd", "01"), ("ff", "03")]
                .map(|(got, flags)| {
                    Request::new(&[("traceparent", &format!("00-{ids}-{got}"))], Trace::Continued { flags })
                })
                .into(),
        ),
        // tracestate: whether it is read
        (
            "a tracestate without a traceparent",
            ["a=1", "a=1,b=2"].map(|it| Request::new(&[("tracestate", it)], Trace::Started)).into(),
        ),
        ("a tracestate beside a traceparent", vec![kept("a=1,b=2")]),
        (
            "tracestate names that are almost right",
            ["trace-state", "trace.state"].map(|name| state_named(name, &["a=1"], "")).into(),
        ),
        (
            "the tracestate name in any case",
            ["TraceState", "TRACESTATE", "tRaCeStAtE"].map(|name| state_named(name, &["a=1"], "a=1")).into(),
        ),
        ("an empty tracestate", vec![dropped(&[""]), state(&["a=1", ""], "a=1,"), state(&["", "a=1"], ",a=1")]),
        // tracestate: as a list
        ("several lines are one list, in order", vec![state(&["a=1,b=2", "c=3,d=4", "e=5"], "a=1,b=2,c=3,d=4,e=5")]),
        (
            "a duplicate key is passed on",
            vec![
                kept("a=1,a=1"),
                kept("a=1,a=2"),
                state(&["a=1", "a=1"], "a=1,a=1"),
                state(&["a=1", "a=2"], "a=1,a=2"),
            ],
        ),
        (
            "blanks between members, and around the list",
            vec![
                kept("a=1 \t , \t b=2, \t c=3"),
                kept("a=1\t \t,\t \tb=2,\t \tc=3"),
                state(&[" a=1"], "a=1"),
                state(&["\ta=1"], "a=1"),
                state(&["a=1 "], "a=1"),
                state(&["\t a=1 \t"], "a=1"),
            ],
        ),
        (
            "at most 32 members",
            vec![
                state(&[&members(1, 20), &members(21, 32)], &members(1, 32)),
                dropped(&[&members(1, 20), &members(21, 33)]),
            ],
        ),
        // tracestate: its members
        (
            "every character that is allowed",
            vec![kept(&format!("{key}={value}")), kept(&format!("{key}@{key}={value}"))],
        ),
        ("a key with invalid characters", ["a =1", "A=1", "a.b=1", "b=2,_a=1"].map(|line| dropped(&[line])).into()),
        (
            "an at sign in a key, but not as its first character",
            vec![kept("a@=1,b=2"), kept("a@@c=1,b=2"), kept("a@c@d=1,b=2"), kept("0a@c=1"), dropped(&["@a=1,b=2"])],
        ),
        (
            "a key of at most 256 characters, with or without an at sign",
            vec![
                kept(&format!("a=1,{}=1", "z".repeat(256))),
                dropped(&["a=1", &format!("{}=1", "z".repeat(257))]),
                kept(&format!("{}@{}=1", "t".repeat(241), "v".repeat(14))),
                kept(&format!("{}@v=1", "t".repeat(242))),
                kept(&format!("t@{}=1", "v".repeat(15))),
                dropped(&["a=1", &format!("{}@{}=1", "t".repeat(241), "v".repeat(15))]),
            ],
        ),
        (
            "a value with invalid characters, or an empty value",
            vec![
                dropped(&["a=b=c"]),
                dropped(&["a=,b=3"]),
                dropped(&["b=3,a=1\t2"]),
                dropped(&[&format!("a={}", "v".repeat(257))]),
            ],
        ),
        // several calls for one request
        ("each call has its own parent-id, in the caller's trace", vec![continued(&valid).calls(3)]),
        ("each call has its own parent-id, without a caller", vec![Request::new(&[], Trace::Started).calls(3)]),
        ("each call has its own parent-id, after an invalid traceparent", vec![long(&"0".repeat(32), SPAN).calls(3)]),
    ]
}
