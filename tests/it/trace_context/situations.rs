//! The situations: header lines in, and what must come out.

/// The caller's trace, and its span.
pub const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub const SPAN: &str = "00f067aa0ba902b7";

pub struct Request {
    pub lines: Vec<(String, String)>,
    /// How many calls the service is asked for.
    pub calls: usize,
    pub trace: Trace,
    /// What goes out as `tracestate`; empty: none.
    pub state: String,
}

pub enum Trace {
    /// The caller's, with these flags.
    GoesOn { flags: &'static str },
    /// One that has nothing of the caller's.
    Begins,
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

/// A `traceparent` under this name that is believed.
fn named(name: &str, value: &str) -> Request {
    Request::new(&[(name, value)], Trace::GoesOn { flags: "01" })
}

fn believed(traceparent: &str) -> Request {
    named("traceparent", traceparent)
}

/// A `traceparent` that is not.
fn begins(traceparent: &str) -> Request {
    Request::new(&[("traceparent", traceparent)], Trace::Begins)
}

/// Lines of `tracestate` beside a valid `traceparent`, and what becomes of them.
fn state(lines: &[&str], out: &str) -> Request {
    state_named("tracestate", lines, out)
}

fn state_named(name: &str, lines: &[&str], out: &str) -> Request {
    let traceparent = format!("00-{TRACE}-{SPAN}-00");
    let mut all = vec![("traceparent", traceparent.as_str())];
    all.extend(lines.iter().map(|line| (name, *line)));
    let request = Request::new(&all, Trace::GoesOn { flags: "00" });
    Request { state: out.to_owned(), ..request }
}

/// Passed on as they came.
fn kept(line: &str) -> Request {
    state(&[line], line)
}

/// Dropped, and the trace goes on without.
fn dropped(lines: &[&str]) -> Request {
    state(lines, "")
}

pub fn situations() -> Vec<(&'static str, Vec<Request>)> {
    let ids = format!("{TRACE}-{SPAN}");
    let valid = format!("00-{ids}-01");
    let long = |trace: &str, span: &str| begins(&format!("00-{trace}-{span}-01"));
    let members = |from: u32, to: u32| (from..=to).map(|i| format!("m{i}={i}")).collect::<Vec<_>>().join(",");
    let key = "abcdefghijklmnopqrstuvwxyz0123456789_-*/";
    let value: String = (' '..='~').filter(|c| !",=".contains(*c)).collect();

    vec![
        // traceparent: whose trace it is
        ("no header at all", vec![Request::new(&[], Trace::Begins)]),
        ("a traceparent alone", vec![believed(&valid)]),
        (
            "two traceparents say nothing, the same or not",
            vec![
                Request::new(&[("traceparent", &valid), ("traceparent", &valid)], Trace::Begins),
                Request::new(&[("traceparent", &valid), ("traceparent", &valid.replace("4b", "5b"))], Trace::Begins),
            ],
        ),
        (
            "names that are nearly right",
            ["trace-parent", "trace.parent"].map(|name| Request::new(&[(name, &valid)], Trace::Begins)).into(),
        ),
        ("names in any case", ["TraceParent", "TRACEPARENT", "tRaCePaReNt"].map(|name| named(name, &valid)).into()),
        (
            "blanks around it",
            [" {}", "\t{}", "{} ", "{}\t", "\t {} \t"].map(|it| believed(&it.replace("{}", &valid))).into(),
        ),
        // traceparent: the version
        ("version 00 ends where it ends", [".", "-", "-and-more"].map(|it| begins(&format!("{valid}{it}"))).into()),
        (
            "a later version is read as far as 00 goes, and may add to it behind a dash",
            vec![
                believed(&format!("cc-{ids}-01")),
                believed(&format!("cc-{ids}-01-and-more")),
                begins(&format!("cc-{ids}-01.and-more")),
            ],
        ),
        ("version ff is none", vec![begins(&format!("ff-{ids}-01"))]),
        ("a version with other characters", [".0", "0.", "0A"].map(|it| begins(&format!("{it}-{ids}-01"))).into()),
        ("a version too long", ["000", "0000"].map(|it| begins(&format!("{it}-{ids}-01"))).into()),
        ("a version too short", vec![begins(&format!("0-{ids}-01"))]),
        // traceparent: the trace-id
        ("a trace-id of zeros", vec![long(&"0".repeat(32), SPAN)]),
        (
            "a trace-id with other characters",
            vec![long(&format!(".{}", &TRACE[1..]), SPAN), long(&format!("{}.", &TRACE[..31]), SPAN)],
        ),
        ("a trace-id too long", vec![long(&format!("{TRACE}3"), SPAN), long(&format!("3{TRACE}"), SPAN)]),
        ("a trace-id too short", vec![long(&TRACE[1..], SPAN)]),
        // traceparent: the parent-id
        ("a parent-id of zeros", vec![long(TRACE, &"0".repeat(16))]),
        (
            "a parent-id with other characters",
            vec![long(TRACE, &format!(".{}", &SPAN[1..])), long(TRACE, &format!("{}.", &SPAN[..15]))],
        ),
        ("a parent-id too long", vec![long(TRACE, &format!("{SPAN}7"))]),
        ("a parent-id too short", vec![long(TRACE, &SPAN[1..])]),
        // traceparent: the flags
        ("flags with other characters", [".0", "0.", "0F"].map(|it| begins(&format!("00-{ids}-{it}"))).into()),
        ("flags too long", vec![begins(&format!("00-{ids}-001"))]),
        ("flags too short", vec![begins(&format!("00-{ids}-1"))]),
        (
            "the random flag is passed on as it is, and no other that has no meaning",
            [("00", "00"), ("02", "02"), ("03", "03"), ("fd", "01"), ("ff", "03")]
                .map(|(got, flags)| {
                    Request::new(&[("traceparent", &format!("00-{ids}-{got}"))], Trace::GoesOn { flags })
                })
                .into(),
        ),
        // tracestate: whether it is read at all
        (
            "a tracestate without a traceparent",
            ["a=1", "a=1,b=2"].map(|it| Request::new(&[("tracestate", it)], Trace::Begins)).into(),
        ),
        ("a tracestate beside a traceparent", vec![kept("a=1,b=2")]),
        (
            "names of it that are nearly right",
            ["trace-state", "trace.state"].map(|name| state_named(name, &["a=1"], "")).into(),
        ),
        (
            "its name in any case",
            ["TraceState", "TRACESTATE", "tRaCeStAtE"].map(|name| state_named(name, &["a=1"], "a=1")).into(),
        ),
        ("an empty one", vec![dropped(&[""]), state(&["a=1", ""], "a=1,"), state(&["", "a=1"], ",a=1")]),
        // tracestate: as a list
        ("several lines are one list, in order", vec![state(&["a=1,b=2", "c=3,d=4", "e=5"], "a=1,b=2,c=3,d=4,e=5")]),
        (
            "a key that comes twice is its sender's fault, and passed on",
            vec![
                kept("a=1,a=1"),
                kept("a=1,a=2"),
                state(&["a=1", "a=1"], "a=1,a=1"),
                state(&["a=1", "a=2"], "a=1,a=2"),
            ],
        ),
        (
            "blanks between members, and around them all",
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
            "32 members, and no more",
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
        ("a key with other characters", ["a =1", "A=1", "a.b=1", "b=2,_a=1"].map(|line| dropped(&[line])).into()),
        (
            "an at sign is a character of a key, but not its first",
            vec![kept("a@=1,b=2"), kept("a@@c=1,b=2"), kept("a@c@d=1,b=2"), kept("0a@c=1"), dropped(&["@a=1,b=2"])],
        ),
        (
            "a key of 256 characters, and no more, an at sign or not",
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
            "a value with other characters, or none",
            vec![
                dropped(&["a=b=c"]),
                dropped(&["a=,b=3"]),
                dropped(&["b=3,a=1\t2"]),
                dropped(&[&format!("a={}", "v".repeat(257))]),
            ],
        ),
        // several calls for one request
        ("each call has a parent-id of its own, in the caller's trace", vec![believed(&valid).calls(3)]),
        ("each call has a parent-id of its own, without a caller", vec![Request::new(&[], Trace::Begins).calls(3)]),
        (
            "each call has a parent-id of its own, after a traceparent that is none",
            vec![long(&"0".repeat(32), SPAN).calls(3)],
        ),
    ]
}
