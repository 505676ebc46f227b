//! What everybody can see: the state of every run, derived from the log and the progress in it.
//!
//! ```text
//!  log (ends, progress, control) ──▶ observe() ──▶ Snapshot ──┬─▶ text (weir status)
//!                                                            └─▶ serve() /status.json /metrics /healthz /readyz
//! ```
//!
//! Invariants
//! - a snapshot needs the log alone: it is right while pipeline and ClickHouse are down; without the log it says so, and
//!   shows the spool of this machine's collector
//! - every partition is counted from the moment it is in use, also before its first record
//!
//! Start at [`observe`]. Not here: HTTP of the collector, SQL.

mod http;
mod snapshot;
mod text;

pub use http::{Health, serve};
pub use snapshot::{
    DiskStatus, Ended, ImportState, ImportStatus, PartitionStatus, RunStatus, Snapshot, SpoolStatus, observe,
};
pub use text::render;
