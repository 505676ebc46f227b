//! How much is held, written at once, and sent at once.

use std::time::Duration;

/// Rows of a batch, unless one window alone has more: four chunks.
const BATCH_ROWS_MAX: u64 = 2_000_000;
/// Rows of one INSERT at most, on average over a batch's chunks.
///
/// 500,000 rows × ~120 B = 60 MB in the server, read whole before the first is written, which is a second's work.
const CHUNK_ROWS_MAX: u64 = 500_000;
/// Bytes of one INSERT: rows with very many visitors are larger than most.
const CHUNK_BYTES_MAX: u64 = 64 << 20;

/// The limits of a writer. What the table holds in the end does not depend on them: the simulation draws them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of a batch, unless one window alone has more.
    pub batch_rows_max: u64,
    /// Bytes of a batch, unless one window alone has more.
    pub batch_bytes_max: u64,
    /// Windows are taken from the pipeline until this much is held: the batch that is being written and the next one.
    pub pending_bytes_max: u64,
    /// Rows of one INSERT at most, on average over a batch's chunks.
    pub chunk_rows_max: u64,
    /// Bytes of one INSERT at most, on average over a batch's chunks.
    pub chunk_bytes_max: u64,
    /// Windows without rows are recorded at most this often: a quiet log leaves 17,280 rows a day at the very most.
    pub empty_every: Duration,
}

impl Limits {
    /// What a writer may hold in `bytes` of memory: a third each for the batch that is being written, the next one, and the
    /// INSERT that is being sent. One window that is larger alone is held whole.
    pub fn of_memory(bytes: u64) -> Limits {
        let third = (bytes / 3).max(1 << 20);
        Limits {
            batch_rows_max: BATCH_ROWS_MAX,
            batch_bytes_max: third,
            pending_bytes_max: 2 * third,
            chunk_rows_max: CHUNK_ROWS_MAX,
            chunk_bytes_max: CHUNK_BYTES_MAX.min(third),
            empty_every: Duration::from_secs(5),
        }
    }
}
