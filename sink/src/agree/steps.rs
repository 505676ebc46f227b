//! The rows of both tables, cut into steps of a bounded size: days of `window_start`, of a large day ranges of sites.
//!
//! Tables are partitioned by when rows left, and compared by when they count. Which days of the one hold rows of a day of the
//! other is looked up first, from two narrow columns: so a day's query reads the partitions that it needs, and no row is missed
//! whatever its times say.

use std::collections::BTreeMap;

use weir_schemas::tables::{quote, stats_table};

use super::Progress;
use super::ask::Asked;
use super::query::{Rows, Step};
use crate::decide::united;
use crate::error::Failure;

pub(super) const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Rows of both tables in one query: about a second of one core (1.1 µs each, measured). At worst each pair of them is a key
/// of its own, of 1.4 kB with its states of visitors: 350 MB, of which the server spills what is over its bound.
const STEP_ROWS_MAX: u64 = 500_000;

/// Rows of which two narrow columns are read to find out what a day needs: a second.
const LOOK_ROWS_MAX: u64 = 100_000_000;

/// Days from `from_day` on, ascending; those of a step come together to at most [`STEP_ROWS_MAX`], or are one.
pub(super) async fn plan<F: Future<Output = ()>>(
    tables: &Asked,
    rows: &Rows<'_>,
    from_day: Option<i64>,
    pace: &mut impl FnMut(Progress) -> F,
) -> Result<Vec<Step>, Failure> {
    let mut days: BTreeMap<i64, Day> = BTreeMap::new();
    for version in rows.versions {
        let table = format!("{}.{}", tables.database(), stats_table(version));
        for partitions in looks(partitions(tables, rows, &table).await?) {
            pace(Progress::default()).await;
            let sql = format!(
                "SELECT toUInt32(toDate(emitted_in, 'UTC')) AS left, toUInt32(toDate(window_start, 'UTC')) AS day, count() \
                 FROM {table} WHERE {} GROUP BY left, day",
                rows.condition(&[partitions])
            );
            let found = tables.rows::<(u32, u32, u64)>(&sql).await?;
            for (left, day, count) in found {
                let day = days.entry(i64::from(day)).or_default();
                day.rows += count;
                day.left.push((left, left + 1));
            }
        }
    }
    Ok(packed(days.split_off(&from_day.unwrap_or(i64::MIN))))
}

/// Days of `emitted_in`, `[from, to)`.
type Days = (i64, i64);

#[derive(Debug, Default)]
struct Day {
    rows: u64,
    /// Days of `emitted_in`, in any order.
    left: Vec<(u32, u32)>,
}

/// The partitions of an origin, ascending, as days, with their rows.
async fn partitions(tables: &Asked, rows: &Rows<'_>, table: &str) -> Result<Vec<(Days, u64)>, Failure> {
    // As the table is partitioned: answered without reading a row.
    let sql = format!(
        "SELECT toUInt32(first), toUInt32(if(is_live, first + 1, addMonths(first, 1))), rows FROM (\
         SELECT origin = '' AS is_live, if(origin = '', toDate(emitted_in, 'UTC'), toStartOfMonth(toDate(emitted_in, 'UTC'))) \
         AS first, count() AS rows FROM {table} WHERE origin = {} GROUP BY is_live, first) ORDER BY first",
        quote(rows.origin)
    );
    let found = tables.rows::<(u32, u32, u64)>(&sql).await?;
    let closed = rows.region.map_or(i64::MAX, |region| region.closed.ms());
    let all = found.into_iter().map(|(from, to, rows)| ((i64::from(from), i64::from(to)), rows));
    Ok(all.filter(|((from, _), _)| from * DAY_MS < closed).collect())
}

/// Partitions that are looked at together.
fn looks(partitions: Vec<(Days, u64)>) -> Vec<Days> {
    let mut looks: Vec<(Days, u64)> = Vec::new();
    for ((from, to), rows) in partitions {
        match looks.last_mut() {
            Some((days, sum)) if *sum + rows <= LOOK_ROWS_MAX => {
                *sum += rows;
                days.1 = to;
            }
            _ => looks.push(((from, to), rows)),
        }
    }
    looks.into_iter().map(|(days, _)| days).collect()
}

fn packed(days: BTreeMap<i64, Day>) -> Vec<Step> {
    let mut steps: Vec<(Days, Day)> = Vec::new();
    for (at, day) in days {
        match steps.last_mut() {
            Some((days, sum)) if sum.rows + day.rows <= STEP_ROWS_MAX => {
                days.1 = at + 1;
                sum.rows += day.rows;
                sum.left.extend(day.left);
            }
            _ => steps.push(((at, at + 1), day)),
        }
    }
    let step = |(days, Day { rows, left }): (Days, Day)| {
        let left = united(left).into_iter().map(|(from, to)| (i64::from(from), i64::from(to))).collect();
        Step { days, left, sites: None, rows }
    };
    steps.into_iter().map(step).collect()
}

/// A day with too many rows as ranges of sites, each with at most [`STEP_ROWS_MAX`], or one site.
pub(super) async fn divided(tables: &Asked, rows: &Rows<'_>, step: Step) -> Result<Vec<Step>, Failure> {
    if step.rows <= STEP_ROWS_MAX {
        return Ok(vec![step]);
    }
    let mut sites: BTreeMap<String, u64> = BTreeMap::new();
    for version in rows.versions {
        let sql = format!(
            "SELECT toString(site) AS of, count() FROM {}.{} WHERE {} GROUP BY of",
            tables.database(),
            stats_table(version),
            rows.condition_of(&step)
        );
        for (site, count) in tables.rows::<(String, u64)>(&sql).await? {
            *sites.entry(site).or_default() += count;
        }
    }
    Ok(by_site(&step, sites, STEP_ROWS_MAX))
}

fn by_site(step: &Step, sites: BTreeMap<String, u64>, rows_max: u64) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (site, rows) in sites {
        match steps.last_mut() {
            Some(Step { sites: Some((_, last)), rows: sum, .. }) if *sum + rows <= rows_max => {
                *last = site;
                *sum += rows;
            }
            _ => steps.push(Step { sites: Some((site.clone(), site)), rows, ..step.clone() }),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(rows: u64, left: &[u32]) -> Day {
        Day { rows, left: left.iter().map(|at| (*at, at + 1)).collect() }
    }

    #[test]
    fn days_go_together_as_long_as_they_are_small_and_keep_where_their_rows_left() {
        let large = STEP_ROWS_MAX;
        let days = BTreeMap::from([
            (1, day(7, &[1, 2])),
            (3, day(9, &[9, 3])),
            (4, day(2 * large, &[4])),
            (5, day(large, &[5])),
        ]);
        let step = |days, left: &[Days], rows| Step { days, left: left.to_vec(), sites: None, rows };
        let want =
            [step((1, 4), &[(1, 4), (9, 10)], 16), step((4, 5), &[(4, 5)], 2 * large), step((5, 6), &[(5, 6)], large)];
        assert_eq!(packed(days), want);
    }

    #[test]
    fn sites_go_together_as_long_as_they_are_small() {
        let step = Step { days: (4, 5), left: vec![(4, 5)], sites: None, rows: 16 };
        let sites = [("a", 2), ("b", 2), ("c", 9), ("d", 1), ("e", 2)];
        let sites = sites.into_iter().map(|(site, rows)| (site.to_owned(), rows)).collect();
        let found: Vec<_> = by_site(&step, sites, 4).into_iter().map(|step| (step.sites.unwrap(), step.rows)).collect();
        let want = [("a", "b", 4), ("c", "c", 9), ("d", "e", 3)];
        assert_eq!(found, want.map(|(first, last, rows)| ((first.to_owned(), last.to_owned()), rows)));
    }

    #[test]
    fn partitions_are_looked_at_together_as_long_as_they_are_small() {
        let large = LOOK_ROWS_MAX;
        let partitions = vec![((1, 2), 5), ((4, 5), 5), ((5, 6), large), ((6, 7), 1)];
        assert_eq!(looks(partitions), [(1, 5), (5, 6), (6, 7)]);
    }
}
