//! Closed windows in, rows in ClickHouse out, each exactly once.
//!
//! ```text
//!  Closed ──▶ pending ──▶ batch ──▶ ask the table ──▶ equal: done · other: DELETE · nothing: INSERT ──▶ again
//!                           ▲                                                                            │
//!                           └── checkpoint = first hole in `emissions` ◀── raise, end what still runs ◀──┘
//! ```
//!
//! Invariants
//! - a batch is recorded as done only after the table was asked, and holds exactly its rows
//! - no batch reaches over what is recorded
//! - every statement that writes carries its owner, and does nothing unless that is the run's largest
//! - nothing is remembered from turn to turn but the windows themselves; no answer is believed, "ok" neither
//! - a chunk is one block, so it is in the table whole or not at all
//! - behind a run there are no holes: all is done, or left to the gap run ([`Left`])
//! - while a restore is not over nobody owns a run ([`restore()`])
//! - what was done can be taken back ([`take_back()`]): then it is asked for again, and written only where it differs, or it
//!   is named as lost
//! - two generations agree in each number that both must have alike, or what differs is named ([`agree`])
//! - rows of another generation that are carried over are those of its table, each once ([`carry()`])
//! - days that a replay has computed again replace those of the table at once, and what is done stays done ([`Replacer`])
//!
//! The protocol is reasoned out in `docs/decisions/0003-exactly-once.md`, and lived through, with everything that may go
//! wrong, in `tests/simulation`. Start at [`run`]; [`table`] is what it asks of ClickHouse, [`Vault`] what a copy and a
//! restore do; [`server`] is a ClickHouse of our own. Not here: events, the log, which windows there are.

pub mod agree;
mod analyst;
pub mod audit;
mod body;
mod carry;
mod checkpoint;
mod clickhouse;
mod connection;
mod contents;
mod decide;
mod digest;
mod error;
mod events;
mod generation;
mod inbox;
mod limits;
mod mend;
mod owner;
mod pending;
mod prepare;
mod pressure;
mod replace;
mod replay;
mod restore;
mod room;
pub mod server;
pub mod table;
mod take_back;
mod vault;
mod verify;
mod writer;

pub use analyst::{analyst_faults, analyst_sql};
pub use body::body_of;
pub use carry::{Carry, carry};
pub use checkpoint::{checkpoint, checkpoint_of, gaps, gaps_of};
pub use clickhouse::{replacing_of, table_of};
pub use connection::Target;
pub use contents::{Between, contents};
pub use decide::{Deed, next_deed};
pub use digest::Content;
pub use error::SinkError;
pub use generation::drop_generation;
pub use limits::Limits;
pub use mend::mend;
pub use owner::Owner;
pub use prepare::{Altered, Shape, Shown, prepare, shape, show, shown};
pub use pressure::pressure;
pub use replace::{Replacer, end_replay};
pub use replay::{Compared, Differs, Held, Scratch, Standing, standing};
pub use restore::{Vault, copy_on, restore_on};
pub use room::{Room, first_ms, room};
pub use take_back::{Extent, take_back, take_back_on, undo, undo_on};
pub use vault::{copy, restore};
pub use verify::{Verified, recorded_days, server_ms, verify};
pub use writer::{Done, End, Left, News, RunSpec, run, run_on, run_telling};
