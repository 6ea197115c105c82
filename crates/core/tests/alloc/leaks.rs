//! R1 and C18: whatever was derived from a root, nothing of it stays when it is gone.

use throughline_core::Context;

use crate::counting::{Count, count};

#[test]
fn counting_sees_what_is_held_and_what_is_given_back() {
    let (held, during) = count(|| vec![0_u8; 1000]);
    assert_eq!(during, Count { allocations: 1, bytes: 1000 });
    assert_eq!(count(|| drop(held)).1, Count { allocations: 0, bytes: -1000 });
}

#[test]
fn r01_a_million_children_leave_nothing() {
    let root = Context::background().with_cancel();
    let ((), left) = count(|| {
        for _ in 0..1_000_000 {
            drop(root.with_cancel());
        }
    });
    assert_eq!(left.bytes, 0);
}
