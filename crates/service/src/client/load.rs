//! The load of an instance: the peak-sensitive average of its response times, and its calls.
//!
//! It is the measure of `tower::load::PeakEwma`, with two differences. A call that is dropped or
//! fails early does not make its instance look fast. An instance that has never responded gets one
//! call at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// After this time, a response time has lost two thirds of its weight.
const DECAY: Duration = Duration::from_secs(10);
/// What a failed call counts as, if it took less.
const FAILURE: Duration = Duration::from_secs(1);
/// How long an instance is used only where there is no other, after a transport failure.
const SUSPECT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Responded,
    Failed,
    Unreachable,
    Dropped,
}

/// Locked for its own code only.
pub(super) struct Load(Mutex<State>);

struct State {
    pending: u32,
    /// In nanoseconds, when it was updated.
    estimate: Option<(f64, Instant)>,
    suspect_until: Option<Instant>,
}

impl Load {
    pub(super) fn new() -> Self {
        Load(Mutex::new(State { pending: 0, estimate: None, suspect_until: None }))
    }

    pub(super) fn start(&self) {
        self.lock().pending += 1;
    }

    pub(super) fn end(&self, started: Instant, now: Instant, ended: Ended) {
        let mut state = self.lock();
        state.pending = state.pending.saturating_sub(1);
        state.suspect_until = match ended {
            Ended::Responded => None,
            Ended::Unreachable => now.checked_add(SUSPECT),
            Ended::Failed | Ended::Dropped => state.suspect_until,
        };
        let time = now.saturating_duration_since(started);
        let time = if matches!(ended, Ended::Failed | Ended::Unreachable) { time.max(FAILURE) } else { time };
        let time = time.as_nanos() as f64;
        state.estimate = match state.estimate {
            // A call that was dropped took at least its time.
            None => Some((time, now)),
            // A peak counts at once.
            Some((estimate, at)) if time > estimate * weight(at, now) => Some((time, now)),
            Some((estimate, at)) if ended == Ended::Responded => {
                let weight = weight(at, now);
                Some((estimate * weight + time * (1.0 - weight), now))
            }
            unchanged => unchanged,
        };
    }

    /// Whether a call has failed to reach the instance a moment ago.
    pub(super) fn is_suspect(&self, now: Instant) -> bool {
        self.lock().suspect_until.is_some_and(|until| now < until)
    }

    /// The expected time of one more call. Lower is better.
    pub(super) fn cost(&self, now: Instant) -> f64 {
        let state = self.lock();
        let pending = f64::from(state.pending);
        match state.estimate {
            Some((estimate, at)) => estimate * weight(at, now) * (pending + 1.0),
            None if state.pending == 0 => 0.0,
            None => f64::MAX / 4.0 * (1.0 + pending / f64::from(u32::MAX)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(from: Instant, now: Instant) -> f64 {
    (-now.saturating_duration_since(from).as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cost after these calls, one a second, in milliseconds.
    fn cost_after(calls: &[(u64, Ended)]) -> f64 {
        let (load, start) = (Load::new(), Instant::now());
        let mut now = start;
        for (millis, ended) in calls {
            load.start();
            now = start.max(now) + Duration::from_secs(1);
            load.end(now - Duration::from_millis(*millis), now, *ended);
        }
        load.cost(now) / 1e6
    }

    #[test]
    fn a_peak_counts_at_once_and_decays() {
        assert_eq!(cost_after(&[(10, Ended::Responded), (500, Ended::Responded)]), 500.0);
        let decayed = cost_after(&[(500, Ended::Responded), (10, Ended::Responded)]);
        assert!((400.0..500.0).contains(&decayed), "{decayed}");
    }

    #[test]
    fn a_call_that_is_dropped_or_fails_early_does_not_lower_the_cost() {
        let slow = (500, Ended::Responded);
        for ended in [Ended::Dropped, Ended::Failed, Ended::Unreachable] {
            let cost = cost_after(&[slow, (1, ended), (1, ended), (1, ended)]);
            assert!(cost > 350.0, "{ended:?}: {cost}");
        }
        assert!(cost_after(&[(1, Ended::Unreachable)]) >= 1000.0);
        assert_eq!(cost_after(&[(5, Ended::Responded), (900, Ended::Dropped)]), 900.0);
    }

    #[test]
    fn an_instance_without_a_response_gets_one_call_at_a_time() {
        let (load, now) = (Load::new(), Instant::now());
        assert_eq!(load.cost(now), 0.0);
        load.start();
        let one = load.cost(now);
        load.start();
        assert!(one > 1e300 && load.cost(now) > one);
    }
}
