//! Collectors that the log was away from: what their spools append, in the order in which `weir_ingest` drains them.
//!
//! A batch has its partition and its name from the start. It is tried on the log before it waits, and again while the log
//! is away, and each try may be in the log without an answer. When the log is back a group at a time is appended; what was
//! answered leaves, the rest is tried again. Killed before the group is taken out, the next process has all of it again, and
//! does not know what of it is in the log: it sends what is younger than [`LOOK_UP_AFTER_MS`], and looks up what is older.
//!
//! The real spool needs a disk and threads of its own; it has its own tests, against a real broker. Here it is what the
//! order of its appends does to the table that is looked at.

use rand::{RngExt, rngs::StdRng};
use weir_oracle::{event, pick};
use weir_schemas::{
    DEDUP_HORIZON_MS,
    wire::{BatchBuilder, batch_record},
};

use crate::Bug;
use crate::plan::{Append, HIT, MINUTE_MS, Partition, SECOND_MS};

/// What the names of their events begin with; each must count once, whatever clocks say.
pub(crate) const PREFIX: &str = "spooled ";

/// As the drain: a batch that may be in the log for longer is not sent before it was looked up.
const LOOK_UP_AFTER_MS: i64 = DEDUP_HORIZON_MS / 2;

/// How much of it there was.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spooled {
    pub(crate) batches: u64,
    /// Appends of a batch that was in the log.
    pub(crate) again: u64,
    /// Batches that were found in the log.
    pub(crate) looked_up: u64,
    pub(crate) acknowledgements_lost: u64,
    pub(crate) kills: u64,
}

struct Waiting {
    partition: usize,
    encoded: Vec<u8>,
    first_ms: i64,
    /// Since when it may be in the log, as far as its collector knows.
    doubt_ms: Option<i64>,
    /// Whether it is.
    in_log: bool,
}

/// How likely a try is in the log, and is answered then.
#[derive(Clone, Copy)]
struct Tried {
    arrives: f64,
    answered: f64,
}

struct Drain<'a> {
    bug: Option<Bug>,
    rng: &'a mut StdRng,
    appends: &'a mut Vec<Append>,
    seen: Spooled,
}

/// Adds the appends of a collector's spool to those of a history, in half of all.
pub(crate) fn draw(
    rng: &mut StdRng,
    begin_ms: i64,
    duration_ms: i64,
    partitions: &[Partition],
    appends: &mut Vec<Append>,
    bug: Option<Bug>,
) -> Spooled {
    if rng.random_bool(if bug == Some(Bug::NothingLookedUp) { 0.0 } else { 0.5 }) {
        return Spooled::default();
    }
    // What is left at the end is sent once more while all is well.
    let end_ms = begin_ms + duration_ms - SECOND_MS;
    let away_ms = begin_ms + rng.random_range(0..duration_ms / 2);
    let for_ms = match bug {
        Some(Bug::NothingLookedUp) => 12 * MINUTE_MS,
        _ => pick(rng, &[20 * SECOND_MS, 3 * MINUTE_MS, 12 * MINUTE_MS]),
    };
    let back_ms = (away_ms + for_ms).min(end_ms);
    let mut waiting = Vec::new();
    let mut at_ms = away_ms;
    for sequence in 0..rng.random_range(1..12) {
        let partition = rng.random_range(0..partitions.len());
        if partitions[partition].is_in_use(at_ms) {
            let encoded = batch(rng, at_ms, sequence);
            waiting.push(Waiting { partition, encoded, first_ms: at_ms, doubt_ms: None, in_log: false });
        }
        at_ms = (at_ms + rng.random_range(0..40 * SECOND_MS)).min(back_ms);
    }
    let mut drain = Drain { bug, rng, appends, seen: Spooled { batches: waiting.len() as u64, ..Spooled::default() } };
    // The oldest is tried all the time, and never answered; it leaves when it is found in the log.
    let mut at_ms = away_ms;
    while at_ms < back_ms && !waiting.is_empty() {
        // Most likely as it goes away.
        let arrives = if at_ms - away_ms < 10 * SECOND_MS { 0.4 } else { 0.03 };
        if drain.send(&mut waiting[0], at_ms, Tried { arrives, answered: 0.0 }) {
            waiting.remove(0);
        }
        at_ms += drain.rng.random_range(SECOND_MS..MINUTE_MS);
        at_ms = waiting.first().map_or(at_ms, |first| at_ms.max(first.first_ms));
    }
    drain.all(waiting, back_ms, end_ms);
    let seen = drain.seen;
    appends.sort_by_key(|append| append.at_ms);
    seen
}

fn batch(rng: &mut StdRng, now_ms: i64, sequence: u64) -> Vec<u8> {
    let mut batch = BatchBuilder::new([5; 16], sequence);
    for nth in 0..pick(rng, &[1, 3]) {
        let mut event = event(rng, now_ms, &mut Vec::new());
        event.id = String::new();
        event.props.push((HIT.into(), format!("{PREFIX}{sequence}.{nth}")));
        batch.push(&event);
    }
    batch.finish()
}

impl Drain<'_> {
    /// Tries a batch; whether it can leave the spool.
    fn send(&mut self, batch: &mut Waiting, at_ms: i64, tried: Tried) -> bool {
        let old = batch.doubt_ms.is_some_and(|doubt_ms| at_ms - doubt_ms > LOOK_UP_AFTER_MS);
        if old && self.bug != Some(Bug::NothingLookedUp) {
            if batch.in_log {
                self.seen.looked_up += 1;
                return true;
            }
            batch.doubt_ms = Some(at_ms);
        }
        if self.rng.random_bool(tried.arrives) {
            self.seen.again += u64::from(batch.in_log);
            let payload = batch_record(at_ms, &batch.encoded).into();
            self.appends.push(Append { at_ms, partition: batch.partition, payload });
            batch.in_log = true;
            if self.rng.random_bool(tried.answered) {
                return true;
            }
            self.seen.acknowledgements_lost += 1;
        }
        batch.doubt_ms.get_or_insert(at_ms);
        false
    }

    fn all(&mut self, mut waiting: Vec<Waiting>, back_ms: i64, end_ms: i64) {
        let mut at_ms = back_ms;
        while !waiting.is_empty() {
            let group = waiting.len().min(pick(self.rng, &[1, 4, 64]));
            let mut left: Vec<usize> = (0..group).collect();
            // Tried until all of it is in the log, or the collector is killed.
            let killed = loop {
                let tried = Tried { arrives: if at_ms < end_ms { 0.8 } else { 1.0 }, answered: 0.7 };
                left.retain(|nth| !self.send(&mut waiting[*nth], at_ms, tried));
                if at_ms >= end_ms {
                    break false;
                }
                if self.rng.random_bool(0.3) {
                    break true;
                }
                at_ms = (at_ms + pick(self.rng, &[100, SECOND_MS, 30 * SECOND_MS])).min(end_ms);
                if left.is_empty() {
                    break false;
                }
            };
            if killed {
                self.seen.kills += 1;
                waiting[..group].iter_mut().for_each(|batch| batch.doubt_ms = Some(batch.first_ms));
                at_ms = (at_ms + pick(self.rng, &[SECOND_MS, MINUTE_MS, 4 * MINUTE_MS])).min(end_ms);
            } else {
                waiting.drain(..group);
            }
        }
    }
}
