//! HTTP in, acknowledged events in the log out.
//!
//! ```text
//!  POST /v1/events ─┐                                                         ┌─▶ log ─▶ 202
//!  POST /api/event ─┼─▶ limits ─▶ body ─▶ Hit ─▶ check ─▶ Event ─▶ Collector ─┤    ▲ drained in order
//!  GET  /pixel.gif ─┘                             │ ▲                         └─▶ spool ─▶ 202, while the log is away
//!                                      rejected, │ │ salt of the day, country, sites
//!                                   with a reason ▼
//! ```
//!
//! Invariants
//! - an event is acknowledged after the log or the spool has it durably, never before
//! - one bad event never costs its neighbours
//! - a visitor's address never leaves this crate: what goes on is a hash under the day's salt, and a country
//! - of a URL only path, allowed parameters and campaign parameters go on
//! - memory is bounded: bodies by `bodies_bytes_max`, events by `in_flight_bytes_max`, limits by their rates
//!
//! Start at [`serve()`]; [`Collector`] alone is the way in for events that do not come by HTTP. Not here: bots, browsers
//! and sources, which the pipeline derives, so that a conversion can improve them for the past.

mod answers;
mod body;
mod check;
mod client;
mod collector;
mod config;
mod country;
mod hit;
pub mod json;
mod limits;
mod page;
mod plausible;
mod reject;
mod routes;
mod salts;
mod serve;
mod sites;
mod spool;
mod telemetry;
mod visitor;

pub use check::{Asker, Checker, PROP_NAME_BYTES_MAX};
pub use collector::{AppendError, Collector};
pub use config::{
    CollectorConfig, ConfigError, HttpConfig, IngestConfig, LimitsConfig, RateLimit, SITE_BYTES_MAX, SiteConfig,
    SpoolConfig,
};
pub use country::{Countries, CountriesError};
pub use hit::{Hit, Props, Text, Time};
pub use limits::{Admitted, Limits};
pub use page::{Page, referrer, target};
pub use reject::{Reason, Reject};
pub use salts::SaltBook;
pub use serve::{Ingest, IngestError, serve};
pub use sites::{Site, Sites, Token};
pub use spool::{Spool, SpoolError, SpoolUsage};
pub use visitor::Salt;
