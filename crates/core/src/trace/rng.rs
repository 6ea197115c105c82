//! Random numbers for ids: one generator per thread, seeded by the operating system.
//!
//! Ids need to be unlike each other, not secret: xoroshiro128++. Each draw also stirs in the monotonic clock, so that two
//! copies of one state (a forked process, a virtual machine started twice from one image) part company from their first
//! id on. Asking the operating system which copy we are would cost a system call per id; the clock is read in user space,
//! and a recorded span reads it anyway.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

thread_local! {
    static STATE: Cell<Generator> = Cell::new(Generator::seeded());
}

/// 64 random bits, at this time of the monotonic clock.
#[inline]
pub(super) fn next(ticks: u64) -> u64 {
    draw(ticks, Generator::next)
}

/// Twice 64 random bits, at this time of the monotonic clock.
#[inline]
pub(super) fn next_pair(ticks: u64) -> [u64; 2] {
    draw(ticks, |state| [state.next(), state.next()])
}

#[inline]
fn draw<T>(ticks: u64, take: impl FnOnce(&mut Generator) -> T) -> T {
    // A thread that is being torn down has lost its state: a fresh one then.
    let mut state = STATE.try_with(Cell::get).unwrap_or_else(|_| Generator::seeded());
    state.stir(ticks);
    let out = take(&mut state);
    let _ = STATE.try_with(|cell| cell.set(state));
    out
}

#[derive(Clone, Copy)]
struct Generator(u64, u64);

impl Generator {
    /// std keys each thread's `RandomState` with 128 bits from the operating system.
    fn seeded() -> Self {
        let random = RandomState::new();
        Self(random.hash_one(0_u8), random.hash_one(1_u8))
    }

    fn stir(&mut self, ticks: u64) {
        // An odd factor spreads the few bits in which two clocks differ. xoroshiro would stay at all zeros.
        self.0 = self.0.wrapping_add(ticks.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if self.0 | self.1 == 0 {
            self.1 = 1;
        }
    }

    /// xoroshiro128++ 1.0 of Blackman and Vigna.
    fn next(&mut self) -> u64 {
        let Self(a, mut b) = *self;
        let out = a.wrapping_add(b).rotate_left(17).wrapping_add(a);
        b ^= a;
        *self = Self(a.rotate_left(49) ^ b ^ (b << 21), b.rotate_left(28));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::Generator;

    #[test]
    fn t08_two_copies_of_one_state_part_with_the_clock() {
        let (mut ours, mut theirs) = (Generator(1, 2), Generator(1, 2));
        for tick in 0..1_000 {
            ours.stir(tick);
            theirs.stir(tick + 1);
            assert_ne!(ours.next(), theirs.next());
        }
    }

    #[test]
    fn t08_no_state_is_stuck_at_zero() {
        let mut state = Generator(0, 0);
        state.stir(0);
        assert_ne!([state.next(), state.next(), state.next()], [0; 3]);
    }
}
