//! The pauses between the attempts at a message.

use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

impl Backoff {
    /// Returns the pause after attempt number `attempt`, counted from 1.
    ///
    /// The pause doubles with each attempt and is at least `retry_after`. A random time of up to
    /// half of the doubled pause is added. It spreads out messages that failed at the same time.
    pub(super) fn pause(&self, attempt: u32, retry_after: Option<Duration>) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let pause = self.first.saturating_mul(1 << doublings).min(self.longest);
        let jitter = pause.div_f64(2.0).mul_f64(fastrand::f64());
        pause.max(retry_after.unwrap_or_default()).saturating_add(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_never_overflow() {
        let backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(60) };
        let longest = backoff.longest..=backoff.longest + backoff.longest / 2;
        assert!(longest.contains(&backoff.pause(u32::MAX, None)));
        assert!(longest.contains(&backoff.pause(u32::MAX, Some(Duration::from_secs(1)))));
        assert_eq!(backoff.pause(1, Some(Duration::MAX)), Duration::MAX);
        let unlimited = Backoff { first: Duration::MAX, longest: Duration::MAX };
        assert!(unlimited.pause(0, None) >= Duration::MAX / 2);
    }
}
