//! Drills: weir as it is run, on real Kafka and real ClickHouse, with everything that can be killed being killed.
//!
//! ```text
//!                 ┌─────────── weir-drill ────────────┐
//!  [`load`] ──HTTP──▶ weir ingest ──▶ Kafka ──▶ weir pipeline ─▶ weir run ──▶ ClickHouse ◀── [`readers`]
//!     │                   ▲             ▲              ▲            ▲             ▲
//!  what was acknowledged  └─────────────┴── [`faults`]: SIGKILL, SIGSTOP, away, no room on the disk
//!     └──────────────▶ [`compare`] with the table, with a replay into a second ClickHouse, with the plain oracle
//! ```
//!
//! Invariants
//! - every process that is started is ended with us, however we end, and every folder goes
//! - what is drawn comes from one seed, which is printed first
//! - a wait ends when there is no progress, never because of a time that somebody thought would do
//!
//! Start at [`crash`], [`outage`], [`pause`], [`backup`], [`retention`], [`conversion`], [`maintenance_day`] and [`replay`], which
//! are `./dev drill NAME`; what they print is in `docs/drills.md`. Not here: how the product is built, or any way into it that an
//! operator does not have.

mod access_log;
pub mod backup;
mod compare;
pub mod conversion;
pub mod crash;
mod ending;
mod faults;
mod freshness;
mod load;
pub mod maintenance_day;
mod migration;
pub mod outage;
pub mod parts;
mod patience;
pub mod pause;
pub mod process;
mod readers;
pub mod replay;
pub mod report;
pub mod retention;
mod runs;
mod setting;
mod site;
mod traffic;
