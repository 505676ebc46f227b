//! The memory that rows of closed windows may take on their way through a run, over all its workers.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Whoever puts rows on their way takes their bytes here, and whoever takes them off gives the bytes back.
///
/// Nobody waits for room: who finds none goes through a file, or comes back later.
#[derive(Debug)]
pub(crate) struct Room {
    bytes_max: usize,
    taken: AtomicUsize,
}

impl Room {
    pub(crate) fn new(bytes_max: usize) -> Room {
        Room { bytes_max, taken: AtomicUsize::new(0) }
    }

    /// Whether `bytes` more are within the bound. Workers that ask at one time may each find the same room: the bound is
    /// passed by a part of each, at most.
    pub(crate) fn has(&self, bytes: usize) -> bool {
        self.taken.load(Ordering::Relaxed) + bytes <= self.bytes_max
    }

    /// Takes bytes, whether there is room or not.
    pub(crate) fn force(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}
