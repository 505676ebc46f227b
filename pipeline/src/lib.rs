//! Closed windows from a log of events.
//!
//! ```text
//!  partition 0 ─┐
//!  partition 1 ─┼─▶ arrival time ─▶ assign window ─▶ buffer ─▶ close on watermark ─▶ merge ─▶ Closed
//!  partition 2 ─┘   copies out                         ▲
//!                                min over partitions of (arrival − lateness)
//! ```
//!
//! # The law
//! What a window holds is a pure function of the log, of the partitions in use and of the schema version: any number of
//! workers, any interleaving of partitions, any memory, any restart and any starting point give the same rows, byte for
//! byte. With `A` the arrival time of a record (the largest stamp in its partition up to it, each counted as at most
//! `sent + CLOCK_BOUND_MS`, beginning at the partition's effective time), an event happened at
//! `t = min(claimed or received, A)`, or at `A` if that is over `CLAIM_AGE_MAX_MS` before it; it counts for `window(t)`;
//! it leaves with `window(t)` if `A − t ≤ lateness`, else with `window(A)`. Where older rows were carried over from another
//! generation's table ([`Seam`]), an event that left there before the seam is none of the run's, and every other leaves in its
//! first window at the earliest.
//!
//! It depends on
//! - a log that gives a partition's records in one order, for ever, and does not lose its beginning unsaid
//! - clocks of the log that step back by less than `STEP_BACK_MAX_MS` (only for noticing that retention has cut a range)
//! - rules and limits that the schema version pins
//!
//! It would be broken by judging lateness against a watermark, by looking at this machine's clock, by ordering rows by
//! interned numbers, by a reader that begins without the horizon before its first window, or by not waiting for a
//! partition that is in use and silent. `tests/simulation` plants each of these, and finds it; what the rows must be is
//! said once more, without any of this machinery, by `tests/oracle`.
//!
//! # Invariants
//! - every event that counts is in exactly one emission; copies of a batch or of an event's id within the horizon count
//!   once
//! - memory is bounded by `RunSpec::memory_bytes_max`, half for open windows and half for closed ones: what is over it goes
//!   to disk, and from there to the mergers as files, never back into memory. Only the rows of a window as they leave, after
//!   the limit of values, are held whole
//! - a record that is not Weir's is set aside, counted, and does not move the time
//!
//! Start at [`run()`]. Not here: HTTP, SQL, retries against ClickHouse, when a run is started.

mod buffer;
mod classify;
mod error;
mod group;
mod limit;
mod order;
mod pace;
mod partition;
mod room;
mod rule;
mod run;
mod runs;
mod source;
mod status;
mod ticks;
mod windows;

use std::{path::PathBuf, time::Duration};

pub use error::PipelineError;
pub use pace::{Pace, Spent};
pub use rule::{Rule, Seam};
pub use run::{Ended, run};
pub use source::whole_from;
pub use status::{PartitionStatus, Snapshot, Status};
use weir_log::PartitionInUse;
use weir_schemas::{SchemaVersion, WindowStart};

/// What a run reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// The topic of live events: stamps of the log, copies, ticks.
    Live,
    /// An import's topic: sorted by the events' own times, which are their arrival; each partition has an end.
    Import,
}

/// One run: which windows of which log, by which schema version.
#[derive(Debug, Clone)]
pub struct RunSpec {
    pub run: String,
    pub version: SchemaVersion,
    pub topic: String,
    pub kind: SourceKind,
    /// The first window to emit.
    pub from: WindowStart,
    /// Of a live topic: what was carried over from another table, and is not computed. `from` is not before it.
    pub seam: Option<Seam>,
    /// The first window not to emit; `None`: the run has no end.
    pub to: Option<WindowStart>,
    /// Of a live topic: those that the run waits for.
    pub partitions: Vec<PartitionInUse>,
    pub workers: usize,
    /// For open windows and rows that are merged, over all workers; bytes.
    pub memory_bytes_max: usize,
    /// For what does not fit; must be there.
    pub spill_dir: PathBuf,
    /// How long a partition may be silent before it gets a tick.
    pub tick_after: Duration,
    /// How much of the time it works.
    pub pace: Pace,
}
