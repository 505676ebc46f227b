//! A generation is taken away as a whole.

use weir_schemas::SchemaVersion;
use weir_schemas::tables::{quote_name, stats_table};

use crate::SinkError;
use crate::clickhouse::ClickHouse;
use crate::connection::{Connection, LONG, Target};
use crate::error::Failure;
use crate::owner;

/// Takes away the table of `version`, and all record of it. May be repeated, also after it was cut short.
///
/// `runs`: the names of all that write it, each with its origin. Each is raised above whoever owns it, and what it still runs
/// is ended, before anything goes: a forgotten writer that wakes afterwards is refused. Queries on the public views are not
/// touched, as long as they show another generation.
pub async fn drop_generation(
    target: &Target,
    version: &SchemaVersion,
    runs: &[(String, String)],
) -> Result<(), SinkError> {
    let fail = |failure: Failure| failure.into_error(&target.url, "");
    for (run, origin) in runs {
        let table = ClickHouse::new(target, run, version, origin);
        owner::raise(&table).await.map_err(fail)?;
        owner::end_running(&table).await.map_err(fail)?;
    }
    let clickhouse = Connection::to(target);
    let database = &clickhouse.database;
    let table = quote_name(&stats_table(version));
    for statement in [
        format!("DELETE FROM {database}.emissions WHERE generation = {}", version.number),
        format!("DROP TABLE IF EXISTS {database}.{table} SYNC"),
    ] {
        clickhouse.execute(&statement, None, LONG).await.map_err(fail)?;
    }
    Ok(())
}
