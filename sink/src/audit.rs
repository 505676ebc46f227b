//! Is the table what was recorded? Compares rows and digests with `emissions`, without stopping anybody.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use weir_schemas::tables::{quote, stats_table};
use weir_schemas::{Origin, SchemaVersion, WindowStart, WindowWidth, instant};

use crate::SinkError;
use crate::connection::{Connection, LONG, QUICK, Target};
use crate::digest::{self, Content};
use crate::error::Failure;
use crate::events::AuditFound;

/// Batches recorded this long before the last look are looked at again: clocks, and answers on their way.
const OVERLAP_MS: i64 = 60 * 1000;
/// How far the first look goes back.
const FIRST_LOOK_MS: i64 = 60 * 60 * 1000;

/// Something that is not as it was recorded. Windows are ms since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A batch was done, and its rows are not those in the table: missing, doubled or changed.
    Differs { origin: Origin, from_ms: i64, to_ms: i64, recorded: Content, held: Content },
    /// Rows of a window that no batch covers, before the last one that is done.
    Uncovered { origin: Origin, window_ms: i64, held: Content },
    /// Two batches were recorded over the same windows.
    Overlaps { origin: Origin, from_ms: i64, to_ms: i64 },
}

impl Finding {
    /// Whose rows they are: an import's id, or empty.
    pub fn origin(&self) -> &str {
        match self {
            Finding::Differs { origin, .. } | Finding::Uncovered { origin, .. } | Finding::Overlaps { origin, .. } => {
                origin
            }
        }
    }

    /// Says it in the log, and counts it: once it is known to be one.
    pub fn tell(&self) {
        AuditFound { finding: self }.emit();
    }

    /// The windows, `[from, to)`, ms since the Unix epoch.
    pub fn windows(&self, width: WindowWidth) -> (i64, i64) {
        match *self {
            Finding::Differs { from_ms, to_ms, .. } | Finding::Overlaps { from_ms, to_ms, .. } => (from_ms, to_ms),
            Finding::Uncovered { window_ms, .. } => (window_ms, width.next(width.window_of(window_ms)).ms()),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |origin: &str| if origin.is_empty() { "live".to_owned() } else { format!("import {origin}") };
        match self {
            Finding::Differs { origin, from_ms, to_ms, recorded, held } => write!(
                f,
                "{}: the windows from {} to {} were recorded with {} rows, the table holds {}{}",
                of(origin),
                instant(*from_ms),
                instant(*to_ms),
                recorded.rows,
                held.rows,
                if recorded.rows == held.rows { ", and other ones" } else { "" }
            ),
            Finding::Uncovered { origin, window_ms, held } => {
                let (of, at) = (of(origin), instant(*window_ms));
                write!(f, "{of}: the window of {at} has {} rows that no finished batch covers", held.rows)
            }
            Finding::Overlaps { origin, from_ms, to_ms } => {
                let (of, from, to) = (of(origin), instant(*from_ms), instant(*to_ms));
                write!(f, "{of}: the windows from {from} to {to} were recorded more than once")
            }
        }
    }
}

/// An audit of one generation; keep it, and call [`Audit::recent`] from time to time.
#[derive(Debug)]
pub struct Audit {
    target: Target,
    version: SchemaVersion,
    /// Recorded batches up to this time have been looked at, and were found right, ms since the Unix epoch.
    looked_ms: i64,
    /// Rows that no batch covered at the last look.
    uncovered: HashMap<(Origin, u32), Content>,
    /// Live windows before this, in s, are a run's that carries rows over; 0: there is none.
    seam_s: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Recent,
    Rows,
    All,
}

/// A batch of `emissions`: origin, windows `[from, to)` in s, rows, digest.
type Recorded = (Origin, u32, u32, u64, u64);

/// Windows of an origin, `[from, to)` in s.
type Ranged = (Origin, u32, u32);

impl Audit {
    pub fn new(target: &Target, version: &SchemaVersion) -> Audit {
        let (target, version) = (target.clone(), version.clone());
        Audit { target, version, looked_ms: 0, uncovered: HashMap::new(), seam_s: 0 }
    }

    /// The same of a generation into which rows that left before `seam` are carried over: rows there that no batch covers are
    /// that run's to record, or to delete, while live is far beyond them.
    pub fn with_carried(self, seam: WindowStart) -> Audit {
        Audit { seam_s: digest::seconds(seam.ms()), ..self }
    }

    /// What has been recorded since the last look; the first one goes back an hour.
    ///
    /// Rows that no batch covers may belong to one that is being written: they are found at the second look that sees the
    /// same ones. Leave a minute between looks.
    pub async fn recent(&mut self) -> Result<Vec<Finding>, SinkError> {
        self.look(Look::Recent).await
    }

    /// The whole table; reads all of it. Rows that no batch covers are found at once.
    pub async fn full(&mut self) -> Result<Vec<Finding>, SinkError> {
        self.look(Look::All).await
    }

    /// The whole table by numbers of rows alone, which reads little: what is missing or doubled is found, what is changed
    /// is not.
    pub async fn rows(&mut self) -> Result<Vec<Finding>, SinkError> {
        self.look(Look::Rows).await
    }

    async fn look(&mut self, look: Look) -> Result<Vec<Finding>, SinkError> {
        let clickhouse = Connection::to(&self.target);
        self.compare(&clickhouse, look).await.map_err(|failure| failure.into_error(&self.target.url, "audit"))
    }

    async fn compare(&mut self, clickhouse: &Connection, look: Look) -> Result<Vec<Finding>, Failure> {
        let database = &clickhouse.database;
        let done = format!("{database}.emissions WHERE generation = {} AND state = 'done'", self.version.number);
        let now_ms: i64 = clickhouse.row("SELECT toUnixTimestamp64Milli(now64(3))", QUICK).await?;
        let since_ms = if self.looked_ms == 0 { now_ms - FIRST_LOOK_MS } else { self.looked_ms - OVERLAP_MS };
        let digest = if look == Look::Rows { "toUInt64(0)".to_owned() } else { digest::sql(&self.version) };
        let (recorded, held) = if look != Look::Recent {
            // The record first: a batch that is recorded has all its rows.
            let mut recorded = read(clickhouse, &done).await?;
            if look == Look::Rows {
                recorded.iter_mut().for_each(|(.., digest)| *digest = 0);
                recorded.sort_unstable();
                recorded.dedup();
            }
            (recorded, self.held(clickhouse, "1", &digest).await?)
        } else {
            let seam_s = self.seam_s;
            // What is carried over lies far behind the rest, and is looked at by itself.
            let begins: Vec<(Origin, u32, u32)> = clickhouse
                .rows(
                    &format!(
                        "SELECT toString(origin), toUnixTimestamp(min(window_from)), if(is_carried, \
                         toUnixTimestamp(max(window_to)), {}) FROM {done} AND rows > 0 \
                         AND recorded >= fromUnixTimestamp64Milli(toInt64({since_ms})) \
                         GROUP BY origin, origin = '' AND window_from < toDateTime({seam_s}, 'UTC') AS is_carried",
                        u32::MAX
                    ),
                    LONG,
                )
                .await?;
            let rows: Vec<String> = begins
                .iter()
                .map(|(origin, from_s, to_s)| {
                    let origin = quote(origin);
                    format!("(origin = {origin} AND emitted_in >= toDateTime({from_s}, 'UTC') AND emitted_in < toDateTime({to_s}, 'UTC'))")
                })
                .collect();
            if rows.is_empty() {
                (Vec::new(), BTreeMap::new())
            } else {
                let rows = rows.join(" OR ");
                let batches = rows.replace("emitted_in", "window_from");
                let recorded = read(clickhouse, &format!("{done} AND ({batches})")).await?;
                (recorded, self.held(clickhouse, &rows, &digest).await?)
            }
        };
        // After the rows: what was left meanwhile belongs to the gap run, too.
        let (mut left, lost) =
            (self.passed_over(clickhouse, "left").await?, self.passed_over(clickhouse, "lost").await?);
        left.push((Origin::new(), 0, self.seam_s));
        let (differing, uncovered) = compare(recorded, held, &left, &lost);
        let full = look != Look::Recent;
        let mut found = Vec::new();
        for finding in differing {
            if self.still(clickhouse, &finding, &digest).await? {
                found.push(finding);
            }
        }
        for ((origin, window_s), held) in &uncovered {
            let key = (origin.clone(), *window_s);
            if full || self.uncovered.get(&key) == Some(held) {
                let (origin, window_ms) = (origin.clone(), i64::from(*window_s) * 1000);
                found.push(Finding::Uncovered { origin, window_ms, held: *held });
            }
        }
        if look != Look::Rows {
            self.uncovered = uncovered.into_iter().collect();
        }
        // What was found is found again until it was seen to: nobody may have been able to act on it this time.
        self.looked_ms = match look {
            Look::Recent | Look::All if found.is_empty() => now_ms,
            Look::Recent => since_ms + OVERLAP_MS,
            Look::Rows | Look::All => self.looked_ms,
        };
        Ok(found)
    }

    async fn passed_over(&self, clickhouse: &Connection, state: &str) -> Result<Vec<Ranged>, Failure> {
        let sql = format!(
            "SELECT DISTINCT toString(origin), toUnixTimestamp(window_from), toUnixTimestamp(window_to) \
             FROM {}.emissions WHERE generation = {} AND state = '{state}'",
            clickhouse.database, self.version.number
        );
        clickhouse.rows(&sql, LONG).await
    }

    /// What the table holds, by origin and window.
    async fn held(
        &self,
        clickhouse: &Connection,
        rows: &str,
        digest: &str,
    ) -> Result<BTreeMap<(Origin, u32), Content>, Failure> {
        let sql = format!(
            "SELECT toString(origin), toUnixTimestamp(emitted_in), count(), sum({digest}) FROM {}.{} WHERE {rows} \
             GROUP BY origin, emitted_in",
            clickhouse.database,
            stats_table(&self.version)
        );
        let held: Vec<(Origin, u32, u64, u64)> = clickhouse.rows(&sql, LONG).await?;
        Ok(held
            .into_iter()
            .map(|(origin, window_s, rows, digest)| ((origin, window_s), Content { rows, digest }))
            .collect())
    }

    /// Whether a difference is there at a second look: an undo, a restore, or what is given up, may have passed in between.
    async fn still(&self, clickhouse: &Connection, finding: &Finding, digest: &str) -> Result<bool, Failure> {
        let (origin, from_ms, to_ms, recorded) = match finding {
            Finding::Differs { origin, from_ms, to_ms, recorded, .. } => (origin, from_ms, to_ms, recorded),
            Finding::Overlaps { origin, from_ms, to_ms } => {
                let over = format!(
                    "{}.emissions WHERE generation = {} AND state = 'done' AND origin = {} \
                     AND window_to > toDateTime({}, 'UTC') AND window_from < toDateTime({}, 'UTC')",
                    clickhouse.database,
                    self.version.number,
                    quote(origin),
                    from_ms / 1000,
                    to_ms / 1000
                );
                return Ok(read(clickhouse, &over).await?.len() > 1);
            }
            Finding::Uncovered { .. } => return Ok(true),
        };
        let windows =
            |column: &str| format!("origin = {} AND {column} >= toDateTime({}, 'UTC')", quote(origin), from_ms / 1000);
        let batches: u64 = clickhouse
            .row(
                &format!(
                    "SELECT count() FROM {}.emissions WHERE generation = {} AND state = 'done' AND {} \
                     AND window_to = toDateTime({}, 'UTC') AND rows = {}",
                    clickhouse.database,
                    self.version.number,
                    windows("window_from"),
                    to_ms / 1000,
                    recorded.rows
                ),
                LONG,
            )
            .await?;
        let rows = format!("{} AND emitted_in < toDateTime({}, 'UTC')", windows("emitted_in"), to_ms / 1000);
        let held = self.held(clickhouse, &rows, digest).await?;
        Ok(batches > 0 && sum(held.into_values()) != *recorded)
    }
}

async fn read(clickhouse: &Connection, batches: &str) -> Result<Vec<Recorded>, Failure> {
    let sql = format!(
        "SELECT DISTINCT toString(origin), toUnixTimestamp(window_from), toUnixTimestamp(window_to), rows, digest FROM {batches}"
    );
    clickhouse.rows(&sql, LONG).await
}

fn sum(contents: impl Iterator<Item = Content>) -> Content {
    contents.fold(Content::default(), |mut sum, content| {
        sum += content;
        sum
    })
}

/// The batches that differ, or lie over each other, and what no batch covers. What was left and is not done (again) is the
/// gap run's to write, or that of the run that carries rows over, who may be at it, or paused; unless it was given up: then it is
/// nobody's.
fn compare(
    mut recorded: Vec<Recorded>,
    mut held: BTreeMap<(Origin, u32), Content>,
    left: &[Ranged],
    lost: &[Ranged],
) -> (Vec<Finding>, BTreeMap<(Origin, u32), Content>) {
    recorded.sort_unstable();
    let mut found = Vec::new();
    let mut through: HashMap<&str, u32> = HashMap::new();
    for (origin, _, to_s, ..) in &recorded {
        let through_s = through.entry(origin).or_default();
        *through_s = (*to_s).max(*through_s);
    }
    let mut covered: Option<(&str, u32)> = None;
    for (origin, from_s, to_s, rows, digest) in &recorded {
        let (from_ms, to_ms) = (i64::from(*from_s) * 1000, i64::from(*to_s) * 1000);
        if covered.is_some_and(|(of, through_s)| of == origin && through_s > *from_s) {
            found.push(Finding::Overlaps { origin: origin.clone(), from_ms, to_ms });
            continue;
        }
        covered = Some((origin, *to_s));
        let windows: Vec<_> =
            held.range((origin.clone(), *from_s)..(origin.clone(), *to_s)).map(|(key, _)| key.clone()).collect();
        let batch = sum(windows.iter().filter_map(|key| held.remove(key)));
        let recorded = Content { rows: *rows, digest: *digest };
        if batch != recorded {
            found.push(Finding::Differs { origin: origin.clone(), from_ms, to_ms, recorded, held: batch });
        }
    }
    // What lies after the last batch of its origin belongs to one that is being written.
    held.retain(|(origin, window_s), _| through.get(origin.as_str()).is_some_and(|through_s| window_s < through_s));
    held.retain(|(origin, window_s), _| {
        let within = |(of, from_s, to_s): &Ranged| of == origin && (from_s..to_s).contains(&window_s);
        !left.iter().any(within) || lost.iter().any(within)
    });
    (found, held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(windows: &[(&str, u32, u64)]) -> BTreeMap<(Origin, u32), Content> {
        let content = |rows| Content { rows, digest: rows * 10 };
        windows.iter().map(|(origin, at, rows)| (((*origin).to_owned(), *at), content(*rows))).collect()
    }

    fn batch(origin: &str, from_s: u32, to_s: u32, rows: u64) -> Recorded {
        (origin.to_owned(), from_s, to_s, rows, rows * 10)
    }

    #[test]
    fn a_table_that_is_as_recorded_has_no_findings() {
        let (found, uncovered) = compare(
            vec![batch("", 0, 3, 5), batch("", 3, 9, 0), batch("i", 0, 2, 1)],
            held(&[("", 0, 2), ("", 2, 3), ("i", 1, 1)]),
            &[],
            &[],
        );
        assert!(found.is_empty() && uncovered.is_empty(), "{found:?} {uncovered:?}");
    }

    #[test]
    fn rows_missing_doubled_uncovered_and_batches_over_each_other_are_found() {
        let (found, uncovered) = compare(
            vec![batch("", 0, 3, 5), batch("", 2, 4, 0), batch("i", 0, 2, 1), batch("", 8, 9, 4)],
            held(&[("", 0, 2), ("i", 1, 2), ("i", 2, 7), ("", 3, 1), ("", 7, 1), ("", 8, 4), ("", 9, 9)]),
            &[],
            &[],
        );
        let said: Vec<String> = found.iter().map(ToString::to_string).collect();
        expect_test::expect![[r#"
            [
                "live: the windows from 1970-01-01 00:00:00 UTC to 1970-01-01 00:00:03 UTC were recorded with 5 rows, the table holds 2",
                "live: the windows from 1970-01-01 00:00:02 UTC to 1970-01-01 00:00:04 UTC were recorded more than once",
                "import i: the windows from 1970-01-01 00:00:00 UTC to 1970-01-01 00:00:02 UTC were recorded with 1 rows, the table holds 2",
            ]
        "#]]
        .assert_debug_eq(&said);
        assert_eq!(uncovered, held(&[("", 3, 1), ("", 7, 1)]), "and not what comes after all that is done");
    }

    #[test]
    fn rows_of_what_was_left_and_is_not_done_are_the_gap_runs_to_record() {
        let (found, uncovered) = compare(
            vec![batch("", 0, 3, 5), batch("", 8, 9, 4)],
            held(&[("", 0, 5), ("", 3, 1), ("", 4, 2), ("", 5, 1), ("", 8, 4)]),
            &[(String::new(), 0, 5), ("i".to_owned(), 5, 6)],
            &[(String::new(), 3, 4), ("i".to_owned(), 4, 5)],
        );
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(uncovered, held(&[("", 3, 1), ("", 5, 1)]), "nobody's: what was given up, and what lies behind");
    }
}
