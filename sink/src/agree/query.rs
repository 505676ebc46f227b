//! The questions that are put to both tables at once.

use weir_schemas::tables::{quote, stats_table};
use weir_schemas::{Dimension, OTHER, Region, SchemaVersion};

use super::Pair;
use super::judge::Law;
use super::steps::DAY_MS;
use crate::digest::seconds;

/// What a query of the comparison may take, beside live: two threads, and memory within the half gigabyte that the smallest
/// server has. Where more keys come together they are spilled to its disk, which takes three times as long (measured).
const SETTINGS: &str = "SETTINGS max_threads = 2, max_block_size = 8192, max_memory_usage = 400000000, \
                        max_bytes_before_external_group_by = 200000000, max_bytes_before_external_sort = 100000000";

/// The rows that are compared, of either table.
#[derive(Debug)]
pub(super) struct Rows<'a> {
    pub(super) versions: [&'a SchemaVersion; 2],
    pub(super) origin: &'a str,
    pub(super) region: Option<Region>,
}

/// Some of them, of both tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// The days of `window_start`, `[from, to)`, days since the Unix epoch.
    pub(super) days: (i64, i64),
    /// Days of `emitted_in`, `[from, to)`, ascending, apart from each other: no row of the step lies outside.
    pub(super) left: Vec<(i64, i64)>,
    /// First and last; `None`: all.
    pub(super) sites: Option<(String, String)>,
    pub(super) rows: u64,
}

impl<'a> Rows<'a> {
    pub(super) fn of(pair: &'a Pair) -> Rows<'a> {
        Rows { versions: [&pair.old, &pair.new], origin: &pair.origin, region: pair.region }
    }

    /// `origin = … AND …`: what the region says of rows that left in these days.
    pub(super) fn condition(&self, left: &[(i64, i64)]) -> String {
        let mut all = vec![format!("origin = {}", quote(self.origin))];
        let left = left
            .iter()
            .map(|(from, to)| format!("emitted_in >= {} AND emitted_in < {}", time(from * DAY_MS), time(to * DAY_MS)));
        all.push(format!("({})", left.collect::<Vec<_>>().join(" OR ")));
        if let Some(Region { from, before, closed }) = self.region {
            all.push(format!("window_start >= {} AND window_start < {}", time(from.ms()), time(before.ms())));
            all.push(format!("emitted_in < {}", time(closed.ms())));
        }
        all.join(" AND ")
    }

    /// What it says of a step's.
    pub(super) fn condition_of(&self, step: &Step) -> String {
        let (from, to) = step.days;
        let mut all = self.condition(&step.left);
        all += &format!(" AND window_start >= {} AND window_start < {}", time(from * DAY_MS), time(to * DAY_MS));
        if let Some((first, last)) = &step.sites {
            all += &format!(" AND site >= {} AND site <= {}", quote(first), quote(last));
        }
        all
    }
}

fn time(ms: i64) -> String {
    format!("toDateTime({}, 'UTC')", seconds(ms))
}

/// One row for each site, dimension and day: [`super::judge::Group`].
pub(super) fn groups(database: &str, law: &Law, rows: &Rows<'_>, step: &Step) -> String {
    let united = |side: &str| {
        numbers(law, |number| match number {
            Number::Sum(at) => format!("sum(s{at}_{side})"),
            Number::Visitors => format!("uniqCombined64Merge(v_{side})"),
            Number::Check => format!("sum(c_{side})"),
        })
    };
    format!(
        "SELECT of_day AS day, toString(of_site) AS site, toString(of_dimension) AS dimension, \
         sum(r_old) AS rows_old, sum(r_new) AS rows_new, count() AS values, countIf({}) AS values_differing, \
         toUInt8(countIf(of_value = {}) > 0) AS has_other, {} AS old, {} AS new \
         FROM ({}) GROUP BY of_day, of_site, of_dimension {SETTINGS}",
        differs(law),
        quote(OTHER),
        united("old"),
        united("new"),
        keys(database, law, rows, |_| rows.condition_of(step))
    )
}

/// The first values of a day, site and dimension in which the tables differ: [`super::judge::Value`].
pub(super) fn values(
    database: &str,
    law: &Law,
    rows: &Rows<'_>,
    step: &Step,
    (day, site, dimension): (i64, &str, &str),
) -> String {
    let step = Step { days: (day, day + 1), sites: Some((site.to_owned(), site.to_owned())), ..step.clone() };
    let named = |version: &SchemaVersion| {
        format!("{} AND dimension = {}", rows.condition_of(&step), quote(version.names.of_name(dimension)))
    };
    let held = |side: &str| {
        numbers(law, |number| match number {
            Number::Sum(at) => format!("s{at}_{side}"),
            Number::Visitors => format!("finalizeAggregation(v_{side})"),
            Number::Check => format!("c_{side}"),
        })
    };
    format!(
        "SELECT of_value AS value, {} AS old, {} AS new FROM ({}) WHERE {} ORDER BY value LIMIT {} {SETTINGS}",
        held("old"),
        held("new"),
        keys(database, law, rows, named),
        differs(law),
        super::DIFFERENCES_MAX
    )
}

/// The measures that may differ, over all sites and days from `from_day` on, of rows that left in these days: which one, from 1,
/// and its sums.
pub(super) fn measures(
    database: &str,
    law: &Law,
    rows: &Rows<'_>,
    left: &[(i64, i64)],
    from_day: Option<i64>,
) -> String {
    let sums: Vec<_> = law.apart.iter().map(|measure| format!("sum({})", measure.name())).collect();
    let (sums, site) = (sums.join(", "), quote(Dimension::Site.name()));
    // Of a day that was compared before rows may have left in the same days.
    let from = from_day.map_or(String::new(), |day| format!(" AND window_start >= {}", time(day * DAY_MS)));
    let side = |is_new: usize| {
        format!(
            "(SELECT [{sums}] FROM {database}.{} WHERE dimension = {site} AND {}{from})",
            stats_table(rows.versions[is_new]),
            rows.condition(left)
        )
    };
    format!(
        "SELECT toUInt8(at), was, is FROM (SELECT {} AS olds, {} AS news) \
         ARRAY JOIN olds AS was, news AS is, arrayEnumerate(olds) AS at {SETTINGS}",
        side(0),
        side(1)
    )
}

/// The dimension by weir's own name, whatever the version calls it. What the version does not call so is another one's.
fn dimension(version: &SchemaVersion) -> String {
    let list = |names: Vec<String>| format!("[{}]", names.join(", "));
    let named = version.names.dimensions().flat_map(|(of, other)| {
        let own = of.name();
        [(quote(other), quote(own)), (quote(own), quote(&format!("{own} of stats_v{}", version.number)))]
    });
    let (there, here): (Vec<_>, Vec<_>) = named.unzip();
    match there.is_empty() {
        true => "dimension".to_owned(),
        false => format!("transform(toString(dimension), {}, {}, toString(dimension))", list(there), list(here)),
    }
}

enum Number {
    Sum(usize),
    Visitors,
    Check,
}

/// An array of what `law` compares, in the order of [`Law::numbers`].
fn numbers(law: &Law, number: impl Fn(Number) -> String) -> String {
    let mut numbers: Vec<String> = (0..law.sums.len()).map(|at| number(Number::Sum(at))).collect();
    numbers.extend(law.visitors.then(|| number(Number::Visitors)));
    numbers.extend(law.visitor_check.then(|| number(Number::Check)));
    format!("CAST([{}], 'Array(UInt64)')", numbers.join(", "))
}

/// Whether a key's numbers are not the same in both.
fn differs(law: &Law) -> String {
    let sums = (0..law.sums.len()).map(|at| format!("s{at}_old != s{at}_new"));
    let visitors = law.visitors.then(|| "finalizeAggregation(v_old) != finalizeAggregation(v_new)".to_owned());
    let check = law.visitor_check.then(|| "c_old != c_new".to_owned());
    let all: Vec<String> = sums.chain(visitors).chain(check).collect();
    if all.is_empty() { "false".to_owned() } else { all.join(" OR ") }
}

/// One row for each day, site, dimension and value, with the numbers of either table.
fn keys(database: &str, law: &Law, rows: &Rows<'_>, condition: impl Fn(&SchemaVersion) -> String) -> String {
    let side = |is_new: usize| {
        let version = rows.versions[is_new];
        let condition = condition(version);
        let mut columns = String::new();
        for (at, sum) in law.sums.iter().enumerate() {
            let measures: Vec<_> = sum.measures.iter().map(|measure| measure.name()).collect();
            columns += &format!(", {} AS s{at}", measures.join(" + "));
        }
        if law.visitors {
            columns += ", visitors AS v";
        }
        if law.visitor_check {
            columns += ", visitor_check AS c";
        }
        format!(
            "SELECT toUInt8({is_new}) AS is_new, toUInt32(toDate(window_start, 'UTC')) AS of_day, site AS of_site, \
             {} AS of_dimension, value AS of_value{columns} FROM {database}.{} WHERE {condition}",
            dimension(version),
            stats_table(version)
        )
    };
    let mut columns = String::new();
    for (name, of) in [("old", "is_new = 0"), ("new", "is_new = 1")] {
        columns += &format!(", countIf({of}) AS r_{name}");
        for at in 0..law.sums.len() {
            columns += &format!(", sumIf(s{at}, {of}) AS s{at}_{name}");
        }
        if law.visitors {
            columns += &format!(", uniqCombined64MergeStateIf(v, {of}) AS v_{name}");
        }
        if law.visitor_check {
            columns += &format!(", sumIf(c, {of}) AS c_{name}");
        }
    }
    format!(
        "SELECT of_day, of_site, of_dimension, of_value{columns} FROM ({} UNION ALL {}) \
         GROUP BY of_day, of_site, of_dimension, of_value",
        side(0),
        side(1)
    )
}
