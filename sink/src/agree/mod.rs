//! Do two generations' tables agree? Each number that both must have alike is compared, without stopping anybody.
//!
//! ```text
//!  Comparable, Region ──▶ steps: days, of a large day sites ──▶ both tables, one query ──▶ judge ──▶ Agreed
//!                                       ▲                                                    │
//!                                       └───────────────── pace ◀────────────────────────────┘
//! ```
//!
//! Laws, per site, dimension and day (UTC) of `window_start`, of the rows of one origin in the region:
//! - each [`Sum`](weir_schemas::Sum), and the distinct visitors, over all values: they do not depend on how rows are cut
//! - where values agree ([`Agreement::Values`](weir_schemas::Agreement)), the same value by value; with `(other)` on either
//!   side by the sums alone, unless rows are cut alike by width, lateness, `values_max` and measures: then it is a value as any
//! - `visitor_check`, over all values and by value, where `Comparable` has it, values agree, and `(other)` does not forbid it:
//!   it adds up each row's visitors, so values that became one count a visitor once who counted twice
//! - what is in one table alone is a difference: the other holds 0
//! - a dimension that only one version has, or in which lists differ, or that was accepted, is no difference: what it differs
//!   by is told
//!
//! Nothing is sampled. Where nothing can be compared ([`Compared::sums`] is 0), nothing is proved. That a table is what its own
//! run recorded is the other half of the proof, and is not looked at here: [`Audit::full`](crate::audit::Audit::full).

mod ask;
mod judge;
mod query;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use weir_schemas::{Region, SchemaVersion};

use crate::SinkError;
use crate::connection::Target;
use crate::error::Failure;
use ask::Asked;
use judge::{Group, Law};
use query::{Rows, Step};

/// The most differences that are named; all are counted.
pub const DIFFERENCES_MAX: usize = 20;

/// Two tables, and what of them.
#[derive(Debug, Clone)]
pub struct Pair {
    pub target: Target,
    pub old: SchemaVersion,
    pub new: SchemaVersion,
    /// Whose rows: empty for live, else an import's id.
    pub origin: String,
    /// `None`: all rows of the origin, an import that is complete in both.
    pub region: Option<Region>,
    /// Dimensions that need not agree, as a version's file or the column names them: `prop:*` is every property.
    pub accepted: BTreeSet<String>,
    /// Days before this were compared already, days since the Unix epoch.
    pub from_day: Option<i64>,
}

/// How far a comparison is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows of both tables that were compared.
    pub rows: u64,
    /// Of so many; 0 until it is known.
    pub of_rows: u64,
    /// All days before this were compared, days since the Unix epoch; `None`: no day has been begun.
    pub before_day: Option<i64>,
    /// What differs so far.
    pub differing: u64,
}

/// What was compared, and what differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreed {
    pub compared: Compared,
    /// The first [`DIFFERENCES_MAX`], by day, site, dimension, and then first what is of all values.
    pub differing: Vec<Difference>,
    /// Sums, and values, that differ: a value in which two numbers differ is one.
    pub differing_count: u64,
    /// By dimension: what may differ, and does.
    pub expected: Vec<Expected>,
    /// Measures that both versions have and that differ as they may, for their lists of bots do: over all sites and days.
    pub measures: Vec<(&'static str, Sides)>,
}

impl Agreed {
    /// Why [`measures`](Agreed::measures) differ. That other hits are bots takes from one what it gives to another: where they do
    /// not come to the same together, that is not all.
    pub fn why_measures(&self) -> String {
        let sum = |of: fn(&Sides) -> u64| self.measures.iter().map(|(_, sides)| of(sides)).sum::<u64>();
        let (old, new) = (sum(|sides| sides.old), sum(|sides| sides.new));
        match old.abs_diff(new) {
            0 => "other hits are bots".to_owned(),
            apart => {
                let who = if old < new { "old" } else { "new" };
                format!("the lists of bots differ, but not by that alone: the {who} one lacks {apart} of all events")
            }
        }
    }
}

/// How much was compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    pub rows: Sides,
    /// Of both tables.
    pub sites: u64,
    pub days: u64,
    /// Of a site, dimension and day that must agree, numbers over all values.
    pub sums: u64,
    /// Values of a site, dimension and day that must agree one by one.
    pub values: u64,
    /// Sites, dimensions and days that were compared by their sums alone, since one side has `(other)`.
    pub with_other: u64,
}

/// A number in either table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sides {
    pub old: u64,
    pub new: u64,
}

/// A number that must be alike and is not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Of `window_start`, UTC; days since the Unix epoch.
    pub day: i64,
    pub site: String,
    /// As the column has it: `prop:NAME` for a property.
    pub dimension: String,
    /// `None`: over all values.
    pub value: Option<String>,
    /// `page_views` or another measure, `events`, `visitors`, `visitor_check`.
    pub what: &'static str,
    pub numbers: Sides,
}

/// A dimension in which the tables differ as they may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// As a version's file names it, or as it was accepted.
    pub dimension: String,
    pub why: Why,
    /// Sites and days in which it differs.
    pub groups: u64,
    /// Values of a site and day that differ.
    pub values: u64,
    /// All rows that it has.
    pub rows: Sides,
}

/// Why a dimension may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Only the old version has it.
    OnlyOld,
    /// Only the new one does.
    OnlyNew,
    /// Which values an event has depends on lists that differ; all values together agree.
    Values,
    /// Whether an event has a value depends on them.
    Lists,
    Accepted,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = weir_schemas::instant(self.day * steps::DAY_MS);
        let day = day.split(' ').next().unwrap_or_default();
        write!(f, "{} on {day}, {}", self.site, self.dimension)?;
        if let Some(value) = &self.value {
            write!(f, " {value:?}")?;
        }
        write!(f, ": {} {}, {}", self.what, self.numbers.old, self.numbers.new)
    }
}

/// Compares the tables of a pair. Memory, here and on the server, does not depend on how long they are.
///
/// `pace` is waited for before each query; it may take as long as it wants. To end early drop the future. Rows that are
/// written meanwhile are none of the region's; who replaces days of one of the tables must wait, or they may be named.
///
/// Errors: what ClickHouse refuses at once, what it does not answer after some tries.
pub async fn agree<F: Future<Output = ()>>(
    pair: &Pair,
    mut pace: impl FnMut(Progress) -> F,
) -> Result<Agreed, SinkError> {
    let law = Law::of(&pair.old, &pair.new, &pair.accepted);
    let rows = Rows::of(pair);
    let tables = Asked::of(&pair.target);
    let compared = async {
        let steps = steps::plan(&tables, &rows, pair.from_day, &mut pace).await?;
        let of_rows = steps.iter().map(|step| step.rows).sum();
        let left: Vec<_> = steps.iter().flat_map(|step| step.left.iter().copied()).collect();
        let mut progress = Progress { of_rows, ..Progress::default() };
        let mut tally = Tally::default();
        for days in steps {
            (progress.before_day, progress.differing) = (Some(days.days.0), tally.agreed.differing_count);
            pace(progress).await;
            for step in steps::divided(&tables, &rows, days).await? {
                pace(progress).await;
                let is_full = tally.agreed.differing.len() >= DIFFERENCES_MAX;
                tally.take(compare(&tables, &law, &rows, &step, is_full).await?);
                progress.rows += step.rows;
            }
        }
        let mut agreed = tally.agreed();
        if !law.apart.is_empty() && !left.is_empty() {
            let sql = query::measures(tables.database(), &law, &rows, &left, pair.from_day);
            let sums = tables.rows::<(u8, u64, u64)>(&sql).await?;
            let named = law.apart.iter().zip(sums).map(|(measure, (_, old, new))| (measure.name(), Sides { old, new }));
            agreed.measures = named.filter(|(_, sides)| sides.old != sides.new).collect();
        }
        Ok(agreed)
    };
    compared.await.map_err(|failure: Failure| failure.into_error(&pair.target.url, ""))
}

/// Days, sites and dimensions of which values are to be asked for, since some differ: the first ones.
type ByValue = BTreeSet<(i64, String, String)>;

/// What the steps so far came to.
#[derive(Debug, Default)]
struct Tally {
    agreed: Agreed,
    sites: BTreeSet<String>,
    days: BTreeSet<u32>,
    expected: BTreeMap<(String, Why), Expected>,
}

/// Steps come in order: after `is_full`, none of what differs is among the first.
async fn compare(tables: &Asked, law: &Law, rows: &Rows<'_>, step: &Step, is_full: bool) -> Result<Tally, Failure> {
    let sql = query::groups(tables.database(), law, rows, step);
    let take = |(tally, by_value): &mut (Tally, ByValue), group: Group| tally.judge(law, group, by_value);
    let (mut tally, by_value) = tables.folded(&sql, take).await?;
    tally.cut();
    for (day, site, dimension) in by_value {
        let key = (day, site.as_str(), dimension.as_str());
        let before = |of: &&Difference| (of.day, of.site.as_str(), of.dimension.as_str()) <= key;
        if is_full || tally.agreed.differing.iter().filter(before).count() >= DIFFERENCES_MAX {
            break;
        }
        let sql = query::values(tables.database(), law, rows, step, key);
        let values = tables.rows::<judge::Value>(&sql).await?;
        let found = values.into_iter().flat_map(|value| law.differences_of(&site, &dimension, day, value));
        tally.agreed.differing.extend(found);
        tally.cut();
    }
    Ok(tally)
}

impl Tally {
    fn judge(&mut self, law: &Law, group: Group, by_value: &mut ByValue) {
        let judged = law.judge(&group);
        let compared = &mut self.agreed.compared;
        compared.rows.old += group.rows_old;
        compared.rows.new += group.rows_new;
        compared.sums += judged.sums;
        compared.values += judged.values;
        compared.with_other += u64::from(judged.with_other);
        self.agreed.differing_count += judged.differing.len() as u64 + judged.values_differing;
        if let Some((dimension, why)) = judged.expected {
            let none = Expected { dimension: dimension.clone(), why, groups: 0, values: 0, rows: Sides::default() };
            let expected = self.expected.entry((dimension, why)).or_insert(none);
            let differs = group.old != group.new || group.values_differing > 0;
            expected.groups += u64::from(differs);
            expected.values += group.values_differing;
            expected.rows.old += group.rows_old;
            expected.rows.new += group.rows_new;
        }
        if !judged.differing.is_empty() {
            self.agreed.differing.extend(judged.differing);
            // Not each time: groups come in no order.
            if self.agreed.differing.len() > 50 * DIFFERENCES_MAX {
                self.cut();
            }
        }
        if judged.values_differing > 0 {
            by_value.insert((i64::from(group.day), group.site.clone(), group.dimension));
            if by_value.len() > DIFFERENCES_MAX {
                by_value.pop_last();
            }
        }
        self.days.insert(group.day);
        if !self.sites.contains(&group.site) {
            self.sites.insert(group.site);
        }
    }

    fn take(&mut self, step: Tally) {
        let (all, compared) = (&mut self.agreed.compared, step.agreed.compared);
        all.rows.old += compared.rows.old;
        all.rows.new += compared.rows.new;
        all.sums += compared.sums;
        all.values += compared.values;
        all.with_other += compared.with_other;
        self.agreed.differing_count += step.agreed.differing_count;
        self.agreed.differing.extend(step.agreed.differing);
        self.cut();
        self.sites.extend(step.sites);
        self.days.extend(step.days);
        for (key, of) in step.expected {
            match self.expected.entry(key) {
                std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(of)),
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    let sum = entry.get_mut();
                    sum.groups += of.groups;
                    sum.values += of.values;
                    sum.rows.old += of.rows.old;
                    sum.rows.new += of.rows.new;
                }
            }
        }
    }

    fn cut(&mut self) {
        self.agreed.differing.sort_unstable();
        self.agreed.differing.truncate(DIFFERENCES_MAX);
    }

    fn agreed(mut self) -> Agreed {
        self.agreed.compared.sites = self.sites.len() as u64;
        self.agreed.compared.days = self.days.len() as u64;
        self.agreed.expected = self.expected.into_values().filter(|of| of.groups > 0).collect();
        self.agreed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_differ_by_bots_alone_as_long_as_together_they_are_as_many() {
        let why = |page_views: (u64, u64), bot_events: (u64, u64)| {
            let sides = |(old, new)| Sides { old, new };
            let measures = vec![("page_views", sides(page_views)), ("bot_events", sides(bot_events))];
            Agreed { measures, ..Agreed::default() }.why_measures()
        };
        assert_eq!(why((10, 7), (1, 4)), "other hits are bots");
        let lacks =
            |who| format!("the lists of bots differ, but not by that alone: the {who} one lacks 2 of all events");
        assert_eq!(why((10, 7), (1, 2)), lacks("new"));
        assert_eq!(why((10, 7), (1, 6)), lacks("old"));
    }
}
