//! What others may know of a run while it goes on.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

/// Shared between the workers, who write, and whoever asks.
#[derive(Debug, Default)]
pub struct Status {
    partitions: Mutex<Vec<PartitionStatus>>,
    lateness_ms: AtomicU64,
    /// Of each worker: windows open, and the bytes they take.
    open: Mutex<Vec<(usize, usize)>>,
    pub(crate) events_read: AtomicU64,
    pub(crate) events_late: AtomicU64,
    pub(crate) claims_too_old: AtomicU64,
    pub(crate) copies: AtomicU64,
    pub(crate) records_unreadable: AtomicU64,
    pub(crate) stamps_bounded: AtomicU64,
    pub(crate) runs_spilled: AtomicU64,
}

/// One partition of the run's topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStatus {
    pub partition: u32,
    /// The next offset to read.
    pub next_offset: i64,
    /// Arrival time of the newest record read, or the partition's effective time; ms since the Unix epoch.
    pub arrival_ms: Option<i64>,
    /// An import's partition has come to its end.
    pub ended: bool,
}

/// [`Status`] at one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Minimum over the partitions of (arrival − lateness), ms since the Unix epoch.
    pub watermark_ms: Option<i64>,
    /// The partition that has it.
    pub held_by: Option<u32>,
    /// Windows with events that have not closed.
    pub windows_open: u64,
    /// Memory that they take, bytes.
    pub bytes_open: u64,
    pub events_read: u64,
    /// Events that close in a later window than they count for.
    pub events_late: u64,
    /// Events whose claimed time was too old to be believed.
    pub claims_too_old: u64,
    /// Events that did not count because an equal one did.
    pub copies: u64,
    /// Records set aside: not Weir's, or damaged.
    pub records_unreadable: u64,
    /// Records whose stamp lay too far after their sending.
    pub stamps_bounded: u64,
    /// Sorted runs written to disk, because windows were larger than the memory for them.
    pub runs_spilled: u64,
    pub partitions: Vec<PartitionStatus>,
}

impl Status {
    pub(crate) fn begin(&self, lateness_ms: i64, workers: usize, partitions: Vec<PartitionStatus>) {
        *self.open.lock().expect("no holder panics") = vec![(0, 0); workers];
        self.lateness_ms.store(lateness_ms as u64, Ordering::Relaxed);
        *self.partitions.lock().expect("no holder panics") = partitions;
    }

    /// That of a run which does not read the log: where its partitions end.
    pub fn reads_nothing(&self, partitions: Vec<PartitionStatus>) {
        self.begin(0, 0, partitions);
    }

    pub(crate) fn set_partition(&self, new: PartitionStatus) {
        let mut partitions = self.partitions.lock().expect("no holder panics");
        if let Some(old) = partitions.iter_mut().find(|old| old.partition == new.partition) {
            *old = new;
        }
    }

    pub(crate) fn set_open(&self, worker: usize, open: (usize, usize)) {
        self.open.lock().expect("no holder panics")[worker] = open;
    }

    pub(crate) fn partitions(&self) -> Vec<PartitionStatus> {
        self.partitions.lock().expect("no holder panics").clone()
    }

    pub(crate) fn add(&self, counter: impl Fn(&Self) -> &AtomicU64, number: u64) {
        if number > 0 {
            counter(self).fetch_add(number, Ordering::Relaxed);
        }
    }

    /// The state now. Counters count since the process began.
    pub fn snapshot(&self) -> Snapshot {
        let partitions = self.partitions();
        let open = self.open.lock().expect("no holder panics").clone();
        let waited_for = partitions.iter().filter(|partition| !partition.ended);
        let slowest = waited_for.filter_map(|partition| Some((partition.arrival_ms?, partition.partition))).min();
        let lateness_ms = self.lateness_ms.load(Ordering::Relaxed) as i64;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            watermark_ms: slowest.map(|(arrival_ms, _)| arrival_ms - lateness_ms),
            held_by: slowest.map(|(_, partition)| partition),
            windows_open: open.iter().map(|(windows, _)| *windows as u64).max().unwrap_or(0),
            bytes_open: open.iter().map(|(_, bytes)| *bytes as u64).sum(),
            events_read: get(&self.events_read),
            events_late: get(&self.events_late),
            claims_too_old: get(&self.claims_too_old),
            copies: get(&self.copies),
            records_unreadable: get(&self.records_unreadable),
            stamps_bounded: get(&self.stamps_bounded),
            runs_spilled: get(&self.runs_spilled),
            partitions,
        }
    }
}
