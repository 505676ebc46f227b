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
//! - what operators order ([`Desk`]) becomes a record of the control topic, and nothing else
//!
//! Start at [`observe`]. Not here: HTTP of the collector, SQL.

mod control;
pub mod guard;
mod http;
mod maintenance;
mod pace;
mod recovered;
mod snapshot;
mod text;
mod token;
mod verbs;

pub use control::{ConsoleClock, Desk, Reply};
pub use http::{Health, serve};
pub use maintenance::{Maintenance, MaintenanceState};
pub use pace::{Eta, Rates};
pub use recovered::Recovery;
pub use snapshot::{
    Computing, DiskStatus, ImportState, ImportStatus, Part, PartitionStatus, PausedStatus, RunStatus, Seen, Snapshot,
    SpoolStatus, observe,
};
pub use text::render;
pub use token::{Role, Token};
pub use verbs::{Command, Verb, clocks_differ};
