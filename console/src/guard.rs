//! Until when a run may stay paused: as long as the log keeps what it needs next.
//!
//! ```text
//!  through ── horizon, step back ──▶ needed ── retention, by time and by size ──▶ lost from
//!                                                          └── margin before ──▶ safe until
//! ```

use std::time::Duration;

use weir_log::{Log, LogError};
use weir_schemas::{DEDUP_HORIZON_MS, Pause, STEP_BACK_MAX_MS};

/// Over so long it is looked how much is appended.
const RATE_OVER_MS: i64 = 10 * 60 * 1000;
/// So many of the newest records of a partition tell how large records are.
const SAMPLE_RECORDS: i64 = 200;
/// Clocks that differ by less are not told of: an answer takes its time.
pub(crate) const APART_MS: i64 = 5_000;
/// The most of a margin.
const MARGIN_MAX_MS: i64 = 60 * 60 * 1000;

/// How long the log keeps what a run needs next. Times are ms since the Unix epoch, by the log's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The run needs what the log has stamped from here on.
    pub needed_ms: i64,
    /// How long the log keeps a record, ms; `None`: for ever.
    pub retention_ms: Option<i64>,
    pub by_size: BySize,
    /// So much the log's clock is ahead of ours: it deletes so much sooner. 0: it is not, as far as its records show.
    pub ahead_ms: i64,
}

/// What a bound on a topic's bytes leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BySize {
    /// There is none.
    Unbounded,
    /// By what was appended lately, what is needed goes then.
    Until(i64),
    /// There is one, and nothing tells how soon it is reached.
    NotKnown { bytes: u64 },
}

/// A pause that is not held on to waits for so long before the log deletes what the run needs: a fifth of the time that the
/// log keeps a record, an hour at the most. Within it the run must have read what is deleted next.
fn margin_ms(retention_ms: i64) -> i64 {
    (retention_ms / 5).min(MARGIN_MAX_MS)
}

impl Kept {
    /// The run loses nothing that goes on before, by our clock; `None`: whenever it goes on, as far as can be known.
    pub fn safe_until_ms(&self) -> Option<i64> {
        self.bound().map(|bound| bound.safe_until_ms)
    }

    /// The bound that is reached first.
    pub(crate) fn bound(&self) -> Option<Bound> {
        let of = |lost_ms: i64, margin_ms: i64, by_size| {
            let lost_ms = lost_ms - self.ahead_ms;
            Bound { safe_until_ms: lost_ms - margin_ms, lost_ms, by_size }
        };
        let by_time = self.retention_ms.map(|kept_ms| of(self.needed_ms + kept_ms, margin_ms(kept_ms), false));
        let by_size = match self.by_size {
            BySize::Until(lost_ms) => Some(of(lost_ms, margin_ms((lost_ms - self.needed_ms).max(0)), true)),
            BySize::Unbounded | BySize::NotKnown { .. } => None,
        };
        by_time.into_iter().chain(by_size).min_by_key(|bound| bound.safe_until_ms)
    }
}

/// What ends the time for which the log keeps what a run needs; by our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) safe_until_ms: i64,
    /// From when on it is deleted.
    pub(crate) lost_ms: i64,
    /// The bound on bytes, not on time.
    pub(crate) by_size: bool,
}

/// What is done about a run that is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Hold,
    /// The time for which it was paused is over.
    ResumeAsTold {
        until_ms: i64,
    },
    /// The log will delete what it needs, and nobody has said that it may.
    ResumeForLog {
        safe_until_ms: i64,
    },
}

/// Law: monotonic in `now_ms`; a pause that allows loss ends at its own time only.
pub fn next_step(pause: &Pause, safe_until_ms: Option<i64>, now_ms: i64) -> Step {
    let safe_until_ms = safe_until_ms.filter(|_| !pause.allow_loss);
    let over = |at_ms: Option<i64>| at_ms.filter(|at_ms| *at_ms <= now_ms);
    match (over(pause.until_ms), over(safe_until_ms)) {
        (Some(until_ms), safe_until_ms) if safe_until_ms.is_none_or(|safe_until_ms| until_ms <= safe_until_ms) => {
            Step::ResumeAsTold { until_ms }
        }
        (_, Some(safe_until_ms)) => Step::ResumeForLog { safe_until_ms },
        (_, None) => Step::Hold,
    }
}

/// How long `topic` keeps what a run needs that is complete through `through_ms`; `now_ms` is by our clock.
pub fn kept(log: &dyn Log, topic: &str, through_ms: i64, now_ms: i64) -> Result<Kept, LogError> {
    let needed_ms = through_ms - DEDUP_HORIZON_MS - STEP_BACK_MAX_MS;
    let retention_ms = log.retention(topic)?.map(|kept| kept.as_millis() as i64);
    let bytes = log.retention_bytes(topic)?;
    let ahead_ms = if retention_ms.is_some() || bytes.is_some() { ahead_ms(log, topic, now_ms)? } else { 0 };
    let by_size = match bytes {
        None => BySize::Unbounded,
        Some(bytes) => by_size(log, topic, bytes, needed_ms, now_ms + ahead_ms)?,
    };
    Ok(Kept { needed_ms, retention_ms, by_size, ahead_ms })
}

/// How far the log's clock is ahead of ours, by the newest record of each partition. One that is behind does not show: its
/// records look old, as those of a log to which nobody writes.
fn ahead_ms(log: &dyn Log, topic: &str, now_ms: i64) -> Result<i64, LogError> {
    let mut ahead_ms = 0;
    for partition in 0..log.partitions(topic)? {
        if log.offset_at(topic, partition, now_ms + APART_MS)?.is_none() {
            continue;
        }
        let end = log.bounds(topic, partition)?.end;
        newest(log, topic, partition, end - 1, |stamp_ms, _| ahead_ms = ahead_ms.max(stamp_ms - now_ms))?;
    }
    Ok(ahead_ms)
}

/// Gives stamp and size of the records of a partition from `first` on, as far as it ends now.
fn newest(
    log: &dyn Log,
    topic: &str,
    partition: u32,
    first: i64,
    mut each: impl FnMut(i64, usize),
) -> Result<(), LogError> {
    let bounds = log.bounds(topic, partition)?;
    let mut next = first.max(bounds.start);
    let mut reader = log.reader(topic)?;
    reader.assign(partition, next)?;
    let mut silent = 0;
    while next < bounds.end && silent < 10 {
        let given = reader.poll(SAMPLE_RECORDS as usize, Duration::from_millis(500), &mut |record| {
            next = record.offset + 1;
            each(record.stamp_ms, record.payload.len());
        })?;
        silent = if given == 0 { silent + 1 } else { 0 };
    }
    Ok(())
}

/// The bound is on each partition: the one that fills up first decides.
fn by_size(log: &dyn Log, topic: &str, bytes: u64, needed_ms: i64, now_ms: i64) -> Result<BySize, LogError> {
    let mut lost_ms: Option<i64> = None;
    for partition in 0..log.partitions(topic)? {
        let end = log.bounds(topic, partition)?.end;
        let since = |at_ms| Ok::<_, LogError>(end - log.offset_at(topic, partition, at_ms)?.unwrap_or(end));
        let (lately, waiting) = (since(now_ms - RATE_OVER_MS)?, since(needed_ms)?);
        if lately == 0 {
            continue;
        }
        // Of what the log compresses further there is less than this: it is kept longer.
        let record_bytes = record_bytes(log, topic, partition)?;
        let left = bytes as i64 - waiting * record_bytes;
        let per_ms = (lately * record_bytes) as f64 / RATE_OVER_MS as f64;
        let full_ms = now_ms + (left.max(0) as f64 / per_ms) as i64;
        lost_ms = Some(lost_ms.map_or(full_ms, |lost_ms| lost_ms.min(full_ms)));
    }
    Ok(lost_ms.map_or(BySize::NotKnown { bytes }, BySize::Until))
}

/// How large the newest records of a partition are on average; at least 1.
fn record_bytes(log: &dyn Log, topic: &str, partition: u32) -> Result<i64, LogError> {
    let end = log.bounds(topic, partition)?.end;
    let (mut records, mut bytes) = (0, 0);
    newest(log, topic, partition, end - SAMPLE_RECORDS, |_, size| {
        records += 1;
        bytes += size as i64;
    })?;
    Ok((bytes / records.max(1)).max(1))
}

#[cfg(test)]
mod tests {
    use weir_schemas::Decision;

    use super::*;

    #[test]
    fn the_margin_is_a_fifth_and_an_hour_at_most() {
        assert_eq!(margin_ms(15 * 60_000), 3 * 60_000);
        assert_eq!(margin_ms(5 * 60 * 60_000), 60 * 60_000);
        assert_eq!(margin_ms(30 * 24 * 60 * 60_000), 60 * 60_000);
    }

    #[test]
    fn a_pause_is_safe_until_the_first_bound_less_its_margin() {
        let kept =
            |retention_ms, by_size| Kept { needed_ms: 1_000, retention_ms, by_size, ahead_ms: 0 }.safe_until_ms();
        assert_eq!(kept(None, BySize::Unbounded), None);
        assert_eq!(kept(None, BySize::NotKnown { bytes: 7 }), None);
        assert_eq!(kept(Some(500), BySize::Unbounded), Some(1_400));
        assert_eq!(kept(Some(500), BySize::NotKnown { bytes: 7 }), Some(1_400));
        assert_eq!(kept(Some(500), BySize::Until(1_100)), Some(1_080));
        assert_eq!(kept(Some(500), BySize::Until(9_000)), Some(1_400));
        assert_eq!(kept(None, BySize::Until(900)), Some(900), "what is gone already leaves no time");
        let ahead = Kept { needed_ms: 1_000, retention_ms: Some(500), by_size: BySize::Unbounded, ahead_ms: 300 };
        assert_eq!(ahead.safe_until_ms(), Some(1_100), "the log deletes by its own clock");
    }

    /// Every order of now, the told end and the safe end, with and without the word that something may be lost.
    #[test]
    fn over_all_times_a_pause_ends_at_the_first_of_its_own_end_and_the_safe_one() {
        let times = [None, Some(1), Some(2), Some(3)];
        for (until_ms, safe_until_ms) in times.iter().flat_map(|until| times.map(|safe| (*until, safe))) {
            for (allow_loss, now_ms) in [false, true].into_iter().flat_map(|allow| (0..5).map(move |now| (allow, now)))
            {
                let by = Decision { id: 0, at_ms: 0, who: String::new(), reason: String::new() };
                let pause = Pause { by, until_ms, allow_loss, paused_ms: None, resume: None };
                let step = next_step(&pause, safe_until_ms, now_ms);
                let told = until_ms.is_some_and(|until_ms| until_ms <= now_ms);
                let lost = !allow_loss && safe_until_ms.is_some_and(|safe_until_ms| safe_until_ms <= now_ms);
                let wanted = match () {
                    () if told && !(lost && safe_until_ms < until_ms) => {
                        Step::ResumeAsTold { until_ms: until_ms.unwrap() }
                    }
                    () if lost => Step::ResumeForLog { safe_until_ms: safe_until_ms.unwrap() },
                    () => Step::Hold,
                };
                assert_eq!(step, wanted, "{until_ms:?} {safe_until_ms:?} {allow_loss} {now_ms}");
                let before = next_step(&pause, safe_until_ms, now_ms - 1);
                assert!(before == Step::Hold || step != Step::Hold, "monotonic in now");
            }
        }
    }
}
