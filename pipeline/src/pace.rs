//! How much of the time a run works: one that fills a gap beside the live run leaves that one room.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Rests that are shorter are put together: to fall asleep and to wake takes its time too.
const REST_MIN: Duration = Duration::from_millis(20);

/// The share of the time that each worker of a run works at most, in thousandths. It may be set while the run goes on; all
/// clones are one.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    permille: AtomicU16,
    worked_us: AtomicU64,
    rested_us: AtomicU64,
}

impl Default for Shared {
    /// Unhindered.
    fn default() -> Self {
        Shared { permille: 1000.into(), worked_us: 0.into(), rested_us: 0.into() }
    }
}

/// What all workers of a run have done with their time; what they waited for something to do is in neither.
///
/// Law: under a share of `p` thousandths, `worked × (1000 − p) ÷ p ≤ rested`, but for the rest that each worker still owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    pub worked: Duration,
    /// Because of the share.
    pub rested: Duration,
}

impl Pace {
    /// From now on; what is not within 1 to 1000 counts as the nearest that is.
    pub fn set(&self, permille: u16) {
        self.0.permille.store(permille.clamp(1, 1000), Ordering::Relaxed);
    }

    pub fn spent(&self) -> Spent {
        let of = |us: &AtomicU64| Duration::from_micros(us.load(Ordering::Relaxed));
        Spent { worked: of(&self.0.worked_us), rested: of(&self.0.rested_us) }
    }

    /// How long to rest after so much work.
    pub fn rest(&self, worked: Duration) -> Duration {
        let permille = u32::from(self.0.permille.load(Ordering::Relaxed));
        worked * (1000 - permille) / permille
    }
}

/// Work and rest of one worker. What it does between two turns of its source, closing windows say, is work too.
#[derive(Debug)]
pub(crate) struct Rests {
    pace: Pace,
    /// Since when it works without a break.
    since: Option<Instant>,
    /// What it has not rested yet.
    owed: Duration,
    /// It rests, since when and until when.
    rests: Option<(Instant, Instant)>,
}

impl Rests {
    pub(crate) fn new(pace: Pace) -> Rests {
        Rests { pace, since: None, owed: Duration::ZERO, rests: None }
    }

    /// Before a turn: how long the worker has to rest first.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Duration> {
        if let Some((since, until)) = self.rests {
            if now < until {
                return Some(until - now);
            }
            count(&self.pace.0.rested_us, now - since);
            self.rests = None;
        }
        self.breaks(now);
        if self.owed < REST_MIN {
            self.since = Some(now);
            return None;
        }
        let rest = std::mem::take(&mut self.owed);
        self.rests = Some((now, now + rest));
        Some(rest)
    }

    /// There is nothing to do: what follows is no work, and no rest that was owed either.
    pub(crate) fn breaks(&mut self, now: Instant) {
        let worked = self.since.take().map_or(Duration::ZERO, |since| now - since);
        count(&self.pace.0.worked_us, worked);
        self.owed += self.pace.rest(worked);
    }
}

fn count(us: &AtomicU64, spent: Duration) {
    us.fetch_add(spent.as_micros() as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker with work at hand all the time, in turns of 3 ms.
    struct Worker {
        rests: Rests,
        now: Instant,
    }

    impl Worker {
        /// Of so many seconds the ms that it worked.
        fn worked_ms(&mut self, seconds: u64) -> u64 {
            let end = self.now + Duration::from_secs(seconds);
            let mut worked_ms = 0;
            while self.now < end {
                let rest = self.rests.due(self.now);
                worked_ms += if rest.is_none() { 3 } else { 0 };
                self.now += rest.unwrap_or(Duration::from_millis(3));
            }
            worked_ms
        }
    }

    #[test]
    fn a_worker_works_for_the_share_that_was_set_also_when_it_is_set_meanwhile() {
        let pace = Pace::default();
        let mut worker = Worker { rests: Rests::new(pace.clone()), now: Instant::now() };
        assert_eq!(worker.worked_ms(3), 3_000);
        for permille in [500, 999, 250, 20] {
            pace.set(permille);
            let before = pace.spent();
            let (worked, most) = (worker.worked_ms(60), 60 * u64::from(permille));
            assert!((most * 9 / 10..=most * 11 / 10).contains(&worked), "{permille}: {worked} ms of a minute");
            let after = pace.spent();
            let (worked_more, rested) = (after.worked - before.worked, after.rested - before.rested);
            // What was owed from before, and what is owed still.
            let owed = REST_MIN + pace.rest(Duration::from_millis(6));
            assert!(pace.rest(worked_more) <= rested + owed, "{permille}: {worked_more:?} {rested:?}");
            assert!(worked_more.as_millis().abs_diff(worked.into()) <= 6, "{permille}: {worked_more:?}, {worked} ms");
        }
        pace.set(0);
        assert!((1..600).contains(&worker.worked_ms(60)), "it never stands still");
        pace.set(2_000);
        worker.worked_ms(60);
        assert_eq!(worker.worked_ms(3), 3_000);
    }

    #[test]
    fn a_break_is_no_work() {
        let pace = Pace::default();
        pace.set(500);
        let mut rests = Rests::new(pace);
        let begin = Instant::now();
        assert_eq!(rests.due(begin), None);
        rests.breaks(begin + Duration::from_millis(1));
        assert_eq!(rests.due(begin + Duration::from_secs(60)), None);
    }
}
