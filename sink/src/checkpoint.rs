//! How far a generation is complete: read from `emissions`, and from nothing else.

use weir_schemas::tables::quote;
use weir_schemas::{SchemaVersion, WindowStart};

use crate::SinkError;
use crate::connection::{Connection, LONG, Target};
use crate::decide::first_hole;
use crate::digest::seconds;
use crate::error::Failure;

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
    let clickhouse = Connection::to(target);
    read(&clickhouse, version, origin, from).await.map_err(|failure| failure.into_error(&target.url, run))
}

pub(crate) async fn read(
    clickhouse: &Connection,
    version: &SchemaVersion,
    origin: &str,
    from: WindowStart,
) -> Result<WindowStart, Failure> {
    let from_s = seconds(from.ms());
    // What ends before `from` cannot matter; a batch that holds `from` does.
    let covered: Vec<(u32, u32)> = clickhouse
        .rows(
            &format!(
                "SELECT DISTINCT toUnixTimestamp(window_from), toUnixTimestamp(window_to) FROM {}.emissions \
                 WHERE generation = {} AND origin = {} AND state = 'done' AND window_to > toDateTime({from_s}, 'UTC')",
                clickhouse.database,
                version.number,
                quote(origin)
            ),
            LONG,
        )
        .await?;
    Ok(version.width.window_of(i64::from(first_hole(from_s, covered)) * 1000))
}
