//! The waterfall: a line for each span, on a common time line.

use std::fmt::Write;
use std::time::Duration;

use throughline_core::trace::{SpanKind, Status};

use crate::options::Options;
use crate::path;
use crate::text::{columns, cut, duration, fit};
use crate::trace::{SpanView, Trace};

/// How many levels the guides show.
const DEEPEST: usize = 30;

/// What is drawn with.
struct Pen {
    color: bool,
    unicode: bool,
}

#[derive(Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Red,
    Yellow,
    Cyan,
}

/// Where what stands, in columns.
struct Columns {
    label: usize,
    bar: usize,
    end: usize,
}

/// The time that the bars span.
struct Axis {
    start: u64,
    nanos: u64,
    /// The root's deadline, in nanoseconds from the start.
    deadline: Option<u64>,
}

impl Trace {
    /// The trace as lines of text: each span with its service, a bar on a common time line, how long it took, the time that was left of
    /// its deadline when it started, and how it ended. The bars of the critical path are solid; the root's deadline is a vertical line.
    ///
    /// Lines are as wide as `options` say, whatever the names are; those are made harmless for a terminal.
    pub fn waterfall(&self, options: &Options) -> String {
        let pen = Pen { color: options.color, unicode: options.unicode };
        let axis = Axis::of(self);
        let columns = Columns::within(options.width.max(60), self);
        let is_critical = path::critical(self);
        let mut out = String::new();
        pen.header(&mut out, self, &axis, &columns);
        pen.scale(&mut out, &axis, &columns);
        let guides = guides(self, options.unicode);
        for ((index, _), guide) in self.order().iter().zip(guides) {
            let span = &self.spans()[*index];
            let label = label(self, *index, options.unicode);
            pen.line(&mut out, span, [&guide, &label], is_critical[*index], &axis, &columns);
        }
        out
    }
}

impl Axis {
    fn of(trace: &Trace) -> Axis {
        let start = trace.start().0;
        let mut nanos = u64::try_from(trace.duration().as_nanos()).unwrap_or(u64::MAX).max(1);
        let root = trace.order().first().map(|(index, _)| &trace.spans()[*index]);
        let deadline = root.and_then(|root| {
            let left = root.number("throughline.deadline.remaining_ms").filter(|left| (0.0..1e12).contains(left))?;
            Some(root.record.start_time.0.saturating_sub(start).saturating_add((left * 1e6) as u64))
        });
        // One that is not too far away is shown; of others the header tells.
        if let Some(deadline) = deadline.filter(|deadline| *deadline > nanos && *deadline / 2 <= nanos) {
            nanos = deadline.saturating_add(deadline / 50);
        }
        Axis { start, nanos, deadline }
    }

    /// A time as a column of `width`, in eighths.
    fn eighths(&self, nanos: u64, width: usize) -> usize {
        (u128::from(nanos) * (width as u128 * 8) / u128::from(self.nanos)) as usize
    }

    fn deadline_column(&self, width: usize) -> Option<usize> {
        self.deadline.filter(|deadline| *deadline <= self.nanos).map(|at| (self.eighths(at, width) / 8).min(width - 1))
    }
}

impl Columns {
    fn within(width: usize, trace: &Trace) -> Columns {
        let needed = |(index, depth): &(usize, usize)| columns(&label(trace, *index, true)).min(80) + 2 * depth;
        let wanted = trace.order().iter().map(needed).max().unwrap_or(0) + 2;
        let end = match width {
            120.. => 52,
            80.. => 38,
            _ => 26,
        };
        let label = wanted.clamp(20, (width - end) * 2 / 3);
        Columns { label, bar: width - end - label, end }
    }

    fn all(&self) -> usize {
        self.label + self.bar + self.end
    }
}

impl Pen {
    fn paint(&self, text: &str, style: Style) -> String {
        if !self.color || text.trim().is_empty() {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Red => 31,
            Style::Yellow => 33,
            Style::Cyan => 36,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    fn header(&self, out: &mut String, trace: &Trace, axis: &Axis, columns: &Columns) {
        let dot = if self.unicode { "·" } else { "-" };
        let (services, spans, roots) = (trace.services().len(), trace.spans().len(), trace.roots().count());
        let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let mut parts = vec![count(services, "service"), count(spans, "span"), self.ascii(duration(trace.duration()))];
        if roots > 1 {
            parts.push(count(roots, "root"));
        }
        if let Some(deadline) = axis.deadline {
            parts.push(self.ascii(format!("deadline {}", duration(Duration::from_nanos(deadline)))));
        }
        let id = self.paint(&trace.trace_id().to_string(), Style::Bold);
        let parts = parts.join(&format!(" {dot} "));
        // The id is whole, so that it can be copied; the rest has a line of its own where it has to.
        let gap = if 40 + self::columns(&parts) <= columns.all() { "  " } else { "\n" };
        let _ = writeln!(out, "trace {id}{gap}{}", cut(&parts, columns.all(), self.unicode));
    }

    fn scale(&self, out: &mut String, axis: &Axis, columns: &Columns) {
        let end = self.ascii(duration(Duration::from_nanos(axis.nanos)));
        let mut scale = fit("0", columns.bar, self.unicode);
        if columns.bar > end.chars().count() + 12 {
            scale.truncate(columns.bar - end.chars().count());
            scale.push_str(&end);
        }
        if let Some(column) = axis.deadline_column(columns.bar) {
            let mark = "deadline";
            let from = column.saturating_sub(mark.len() / 2).min(columns.bar.saturating_sub(mark.len()));
            let is_free = scale.chars().skip(from.saturating_sub(1)).take(mark.len() + 2).all(|c| c == ' ');
            if is_free && scale.is_ascii() {
                scale.replace_range(from..from + mark.len(), mark);
            }
        }
        let left = fit("", columns.label, self.unicode);
        let heads = format!("{:>8}{:>8}  ended", "took", "left");
        let _ = writeln!(
            out,
            "{left}{}{}",
            self.paint(&scale, Style::Dim),
            self.paint(&cut(&heads, columns.end, true), Style::Dim)
        );
    }

    fn line(
        &self,
        out: &mut String,
        span: &SpanView,
        head: [&str; 2],
        is_critical: bool,
        axis: &Axis,
        columns: &Columns,
    ) {
        let [guide, label] = head;
        let room = (columns.label - 1).saturating_sub(guide.chars().count());
        let label = fit(label, room, self.unicode);
        let label = match label.strip_prefix(&*span.service) {
            Some(rest) => format!("{}{rest}", self.paint(&span.service, Style::Bold)),
            None => label,
        };
        let shown = format!("{}{label}", self.paint(guide, Style::Dim));
        let took = self.ascii(duration(span.record.duration()));
        let left = span.number("throughline.deadline.remaining_ms").filter(|left| (0.0..1e12).contains(left));
        let left = left.map_or(String::new(), |left| self.ascii(duration(Duration::from_secs_f64(left / 1e3))));
        let ([long, short], style) = ending(span, self.unicode);
        let room = columns.end.saturating_sub(18);
        let ending = cut(if self::columns(&long) <= room { &long } else { &short }, room, self.unicode);
        let ending = style.map_or(ending.clone(), |style| self.paint(&ending, style));
        let bar = self.bar(span, is_critical, style, axis, columns.bar);
        let line = format!("{shown} {bar}{took:>8}{}  {ending}", self.paint(&format!("{left:>8}"), Style::Dim));
        let _ = writeln!(out, "{}", line.trim_end());
    }

    fn bar(&self, span: &SpanView, is_critical: bool, style: Option<Style>, axis: &Axis, width: usize) -> String {
        let from = axis.eighths(span.record.start_time.0.saturating_sub(axis.start), width).min(width * 8 - 1);
        let to = axis.eighths(span.record.end_time.0.saturating_sub(axis.start), width).clamp(from + 1, width * 8);
        let deadline = axis.deadline_column(width);
        let solid = match (self.unicode, is_critical) {
            (true, true) => '█',
            (true, false) => '▒',
            (false, true) => '#',
            (false, false) => '=',
        };
        let style = style.unwrap_or(Style::Cyan);
        let (mut bar, mut run) = (String::new(), String::new());
        for column in 0..width {
            let (first, last) = (column * 8, column * 8 + 8);
            let covered = to.min(last).saturating_sub(from.max(first));
            if covered > 0 {
                run.push(if is_critical && self.unicode { part(covered, from > first) } else { solid });
                continue;
            }
            bar.push_str(&self.paint(&std::mem::take(&mut run), style));
            match deadline {
                Some(at) if at == column => bar.push_str(&self.paint(if self.unicode { "│" } else { "|" }, Style::Red)),
                _ => bar.push(' '),
            }
        }
        bar.push_str(&self.paint(&run, style));
        bar
    }

    fn ascii(&self, text: String) -> String {
        if self.unicode { text } else { text.replace('µ', "u") }
    }
}

/// A block of so many eighths, at the left; what begins inside of a column is drawn at its right half.
fn part(eighths: usize, begins_inside: bool) -> char {
    match (eighths, begins_inside) {
        (8.., _) => '█',
        (5.., true) => '█',
        (_, true) => '▐',
        (7, _) => '▉',
        (6, _) => '▊',
        (5, _) => '▋',
        (4, _) => '▌',
        (3, _) => '▍',
        (2, _) => '▎',
        _ => '▏',
    }
}

/// The service, where it is another one than above, and what it does.
fn label(trace: &Trace, index: usize, unicode: bool) -> String {
    let span = &trace.spans()[index];
    let (to, asynchronous) = if unicode { ("→ ", "⇢ ") } else { ("> ", "~ ") };
    let mark = match span.record.kind {
        SpanKind::Client => to,
        SpanKind::Producer | SpanKind::Consumer => asynchronous,
        _ => "",
    };
    // A client's span has the method for its name; where it goes says more.
    let url =
        span.text("url.full").filter(|_| span.record.kind == SpanKind::Client).and_then(|url| url.split_once("://"));
    let path = url.and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    let path = path.map_or("", |path| path.split(['?', '#']).next().unwrap_or_default());
    let gap = if path.is_empty() { "" } else { " " };
    let is_inside = span.parent.is_some_and(|parent| trace.spans()[parent].service == span.service);
    let service = if is_inside { String::new() } else { format!("{} ", span.service) };
    format!("{service}{mark}{}{gap}{path}", span.record.name)
}

/// How it ended: in words, and in fewer words.
fn ending(span: &SpanView, unicode: bool) -> ([String; 2], Option<Style>) {
    let cause = span.text("throughline.cancel.message").or(span.text("throughline.cancel.cause"));
    let status = span.number("http.response.status_code").map(|status| format!("{status:.0}"));
    if let Some(shed) = span.text("throughline.shed") {
        let cause = cause.unwrap_or("no time left");
        return ([format!("{shed}: {cause}"), shed.to_owned()], Some(Style::Yellow));
    }
    if let Status::Error(description) = &span.record.status {
        let kind = span.text("error.type").unwrap_or(if description.is_empty() { "error" } else { description });
        let short = if kind == "DEADLINE_EXCEEDED" { "deadline".to_owned() } else { kind.to_lowercase() };
        let origin = span.text("throughline.error.origin").filter(|origin| *origin != &*span.service);
        let from = |kind: &str| match origin {
            Some(origin) => format!("{kind} {} {origin}", if unicode { "←" } else { "<-" }),
            None => kind.to_owned(),
        };
        return ([from(kind), from(&short)], Some(Style::Red));
    }
    match (cause, status) {
        (Some(cause), _) => ([format!("cancelled: {cause}"), cause.to_owned()], Some(Style::Yellow)),
        (None, Some(status)) => ([status.clone(), status], None),
        (None, None) => Default::default(),
    }
}

/// What stands in front of each label: the lines of the tree.
fn guides(trace: &Trace, unicode: bool) -> Vec<String> {
    let (fork, last, bar, none) = if unicode { ("├ ", "└ ", "│ ", "  ") } else { ("|-", "`-", "| ", "  ") };
    let spans = trace.spans();
    // Whether, at each depth above, there are siblings to come.
    let mut open: Vec<bool> = Vec::new();
    let mut guides = Vec::with_capacity(spans.len());
    for (index, depth) in trace.order() {
        open.truncate(*depth);
        // Deeper than `DEEPEST` nothing of the label would be left.
        let above = open.iter().skip(1).take(DEEPEST);
        let mut guide: String = above.map(|open| if *open { bar } else { none }).collect();
        let siblings = spans[*index].parent.map(|parent| &spans[parent].children);
        let has_more = siblings.is_some_and(|siblings| siblings.last() != Some(index));
        if *depth > 0 {
            guide.push_str(if has_more { fork } else { last });
        }
        open.push(has_more);
        if *depth > DEEPEST {
            guide = format!("{} ", cut(&guide, 2 * DEEPEST - 1, unicode));
        }
        guides.push(guide);
    }
    guides
}
