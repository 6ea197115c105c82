//! Decides which lines a waterfall has.

use std::collections::HashMap;

use throughline_core::trace::SpanKind;

use crate::label::End;
use crate::trace::{SpanView, Trace};

/// The most similar siblings that are all drawn.
///
/// Of more, only the first and the longest are.
const MAX_ALIKE: usize = 10;

pub(crate) struct Row {
    pub(crate) depth: usize,
    /// Whether a sibling follows below.
    pub(crate) has_more: bool,
    /// Whether a child follows below.
    pub(crate) has_children: bool,
    pub(crate) item: Item,
}

#[derive(Clone, Copy)]
pub(crate) enum Item {
    /// A span that has its own line.
    Span(usize),
    /// The sender's and the receiver's span of a call or a message.
    Hop { from: usize, to: usize },
    /// Similar siblings that are not drawn.
    ///
    /// Their number, the start of the first, the end of the last, and the longest duration.
    Collapsed { count: usize, from: u64, to: u64, longest: u64, is_critical: bool },
}

impl Item {
    /// The span that gives the line its name. Its children follow below.
    pub(crate) fn named(self) -> Option<usize> {
        match self {
            Item::Span(index) | Item::Hop { to: index, .. } => Some(index),
            Item::Collapsed { .. } => None,
        }
    }
}

/// The lines in order, a parent before its children.
pub(crate) fn rows(trace: &Trace, is_critical: &[bool]) -> Vec<Row> {
    let trouble = trouble(trace);
    let roots: Vec<_> = trace.order().iter().filter(|(_, depth)| *depth == 0).map(|(index, _)| *index).collect();
    let mut rows = Vec::with_capacity(trace.spans().len());
    let mut pending = Vec::new();
    let add = |pending: &mut Vec<(Item, usize, bool)>, indexes: &[usize], depth| {
        let items = siblings(trace, indexes, &trouble, is_critical);
        let last = items.len().saturating_sub(1);
        pending.extend(items.into_iter().enumerate().rev().map(|(at, item)| (item, depth, at < last)));
    };
    add(&mut pending, &roots, 0);
    while let Some((item, depth, has_more)) = pending.pop() {
        let children = item.named().map_or(&[][..], |index| &trace.spans()[index].children[..]);
        rows.push(Row { depth, has_more, has_children: !children.is_empty(), item });
        add(&mut pending, children, depth + 1);
    }
    rows
}

/// For each span, whether it or a span below it needs attention.
///
/// Such a span has failed, was cancelled or was shed.
fn trouble(trace: &Trace) -> Vec<bool> {
    let mut trouble: Vec<_> = trace.spans().iter().map(|span| End::of(span).is_trouble()).collect();
    for (index, _) in trace.order().iter().rev() {
        if let Some(parent) = trace.spans()[*index].parent {
            trouble[parent] |= trouble[*index];
        }
    }
    trouble
}

/// The items for siblings. Similar ones are collapsed.
fn siblings(trace: &Trace, indexes: &[usize], trouble: &[bool], is_critical: &[bool]) -> Vec<Item> {
    let spans = trace.spans();
    let items: Vec<_> = indexes.iter().map(|index| item(spans, *index)).collect();
    if items.len() <= MAX_ALIKE {
        return items;
    }
    let mut groups: HashMap<_, Vec<usize>> = HashMap::new();
    for (at, item) in items.iter().enumerate() {
        let span = &spans[item.named().unwrap_or(indexes[at])];
        let key = (&*span.service, &*span.record.name, End::of(span), trouble[indexes[at]]);
        groups.entry(key).or_default().push(at);
    }
    let mut is_drawn = vec![true; items.len()];
    // The collapsed siblings that follow the item at an index.
    let mut collapsed = HashMap::new();
    for alike in groups.into_values().filter(|alike| alike.len() > MAX_ALIKE) {
        let time = |at: usize| spans[indexes[at]].record.duration();
        // If several took the same time, the first one.
        let longest = alike[1..].iter().copied().rev().max_by_key(|at| time(*at)).unwrap_or(alike[0]);
        let hidden: Vec<_> = alike.into_iter().skip(1).filter(|at| *at != longest).collect();
        hidden.iter().for_each(|at| is_drawn[*at] = false);
        let record = |at: &usize| &spans[indexes[*at]].record;
        let item = Item::Collapsed {
            count: hidden.len(),
            from: hidden.iter().map(|at| record(at).start_time.0).min().unwrap_or(0),
            to: hidden.iter().map(|at| record(at).end_time.0).max().unwrap_or(0),
            longest: hidden.iter().map(|at| time(*at).as_nanos() as u64).max().unwrap_or(0),
            is_critical: hidden.iter().any(|at| is_critical[indexes[*at]]),
        };
        collapsed.insert(longest, item);
    }
    let drawn = items.into_iter().enumerate().filter(|(at, _)| is_drawn[*at]);
    drawn.flat_map(|(at, item)| [Some(item), collapsed.remove(&at)]).flatten().collect()
}

/// A hop if the receiver is the sender's only child, and they ended alike.
///
/// Otherwise a span.
fn item(spans: &[SpanView], from: usize) -> Item {
    let sender = &spans[from];
    let &[to] = &sender.children[..] else { return Item::Span(from) };
    let receiver = &spans[to];
    let is_hop = match (sender.record.kind, receiver.record.kind) {
        (SpanKind::Client, SpanKind::Server) => ended_alike(sender, receiver),
        (SpanKind::Producer, SpanKind::Consumer) => !End::of(sender).is_trouble(),
        _ => false,
    };
    if is_hop { Item::Hop { from, to } } else { Item::Span(from) }
}

/// Whether the client's end says everything that the server's end says.
///
/// A 4xx is an error on the client's span only.
fn ended_alike(client: &SpanView, server: &SpanView) -> bool {
    let status = |span: &SpanView| span.number("http.response.status_code");
    let is_same_response = status(client).is_some() && status(client) == status(server);
    match (End::of(client), End::of(server)) {
        (ours, theirs) if ours == theirs => true,
        (End::Failed(_), End::Failed(_)) => is_same_response,
        (_, theirs) => is_same_response && !theirs.is_trouble(),
    }
}
