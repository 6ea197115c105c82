//! Draws the bars on the common time line.

use std::time::Duration;

use crate::pen::{Pen, Style};
use crate::text::duration;
use crate::trace::Trace;

/// The time line: its start and its length.
pub(crate) struct Axis {
    pub(crate) start: u64,
    pub(crate) nanos: u64,
    /// The deadline of the first root that has one, in nanoseconds from the start.
    pub(crate) deadline: Option<u64>,
}

/// A bar, in nanoseconds since the epoch.
pub(crate) struct Bar {
    /// The start and end of the work.
    pub(crate) work: [u64; 2],
    /// The start and end of the sender, if a receiver did the work.
    pub(crate) transit: Option<[u64; 2]>,
    pub(crate) is_critical: bool,
    pub(crate) style: Style,
}

impl Axis {
    pub(crate) fn of(trace: &Trace) -> Axis {
        let start = trace.start().0;
        let mut nanos = u64::try_from(trace.duration().as_nanos()).unwrap_or(u64::MAX).max(1);
        let roots = trace.order().iter().filter(|(_, depth)| *depth == 0);
        let deadline = roots.map(|(index, _)| &trace.spans()[*index]).find_map(|root| {
            let left = root.number("throughline.deadline.remaining_ms").filter(|left| (0.0..1e12).contains(left))?;
            Some(root.record.start_time.0.saturating_sub(start).saturating_add((left * 1e6) as u64))
        });
        // A deadline up to twice the duration is drawn. The header has every deadline.
        if let Some(deadline) = deadline.filter(|deadline| *deadline > nanos && *deadline / 2 <= nanos) {
            nanos = deadline.saturating_add(deadline / 50);
        }
        Axis { start, nanos, deadline }
    }

    /// The length of the axis, as text.
    pub(crate) fn length(&self) -> String {
        duration(Duration::from_nanos(self.nanos))
    }

    /// Converts a time from the start to eighths of a column.
    fn eighths(&self, nanos: u64, width: usize) -> usize {
        (u128::from(nanos) * (width as u128 * 8) / u128::from(self.nanos)) as usize
    }

    /// Converts a range of times to eighths of a column. It has at least one.
    fn range(&self, [from, to]: [u64; 2], width: usize) -> [usize; 2] {
        let from = self.eighths(from.saturating_sub(self.start), width).min(width * 8 - 1);
        [from, self.eighths(to.saturating_sub(self.start), width).clamp(from + 1, width * 8)]
    }

    pub(crate) fn deadline_column(&self, width: usize) -> Option<usize> {
        self.deadline.filter(|deadline| *deadline <= self.nanos).map(|at| (self.eighths(at, width) / 8).min(width - 1))
    }
}

/// The marks that have been drawn, for the legend.
#[derive(Default)]
pub(crate) struct Marks {
    pub(crate) not_waited: bool,
    pub(crate) transit: bool,
    pub(crate) deadline: bool,
}

impl Pen {
    /// Draws the bar in exactly `width` columns.
    pub(crate) fn bar(&self, bar: &Bar, axis: &Axis, width: usize, marks: &mut Marks) -> String {
        let [from, to] = axis.range(bar.work, width);
        let [leaves, returns] = bar.transit.map_or([from, from], |transit| axis.range(transit, width));
        let deadline = axis.deadline_column(width);
        let (solid, way, line) = match (self.unicode, bar.is_critical) {
            (true, true) => ('█', '─', '│'),
            (true, false) => ('▒', '─', '│'),
            (false, true) => ('#', '-', '|'),
            (false, false) => ('=', '-', '|'),
        };
        marks.not_waited |= !bar.is_critical;
        let (mut out, mut run, mut of_run) = (String::new(), String::new(), None);
        for column in 0..width {
            let (first, last) = (column * 8, column * 8 + 8);
            let covered = to.min(last).saturating_sub(from.max(first));
            let (mark, style) = if covered > 0 {
                let mark = if bar.is_critical && self.unicode { part(covered, from > first) } else { solid };
                (mark, Some(bar.style))
            } else if leaves < last && first < returns {
                marks.transit = true;
                (way, Some(bar.style))
            } else if deadline == Some(column) {
                marks.deadline = true;
                (line, Some(Style::Red))
            } else {
                (' ', None)
            };
            if style != of_run {
                self.flush(&mut out, &mut run, of_run);
                of_run = style;
            }
            run.push(mark);
        }
        self.flush(&mut out, &mut run, of_run);
        out
    }

    fn flush(&self, out: &mut String, run: &mut String, style: Option<Style>) {
        out.push_str(&style.map_or_else(|| run.clone(), |style| self.paint(run, style)));
        run.clear();
    }
}

/// A block of this number of eighths, from the left of the column.
///
/// A bar that begins inside the column gets its right half instead.
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
