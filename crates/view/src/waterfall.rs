//! Draws the waterfall: one line per call or span, on a common time line.
//!
//! Terms:
//! - **Row**: what a line shows: a span, a hop, or a number of collapsed siblings.
//! - **Hop**: the two spans of a call or a message, which share a line.
//! - **Guide**: the lines of the tree in front of a label.
//! - **Work**: the time of a span. **Transit**: the time from a sender's start to its end.
//! - **Critical**: a root waited for this span. Its bar is solid.

use std::fmt::Write;
use std::time::Duration;

use throughline_core::trace::SpanKind;

use crate::bar::{Axis, Bar, Marks};
use crate::label::{End, label, message};
use crate::options::Options;
use crate::path;
use crate::pen::{Pen, Style};
use crate::rows::{Item, Row, rows};
use crate::text::{columns, count, cut, duration, fit};
use crate::trace::Trace;

/// The most levels that have guides.
const MAX_GUIDES: usize = 30;
/// The columns that a name keeps at any depth.
const MIN_NAME: usize = 12;

/// The widths of the parts of a line, in columns.
struct Columns {
    label: usize,
    bar: usize,
    end: usize,
    /// The width of one level of the tree.
    step: usize,
}

/// A waterfall while it is drawn.
struct Drawing<'a> {
    trace: &'a Trace,
    pen: Pen,
    axis: Axis,
    columns: Columns,
    is_critical: &'a [bool],
    marks: Marks,
    out: String,
}

impl Trace {
    /// Draws the trace as text, one line per call or span.
    ///
    /// A line has these parts:
    /// - the service and the name;
    /// - a bar on a common time line. The bars of each root's critical path are solid. The root's
    ///   deadline is a vertical line;
    /// - the duration;
    /// - the time that was left until the deadline when the span started;
    /// - how the span ended.
    ///
    /// Some spans share a line, or have none:
    /// - **A call**: the client's and the server's span share a line if they ended alike. The bar
    ///   shows the server's work within the time of the call. Duration and time left are the
    ///   client's.
    /// - **A message**: its two spans share a line. Duration and time left are the consumer's.
    /// - **Similar siblings**: of more than ten, only the first and the longest are drawn. A line
    ///   below has the number of the others. Siblings that failed, or that have a failed span below
    ///   them, are not similar to the others.
    ///
    /// If the message of an error does not fit, it has its own line where the error began. A legend
    /// explains the marks in the drawing.
    ///
    /// No line is wider than `options` allow, whatever the names are. Characters in names that
    /// could harm a terminal are replaced.
    pub fn waterfall(&self, options: &Options) -> String {
        let is_critical = path::critical(self);
        let rows = rows(self, &is_critical);
        let labels: Vec<_> = rows.iter().map(|row| name(self, row.item, options.unicode)).collect();
        let columns = Columns::within(options.width.max(60), &rows, &labels);
        let guides = guides(&rows, &columns, options.unicode);
        let mut drawing = Drawing {
            trace: self,
            pen: Pen { color: options.color, unicode: options.unicode },
            axis: Axis::of(self),
            columns,
            is_critical: &is_critical,
            marks: Marks::default(),
            out: String::new(),
        };
        drawing.header();
        drawing.scale();
        for ((row, label), [guide, below]) in rows.iter().zip(&labels).zip(&guides) {
            drawing.line(row, guide, below, label);
        }
        drawing.legend(&rows);
        drawing.out
    }
}

impl Columns {
    fn within(width: usize, rows: &[Row], labels: &[String]) -> Columns {
        let end = match width {
            120.. => 52,
            80.. => 38,
            _ => 26,
        };
        let most = (width - end) * 2 / 3;
        let wanted = |step: usize, name: usize| {
            let of_row = rows.iter().zip(labels).map(|(row, label)| columns(label).min(name) + step * row.depth);
            of_row.max().unwrap_or(0) + 2
        };
        // Narrow guides leave more room for the names.
        let step = if wanted(2, 2 * MIN_NAME) <= most { 2 } else { 1 };
        let label = wanted(step, 80).clamp(20, most);
        Columns { label, bar: width - end - label, end, step }
    }

    fn all(&self) -> usize {
        self.label + self.bar + self.end
    }

    /// The number of levels that have guides. More guides would leave no room for names.
    fn deepest(&self) -> usize {
        MAX_GUIDES.min(self.label.saturating_sub(MIN_NAME + 1) / self.step)
    }
}

impl Drawing<'_> {
    fn header(&mut self) {
        let (pen, trace) = (&self.pen, self.trace);
        let dot = if pen.unicode { "·" } else { "-" };
        let roots = trace.roots().count();
        let number =
            |number: usize, what: &str| format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" });
        let took = pen.ascii(duration(trace.duration()));
        let mut parts = vec![number(trace.services().len(), "service"), number(trace.spans().len(), "span"), took];
        if roots > 1 {
            parts.push(number(roots, "root"));
        }
        if let Some(deadline) = self.axis.deadline {
            parts.push(pen.ascii(format!("deadline {}", duration(Duration::from_nanos(deadline)))));
        }
        let id = pen.paint(&trace.trace_id().to_string(), Style::Bold);
        let parts = parts.join(&format!(" {dot} "));
        // The id is never cut, so that it can be copied. The rest moves to the next line if needed.
        let gap = if 40 + columns(&parts) <= self.columns.all() { "  " } else { "\n" };
        let _ = writeln!(self.out, "trace {id}{gap}{}", cut(&parts, self.columns.all(), pen.unicode));
    }

    fn scale(&mut self) {
        let (pen, columns) = (&self.pen, &self.columns);
        let end = pen.ascii(self.axis.length());
        let mut scale = fit("0", columns.bar, pen.unicode);
        if columns.bar > end.chars().count() + 12 {
            scale.truncate(columns.bar - end.chars().count());
            scale.push_str(&end);
        }
        if let Some(column) = self.axis.deadline_column(columns.bar) {
            let mark = "deadline";
            let from = column.saturating_sub(mark.len() / 2).min(columns.bar.saturating_sub(mark.len()));
            let is_free = scale.chars().skip(from.saturating_sub(1)).take(mark.len() + 2).all(|c| c == ' ');
            if is_free && scale.is_ascii() {
                scale.replace_range(from..from + mark.len(), mark);
            }
        }
        let heads = format!("{:>8}{:>8}  ended", "took", "left");
        let (scale, heads) = (pen.paint(&scale, Style::Dim), pen.paint(&cut(&heads, columns.end, true), Style::Dim));
        let _ = writeln!(self.out, "{}{scale}{heads}", fit("", columns.label, pen.unicode));
    }

    fn line(&mut self, row: &Row, guide: &str, below: &str, label: &str) {
        let spans = self.trace.spans();
        // The span whose times and end are shown: a call's client, or a message's consumer.
        let (shown, bar, rest) = match row.item {
            Item::Span(index) => {
                let record = &spans[index].record;
                let work = [record.start_time.0, record.end_time.0];
                (
                    Some(index),
                    Bar { work, transit: None, is_critical: self.is_critical[index], style: Style::Cyan },
                    None,
                )
            }
            Item::Hop { from, to } => {
                let (sender, receiver) = (&spans[from].record, &spans[to].record);
                let work = [receiver.start_time.0, receiver.end_time.0];
                let is_message = receiver.kind == SpanKind::Consumer;
                let until = if is_message { receiver.start_time } else { sender.end_time };
                let transit = Some([sender.start_time.0, until.0]);
                let shown = if is_message { to } else { from };
                (Some(shown), Bar { work, transit, is_critical: self.is_critical[to], style: Style::Cyan }, None)
            }
            Item::Collapsed { from, to, longest, is_critical, .. } => {
                let rest = self.pen.ascii(format!("up to {}", duration(Duration::from_nanos(longest))));
                (None, Bar { work: [from, to], transit: None, is_critical, style: Style::Dim }, Some(rest))
            }
        };
        let (mut took, mut left, mut ended, mut style) = (String::new(), String::new(), rest.unwrap_or_default(), None);
        let mut message_below = None;
        let room = self.columns.end.saturating_sub(18);
        if let Some(index) = shown {
            let span = &spans[index];
            took = self.pen.ascii(duration(span.record.duration()));
            let remaining = span.number("throughline.deadline.remaining_ms").filter(|left| (0.0..1e12).contains(left));
            left = remaining.map_or(left, |left| self.pen.ascii(duration(Duration::from_secs_f64(left / 1e3))));
            (ended, style, message_below) = self.end(index, row.item.named().unwrap_or(index), room);
        }
        let bar = Bar { style: style.unwrap_or(bar.style), ..bar };
        let bar = self.pen.bar(&bar, &self.axis, self.columns.bar, &mut self.marks);
        let (pen, widths) = (&self.pen, &self.columns);

        let name = fit(label, (widths.label - 1).saturating_sub(guide.chars().count()), pen.unicode);
        let service = row.item.named().map_or("", |index| &*spans[index].service);
        // The service is at the beginning, or after a mark.
        let name = match name.split_once(service).filter(|(mark, _)| columns(mark) <= 2) {
            Some((mark, rest)) => format!("{mark}{}{rest}", pen.paint(service, Style::Bold)),
            None => name,
        };
        let ended = cut(&ended, room, pen.unicode);
        let ended = style.map_or(ended.clone(), |style| pen.paint(&ended, style));
        let left = pen.paint(&format!("{left:>8}"), Style::Dim);
        let line = format!("{}{name} {bar}{took:>8}{left}  {ended}", pen.paint(guide, Style::Dim));
        let _ = writeln!(self.out, "{}", line.trim_end());
        if let Some(text) = message_below {
            let room = widths.all().saturating_sub(below.chars().count());
            let text = pen.paint(&cut(&text, room, pen.unicode), Style::Red);
            let _ = writeln!(self.out, "{}{text}", pen.paint(below, Style::Dim));
        }
    }

    /// How the span ended, its colour, and a message that needs its own line.
    ///
    /// The first text has about `room` columns. `named` is the span that gives the line its name.
    fn end(&self, index: usize, named: usize, room: usize) -> (String, Option<Style>, Option<String>) {
        let spans = self.trace.spans();
        let (span, end) = (&spans[index], End::of(&spans[index]));
        let style = match end {
            End::Failed(_) => Some(Style::Red),
            End::Cancelled(_) | End::Shed(_) => Some(Style::Yellow),
            End::Quiet | End::Responded(_) => None,
        };
        let origin = span.text("throughline.error.origin").filter(|origin| *origin != &*spans[named].service);
        let text = message(span).or_else(|| message(&spans[named]));
        // A message that a line below shows is not repeated here.
        let is_shown_below = |child: &usize| message(&spans[*child]) == text && End::of(&spans[*child]).is_trouble();
        let text = text.filter(|_| !spans[named].children.iter().any(is_shown_below));
        let words = end.words(origin, text, room, self.pen.unicode);
        if columns(&words) <= room {
            return (words, style, None);
        }
        let has_failed = |child: &usize| matches!(End::of(&spans[*child]), End::Failed(_));
        match (end, text) {
            (End::Failed(kind), Some(text)) if !spans[named].children.iter().any(has_failed) => {
                let text = if kind.is_empty() { words.clone() } else { text.to_owned() };
                let words = match kind.is_empty() {
                    true => "error".to_owned(),
                    false => end.words(origin, None, room, self.pen.unicode),
                };
                (words, style, Some(text))
            }
            _ => (words, style, None),
        }
    }

    /// Explains the marks that were drawn.
    fn legend(&mut self, rows: &[Row]) {
        let spans = self.trace.spans();
        let is_drawn = |kinds: &[SpanKind]| {
            let mut named = rows.iter().filter_map(|row| row.item.named());
            named.any(|index| kinds.contains(&spans[index].record.kind))
        };
        let (marks, unicode) = (&self.marks, self.pen.unicode);
        let all = [
            (marks.not_waited, "█ waited for", "# waited for"),
            (marks.not_waited, "▒ not waited for", "= not waited for"),
            (marks.transit, "─ on the way", "- on the way"),
            (is_drawn(&[SpanKind::Client]), "→ call", "> call"),
            (is_drawn(&[SpanKind::Producer, SpanKind::Consumer]), "⇢ message", "~ message"),
            (marks.deadline, "│ deadline", "| deadline"),
        ];
        let parts = all.into_iter().filter(|(is_drawn, ..)| *is_drawn);
        let mut line = String::new();
        for (_, mark, ascii) in parts {
            let part = if unicode { mark } else { ascii };
            if !line.is_empty() && columns(&line) + 3 + columns(part) > self.columns.all() {
                let _ = writeln!(self.out, "{}", self.pen.paint(&line, Style::Dim));
                line.clear();
            }
            line.push_str(if line.is_empty() { "" } else { "   " });
            line.push_str(part);
        }
        if !line.is_empty() {
            let _ = writeln!(self.out, "{}", self.pen.paint(&line, Style::Dim));
        }
    }
}

/// The label of a line.
fn name(trace: &Trace, item: Item, unicode: bool) -> String {
    match item {
        // The names of all lines are in memory together, and one name may have megabytes.
        Item::Span(index) | Item::Hop { to: index, .. } => cut(&label(trace, index, unicode), 512, unicode),
        Item::Collapsed { count: siblings, .. } => format!("+{} more", count(siblings)),
    }
}

/// The guides before each label, and before a message line below it.
fn guides(rows: &[Row], columns: &Columns, unicode: bool) -> Vec<[String; 2]> {
    let [fork, last, bar, none] = match (unicode, columns.step) {
        (true, 1) => ["├", "└", "│", " "],
        (true, _) => ["├ ", "└ ", "│ ", "  "],
        (false, 1) => ["|", "`", "|", " "],
        (false, _) => ["|-", "`-", "| ", "  "],
    };
    let deepest = columns.deepest();
    // For each depth above: whether more siblings follow.
    let mut open: Vec<bool> = Vec::new();
    let mut guides = Vec::with_capacity(rows.len());
    for row in rows {
        open.truncate(row.depth);
        open.push(row.has_more);
        let line = |open: &bool| if *open { bar } else { none };
        let above: String = open[..row.depth].iter().skip(1).take(deepest).map(line).collect();
        let own = |mark| if row.depth > 0 { mark } else { "" };
        let guide = format!("{above}{}", own(if row.has_more { fork } else { last }));
        let below = format!("{above}{}{}", own(line(&row.has_more)), if row.has_children { bar } else { none });
        let cut = |guide: String| match row.depth > deepest {
            true => format!("{} ", cut(&guide, (columns.step * deepest).saturating_sub(1), unicode)),
            false => guide,
        };
        guides.push([cut(guide), cut(below)]);
    }
    guides
}
