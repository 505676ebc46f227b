//! Table and view definitions, derived from a [`SchemaVersion`].
//!
//! ```text
//!  stats_v<N>   one wide table a generation          ◀─ stats ◀─ pages, sources, countries, …   (views, for everybody)
//!  emissions    what is complete: one row a batch
//!  owners       who may write for a run
//! ```
//!
//! Everything here is text: this crate opens no socket. The statements are for ClickHouse 24.8 and later.

use std::collections::BTreeMap;

use crate::{Dimension, SchemaVersion};

/// A column, with type and default as `system.columns` prints them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub data_type: &'static str,
    /// Empty, `DEFAULT` or `EPHEMERAL`.
    pub default_kind: &'static str,
    pub default: &'static str,
    codec: &'static str,
}

impl Column {
    /// As a statement that makes or changes it says it.
    pub fn definition(&self) -> String {
        // An EPHEMERAL column is written without its default: the type's own is what `system.columns` then shows.
        let default = match self.default_kind {
            "EPHEMERAL" => "EPHEMERAL".to_owned(),
            "" => String::new(),
            kind => format!("{kind} {}", self.default),
        };
        let line = format!("{} {} {default} {}", self.name, self.data_type, self.codec);
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Name of the table that holds the rows of a version.
pub fn stats_table(version: &SchemaVersion) -> String {
    format!("stats_v{}", version.number)
}

/// A column without a default.
fn column(name: &str, data_type: &'static str, codec: &'static str) -> Column {
    Column { name: name.to_owned(), data_type, default_kind: "", default: "", codec }
}

const TIMES: &str = "CODEC(DoubleDelta, ZSTD(1))";

/// The columns of a version's table, in order.
fn stats_columns(version: &SchemaVersion) -> Vec<Column> {
    let mut columns = vec![
        column("site", "LowCardinality(String)", ""),
        column("dimension", "LowCardinality(String)", ""),
        column("value", "String", "CODEC(ZSTD(1))"),
        column("window_start", "DateTime('UTC')", TIMES),
        column("emitted_in", "DateTime('UTC')", TIMES),
        column("origin", "LowCardinality(String)", ""),
    ];
    for &measure in &version.measures {
        columns.push(column(measure.name(), "UInt64", "CODEC(T64, ZSTD(1))"));
    }
    columns.push(Column {
        default_kind: "EPHEMERAL",
        default: "defaultValueOfTypeName('Array(UInt64)')",
        ..column("visitor_ids", "Array(UInt64)", "")
    });
    columns.push(Column {
        default_kind: "DEFAULT",
        default: "arrayReduce('uniqCombined64State', visitor_ids)",
        ..column("visitors", "AggregateFunction(uniqCombined64, UInt64)", "CODEC(ZSTD(1))")
    });
    // The state does not show one visitor less among 100,000; the wrapping sum of the distinct ids does.
    columns.push(Column {
        default_kind: "DEFAULT",
        default: "arraySum(visitor_ids)",
        ..column("visitor_check", "UInt64", "")
    });
    columns
}

/// Live rows by the day in which they left, so that a finished day can be replaced as a whole; imports by month, so that
/// years of old logs do not become thousands of partitions. Either way an origin can be dropped as a whole.
const PARTITION_KEY: &str =
    "(origin, if(origin = '', toDate(emitted_in, 'UTC'), toStartOfMonth(toDate(emitted_in, 'UTC'))))";

/// Keeps an analyst's ranges together: a site's dimension over time.
const SORTING_KEY: &str = "site, dimension, window_start, value, emitted_in";

/// What is acknowledged survives a power cut: the part's files and its directory are synced before the answer.
const DURABLE: &str = "fsync_after_insert = 1, fsync_part_directory = 1";

/// How a table is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    pub name: String,
    /// In order.
    pub columns: Vec<Column>,
    /// Or the engine of the same name for replicas.
    pub engine: &'static str,
    /// Empty: none.
    pub partition_key: &'static str,
    pub sorting_key: &'static str,
}

impl Definition {
    /// The table that holds the rows of a version.
    pub fn stats(version: &SchemaVersion) -> Definition {
        Definition {
            name: stats_table(version),
            columns: stats_columns(version),
            engine: "MergeTree",
            partition_key: PARTITION_KEY,
            sorting_key: SORTING_KEY,
        }
    }

    /// `emissions`: one row (`state` = `done`) for each batch that was found equal in the table, one (`left`) for windows
    /// that live has left to the gap run, one (`lost`) for windows that were given up.
    ///
    /// Read it as a set: a statement that arrived twice leaves two equal rows.
    pub fn emissions() -> Definition {
        let recorded =
            Column { default_kind: "DEFAULT", default: "now64(3)", ..column("recorded", "DateTime64(3, 'UTC')", "") };
        Definition {
            name: "emissions".to_owned(),
            columns: vec![
                column("generation", "UInt32", ""),
                column("origin", "LowCardinality(String)", ""),
                column("run", "LowCardinality(String)", ""),
                column("state", "LowCardinality(String)", ""),
                column("window_from", "DateTime('UTC')", TIMES),
                column("window_to", "DateTime('UTC')", TIMES),
                column("rows", "UInt64", ""),
                column("digest", "UInt64", ""),
                recorded,
            ],
            engine: "MergeTree",
            partition_key: "",
            sorting_key: "generation, origin, window_from, window_to",
        }
    }

    /// `owners`: each run's owners, of which the largest is the one that may write.
    ///
    /// An owner is one string, number then uuid at fixed widths, so that strings compare as the pairs do. Merges keep a
    /// run's largest only, whether numbers are equal or not, so the table stays as small as the runs are many.
    pub fn owners() -> Definition {
        Definition {
            name: "owners".to_owned(),
            columns: vec![column("run", "String", ""), column("owner", "SimpleAggregateFunction(max, String)", "")],
            engine: "AggregatingMergeTree",
            partition_key: "",
            sorting_key: "run",
        }
    }

    /// Makes the table, unless it is there.
    pub fn create(&self, database: &str) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| format!("    {}", column.definition())).collect();
        let partitions = match self.partition_key {
            "" => String::new(),
            key => format!("PARTITION BY {key}\n"),
        };
        // ClickHouse prints a key of one column as it was written, with its parentheses.
        let sorted = match self.sorting_key.contains(',') {
            true => format!("({})", self.sorting_key),
            false => self.sorting_key.to_owned(),
        };
        format!(
            "CREATE TABLE IF NOT EXISTS {}.{}\n(\n{}\n)\nENGINE = {}\n{partitions}ORDER BY {sorted}\nSETTINGS {DURABLE}",
            quote_name(database),
            quote_name(&self.name),
            columns.join(",\n"),
            self.engine,
        )
    }
}

/// A public view: its name, and how it cuts `stats`.
struct Cut {
    view: &'static str,
    dimension: &'static str,
    value: &'static str,
}

/// Every dimension has its view in every version, so that no query of an analyst ends with a version.
const CUTS: &[Cut] = &[
    cut("pages", "page", "page"),
    cut("entry_pages", "entry_page", "page"),
    cut("sources", "source", "source"),
    cut("channels", "channel", "channel"),
    cut("referrers", "referrer", "referrer"),
    cut("search_terms", "search_term", "search_term"),
    cut("countries", "country", "country"),
    cut("browsers", "browser", "browser"),
    cut("operating_systems", "os", "os"),
    cut("devices", "device", "device"),
    cut("outbound_links", "outbound", "target"),
    cut("downloads", "download", "file"),
    cut("utm_sources", "utm_source", "utm_source"),
    cut("utm_mediums", "utm_medium", "utm_medium"),
    cut("utm_campaigns", "utm_campaign", "utm_campaign"),
    cut("utm_terms", "utm_term", "utm_term"),
    cut("utm_contents", "utm_content", "utm_content"),
];

const fn cut(view: &'static str, dimension: &'static str, value: &'static str) -> Cut {
    Cut { view, dimension, value }
}

/// The view of how complete the statistics are.
const COMPLETENESS: &str = "completeness";

/// Names of all public views: what an analyst may select from, in the order in which they are made. Each is one on the table of
/// the version, and `completeness` on `emissions`: whatever two versions call a dimension or a measure, none of them depends on
/// another that shows the other version already.
pub fn public_views() -> Vec<&'static str> {
    let cuts = CUTS.iter().map(|cut| cut.view);
    [COMPLETENESS, "sites", "props"].into_iter().chain(cuts).chain(["stats"]).collect()
}

/// The statements that make, or exchange, the public views so that they show `version`; each is atomic by itself. `completeness`
/// comes first: what it bounds is bounded before anything else changes. `stats` comes last: when it shows the version, all do.
///
/// `timezones` names the sites' time zones (IANA names) for `local_day`; a site that is not in it has UTC. They become
/// part of the view: a query on a few sites needs no join.
///
/// `through_ms`: of live nothing more is said to be complete than this, ms since the Unix epoch. Before another generation is
/// shown that keeps what readers see from going back.
pub fn create_views(
    database: &str,
    version: &SchemaVersion,
    timezones: &BTreeMap<String, String>,
    through_ms: Option<i64>,
) -> Vec<String> {
    let database = quote_name(database);
    let view = |name: &str, select: String| {
        format!("CREATE OR REPLACE VIEW {database}.{name} DEFINER = CURRENT_USER SQL SECURITY DEFINER AS\n{select}")
    };
    let own = version.measures.iter().map(|measure| measure.name().to_owned());
    let also = version.names.measures().map(|(measure, other)| format!("{} AS {}", measure.name(), quote_name(other)));
    let measures: String = own.chain(also).map(|column| column + ", ").collect();
    let (table, day) = (quote_name(&stats_table(version)), local_day(timezones));
    let select = |first: &str, condition: &str| {
        format!(
            "SELECT site, {first}window_start, {day} AS local_day, {measures}visitors, emitted_in, origin\nFROM {database}.{table}{condition}"
        )
    };
    let mut views = vec![view(COMPLETENESS, until(completeness(&database, version), through_ms))];
    views.push(view("sites", select("", "\nWHERE dimension = 'site'")));
    let props = Dimension::of_prop("");
    let name = format!("substring(dimension, {}) AS name, value, ", props.len() + 1);
    views.push(view("props", select(&name, &format!("\nWHERE startsWith(dimension, '{props}')"))));
    for Cut { view: name, dimension, value } in CUTS {
        let dimension = version.names.of_name(dimension);
        views.push(view(name, select(&format!("value AS {value}, "), &format!("\nWHERE dimension = '{dimension}'"))));
    }
    views.push(view("stats", select("dimension, value, ", "")));
    views
}

/// The same, as if live's windows from `through_ms` on were not known.
fn until(completeness: String, through_ms: Option<i64>) -> String {
    let Some(through_ms) = through_ms else { return completeness };
    let at = |column: &str| {
        let bound = format!("toDateTime({}, 'UTC')", through_ms.div_euclid(1000));
        format!("if(origin = '', least({column}, {bound}), {column}) AS {column}")
    };
    format!(
        "SELECT * FROM (SELECT origin, state, {}, {}, {} FROM ({completeness})) WHERE range_from < range_to",
        at("range_from"),
        at("range_to"),
        at("complete_through")
    )
}

/// What is complete, for those who ask in SQL: one row for each uninterrupted range of an origin, `complete`, `missing` (given
/// up) or `computing` (left out, or between two that are there), and how far the origin is complete.
///
/// A `left` row tells of a range that is still to be computed only until something after it is done; then the hole does. Where
/// nothing is done before it, its beginning is kept: nothing else tells where the hole begins.
fn completeness(database: &str, version: &SchemaVersion) -> String {
    format!(
        "WITH ranges AS
(
    SELECT origin, state, if(state = 'left', window_to, window_from) AS range_from, window_to AS range_to
    FROM {database}.emissions
    WHERE generation = {generation}
    GROUP BY origin, state, range_from, range_to
    UNION ALL
    SELECT origin, 'begin' AS state, min(window_from) AS range_from, range_from AS range_to
    FROM {database}.emissions
    WHERE generation = {generation} AND emissions.state = 'left'
    GROUP BY origin
),
reached AS
(
    SELECT *,
        maxIf(range_to, state IN ('done', 'lost')) OVER (PARTITION BY origin) AS complete_through,
        countIf(state IN ('done', 'lost')) OVER (PARTITION BY origin) = 0 AS is_empty,
        minIf(range_from, state IN ('done', 'lost')) OVER (PARTITION BY origin) AS begun
    FROM ranges
),
ordered AS
(
    SELECT *,
        row_number() OVER until_it = 1 AS is_first,
        lagInFrame(state) OVER until_it AS state_before,
        max(range_to) OVER (PARTITION BY origin ORDER BY range_from, range_to ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS end_before
    FROM reached
    WHERE multiIf(state = 'left', range_to > complete_through, state = 'begin', is_empty OR range_to < begun, true)
    WINDOW until_it AS (PARTITION BY origin ORDER BY range_from, range_to ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
),
numbered AS
(
    SELECT *,
        sum(is_first OR state != state_before OR range_from > end_before)
            OVER (PARTITION BY origin ORDER BY range_from, range_to ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS island
    FROM ordered
)
SELECT origin, if(any(numbered.state) = 'done', 'complete', 'missing') AS state, min(numbered.range_from) AS range_from, max(numbered.range_to) AS range_to, any(numbered.complete_through) AS complete_through
FROM numbered
WHERE numbered.state IN ('done', 'lost')
GROUP BY origin, island
UNION ALL
SELECT origin, 'computing' AS state, end_before AS range_from, ordered.range_from AS range_to, complete_through
FROM ordered
WHERE NOT is_first AND end_before < ordered.range_from",
        generation = version.number
    )
}

fn local_day(timezones: &BTreeMap<String, String>) -> String {
    let mut zones: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (site, zone) in timezones.iter().filter(|(_, zone)| *zone != "UTC") {
        zones.entry(zone).or_default().push(quote(site));
    }
    if zones.is_empty() {
        return "toDate(window_start, 'UTC')".to_owned();
    }
    let branches: String = zones
        .iter()
        .map(|(zone, sites)| format!("site IN ({}), toDate(window_start, {}), ", sites.join(", "), quote(zone)))
        .collect();
    format!("multiIf({branches}toDate(window_start, 'UTC'))")
}

/// `text` as a string literal of ClickHouse.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        match c {
            '\'' => quoted.push_str("\\'"),
            '\\' => quoted.push_str("\\\\"),
            '\0' => quoted.push_str("\\0"),
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

/// `name` as an identifier of ClickHouse.
pub fn quote_name(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::{Measure, Names, WindowWidth};

    fn version() -> SchemaVersion {
        SchemaVersion {
            number: 7,
            width: WindowWidth::new(60_000).expect("divides a day"),
            lateness_ms: 0,
            dimensions: vec![Dimension::Site],
            measures: vec![Measure::PageViews, Measure::Downloads],
            rules: 1,
            values_max: 10,
            names: Names::default(),
        }
    }

    #[test]
    fn a_version_becomes_its_table() {
        expect![[r#"
            CREATE TABLE IF NOT EXISTS `weir`.`stats_v7`
            (
                site LowCardinality(String),
                dimension LowCardinality(String),
                value String CODEC(ZSTD(1)),
                window_start DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
                emitted_in DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
                origin LowCardinality(String),
                page_views UInt64 CODEC(T64, ZSTD(1)),
                downloads UInt64 CODEC(T64, ZSTD(1)),
                visitor_ids Array(UInt64) EPHEMERAL,
                visitors AggregateFunction(uniqCombined64, UInt64) DEFAULT arrayReduce('uniqCombined64State', visitor_ids) CODEC(ZSTD(1)),
                visitor_check UInt64 DEFAULT arraySum(visitor_ids)
            )
            ENGINE = MergeTree
            PARTITION BY (origin, if(origin = '', toDate(emitted_in, 'UTC'), toStartOfMonth(toDate(emitted_in, 'UTC'))))
            ORDER BY (site, dimension, window_start, value, emitted_in)
            SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"#]]
        .assert_eq(&Definition::stats(&version()).create("weir"));
    }

    #[test]
    fn the_record_and_the_owners_have_tables_too() {
        expect![[r#"
            CREATE TABLE IF NOT EXISTS `weir`.`emissions`
            (
                generation UInt32,
                origin LowCardinality(String),
                run LowCardinality(String),
                state LowCardinality(String),
                window_from DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
                window_to DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
                rows UInt64,
                digest UInt64,
                recorded DateTime64(3, 'UTC') DEFAULT now64(3)
            )
            ENGINE = MergeTree
            ORDER BY (generation, origin, window_from, window_to)
            SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"#]]
        .assert_eq(&Definition::emissions().create("weir"));
        expect![[r#"
            CREATE TABLE IF NOT EXISTS `weir`.`owners`
            (
                run String,
                owner SimpleAggregateFunction(max, String)
            )
            ENGINE = AggregatingMergeTree
            ORDER BY run
            SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"#]]
        .assert_eq(&Definition::owners().create("weir"));
    }

    #[test]
    fn a_sites_day_is_that_of_its_time_zone() {
        let zones = [("a", "Europe/Berlin"), ("b'", "UTC"), ("c", "Europe/Berlin"), ("d", "Asia/Tokyo")];
        let zones = zones.iter().map(|(site, zone)| ((*site).to_owned(), (*zone).to_owned())).collect();
        expect![[r#"
            CREATE OR REPLACE VIEW `weir`.stats DEFINER = CURRENT_USER SQL SECURITY DEFINER AS
            SELECT site, dimension, value, window_start, multiIf(site IN ('d'), toDate(window_start, 'Asia/Tokyo'), site IN ('a', 'c'), toDate(window_start, 'Europe/Berlin'), toDate(window_start, 'UTC')) AS local_day, page_views, downloads, visitors, emitted_in, origin
            FROM `weir`.`stats_v7`"#]]
        .assert_eq(create_views("weir", &version(), &zones, None).last().unwrap());
    }

    #[test]
    fn every_public_view_is_made_of_the_table_completeness_first_and_stats_last() {
        let views = create_views("weir", &version(), &BTreeMap::new(), None);
        let names = public_views();
        assert_eq!(views.len(), names.len());
        for (sql, name) in views.iter().zip(names) {
            assert!(sql.starts_with(&format!("CREATE OR REPLACE VIEW `weir`.{name} ")), "{sql}");
            let of = if name == COMPLETENESS { "FROM `weir`.emissions" } else { "FROM `weir`.`stats_v7`" };
            assert!(sql.contains(of) && !sql.contains(".stats\n"), "{sql}");
        }
        let [first, .., last] = public_views()[..] else { panic!("there are some") };
        assert_eq!((first, last), (COMPLETENESS, "stats"));
    }

    #[test]
    fn a_dimension_is_found_by_its_versions_name_and_a_measure_is_there_by_both() {
        let mut names = Names::default();
        names.call("page", "path").unwrap();
        names.call("downloads", "select").unwrap();
        let views = create_views("weir", &SchemaVersion { names, ..version() }, &BTreeMap::new(), None);
        let both = " AS local_day, page_views, downloads, downloads AS `select`, visitors, ";
        let pages = views.iter().find(|sql| sql.contains(".pages ")).unwrap();
        let stats = views.last().unwrap();
        assert!(stats.contains(both) && pages.contains(both), "{stats} {pages}");
        assert!(pages.ends_with("WHERE dimension = 'path'"), "{pages}");
    }

    #[test]
    fn quoted_text_cannot_leave_its_quotes() {
        assert_eq!(quote("a'b\\c"), r"'a\'b\\c'");
        assert_eq!(quote_name("a`b"), r"`a\`b`");
    }
}
