//! What everybody can see: the state of everything, derived from the log, the progress in it and the parts' health.
//!
//! ```text
//!  log (ends, progress, control) ──▶ observe() ──▶ Snapshot ──▶ Memory::view() ──▶ View ──┬─▶ text (weir status)
//!  spool, disk, collector, ClickHouse ──────────────▲            colour, sentence,        └─▶ serve() the page, /status.json,
//!                                                                incidents                     /api/v2/…, /metrics, …
//! ```
//!
//! Invariants
//! - a snapshot needs the log alone: it is right while pipeline and ClickHouse are down; without the log it says so, and
//!   shows the spool of this machine's collector
//! - every partition is counted from the moment it is in use, also before its first record
//! - what operators order ([`Desk`]) becomes a record of the control topic, and nothing else
//! - however many watch, the log is looked at once a second
//! - what operators have written is shown as text, and never as anything else
//! - what is computed beside the generation in use has no colour: it takes nothing from the statistics
//!
//! Start at [`observe`], then [`Memory::view`]. Not here: HTTP of the collector, SQL.

mod announce;
mod badge;
mod control;
mod conversion;
mod feed;
pub mod guard;
mod http;
mod incident;
mod light;
mod maintenance;
mod metrics;
mod missing;
mod pace;
mod page;
mod recovered;
mod snapshot;
mod statuspage;
mod strip;
mod text;
mod token;
mod verbs;
mod view;
mod words;

pub use announce::Announcement;
pub use control::{ConsoleClock, Desk, Ended, Reply};
pub use conversion::{ConversionState, ConversionStatus, ConversionTold, Done};
pub use http::{About, Health, serve};
pub use incident::{Component, Incident, Update};
pub use light::{Colour, Held, Kind, Trouble, light, troubles};
pub use maintenance::{Maintenance, MaintenanceState, maintenances};
pub use pace::{Eta, Rates};
pub use recovered::Recovery;
pub use snapshot::{
    Computing, DiskStatus, ImportState, ImportStatus, Part, PartitionStatus, PausedStatus, Replacing, RunStatus, Seen,
    Snapshot, SpoolStatus, ThrottledStatus, ask_kept, has_come, observe,
};
pub use text::{render, render_beside, size};
pub use token::{Role, Token};
pub use verbs::{Command, Verb, check_reason, clocks_differ};
pub use view::{ComponentStatus, Memory, View, Working};
pub use words::days as days_in_words;
