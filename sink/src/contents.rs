//! What a generation's table holds, so that two tables, on two servers, can be compared.

use weir_schemas::SchemaVersion;
use weir_schemas::tables::stats_table;

use crate::SinkError;
use crate::connection::{Connection, LONG, Target};
use crate::digest::{self, Content};

/// Windows that rows left in, `[from_ms, to_ms)` in ms since the Unix epoch; `None` is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Between {
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
}

impl Between {
    /// As a condition on the table.
    fn sql(self) -> String {
        // Windows begin at whole seconds: the first second at or after an instant says the same of them.
        let bound = |compare: &str, at_ms: Option<i64>| {
            let at_s = at_ms.map(|at_ms| (at_ms + 999).div_euclid(1000).clamp(0, i64::from(u32::MAX)));
            at_s.map(|at_s| format!("emitted_in {compare} toDateTime({at_s}, 'UTC')"))
        };
        let bounds = [bound(">=", self.from_ms), bound("<", self.to_ms)];
        let bounds: Vec<String> = bounds.into_iter().flatten().collect();
        if bounds.is_empty() { "1".to_owned() } else { bounds.join(" AND ") }
    }
}

/// The content of `version`'s table by the day (UTC, days since the Unix epoch, ascending) that rows left in; days without
/// rows are left out. Wrapping sums of them are the content of several days.
///
/// Law: equal tables have equal contents, however their rows lie in parts, and whatever was merged. Covered is every
/// column: keys, `emitted_in`, `origin`, measures, `visitor_check`, and the number that `visitors` tells. All of it is
/// computed in ClickHouse, and reads the range whole.
///
/// Errors: [`SinkError`] when ClickHouse does not answer, or has no such table.
pub async fn contents(
    target: &Target,
    version: &SchemaVersion,
    between: Between,
) -> Result<Vec<(i64, Content)>, SinkError> {
    let clickhouse = Connection::to(target);
    let sql = format!(
        "SELECT toUInt32(toDate(emitted_in, 'UTC')) AS day, count(), sum({}) FROM {}.{} WHERE {} GROUP BY day ORDER BY day",
        digest::whole_sql(version),
        clickhouse.database,
        stats_table(version),
        between.sql()
    );
    let days: Vec<(u32, u64, u64)> =
        clickhouse.rows(&sql, LONG).await.map_err(|failure| failure.into_error(&target.url, ""))?;
    Ok(days.into_iter().map(|(day, rows, digest)| (i64::from(day), Content { rows, digest })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_within_a_second_leaves_out_the_window_that_began_before_it() {
        let sql = |from_ms, to_ms| Between { from_ms, to_ms }.sql();
        assert_eq!(sql(None, None), "1");
        assert_eq!(sql(Some(5_001), None), "emitted_in >= toDateTime(6, 'UTC')");
        let both = "emitted_in >= toDateTime(0, 'UTC') AND emitted_in < toDateTime(5, 'UTC')";
        assert_eq!(sql(Some(-1_500), Some(5_000)), both);
    }
}
