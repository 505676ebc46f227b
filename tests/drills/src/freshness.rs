//! How old the statistics are while something else goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context;
use weir_log::{Clock as _, SystemClock};

use crate::readers::Seen;

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks until it is ended.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    looks: JoinHandle<Ages>,
}

/// How old complete-through was, ms, at each look, with how long it was from the look before.
#[derive(Debug, Default)]
pub(crate) struct Ages(Vec<(i64, Duration)>);

impl Watch {
    pub(crate) fn start(seen: Arc<Seen>) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let looks = std::thread::spawn(move || {
            let (mut ages, mut before) = (Vec::new(), Instant::now());
            while !stopped.load(Ordering::SeqCst) {
                std::thread::sleep(LOOK_EVERY);
                let age_ms = SystemClock.now_ms() - seen.complete_through_ms.load(Ordering::SeqCst);
                ages.push((age_ms, before.elapsed()));
                before = Instant::now();
            }
            Ages(ages)
        });
        Watch { stop, looks }
    }

    pub(crate) fn end(self) -> anyhow::Result<Ages> {
        self.stop.store(true, Ordering::SeqCst);
        self.looks.join().ok().context("the watch's thread")
    }
}

impl Ages {
    pub(crate) fn p99_ms(&self) -> i64 {
        let mut ages: Vec<i64> = self.0.iter().map(|(age_ms, _)| *age_ms).collect();
        ages.sort_unstable();
        ages.get(ages.len() * 99 / 100).copied().unwrap_or_default()
    }

    /// For how long it was older than `due_ms`.
    pub(crate) fn late(&self, due_ms: i64) -> Duration {
        self.0.iter().filter(|(age_ms, _)| *age_ms > due_ms).map(|(_, long)| *long).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_what_was_older_than_it_may_be_and_only_as_long_as_it_was() {
        let look = |age_ms, ms| (age_ms, Duration::from_millis(ms));
        let ages = Ages(vec![look(1_000, 50), look(5_000, 50), look(5_001, 70), look(9_000, 30)]);
        assert_eq!(ages.late(5_000), Duration::from_millis(100));
        assert_eq!(ages.late(9_000), Duration::ZERO);
        assert_eq!(ages.p99_ms(), 9_000);
        assert_eq!(Ages::default().p99_ms(), 0);
    }
}
