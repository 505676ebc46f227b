//! Tables that somebody altered are made what they must be.

use weir_schemas::SchemaVersion;
use weir_schemas::tables::{Definition, quote_name};

use crate::SinkError;
use crate::connection::{Connection, LONG, QUICK, Target};
use crate::error::Failure;
use crate::owner::end_running;
use crate::prepare::{Found, Shape, columns_found, definitions, prepare, shape};
use crate::vault;

/// Makes what is missing, and gives the version's tables their columns as they must be: puts back, changes back, drops what
/// weir does not know. What is wrong with a key or the engine it cannot mend: [`SinkError::Altered`].
///
/// A column that was dropped comes back without its values: the audit then finds the windows that had some. An `owners` that
/// was dropped comes back empty, after everything that still runs was ended: every owner from before is refused. While a copy
/// is being brought back that is the restore's to do: [`SinkError::Stopped`].
pub async fn mend(target: &Target, version: &SchemaVersion) -> Result<(), SinkError> {
    let fail = |failure: Failure| failure.into_error(&target.url, "");
    let clickhouse = Connection::to(target);
    if shape(target, version).await? == (Shape::Closed { restoring: false }) {
        end_running(&vault::all_runs(target)).await.map_err(fail)?;
        let owners = Definition::owners().create(&target.database);
        clickhouse.execute(&owners, None, QUICK).await.map_err(fail)?;
    }
    match prepare(target, version).await {
        Err(SinkError::Altered(altered)) if altered.mends => {}
        other => return other,
    }
    for definition in definitions(version) {
        let found = columns_found(&clickhouse, &definition.name).await.map_err(fail)?;
        let table = format!("{}.{}", clickhouse.database, quote_name(&definition.name));
        for statement in statements(&table, &definition, &found) {
            clickhouse.execute(&statement, None, LONG).await.map_err(fail)?;
        }
    }
    prepare(target, version).await
}

/// What makes of the columns `found` those of the definition.
fn statements(table: &str, definition: &Definition, found: &[Found]) -> Vec<String> {
    let expected = &definition.columns;
    let unknown = found.iter().filter(|(name, ..)| expected.iter().all(|column| column.name != *name));
    let mut statements: Vec<String> =
        unknown.map(|(name, ..)| format!("ALTER TABLE {table} DROP COLUMN {}", quote_name(name))).collect();
    let mut place = "FIRST".to_owned();
    for column in expected {
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
    use weir_schemas::{Dimension, Measure, Names, WindowWidth};

    use super::*;

    fn definition() -> Definition {
        Definition::stats(&SchemaVersion {
            number: 7,
            width: WindowWidth::new(60_000).expect("divides a day"),
            lateness_ms: 0,
            dimensions: vec![Dimension::Site],
            measures: vec![Measure::PageViews, Measure::Downloads],
            rules: 1,
            values_max: 10,
            names: Names::default(),
        })
    }

    fn found(definition: Definition) -> Vec<Found> {
        let found = |column: weir_schemas::tables::Column| {
            (column.name, column.data_type.to_owned(), column.default_kind.to_owned(), column.default.to_owned())
        };
        definition.columns.into_iter().map(found).collect()
    }

    #[test]
    fn a_table_that_is_as_it_was_made_needs_nothing() {
        for definition in [definition(), Definition::emissions(), Definition::owners()] {
            assert!(statements("t", &definition, &found(definition.clone())).is_empty());
        }
    }

    #[test]
    fn columns_are_put_back_changed_back_and_taken_away() {
        let mut found = found(definition());
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
        .assert_debug_eq(&statements("t", &definition(), &found));
    }
}
