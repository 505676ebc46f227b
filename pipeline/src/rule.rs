//! The rule: which window an event closes in, and which it counts for. Pure functions of the record.

use serde::{Deserialize, Serialize};
use weir_schemas::{CLAIM_AGE_MAX_MS, CLOCK_BOUND_MS, SchemaVersion, WindowStart, WindowWidth};

/// What a record's stamp counts as: a broker's clock that leaps ahead moves the time by at most the clock bound.
pub(crate) fn stamp(stamp_ms: i64, sent_ms: i64) -> i64 {
    stamp_ms.min(sent_ms.saturating_add(CLOCK_BOUND_MS))
}

/// When an event happened: by its claim or its receipt, never after its arrival `arrival_ms`. A time too old to be
/// believed counts as the arrival, which the second value says.
pub(crate) fn event_time(claimed_ms: Option<i64>, received_ms: i64, arrival_ms: i64) -> (i64, bool) {
    // Receipt and append may lie hours apart, when a spool drains; never a month.
    let time_ms = claimed_ms.unwrap_or(received_ms).min(arrival_ms);
    let too_old = arrival_ms.saturating_sub(time_ms) > CLAIM_AGE_MAX_MS;
    (if too_old { arrival_ms } else { time_ms }, too_old)
}

/// How the rows of a generation's table are cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub width: WindowWidth,
    pub lateness_ms: i64,
    /// Where its own windows begin, if those before were carried over.
    pub seam: Option<Box<Seam>>,
}

/// The first window that a generation computes by itself: the rows that left before it are another generation's, carried
/// over as they were, because the log does not reach back to them any more.
///
/// Invariant: `at` is a multiple of both widths, and the new one a multiple of the old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seam {
    pub at: WindowStart,
    /// How that one's rows were cut.
    pub old: Rule,
}

impl Rule {
    /// That of a version whose table is computed from the first event on.
    pub fn of(version: &SchemaVersion) -> Rule {
        Rule { width: version.width, lateness_ms: version.lateness_ms, seam: None }
    }

    /// The window that an event is in the table with: that of its time, or, if it is late, that of its arrival.
    ///
    /// Laws, for a rule with a seam
    /// - it is before the seam if and only if the old rule's is: then the event was carried over with that row, and nobody
    ///   computes it; every other is computed, in the first window at the earliest
    /// - an event that is computed has arrived at the seam or after it: before, neither its time nor its arrival would be in a
    ///   window of the old rule from the seam on
    pub(crate) fn closes_in(&self, time_ms: i64, arrival_ms: i64) -> WindowStart {
        let late = arrival_ms - time_ms > self.lateness_ms;
        let own = self.width.window_of(if late { arrival_ms } else { time_ms });
        let Some(seam) = &self.seam else { return own };
        let old = seam.old.closes_in(time_ms, arrival_ms);
        if old < seam.at { self.width.window_of(old.ms()) } else { own.max(seam.at) }
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    fn rule(width_ms: i64, lateness_ms: i64) -> Rule {
        Rule { width: WindowWidth::new(width_ms).unwrap(), lateness_ms, seam: None }
    }

    #[test]
    fn an_event_is_late_when_it_arrives_more_than_the_lateness_after_it_happened() {
        let rule = rule(10_000, 5_000);
        assert_eq!(rule.closes_in(9_000, 14_000), rule.width.window_of(0));
        assert_eq!(rule.closes_in(9_000, 14_001), rule.width.window_of(10_000));
    }

    #[test]
    fn an_event_is_carried_over_if_and_only_if_the_old_rule_closed_it_before_the_seam_also_over_several_seams() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut first = 0;
        for _ in 0..200_000 {
            let mut widths: Vec<i64> = (0..3).map(|_| 10_000 << rng.random_range(0..3)).collect();
            widths.sort_unstable();
            let rules = widths.iter().map(|width| rule(*width, rng.random_range(0..10) * 20_000));
            let rules: Vec<Rule> = rules.collect();
            let mut newest = rules[0].clone();
            let (time_ms, late_ms) = (rng.random_range(0..400_000), rng.random_range(0..200_000));
            let arrival_ms = time_ms + if rng.random_bool(0.5) { late_ms } else { late_ms % 1_000 };
            for next in &rules[1..] {
                let at = next.width.window_of(rng.random_range(0..400_000));
                let (old, own) = (newest.closes_in(time_ms, arrival_ms), next.closes_in(time_ms, arrival_ms));
                newest = Rule { seam: Some(Box::new(Seam { at, old: newest })), ..next.clone() };
                let found = newest.closes_in(time_ms, arrival_ms);
                assert_eq!(found < at, old < at, "{newest:?}");
                if found < at {
                    assert_eq!(found, newest.width.window_of(old.ms()), "it stays where it was");
                } else {
                    assert_eq!(found, own.max(at));
                    assert!(arrival_ms >= at.ms(), "the log from the seam on has it: {newest:?}");
                    first += i32::from(own < at);
                }
            }
        }
        assert!(first > 1_000, "{first} left in the first window that would have left before");
    }

    #[test]
    fn no_event_happens_after_it_arrived_and_an_unbelievable_claim_counts_as_the_arrival() {
        let arrival = 10 * CLAIM_AGE_MAX_MS;
        assert_eq!(event_time(Some(i64::MAX), 5, arrival), (arrival, false));
        assert_eq!(event_time(None, arrival + 5, arrival), (arrival, false));
        assert_eq!(event_time(Some(arrival - CLAIM_AGE_MAX_MS), 5, arrival), (arrival - CLAIM_AGE_MAX_MS, false));
        assert_eq!(event_time(Some(arrival - CLAIM_AGE_MAX_MS - 1), 5, arrival), (arrival, true));
        assert_eq!(event_time(Some(i64::MIN + 1), 5, arrival), (arrival, true));
    }

    #[test]
    fn a_stamp_counts_as_at_most_a_bound_after_the_sending() {
        assert_eq!(stamp(5_000, 4_000), 5_000);
        assert_eq!(stamp(i64::MAX, 4_000), 4_000 + CLOCK_BOUND_MS);
    }
}
