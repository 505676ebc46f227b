//! The rule: which window an event closes in, and which it counts for. Pure functions of the record.

use weir_schemas::{CLAIM_AGE_MAX_MS, CLOCK_BOUND_MS, WindowStart, WindowWidth};

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

/// The window that an event leaves with: that of its time, or, if it is late, that of its arrival.
pub(crate) fn closes_in(time_ms: i64, arrival_ms: i64, lateness_ms: i64, width: WindowWidth) -> WindowStart {
    let late = arrival_ms - time_ms > lateness_ms;
    width.window_of(if late { arrival_ms } else { time_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_late_when_it_arrives_more_than_the_lateness_after_it_happened() {
        let width = WindowWidth::new(10_000).unwrap();
        assert_eq!(closes_in(9_000, 14_000, 5_000, width), width.window_of(0));
        assert_eq!(closes_in(9_000, 14_001, 5_000, width), width.window_of(10_000));
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
