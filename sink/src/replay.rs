//! Windows that are computed a second time: where to, and how what came out compares with the table.

use std::collections::{BTreeMap, BTreeSet};

use weir_schemas::tables::{quote, quote_name, stats_table};
use weir_schemas::{Dimension, Measure, SchemaVersion, WindowStart};

use crate::SinkError;
use crate::checkpoint::{checkpoint, checkpoint_of};
use crate::clickhouse::{ClickHouse, beside};
use crate::connection::{Connection, LONG, QUICK, Target};
use crate::decide::united;
use crate::digest::{self, seconds};
use crate::error::{Failure, Kind};
use crate::prepare::prepare;
use crate::replace::is_misrecorded;
use crate::table::{State, Table, Windows};

/// The database beside a target's that a replay fills as a run fills its own: `<database>_replay`, with tables of the same
/// names. It says of itself what it is of, so that what was computed before is kept, if it is of the same, and else dropped.
#[derive(Debug, Clone)]
pub struct Scratch {
    target: Target,
    run: String,
    version: SchemaVersion,
}

impl Scratch {
    /// How the comment of a replay's database begins.
    pub const OURS: &str = "weir replay";

    /// That of `target`, for `run`, which is the replay's.
    pub fn of(target: &Target, run: &str, version: &SchemaVersion) -> Scratch {
        Scratch { target: target.clone(), run: run.to_owned(), version: version.clone() }
    }

    /// Where the replay's run writes to.
    pub fn target(&self) -> Target {
        Target { database: beside(&self.target.database), ..self.target.clone() }
    }

    /// Makes it, empty, unless there is one of the same `contents`, a text that begins with [`Scratch::OURS`]. A database of its
    /// name that is somebody else's is refused.
    pub async fn prepare(&self, contents: &str) -> Result<(), SinkError> {
        let fail = |failure: Failure| failure.into_error(&self.target.url, &self.run);
        let clickhouse = Connection::to(&self.target);
        let name = beside(&self.target.database);
        let found = self.comment().await?;
        if let Some(comment) = found.as_deref().filter(|comment| !comment.starts_with(Scratch::OURS)) {
            let said = format!("the database {name} is there, and is not a replay's (its comment is {comment:?})");
            return Err(fail(Failure { kind: Kind::Hopeless("give it another name"), said }));
        }
        if found.as_deref() != Some(contents) {
            self.drop().await?;
            let sql = format!("CREATE DATABASE {} ENGINE = Atomic COMMENT {}", quote_name(&name), quote(contents));
            clickhouse.execute(&sql, None, LONG).await.map_err(fail)?;
        } else {
            self.give_back().await?;
        }
        prepare(&self.target(), &self.version).await
    }

    /// Whether it has all of `windows`, computed to their end, of the same `contents`.
    pub async fn holds(&self, contents: &str, windows: Windows) -> Result<bool, SinkError> {
        let name = quote(&beside(&self.target.database));
        let sql = format!(
            "SELECT comment FROM system.databases WHERE name = {name} \
             AND (SELECT count() FROM system.tables WHERE database = {name} AND name = 'emissions') > 0"
        );
        let found: Result<Vec<String>, Failure> = Connection::to(&self.target).rows(&sql, QUICK).await;
        let found = found.map_err(|failure| failure.into_error(&self.target.url, &self.run))?;
        let through = match found == [contents] {
            true => checkpoint(&self.target(), &self.run, &self.version, "", windows.from).await?,
            false => windows.from,
        };
        Ok(through >= windows.to)
    }

    /// What a replacement has taken over has its own name again.
    pub async fn give_back(&self) -> Result<(), SinkError> {
        let given = ClickHouse::new(&self.target, &self.run, &self.version, "").give_back().await;
        given.map_err(|failure| failure.into_error(&self.target.url, &self.run))
    }

    /// What the database of its name says of itself, if there is one.
    async fn comment(&self) -> Result<Option<String>, SinkError> {
        let name = quote(&beside(&self.target.database));
        let sql = format!("SELECT comment FROM system.databases WHERE name = {name}");
        let found = Connection::to(&self.target).rows(&sql, QUICK).await.map(|mut found| found.pop());
        found.map_err(|failure| failure.into_error(&self.target.url, &self.run))
    }

    /// Drops it with all that is in it. A database of its name that is somebody else's stays.
    pub async fn drop(&self) -> Result<(), SinkError> {
        if !self.comment().await?.is_some_and(|comment| comment.starts_with(Scratch::OURS)) {
            return Ok(());
        }
        let sql = format!("DROP DATABASE IF EXISTS {} SYNC", quote_name(&beside(&self.target.database)));
        let dropped = Connection::to(&self.target).execute(&sql, None, LONG).await;
        dropped.map_err(|failure| failure.into_error(&self.target.url, &self.run))
    }

    /// Where the table is not what was replayed, of the live rows that left in `windows`.
    pub async fn compare(&self, windows: Windows) -> Result<Compared, SinkError> {
        self.look(windows).await.map_err(|failure| failure.into_error(&self.target.url, &self.run))
    }

    async fn look(&self, windows: Windows) -> Result<Compared, Failure> {
        let table = self.held(&self.target, windows).await?;
        let replay = self.held(&self.target(), windows).await?;
        let keys: BTreeSet<_> = table.keys().chain(replay.keys()).cloned().collect();
        let mut compared =
            Compared { days: replay.keys().map(|(day, _)| *day).collect::<BTreeSet<_>>().len(), ..Compared::default() };
        for key in keys {
            let of = |held: &BTreeMap<(i64, String), Held>| held.get(&key).copied().unwrap_or_default();
            let (table, replay) = (of(&table), of(&replay));
            compared.rows += replay.rows;
            if table != replay {
                let (day, site) = key;
                compared.differing.push(Differs { day, site, table, replay });
            }
        }
        // What is right and recorded as something else is found by the audit too.
        let clickhouse = ClickHouse::new(&self.target, &self.run, &self.version, "");
        let first = windows.from.ms().div_euclid(DAY_MS);
        let last = (windows.to.ms() - 1).div_euclid(DAY_MS);
        for day in first..=last {
            let differs = compared.differing.iter().any(|of| of.day == day);
            if !differs && is_misrecorded(&clickhouse, self.version.width, day).await? {
                compared.misrecorded.push(day);
            }
        }
        Ok(compared)
    }

    async fn held(&self, target: &Target, windows: Windows) -> Result<BTreeMap<(i64, String), Held>, Failure> {
        let clickhouse = Connection::to(target);
        let page_views = match self.version.measures.contains(&Measure::PageViews) {
            true => format!("sumIf({}, dimension = {})", Measure::PageViews.name(), quote(Dimension::Site.name())),
            false => "toUInt64(0)".to_owned(),
        };
        let sql = format!(
            "SELECT toUInt32(toDate(emitted_in, 'UTC')) AS day, toString(site) AS of, count(), {page_views}, sum({}) \
             FROM {}.{} WHERE origin = '' AND emitted_in >= toDateTime({}, 'UTC') AND emitted_in < toDateTime({}, 'UTC') \
             GROUP BY day, of",
            digest::whole_sql(&self.version),
            clickhouse.database,
            stats_table(&self.version),
            seconds(windows.from.ms()),
            seconds(windows.to.ms())
        );
        let held: Vec<(u32, String, u64, u64, u64)> = clickhouse.rows(&sql, LONG).await?;
        let of = |(day, site, rows, page_views, digest)| ((i64::from(day), site), Held { rows, page_views, digest });
        Ok(held.into_iter().map(of).collect())
    }
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What a table holds of a day and a site.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub rows: u64,
    pub page_views: u64,
    /// Of every column, as of [`crate::contents()`].
    pub digest: u64,
}

/// A day (UTC, days since the Unix epoch) that rows left in, and a site, that are not what was replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differs {
    pub day: i64,
    pub site: String,
    pub table: Held,
    pub replay: Held,
}

/// A table beside what was replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// Rows that were replayed, and the days that have some.
    pub rows: u64,
    pub days: usize,
    /// By day, then by site.
    pub differing: Vec<Differs>,
    /// Days that are as they were replayed, of which something else is recorded.
    pub misrecorded: Vec<i64>,
}

/// How far windows are done that are to be computed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Where live goes on: it writes nothing before.
    pub checkpoint: WindowStart,
    /// Windows that nobody has done, nor given up, ascending.
    pub undone: Vec<Windows>,
    /// Those that were given up, ascending.
    pub lost: Vec<Windows>,
}

/// What is recorded of the live `windows`; live began at `first`.
pub async fn standing(
    target: &Target,
    version: &SchemaVersion,
    first: WindowStart,
    windows: Windows,
) -> Result<Standing, SinkError> {
    let table = ClickHouse::new(target, "live", version, "");
    let looked = async {
        let checkpoint = checkpoint_of(&table, version.width, first).await?;
        let (from_s, to_s) = (seconds(windows.from.ms()), seconds(windows.to.ms()));
        let recorded = table.recorded(from_s, to_s).await?;
        let of = |states: &[State]| {
            let of = recorded.iter().filter(|of| states.contains(&of.state));
            united(of.map(|of| (of.from_s.max(from_s), of.to_s.min(to_s))).collect())
        };
        let window = |at_s: u32| version.width.window_of(i64::from(at_s) * 1000);
        let windows = |ranges: Vec<(u32, u32)>| {
            ranges.into_iter().map(|(from_s, to_s)| Windows { from: window(from_s), to: window(to_s) }).collect()
        };
        Ok(Standing {
            checkpoint,
            undone: windows(between(from_s, to_s, &of(&[State::Done, State::Lost]))),
            lost: windows(of(&[State::Lost])),
        })
    };
    looked.await.map_err(|failure: Failure| failure.into_error(&target.url, ""))
}

/// What lies between intervals that do not touch, ascending, from `from_s` to `to_s`.
fn between(from_s: u32, to_s: u32, covered: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let begins = covered.iter().map(|(begin, _)| *begin).chain([to_s]);
    let ends = [from_s].into_iter().chain(covered.iter().map(|(_, end)| *end));
    ends.zip(begins).filter(|(end, begin)| end < begin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_is_what_nothing_covers() {
        assert_eq!(between(0, 9, &[]), [(0, 9)]);
        assert_eq!(between(0, 9, &[(0, 2), (4, 9)]), [(2, 4)]);
        assert_eq!(between(0, 9, &[(1, 8)]), [(0, 1), (8, 9)]);
        assert_eq!(between(0, 9, &[(0, 9)]), []);
    }
}
