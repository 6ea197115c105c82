//! Random numbers for ids: one generator per thread, seeded by the operating system.
//!
//! Ids must be unique, not secret, so the generator is xoroshiro128++. Each draw also mixes in the
//! monotonic clock. Two copies of one state then differ from their first id on. Such copies are a
//! forked process, or a virtual machine that is started twice from one image. To ask the operating
//! system whether the process is a copy would cost a system call per id. The clock is read in user
//! space, and a recorded span reads it anyway.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

thread_local! {
    static STATE: Cell<Generator> = Cell::new(Generator::seeded());
}

/// Returns 64 random bits. `ticks` is the time of the monotonic clock.
#[inline]
pub(super) fn next(ticks: u64) -> u64 {
    draw(ticks, Generator::next)
}

/// Returns twice 64 random bits. `ticks` is the time of the monotonic clock.
#[inline]
pub(super) fn next_pair(ticks: u64) -> [u64; 2] {
    draw(ticks, |state| [state.next(), state.next()])
}

#[inline]
fn draw<T>(ticks: u64, take: impl FnOnce(&mut Generator) -> T) -> T {
    // A thread that is being torn down has lost its generator. It uses a fresh one.
    let mut state = STATE.try_with(Cell::get).unwrap_or_else(|_| Generator::seeded());
    state.stir(ticks);
    let out = take(&mut state);
    let _ = STATE.try_with(|cell| cell.set(state));
    out
}

#[derive(Clone, Copy)]
struct Generator(u64, u64);

impl Generator {
    /// `std` seeds each thread's `RandomState` with 128 bits from the operating system.
    fn seeded() -> Self {
        let random = RandomState::new();
        Self(random.hash_one(0_u8), random.hash_one(1_u8))
    }

    fn stir(&mut self, ticks: u64) {
        // An odd factor spreads the few bits in which two clocks differ. Xoroshiro never leaves the
        // state of all zeros.
        self.0 = self.0.wrapping_add(ticks.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if self.0 | self.1 == 0 {
            self.1 = 1;
        }
    }

    /// xoroshiro128++ 1.0 by Blackman and Vigna.
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
    fn t08_two_copies_of_one_generator_differ_if_the_clock_differs() {
        let (mut original, mut copy) = (Generator(1, 2), Generator(1, 2));
        for tick in 0..1_000 {
            original.stir(tick);
            copy.stir(tick + 1);
            assert_ne!(original.next(), copy.next());
        }
    }

    #[test]
    fn t08_a_generator_of_all_zeros_is_not_stuck() {
        let mut state = Generator(0, 0);
        state.stir(0);
        assert_ne!([state.next(), state.next(), state.next()], [0; 3]);
    }
}
