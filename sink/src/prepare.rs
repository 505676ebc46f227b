//! The tables are made, or found to be what they must be.

use std::collections::BTreeMap;

use weir_schemas::SchemaVersion;
use weir_schemas::tables::{
    PARTITION_KEY, SORTING_KEY, columns, create_emissions, create_owners, create_stats, create_views, quote,
    stats_table,
};

use crate::SinkError;
use crate::connection::{Connection, LONG, QUICK, Target};
use crate::error::Failure;
use crate::mend::Found;

/// Makes the database and the version's tables, unless they are there, and checks the table's columns and keys.
///
/// Does not touch the views: a second generation is filled while the first is shown. Errors: [`SinkError::Altered`] names
/// the first difference.
pub async fn prepare(target: &Target, version: &SchemaVersion) -> Result<(), SinkError> {
    let clickhouse = Connection::to(target);
    let fail = |failure: Failure| failure.into_error(&target.url, "");
    let database = format!("CREATE DATABASE IF NOT EXISTS {} ENGINE = Atomic", clickhouse.database);
    clickhouse.execute(&database, None, LONG).await.map_err(fail)?;
    if is_closed(&clickhouse).await.map_err(fail)? {
        return Err(SinkError::Stopped {
            url: target.url.clone(),
            said: format!("database {} has a table emissions and no table owners", target.database),
            way_out: "a copy is being brought back: begin that again if it was cut short, everything is closed until then",
        });
    }
    // `owners` before `emissions`: who finds the second alone knows that a restore has dropped the first.
    let statements =
        [create_stats(&target.database, version), create_owners(&target.database), create_emissions(&target.database)];
    for statement in &statements {
        clickhouse.execute(statement, None, LONG).await.map_err(fail)?;
    }
    check(&clickhouse, version).await.map_err(fail)?.map_or(Ok(()), |differs| {
        Err(SinkError::Altered { table: format!("{}.{}", target.database, stats_table(version)), differs })
    })
}

/// Whether a restore has closed everything, and is not over: `owners` must not be made by others then.
async fn is_closed(clickhouse: &Connection) -> Result<bool, Failure> {
    let sql = format!(
        "SELECT name FROM system.tables WHERE database = {} AND name IN ('emissions', 'owners')",
        quote(&clickhouse.database_name)
    );
    let found: Vec<String> = clickhouse.rows(&sql, QUICK).await?;
    Ok(found == ["emissions"])
}

/// Makes the public views show `version`, in the time zones of `timezones` (site → IANA name).
///
/// Each view is exchanged atomically, `stats` first. Safe to repeat, and to run beside queries.
pub async fn show(
    target: &Target,
    version: &SchemaVersion,
    timezones: &BTreeMap<String, String>,
) -> Result<(), SinkError> {
    let clickhouse = Connection::to(target);
    for statement in create_views(&target.database, version, timezones) {
        clickhouse.execute(&statement, None, QUICK).await.map_err(|failure| failure.into_error(&target.url, ""))?;
    }
    Ok(())
}

/// How a run finds its tables when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    Right,
    /// The first table that is not there.
    Missing(String),
    /// What is wrong with the version's table, in words.
    Altered {
        table: String,
        differs: String,
    },
}

/// Looks whether the version's tables are there and as they must be. Makes nothing: `owners` is missing while a copy is
/// being restored, and must stay so.
pub async fn shape(target: &Target, version: &SchemaVersion) -> Result<Shape, SinkError> {
    let clickhouse = Connection::to(target);
    look(&clickhouse, version).await.map_err(|failure| failure.into_error(&target.url, ""))
}

async fn look(clickhouse: &Connection, version: &SchemaVersion) -> Result<Shape, Failure> {
    let stats = stats_table(version);
    let there: Vec<String> = clickhouse
        .rows(&format!("SELECT name FROM system.tables WHERE database = {}", quote(&clickhouse.database_name)), QUICK)
        .await?;
    let table = |name: &str| format!("{}.{name}", clickhouse.database_name);
    if let Some(missing) = [stats.as_str(), "emissions"].into_iter().find(|name| there.iter().all(|is| is != name)) {
        return Ok(Shape::Missing(table(missing)));
    }
    let differs = check(clickhouse, version).await?;
    Ok(differs.map_or(Shape::Right, |differs| Shape::Altered { table: table(&stats), differs }))
}

fn named(clickhouse: &Connection, version: &SchemaVersion) -> String {
    format!("database = {} AND table = {}", quote(&clickhouse.database_name), quote(&stats_table(version)))
}

pub(crate) async fn columns_found(clickhouse: &Connection, version: &SchemaVersion) -> Result<Vec<Found>, Failure> {
    let sql = format!(
        "SELECT name, type, toString(default_kind), default_expression FROM system.columns WHERE {} ORDER BY position",
        named(clickhouse, version)
    );
    clickhouse.rows(&sql, QUICK).await
}

/// What is wrong with the version's table, in words.
pub(crate) async fn check(clickhouse: &Connection, version: &SchemaVersion) -> Result<Option<String>, Failure> {
    let named = named(clickhouse, version);
    let found = columns_found(clickhouse, version).await?;
    let expected: Vec<Found> = columns(version)
        .into_iter()
        .map(|column| {
            (column.name, column.data_type.to_owned(), column.default_kind.to_owned(), column.default.to_owned())
        })
        .collect();
    for wanted in &expected {
        match found.iter().find(|column| column.0 == wanted.0) {
            None => return Ok(Some(format!("it has no column {}", wanted.0))),
            Some(column) if column.1 != wanted.1 => {
                return Ok(Some(format!("column {} is {}, not {}", wanted.0, column.1, wanted.1)));
            }
            Some(column) if (&column.2, &column.3) != (&wanted.2, &wanted.3) => {
                return Ok(Some(format!(
                    "column {} has the default {} {}, not {} {}",
                    wanted.0, column.2, column.3, wanted.2, wanted.3
                )));
            }
            Some(_) => {}
        }
    }
    if let Some(more) = found.iter().find(|column| expected.iter().all(|wanted| wanted.0 != column.0)) {
        return Ok(Some(format!("it has a column {} that weir does not know", more.0)));
    }
    let (engine, partition_key, sorting_key): (String, String, String) = clickhouse
        .row(
            &format!(
                "SELECT engine, partition_key, sorting_key FROM system.tables WHERE {}",
                named.replace(" table = ", " name = ")
            ),
            QUICK,
        )
        .await?;
    for (what, found, wanted) in
        [("partition key", &partition_key, PARTITION_KEY), ("sorting key", &sorting_key, SORTING_KEY)]
    {
        if squeezed(found) != squeezed(wanted) {
            return Ok(Some(format!("its {what} is {found}, not {wanted}")));
        }
    }
    // `ReplicatedMergeTree` and ClickHouse Cloud's `SharedMergeTree` keep all rows too; engines that fold rows do not.
    if !matches!(engine.as_str(), "MergeTree" | "ReplicatedMergeTree" | "SharedMergeTree") {
        return Ok(Some(format!("its engine is {engine}, not MergeTree")));
    }
    Ok(None)
}

fn squeezed(expression: &str) -> String {
    expression.chars().filter(|c| !c.is_whitespace() && *c != '`').collect()
}
