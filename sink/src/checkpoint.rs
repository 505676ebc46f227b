//! How far a generation is complete: read from `emissions`, and from nothing else.

use weir_schemas::{SchemaVersion, WindowStart, WindowWidth};

use crate::SinkError;
use crate::clickhouse::ClickHouse;
use crate::connection::Target;
use crate::decide::first_hole;
use crate::digest::seconds;
use crate::error::Failure;
use crate::table::Table;

/// Where a run goes on: the first window at or after `from` that no batch of this version and origin covers.
///
/// Errors: [`SinkError`] when ClickHouse does not answer, or has no tables yet ([`crate::prepare()`] makes them).
pub async fn checkpoint(
    target: &Target,
    run: &str,
    version: &SchemaVersion,
    origin: &str,
    from: WindowStart,
) -> Result<WindowStart, SinkError> {
    let table = ClickHouse::new(target, run, version, origin);
    checkpoint_of(&table, version.width, from).await.map_err(|failure| failure.into_error(&target.url, run))
}

/// The same of any table.
pub async fn checkpoint_of(table: &impl Table, width: WindowWidth, from: WindowStart) -> Result<WindowStart, Failure> {
    let from_s = seconds(from.ms());
    let covered = table.covered(from_s).await?;
    Ok(width.window_of(i64::from(first_hole(from_s, covered)) * 1000))
}
