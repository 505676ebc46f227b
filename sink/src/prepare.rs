//! The tables are made, or found to be what they must be.

use std::collections::BTreeMap;

use weir_schemas::SchemaVersion;
use weir_schemas::tables::{Definition, create_views, quote};

use crate::SinkError;
use crate::connection::{Connection, LONG, QUICK, Target};
use crate::error::Failure;
use crate::vault;

/// A table that is not as weir makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Altered {
    /// With its database.
    pub table: String,
    /// The first difference, in words.
    pub differs: String,
    /// Whether [`mend()`](crate::mend()) can make it so again: columns it can, engine and keys not.
    pub mends: bool,
}

impl Altered {
    /// What an operator does about it.
    pub fn way_out(&self) -> &'static str {
        match self.mends {
            true => "`weir recover` makes it so again",
            false => {
                "this cannot be changed in place: move the table away with RENAME TABLE, then `weir recover` looks again"
            }
        }
    }
}

/// Makes the database and the version's tables, unless they are there, and checks their columns, engines and keys.
///
/// Does not touch the views: a second generation is filled while the first is shown. Errors: [`SinkError::Altered`] names
/// the first difference; [`SinkError::Stopped`] while everything is closed ([`Shape::Closed`]).
pub async fn prepare(target: &Target, version: &SchemaVersion) -> Result<(), SinkError> {
    let clickhouse = Connection::to(target);
    let fail = |failure: Failure| failure.into_error(&target.url, "");
    let database = format!("CREATE DATABASE IF NOT EXISTS {} ENGINE = Atomic", clickhouse.database);
    clickhouse.execute(&database, None, LONG).await.map_err(fail)?;
    if is_closed(&tables(&clickhouse).await.map_err(fail)?) {
        return Err(SinkError::Stopped {
            url: target.url.clone(),
            said: format!("database {} has a table emissions and no table owners", target.database),
            way_out: "if a copy is being brought back, begin that again if it was cut short; else `weir recover`",
        });
    }
    // `owners` before `emissions`: who finds the second alone knows that the first is gone.
    for definition in definitions(version) {
        clickhouse.execute(&definition.create(&target.database), None, LONG).await.map_err(fail)?;
    }
    check(&clickhouse, version).await.map_err(fail)?.map_or(Ok(()), |altered| Err(SinkError::Altered(altered)))
}

/// What a version's run needs, in the order in which it is made.
pub(crate) fn definitions(version: &SchemaVersion) -> [Definition; 3] {
    [Definition::stats(version), Definition::owners(), Definition::emissions()]
}

/// Whether everything is closed: a restore is not over, or somebody has dropped `owners`, which must not be made by others.
fn is_closed(there: &[String]) -> bool {
    let has = |name: &str| there.iter().any(|is| is == name);
    has("emissions") && !has("owners")
}

/// The names of the database's tables.
async fn tables(clickhouse: &Connection) -> Result<Vec<String>, Failure> {
    let sql = format!("SELECT name FROM system.tables WHERE database = {}", quote(&clickhouse.database_name));
    clickhouse.rows(&sql, QUICK).await
}

/// Makes the public views show `version`, in the time zones of `timezones` (site → IANA name); of `through_ms` see
/// [`create_views`].
///
/// Each view is exchanged atomically. Safe to repeat, and to run beside queries.
pub async fn show(
    target: &Target,
    version: &SchemaVersion,
    timezones: &BTreeMap<String, String>,
    through_ms: Option<i64>,
) -> Result<(), SinkError> {
    let clickhouse = Connection::to(target);
    for statement in create_views(&target.database, version, timezones, through_ms) {
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
    Altered(Altered),
    /// `emissions` is there and `owners` is not, so that nobody may write: a restore is not over (`restoring`), or somebody
    /// has dropped it.
    Closed {
        restoring: bool,
    },
}

/// Looks whether the version's tables are there and as they must be. Makes nothing: `owners` is missing while a copy is
/// being restored, and must stay so.
pub async fn shape(target: &Target, version: &SchemaVersion) -> Result<Shape, SinkError> {
    let clickhouse = Connection::to(target);
    look(target, &clickhouse, version).await.map_err(|failure| failure.into_error(&target.url, ""))
}

async fn look(target: &Target, clickhouse: &Connection, version: &SchemaVersion) -> Result<Shape, Failure> {
    let there = tables(clickhouse).await?;
    if is_closed(&there) {
        return Ok(Shape::Closed { restoring: vault::is_at_work(target).await? });
    }
    let needed = definitions(version);
    if let Some(missing) = needed.iter().find(|needed| !there.contains(&needed.name)) {
        return Ok(Shape::Missing(format!("{}.{}", clickhouse.database_name, missing.name)));
    }
    Ok(check(clickhouse, version).await?.map_or(Shape::Right, Shape::Altered))
}

/// (name, type, kind of default, default) of a column, as `system.columns` prints them.
pub(crate) type Found = (String, String, String, String);

pub(crate) async fn columns_found(clickhouse: &Connection, table: &str) -> Result<Vec<Found>, Failure> {
    let sql = format!(
        "SELECT name, type, toString(default_kind), default_expression FROM system.columns \
         WHERE database = {} AND table = {} ORDER BY position",
        quote(&clickhouse.database_name),
        quote(table)
    );
    clickhouse.rows(&sql, QUICK).await
}

/// What is wrong with the version's tables.
pub(crate) async fn check(clickhouse: &Connection, version: &SchemaVersion) -> Result<Option<Altered>, Failure> {
    for definition in definitions(version) {
        let altered = |differs, mends| {
            let table = format!("{}.{}", clickhouse.database_name, definition.name);
            Ok(Some(Altered { table, differs, mends }))
        };
        // What [`mend()`](crate::mend()) cannot make so comes first: the rest would be done for nothing.
        if let Some(differs) = made_otherwise(clickhouse, &definition).await? {
            return altered(differs, false);
        }
        if let Some(differs) = columns_differ(&definition, &columns_found(clickhouse, &definition.name).await?) {
            return altered(differs, true);
        }
    }
    Ok(None)
}

/// What is wrong with the table's columns, in words.
fn columns_differ(definition: &Definition, found: &[Found]) -> Option<String> {
    for wanted in &definition.columns {
        let name = &wanted.name;
        let Some((_, data_type, kind, default)) = found.iter().find(|(is, ..)| is == name) else {
            return Some(format!("it has no column {name}"));
        };
        if data_type != wanted.data_type {
            return Some(format!("column {name} is {data_type}, not {}", wanted.data_type));
        }
        if (kind.as_str(), default.as_str()) != (wanted.default_kind, wanted.default) {
            let (wanted_kind, wanted_default) = (wanted.default_kind, wanted.default);
            return Some(format!("column {name} has the default {kind} {default}, not {wanted_kind} {wanted_default}"));
        }
    }
    let more = found.iter().find(|(name, ..)| definition.columns.iter().all(|wanted| wanted.name != *name));
    more.map(|(name, ..)| format!("it has a column {name} that weir does not know"))
}

/// What is wrong with the table's engine or keys, in words.
async fn made_otherwise(clickhouse: &Connection, definition: &Definition) -> Result<Option<String>, Failure> {
    let sql = format!(
        "SELECT engine, partition_key, sorting_key FROM system.tables WHERE database = {} AND name = {}",
        quote(&clickhouse.database_name),
        quote(&definition.name)
    );
    let (engine, partition_key, sorting_key): (String, String, String) = clickhouse.row(&sql, QUICK).await?;
    for (what, found, wanted) in [
        ("partition key", &partition_key, definition.partition_key),
        ("sorting key", &sorting_key, definition.sorting_key),
    ] {
        if squeezed(found) != squeezed(wanted) {
            return Ok(Some(format!("its {what} is {found}, not {wanted}")));
        }
    }
    // The kin for replicas, and ClickHouse Cloud's, keep the same rows; engines that fold rows do not.
    let kin = ["", "Replicated", "Shared"].map(|kin| format!("{kin}{}", definition.engine));
    Ok((!kin.contains(&engine)).then(|| format!("its engine is {engine}, not {}", definition.engine)))
}

fn squeezed(expression: &str) -> String {
    expression.chars().filter(|c| !c.is_whitespace() && *c != '`').collect()
}

/// What the public views show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    pub generation: u32,
    /// See [`create_views`].
    pub through_ms: Option<i64>,
}

/// Looks what the public views show; `None`: they show different generations, or are not there.
pub async fn shown(target: &Target) -> Result<Option<Shown>, SinkError> {
    let clickhouse = Connection::to(target);
    let sql = format!(
        "SELECT name, as_select FROM system.tables WHERE database = {} AND name IN ('stats', 'completeness') ORDER BY name",
        quote(&clickhouse.database_name)
    );
    let views: Vec<(String, String)> =
        clickhouse.rows(&sql, QUICK).await.map_err(|failure| failure.into_error(&target.url, ""))?;
    let [(_, completeness), (_, stats)] = views.as_slice() else { return Ok(None) };
    let number = |text: &str, before: &str| {
        let (_, rest) = text.split_once(before)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()
    };
    let through_ms = number(completeness, "least(complete_through, toDateTime(").map(|at_s| i64::from(at_s) * 1000);
    let generation = number(stats, "stats_v").filter(|shown| number(completeness, "generation = ") == Some(*shown));
    Ok(generation.map(|generation| Shown { generation, through_ms }))
}
