//! P1–P13 of docs/performance.md: the context beside its peers, in one process and one run.
#![allow(missing_docs, clippy::print_stdout)]

mod ambient;
mod cancel;
mod derive;
mod observe;
mod timeout;
mod values;

use std::io;

use throughline_benches::{Row, criterion, summarize};

fn main() -> io::Result<()> {
    let mut criterion = criterion();
    derive::measure(&mut criterion);
    observe::measure(&mut criterion);
    cancel::measure(&mut criterion);
    timeout::measure(&mut criterion);
    values::measure(&mut criterion);
    ambient::measure(&mut criterion);
    criterion.final_summary();
    let rows: Vec<Row> = [derive::ROWS, observe::ROWS, cancel::ROWS, timeout::ROWS, values::ROWS, ambient::ROWS]
        .into_iter()
        .flatten()
        .copied()
        .collect();
    summarize("context", &rows)
}
