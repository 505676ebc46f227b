//! Believable traffic: many sites, visitors that come back, referrers, countries, stragglers, bots.
//!
//! ```text
//!  Spec (seed, rate, …) ──▶ Traffic ──▶ Hit ──▶ drive ──▶ over_http: POST /v1/events ─┐
//!                          (no I/O)        (open loop)    into_log: a Collector ───────┴─▶ Summary
//! ```
//!
//! Invariants
//! - [`Traffic`] is a pure function of its [`Spec`]: the same hits in the same order
//! - the rate does not depend on how fast answers come, as long as memory for what is under way lasts
//! - every event carries an id: one that is sent again after an unclear answer counts once, and [`Summary`] holds each
//!   event exactly once, as accepted, rejected or unanswered
//!
//! Start at [`GenerateArgs`] and [`Spec`].

mod args;
mod drive;
mod hit;
mod http;
mod log;
mod summary;
mod traffic;
mod visitors;
mod world;

pub use args::GenerateArgs;
pub use hit::Hit;
pub use http::over_http;
pub use log::into_log;
pub use summary::Summary;
pub use traffic::{Spec, Traffic};
pub use world::{SITES_DEFAULT, site_name};

/// Names of the sites that are generated unless told otherwise; each is also the host of its pages.
pub fn sites() -> impl Iterator<Item = String> {
    (0..SITES_DEFAULT).map(site_name)
}
