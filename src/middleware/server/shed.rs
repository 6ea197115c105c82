//! Decides whether a request with too little time left is shed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bounds the part of the requests that are shed because of their timeouts.
pub(super) struct Governor {
    max_percent: u8,
    is_dry_run: bool,
    window: Mutex<Window>,
}

/// The last ten seconds, in slots of one second.
struct Window {
    start: Instant,
    /// The number of the latest slot, in seconds since the start.
    latest: u64,
    slots: [Slot; SLOTS],
    spared: u64,
}

const SLOTS: usize = 10;

#[derive(Clone, Copy, Default)]
struct Slot {
    requests: u64,
    shed: u64,
}

impl Governor {
    pub(super) fn new(max_percent: u8, is_dry_run: bool) -> Self {
        let window = Window { start: Instant::now(), latest: 0, slots: [Slot::default(); SLOTS], spared: 0 };
        Governor { max_percent, is_dry_run, window: Mutex::new(window) }
    }

    /// Counts a request. Returns whether to shed it, if it `is_short` of time.
    pub(super) fn sheds(&self, is_short: bool) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = window.current();
        window.slots[slot].requests += 1;
        if !is_short {
            return false;
        }
        let (requests, shed) =
            window.slots.iter().fold((0, 0), |(requests, shed), slot| (requests + slot.requests, shed + slot.shed));
        let is_allowed = (shed + 1) * 100 <= requests * u64::from(self.max_percent);
        if self.is_dry_run || !is_allowed {
            window.spared += 1;
            return false;
        }
        window.slots[slot].shed += 1;
        true
    }

    pub(super) fn spared(&self) -> u64 {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).spared
    }
}

impl Window {
    /// The slot of this second.
    ///
    /// Empties the slots of the seconds that have passed since the latest.
    fn current(&mut self) -> usize {
        let second = self.start.elapsed().as_secs();
        let passed = second.saturating_sub(self.latest).min(SLOTS as u64);
        for ago in 0..passed {
            self.slots[((second - ago) % SLOTS as u64) as usize] = Slot::default();
        }
        self.latest = self.latest.max(second);
        (self.latest % SLOTS as u64) as usize
    }
}

/// Why a request is shed: what its caller has sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortage {
    /// The timeout is over.
    Expired,
    /// The timeout is shorter than the route needs.
    TooShort,
}

impl Shortage {
    pub(super) fn of(left: Option<Duration>, needed: Option<Duration>) -> Option<Shortage> {
        match left? {
            Duration::ZERO => Some(Shortage::Expired),
            left => (left < needed?).then_some(Shortage::TooShort),
        }
    }
}
