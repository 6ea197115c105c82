//! The states of a breaker, without a clock, a lock and user code.
//!
//! Invariants:
//! 1. Each change of the state starts an *epoch*. A result counts only in the epoch in which its
//!    call was admitted. So a call that began before the breaker opened neither closes nor reopens
//!    it.
//! 2. In the state half-open, at most `probes` calls of the epoch are in flight.

use std::time::Duration;

use tokio::time::Instant;

use super::latency::Routes;
use super::settings::BreakerSettings;
use super::window::Window;

/// The state of a [`Breaker`](super::Breaker).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// Calls are refused. After its time, the next call becomes a probe.
    Open,
    /// A few calls pass as probes, the others are refused.
    HalfOpen,
}

impl BreakerState {
    /// Returns the name, as on the span: `closed`, `open`, `half_open`.
    pub const fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half_open",
        }
    }
}

/// What a [`Breaker`](super::Breaker) has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerCounters {
    /// Calls that succeeded.
    pub successes: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls that say nothing about the callee.
    pub neutral: u64,
    /// Calls that were refused, because the breaker was open.
    pub refused: u64,
    /// How often the breaker opened, failed probes included.
    pub opened: u64,
}

/// The result of a call, before the breaker has judged a missed deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    Failure,
    /// A failure of the transport: there was no response.
    Unreachable,
    /// The deadline was missed, and the callee had this time. `None`: it had no limit.
    DeadlineMissed(Option<Duration>),
    Neutral,
}

/// A call that may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    pub(super) epoch: u64,
}

/// A change of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) from: BreakerState,
    pub(super) to: BreakerState,
    /// How long the breaker stays open.
    pub(super) pause: Option<Duration>,
}

enum State {
    Closed(Window),
    Open { until: Instant },
    HalfOpen { probes: u32 },
}

pub(super) struct Machine {
    state: State,
    pub(super) epoch: u64,
    unreachable_in_a_row: u32,
    failed_probes: u32,
    routes: Routes,
    pub(super) counters: BreakerCounters,
}

impl Machine {
    pub(super) fn new(now: Instant, settings: &BreakerSettings) -> Self {
        Machine {
            state: State::Closed(Window::new(now, settings.window)),
            epoch: 0,
            unreachable_in_a_row: 0,
            failed_probes: 0,
            routes: Routes::default(),
            counters: BreakerCounters::default(),
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed(_) => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether [`admit`](Self::admit) would admit a call.
    ///
    /// # Errors
    /// When a call may be admitted.
    pub(super) fn is_ready(&self, now: Instant, settings: &BreakerSettings) -> Result<(), Duration> {
        match &self.state {
            State::Closed(_) => Ok(()),
            State::Open { until } if now >= *until => Ok(()),
            State::Open { until } => Err(until.saturating_duration_since(now)),
            State::HalfOpen { probes } if *probes < settings.probes.max(1) => Ok(()),
            State::HalfOpen { .. } => Err(settings.open_time),
        }
    }

    /// Admits a call.
    ///
    /// # Errors
    /// The call is refused, and may be sent after this time.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        settings: &BreakerSettings,
    ) -> Result<(Admission, Option<Transition>), Duration> {
        if let Err(after) = self.is_ready(now, settings) {
            self.counters.refused += 1;
            return Err(after);
        }
        let transition = match &mut self.state {
            State::Closed(_) => None,
            State::Open { .. } => Some(self.change(State::HalfOpen { probes: 1 }, None)),
            State::HalfOpen { probes } => {
                *probes += 1;
                None
            }
        };
        Ok((Admission { epoch: self.epoch }, transition))
    }

    /// Counts the result of a call. `random` returns a number from 0 to 1.
    pub(super) fn record(
        &mut self,
        admission: Admission,
        outcome: Outcome,
        call: &Call,
        settings: &BreakerSettings,
        random: fn() -> f64,
    ) -> Option<Transition> {
        let is_unreachable = outcome == Outcome::Unreachable;
        let is_failure = match outcome {
            Outcome::Success => Some(false),
            Outcome::Failure | Outcome::Unreachable => Some(true),
            Outcome::DeadlineMissed(granted) => self.is_fair(call.route, granted, settings).then_some(true),
            Outcome::Neutral => None,
        };
        match is_failure {
            Some(false) => {
                self.counters.successes += 1;
                self.routes.record(call.route, call.now.saturating_duration_since(call.started));
            }
            Some(true) => self.counters.failures += 1,
            None => self.counters.neutral += 1,
        }
        if admission.epoch != self.epoch {
            return None;
        }
        match (&mut self.state, is_failure) {
            (State::Closed(window), Some(is_failure)) => {
                let tally = window.record(call.now, settings.window, is_failure);
                self.unreachable_in_a_row = if is_unreachable { self.unreachable_in_a_row + 1 } else { 0 };
                let is_over_ratio = tally.total() >= settings.min_requests
                    && f64::from(tally.failures) >= settings.failure_ratio * f64::from(tally.total());
                let is_unreachable =
                    settings.unreachable_limit > 0 && self.unreachable_in_a_row >= settings.unreachable_limit;
                (is_failure && (is_over_ratio || is_unreachable)).then(|| self.open(call.now, settings, random))
            }
            (State::HalfOpen { .. }, Some(true)) => {
                self.failed_probes = self.failed_probes.saturating_add(1);
                Some(self.open(call.now, settings, random))
            }
            (State::HalfOpen { .. }, Some(false)) => {
                self.failed_probes = 0;
                Some(self.change(State::Closed(Window::new(call.now, settings.window)), None))
            }
            (State::HalfOpen { probes }, None) => {
                *probes = probes.saturating_sub(1);
                None
            }
            (State::Closed(_), None) | (State::Open { .. }, _) => None,
        }
    }

    /// Whether a missed deadline is a failure of the callee.
    fn is_fair(&self, route: u64, granted: Option<Duration>, settings: &BreakerSettings) -> bool {
        let Some(granted) = granted else { return true };
        match self.routes.p50(route) {
            Some(p50) => granted.as_secs_f64() >= settings.fair_share * p50.as_secs_f64(),
            None => granted >= settings.fair_time,
        }
    }

    fn open(&mut self, now: Instant, settings: &BreakerSettings, random: fn() -> f64) -> Transition {
        let pause = settings.pause(self.failed_probes, random());
        // A pause that is longer than the clock can count is a year.
        let until = now.checked_add(pause).unwrap_or_else(|| now + Duration::from_secs(365 * 86_400));
        self.counters.opened += 1;
        self.change(State::Open { until }, Some(pause))
    }

    fn change(&mut self, state: State, pause: Option<Duration>) -> Transition {
        let from = self.state();
        self.state = state;
        self.epoch += 1;
        self.unreachable_in_a_row = 0;
        Transition { from, to: self.state(), pause }
    }
}

/// The times of a call that has ended.
pub(super) struct Call {
    /// The hash of the route.
    pub(super) route: u64,
    pub(super) started: Instant,
    pub(super) now: Instant,
}
