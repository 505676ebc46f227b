//! A table that somebody altered gets its columns back.

use weir_schemas::SchemaVersion;
use weir_schemas::tables::{columns, quote_name, stats_table};

use crate::SinkError;
use crate::connection::{Connection, LONG, Target};
use crate::error::Failure;
use crate::prepare::{check, columns_found, prepare};

/// Makes what is missing, and gives the version's table its columns as they must be: puts back, changes back, drops what
/// weir does not know. What is wrong with a key or the engine it cannot mend: [`SinkError::Altered`].
///
/// A column that was dropped comes back without its values: the audit then finds the windows that had some.
pub async fn mend(target: &Target, version: &SchemaVersion) -> Result<(), SinkError> {
    let fail = |failure: Failure| failure.into_error(&target.url, "");
    match prepare(target, version).await {
        Err(SinkError::Altered { .. }) => {}
        other => return other,
    }
    let clickhouse = Connection::to(target);
    let found = columns_found(&clickhouse, version).await.map_err(fail)?;
    let table = format!("{}.{}", clickhouse.database, quote_name(&stats_table(version)));
    for statement in statements(&table, version, &found) {
        clickhouse.execute(&statement, None, LONG).await.map_err(fail)?;
    }
    check(&clickhouse, version).await.map_err(fail)?.map_or(Ok(()), |differs| {
        Err(SinkError::Altered { table: format!("{}.{}", target.database, stats_table(version)), differs })
    })
}

/// (name, type, kind of default, default) of a column, as `system.columns` prints them.
pub(crate) type Found = (String, String, String, String);

/// What makes of the columns `found` those of the version.
fn statements(table: &str, version: &SchemaVersion, found: &[Found]) -> Vec<String> {
    let expected = columns(version);
    let unknown = found.iter().filter(|(name, ..)| expected.iter().all(|column| column.name != *name));
    let mut statements: Vec<String> =
        unknown.map(|(name, ..)| format!("ALTER TABLE {table} DROP COLUMN {}", quote_name(name))).collect();
    let mut place = "FIRST".to_owned();
    for column in &expected {
        let is = found.iter().find(|(name, ..)| *name == column.name);
        let definition = column.definition();
        match is {
            None => statements.push(format!("ALTER TABLE {table} ADD COLUMN {definition} {place}")),
            Some((_, data_type, kind, default)) => {
                let same_default = kind == column.default_kind && default == column.default;
                // A default that is not to be there must be taken off by itself.
                if !same_default && column.default_kind.is_empty() {
                    statements
                        .push(format!("ALTER TABLE {table} MODIFY COLUMN {} REMOVE DEFAULT", quote_name(&column.name)));
                }
                if data_type != column.data_type || !same_default {
                    statements.push(format!("ALTER TABLE {table} MODIFY COLUMN {definition}"));
                }
            }
        }
        place = format!("AFTER {}", quote_name(&column.name));
    }
    statements
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weir_schemas::{Dimension, Measure, WindowWidth};

    use super::*;

    fn version() -> SchemaVersion {
        SchemaVersion {
            number: 7,
            width: WindowWidth::new(60_000).expect("divides a day"),
            lateness_ms: 0,
            dimensions: vec![Dimension::Site],
            measures: vec![Measure::PageViews, Measure::Downloads],
            rules: 1,
            values_max: 10,
        }
    }

    fn found(version: &SchemaVersion) -> Vec<Found> {
        let found = |column: weir_schemas::tables::Column| {
            (column.name, column.data_type.to_owned(), column.default_kind.to_owned(), column.default.to_owned())
        };
        columns(version).into_iter().map(found).collect()
    }

    #[test]
    fn a_table_that_is_as_it_was_made_needs_nothing() {
        assert!(statements("t", &version(), &found(&version())).is_empty());
    }

    #[test]
    fn columns_are_put_back_changed_back_and_taken_away() {
        let mut found = found(&version());
        found.retain(|(name, ..)| name != "downloads");
        for (name, data_type, kind, default) in &mut found {
            match name.as_str() {
                "value" => *data_type = "LowCardinality(String)".into(),
                "page_views" => (*kind, *default) = ("DEFAULT".into(), "1".into()),
                "visitor_check" => *default = "0".into(),
                _ => {}
            }
        }
        found.push(("note".into(), "String".into(), String::new(), String::new()));
        expect![[r#"
            [
                "ALTER TABLE t DROP COLUMN `note`",
                "ALTER TABLE t MODIFY COLUMN value String CODEC(ZSTD(1))",
                "ALTER TABLE t MODIFY COLUMN `page_views` REMOVE DEFAULT",
                "ALTER TABLE t MODIFY COLUMN page_views UInt64 CODEC(T64, ZSTD(1))",
                "ALTER TABLE t ADD COLUMN downloads UInt64 CODEC(T64, ZSTD(1)) AFTER `page_views`",
                "ALTER TABLE t MODIFY COLUMN visitor_check UInt64 DEFAULT arraySum(visitor_ids)",
            ]
        "#]]
        .assert_debug_eq(&statements("t", &version(), &found));
    }
}
