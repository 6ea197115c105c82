//! P14–P16 of docs/performance.md: propagation beside the peers, in one process and one run.
#![allow(missing_docs, clippy::print_stdout)]

mod baggage;
mod defaults;
mod headers;
mod request;
mod trace_context;

use std::io;

use throughline_benches::{Row, criterion, summarize};

fn main() -> io::Result<()> {
    let mut criterion = criterion();
    trace_context::measure(&mut criterion);
    baggage::measure(&mut criterion);
    defaults::measure(&mut criterion);
    criterion.final_summary();
    let rows: Vec<Row> = [trace_context::ROWS, baggage::ROWS, defaults::ROWS].into_iter().flatten().copied().collect();
    summarize("propagation", &rows)
}
