//! The words everybody shares: what an event is and how it is written to the log, what a schema version says, what
//! leaves a window, and the tables it lands in.
//!
//! ```text
//!  Event ──▶ wire::BatchBuilder ──▶ log ──▶ wire::BatchView ──▶ (pipeline) ──▶ RowBlock ──▶ (sink) ──▶ tables
//!                                                 ▲                  ▲
//!                                     rules (bots, sources, …)  SchemaVersion
//! ```
//!
//! Invariants
//! - knows no other crate of Weir, opens no file and no socket, reads no clock
//! - what is decoded is what was encoded, for every event ([`wire`], a property test)
//! - a schema version is checked whole when it is read: what is in a [`SchemaVersion`] can be computed
//!
//! Start at [`Event`] and [`SchemaVersion`].

mod comparable;
pub mod control;
mod emission;
mod event;
mod fault;
mod generation;
mod hold;
mod interner;
mod limits;
mod names;
pub mod progress;
mod recovery;
mod replacement;
pub mod rules;
pub mod tables;
mod time;
mod version;
pub mod wire;

pub use comparable::{Agreement, Comparable, Region, Sum};
pub use emission::{Closed, Emission, OTHER, Origin, RowBlock, Strings};
pub use event::{Event, Kind};
pub use fault::Fault;
pub use generation::{
    Comparing, Conversion, DROP_AFTER_MS, Generations, Number, Roles, SHADOW, Show, Verdict, World, kind_of, run_of,
};
pub use hold::{BESIDE_PERMILLE, Decision, Hold, Pause, Resume, UNHINDERED_PERMILLE};
pub use interner::Interner;
pub use limits::*;
pub use names::Names;
pub use recovery::{Missing, Recoveries, Repair};
pub use replacement::{Replacement, Replacements, days_of};
pub use time::{WindowStart, WindowWidth, instant};
pub use version::{Dimension, Measure, SchemaVersion, VersionError};
