//! One program for all that need no other weir's rest: many of them wait most of the time, and are run side by side.

#[path = "../support/awk.rs"]
mod awk;
mod backup;
mod browser;
mod carried;
#[path = "../support/chromium.rs"]
mod chromium;
mod config;
mod demo;
mod docker;
mod doctor;
mod kills;
mod migrate;
mod pause;
mod proof;
mod replay;
mod retention;
mod spool;
mod status;
#[path = "../support/mod.rs"]
mod support;
mod whole;
