//! Rows of another generation's table are carried over, as that counted them: of days that the log does not have any more
//! there is nothing else to make them of.
//!
//! ```text
//!  record of both tables ──▶ step() ──▶ windows of a day ──▶ ask both tables ──▶ equal: done · other: DELETE · nothing: INSERT … SELECT
//!                                  ├──▶ windows that were given up there: lost
//!                                  └──▶ not done there yet: waits
//! ```
//!
//! An owner's turns, as of [`run`](crate::run()): nothing is remembered between them, so whoever is killed anywhere, the next
//! one comes to the same rows. What a batch must be is asked of the old table each time.

use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;
use weir_schemas::tables::{quote, stats_table};
use weir_schemas::{Dimension, SchemaVersion, WindowStart};

use crate::SinkError;
use crate::clickhouse::{ClickHouse, Old};
use crate::connection::Target;
use crate::decide::{After, Deed, after, first_hole, hole_at, next_deed, united};
use crate::digest::seconds;
use crate::error::{Failure, Kind};
use crate::events::{BatchDiffered, BatchDone, Raised, Waiting, word};
use crate::owner::{self, Owner};
use crate::table::{Recorded, Running, State, Statement, Table, Windows};
use crate::writer::{Done, End, News};

/// Rows of the old table that are carried over at once, unless one window alone has more.
///
/// 5,000,000 rows × 3 µs (where they are added up, the dearer case) = 15 s: far below what a statement may take, so that one
/// that gives way to live ends too. Fewer would be dearer: a day's partition is not in the order of time, and is read once for
/// each batch.
const ROWS_MAX: u64 = 5_000_000;

/// Between tries, doubling.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether the old table has more.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A batch that was cut differs once, and with a crash in its repair twice; this often is not chance.
const DIFFERED_OFTEN: u32 = 3;
const DAY_S: u32 = 24 * 60 * 60;

/// What is carried over, between which tables.
#[derive(Debug, Clone)]
pub struct Carry {
    /// The name of the run that does it.
    pub run: String,
    pub old: SchemaVersion,
    /// Its width is a multiple of the old one's, and the old one has all of its dimensions and measures.
    pub new: SchemaVersion,
    /// Windows of the new version, `[from, to)`; the first of them holds the first one that the old table ever had. Law: what
    /// left the old table within them is carried over, and nothing else.
    pub from: WindowStart,
    pub to: WindowStart,
}

/// Carries over the live rows of `carry`, until all are in the new table and recorded there, or until `shutdown`: what is
/// under way then is ended, and done again by the next owner.
///
/// The rows are those of the old table, in the dimensions that the new version has. Where its windows are wider, the rows of
/// those that become one are added up, and their visitors united; `visitor_check` is then the sum of theirs, which counts a
/// visitor of two of them twice. Windows that were given up there are recorded as lost here, too, if they make up a whole new
/// one. What is not done there yet is waited for.
///
/// `rest` is told how long each turn has taken, and says how long to rest after it. Errors: as of [`run`](crate::run()).
pub async fn carry(
    target: &Target,
    carry: &Carry,
    rest: impl Fn(Duration) -> Duration,
    mut tell: impl FnMut(News),
    shutdown: impl Future<Output = ()>,
) -> Result<End, SinkError> {
    let mut shutdown = std::pin::pin!(shutdown.fuse());
    let mut carrier = Carrier::new(target, carry);
    loop {
        let began = Instant::now();
        let turn = tokio::select! {
            biased;
            () = &mut shutdown => {
                // A statement may take long, and nothing is lost with it. One that cannot be ended is by the next owner.
                let _ = carrier.new.kill_queries().await;
                return Ok(End::Shutdown);
            }
            turn = carrier.turn(&mut tell) => turn,
        };
        let worked = began.elapsed();
        let pause = match turn {
            Ok(Turn::Complete) => return Ok(End::Complete),
            Ok(Turn::Did) => None,
            Ok(Turn::Waits) => Some(LOOK_EVERY),
            Err((what, failure)) => Some(carrier.fail(what, failure, &mut tell).await?),
        };
        // How long it rests may change meanwhile: it is told another share, or that live is late.
        let rests = async {
            let begun = Instant::now();
            while let Some(left) =
                pause.unwrap_or_else(|| rest(worked)).checked_sub(begun.elapsed()).filter(|left| !left.is_zero())
            {
                tokio::time::sleep(left.min(LOOK_EVERY)).await;
            }
        };
        tokio::select! {
            biased;
            () = &mut shutdown => return Ok(End::Shutdown),
            () = rests => {}
        }
    }
}

/// What came of a turn.
enum Turn {
    Did,
    /// The old table does not have it yet.
    Waits,
    Complete,
}

struct Carrier<'a> {
    carry: &'a Carry,
    old: ClickHouse,
    new: ClickHouse,
    /// `None`: the next turn raises first.
    owner: Option<Owner>,
    statements: u64,
    backoff: Duration,
    /// How often the new table has held something else than the batch at hand.
    differed: u32,
    /// It was told what is waited for.
    waits: bool,
    /// Since when it is at work on the batch at hand.
    began: Instant,
}

impl Carrier<'_> {
    fn new<'a>(target: &Target, carry: &'a Carry) -> Carrier<'a> {
        Carrier {
            carry,
            old: ClickHouse::new(target, &carry.run, &carry.old, ""),
            new: ClickHouse::new(target, &carry.run, &carry.new, ""),
            owner: None,
            statements: 0,
            backoff: BACKOFF_MIN,
            differed: 0,
            waits: false,
            began: Instant::now(),
        }
    }

    async fn fail(
        &mut self,
        what: &'static str,
        failure: Failure,
        tell: &mut impl FnMut(News),
    ) -> Result<Duration, SinkError> {
        self.owner = None;
        if failure.kind == Kind::Unclear {
            Waiting { run: &self.carry.run, what, reason: &failure.said, again_in: self.backoff }.emit();
            self.say_waits(format!("clickhouse is asked again ({what}): {}", failure.said), tell);
            let pause = self.backoff;
            self.backoff = (2 * self.backoff).min(BACKOFF_MAX);
            return Ok(pause);
        }
        // A refusal by a table is easier to mend when it says what is wrong with it.
        for table in [&self.new, &self.old] {
            if let (Kind::Hopeless(_), Ok(Some(altered))) = (failure.kind, table.altered().await) {
                return Err(SinkError::Altered(altered));
            }
        }
        Err(failure.into_error(self.new.place(), &self.carry.run))
    }

    async fn turn(&mut self, tell: &mut impl FnMut(News)) -> Result<Turn, (&'static str, Failure)> {
        let failed = |what| move |failure| (what, failure);
        let owner = match self.owner {
            Some(owner) => owner,
            None => {
                let owner = owner::raise(&self.new).await.map_err(failed("raise"))?;
                owner::end_running(&self.new).await.map_err(failed("end what runs"))?;
                Raised { run: &self.carry.run }.emit();
                *self.owner.insert(owner)
            }
        };
        let Carry { new, from, to, .. } = self.carry;
        let (first_s, last_s, width_s) = (seconds(from.ms()), seconds(to.ms()), seconds(new.width.ms()));
        let recorded = self.new.recorded(first_s, last_s).await.map_err(failed("read the checkpoint"))?;
        let hole = hole_at(first_s, recorded.iter().map(|of| (of.from_s, of.to_s)).collect());
        if hole.from_s >= last_s {
            return Ok(Turn::Complete);
        }
        let end_s = hole.until_s.unwrap_or(last_s).min(last_s);
        // A batch is in one partition.
        let end_s = end_s.min((hole.from_s / DAY_S + 1) * DAY_S);
        let mut held = self.old.recorded(hole.from_s, end_s).await.map_err(failed("read the old record"))?;
        if hole.from_s == first_s {
            held.extend(before_all(first_s, width_s, &held));
        }
        let windows = |to_s: u32| {
            let at = |at_s: u32| new.width.window_of(i64::from(at_s) * 1000);
            Windows { from: at(hole.from_s), to: at(to_s) }
        };
        let (windows, wanted, deed) = match step(hole.from_s, end_s, width_s, &held) {
            Step::Wait => {
                let (number, to) = (self.carry.old.number, weir_schemas::instant(i64::from(end_s) * 1000));
                self.say_waits(format!("generation {number} does not have all windows before {to} yet"), tell);
                return Ok(Turn::Waits);
            }
            Step::Lose { to_s } => (windows(to_s), crate::Content::default(), Deed::Lose),
            Step::Carry { to_s } => {
                let rows =
                    self.old.rows_by_window(windows(to_s), width_s).await.map_err(failed("count the old rows"))?;
                let windows = windows(cut(hole.from_s, to_s, width_s, &rows));
                let wanted = self.new.ask_old(&self.of_old(windows)).await.map_err(failed("ask the old table"))?;
                (windows, wanted, Deed::Done)
            }
        };
        let held = self.new.ask(windows).await.map_err(failed("ask the table"))?;
        let deed = match next_deed(held, wanted) {
            Deed::Done => deed,
            other => other,
        };
        self.statements += 1;
        let statement = Statement { owner: &owner, deed, number: self.statements };
        let answer = match deed {
            Deed::Lose => self.new.lose(statement, windows).await,
            Deed::Done => self.new.record(statement, windows, wanted).await,
            Deed::Delete => {
                let (run, from_ms) = (&self.carry.run, windows.from.ms());
                BatchDiffered { run, from_ms, held: held.rows, wanted: wanted.rows }.emit();
                self.differed += 1;
                self.new.delete(statement, windows).await
            }
            _ => self.new.insert_old(statement, &self.of_old(windows)).await,
        };
        let next = after(deed, answer.as_ref().copied().map_err(|failure| failure.kind));
        if next != After::Keep {
            self.owner = None;
        }
        answer.map_err(failed(word(deed)))?;
        self.backoff = BACKOFF_MIN;
        if self.differed >= DIFFERED_OFTEN {
            let (from, table) = (weir_schemas::instant(windows.from.ms()), self.new.name().to_owned());
            let said = format!(
                "the windows from {from} on do not come out as they were written: {} times {table} held other rows (does \
                 somebody else write to it? system.query_log says who)",
                self.differed
            );
            self.say_waits(said, tell);
        } else if std::mem::take(&mut self.waits) {
            tell(News::GoesOn);
        }
        if matches!(deed, Deed::Done | Deed::Lose) {
            let (from, through, rows) = (windows.from, windows.to, wanted.rows);
            let (run, took) = (&self.carry.run, self.began.elapsed());
            BatchDone { run, from_ms: from.ms(), through_ms: through.ms(), rows, took }.emit();
            (self.differed, self.began) = (0, Instant::now());
            tell(News::Done(Done { from, through, rows }));
        }
        Ok(Turn::Did)
    }

    fn say_waits(&mut self, why: String, tell: &mut impl FnMut(News)) {
        self.waits = true;
        tell(News::Waits(why));
    }

    fn of_old(&self, windows: Windows) -> Old<'_> {
        Old { version: &self.carry.old, windows }
    }
}

/// Which rows of the old table, as the new one's: a SELECT of its columns, but `origin`.
pub(crate) fn rows_sql(database: &str, old: &Old<'_>, new: &SchemaVersion) -> String {
    let rows = cut_sql(database, old, new);
    let renamed = new.dimensions.iter().map(|of| (quote(old.version.names.of(*of)), quote(new.names.of(*of))));
    let (here, there): (Vec<_>, Vec<_>) = renamed.filter(|(here, there)| here != there).unzip();
    if here.is_empty() {
        return rows;
    }
    let (here, there) = (here.join(", "), there.join(", "));
    format!(
        "SELECT * REPLACE (CAST(transform(toString(dimension), [{here}], [{there}], toString(dimension)), \
         'LowCardinality(String)') AS dimension) FROM ({rows})"
    )
}

/// The same, by the old names of dimensions.
fn cut_sql(database: &str, Old { version: old, windows }: &Old<'_>, new: &SchemaVersion) -> String {
    let mut all: Vec<String> = Vec::new();
    let dimensions = || new.dimensions.iter().copied().filter(|dimension| *dimension != Dimension::Props);
    let named: Vec<String> = dimensions().map(|dimension| quote(old.names.of(dimension))).collect();
    all.extend((!named.is_empty()).then(|| format!("dimension IN ({})", named.join(", "))));
    let props = || format!("startsWith(dimension, {})", quote(&Dimension::of_prop("")));
    all.extend(new.dimensions.contains(&Dimension::Props).then(props));
    let of = format!(
        "{database}.{} WHERE origin = '' AND emitted_in >= toDateTime({}, 'UTC') AND emitted_in < toDateTime({}, 'UTC') \
         AND ({})",
        stats_table(old),
        seconds(windows.from.ms()),
        seconds(windows.to.ms()),
        all.join(" OR "),
    );
    let measures: Vec<&str> = new.measures.iter().map(|measure| measure.name()).collect();
    let listed = |of: &dyn Fn(usize, &str) -> String| -> String {
        measures.iter().enumerate().map(|(at, name)| of(at, name) + ", ").collect()
    };
    if old.width == new.width {
        let measures = listed(&|_, name| name.to_owned());
        return format!(
            "SELECT site, dimension, value, window_start, emitted_in, {measures}visitors, visitor_check FROM {of}"
        );
    }
    let width_s = seconds(new.width.ms());
    let wider = |column: &str| format!("toDateTime(intDiv(toUnixTimestamp({column}), {width_s}) * {width_s}, 'UTC')");
    // Names of their own inside: one that is a column's, too, would take its place in the condition.
    format!(
        "SELECT site, dimension, value, of_start AS window_start, of_end AS emitted_in, {}of_visitors AS visitors, \
         of_check AS visitor_check FROM (SELECT site, dimension, value, {} AS of_start, {} AS of_end, {}\
         uniqCombined64MergeState(visitors) AS of_visitors, sum(visitor_check) AS of_check FROM {of} \
         GROUP BY site, dimension, value, of_start, of_end)",
        listed(&|at, name| format!("m{at} AS {name}")),
        wider("window_start"),
        wider("emitted_in"),
        listed(&|at, name| format!("sum({name}) AS m{at}")),
    )
}

/// The part of the very first new window that lies before all that the old table ever had: there is nothing to wait for.
fn before_all(first_s: u32, width_s: u32, recorded: &[Recorded]) -> Option<Recorded> {
    let to_s = recorded.iter().map(|of| of.from_s).min()?;
    let within = first_s < to_s && to_s < first_s + width_s;
    within.then(|| Recorded { from_s: first_s, to_s, state: State::Done, content: crate::Content::default() })
}

/// What is next of the new windows from one on that nothing is recorded of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The old table has, or once had, these windows, up to here: not all of any of them was given up.
    Carry { to_s: u32 },
    /// All of these was given up there.
    Lose { to_s: u32 },
    /// The first of them is not done there.
    Wait,
}

/// By what the old table has recorded. `at_s` and `end_s` are new windows' beginnings, `width_s` apart.
fn step(at_s: u32, end_s: u32, width_s: u32, recorded: &[Recorded]) -> Step {
    let of = |states: &[State]| {
        let of = recorded.iter().filter(|of| states.contains(&of.state));
        united(of.map(|of| (of.from_s, of.to_s)).collect())
    };
    let done = of(&[State::Done]);
    let down = |at_s: u32| at_s / width_s * width_s;
    let through_s = down(first_hole(at_s, of(&[State::Done, State::Lost]))).min(end_s);
    if through_s <= at_s {
        return Step::Wait;
    }
    // Beginning of the first new window from here on that has something done.
    let some_s =
        |at_s: u32| done.iter().find(|(_, to_s)| *to_s > at_s).map_or(end_s, |(from_s, _)| down(*from_s).max(at_s));
    match some_s(at_s).min(through_s) {
        to_s if to_s > at_s => Step::Lose { to_s },
        _ => {
            let mut to_s = at_s;
            while to_s < through_s && some_s(to_s) == to_s {
                to_s += width_s;
            }
            Step::Carry { to_s }
        }
    }
}

/// Where a batch that begins at `at_s` ends, so that it has no more rows than [`ROWS_MAX`], unless in its first window.
fn cut(at_s: u32, to_s: u32, width_s: u32, rows: &[(u32, u64)]) -> u32 {
    let mut sum = 0;
    for (window_s, rows) in rows {
        sum += rows;
        if sum > ROWS_MAX && *window_s > at_s {
            return (*window_s).max(at_s + width_s);
        }
    }
    to_s
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Content;

    fn recorded(from_s: u32, to_s: u32, state: State) -> Recorded {
        Recorded { from_s, to_s, state, content: Content::default() }
    }

    #[test]
    fn what_was_given_up_as_a_whole_is_lost_what_was_in_part_is_carried_over_and_what_is_not_done_is_waited_for() {
        let (done, lost, left) = (State::Done, State::Lost, State::Left);
        let of = |at_s, all: &[(u32, u32, State)]| {
            let all: Vec<_> = all.iter().map(|(from_s, to_s, state)| recorded(*from_s, *to_s, *state)).collect();
            step(at_s, 100, 10, &all)
        };
        assert_eq!(of(0, &[]), Step::Wait);
        assert_eq!(of(0, &[(0, 9, done)]), Step::Wait);
        assert_eq!(of(0, &[(0, 9, done), (9, 100, left)]), Step::Wait, "the gap run's, and not done");
        assert_eq!(of(0, &[(0, 45, done)]), Step::Carry { to_s: 40 });
        assert_eq!(of(0, &[(0, 500, done)]), Step::Carry { to_s: 100 });
        assert_eq!(of(50, &[(0, 60, done), (60, 100, lost)]), Step::Carry { to_s: 60 });
        assert_eq!(of(60, &[(0, 60, done), (60, 100, lost)]), Step::Lose { to_s: 100 });
        assert_eq!(of(20, &[(0, 20, done), (20, 44, lost), (44, 90, done)]), Step::Lose { to_s: 40 });
        assert_eq!(of(40, &[(0, 20, done), (20, 44, lost), (44, 90, done)]), Step::Carry { to_s: 90 });
        assert_eq!(of(0, &[(0, 12, done), (12, 18, lost), (18, 90, done)]), Step::Carry { to_s: 90 }, "in part");
        assert_eq!(of(0, &[(0, 12, done), (12, 38, lost), (38, 90, done)]), Step::Carry { to_s: 20 });
        assert_eq!(of(20, &[(0, 12, done), (12, 38, lost)]), Step::Lose { to_s: 30 });
        assert_eq!(of(30, &[(0, 12, done), (12, 38, lost)]), Step::Wait);
        assert_eq!(of(20, &[(0, 100, done), (20, 50, lost)]), Step::Carry { to_s: 100 }, "done all the same");
    }

    #[test]
    fn a_first_window_that_is_older_than_the_old_table_is_not_waited_for() {
        let all = [recorded(13, 20, State::Done), recorded(20, 45, State::Done)];
        assert_eq!(step(10, 100, 10, &all), Step::Wait);
        let before = before_all(10, 10, &all);
        assert_eq!(before, Some(recorded(10, 13, State::Done)));
        assert_eq!(step(10, 100, 10, &all.into_iter().chain(before).collect::<Vec<_>>()), Step::Carry { to_s: 40 });
        assert_eq!(before_all(20, 10, &[recorded(20, 45, State::Done)]), None);
        assert_eq!(before_all(0, 10, &[recorded(13, 20, State::Done)]), None, "that is a hole");
        assert_eq!(before_all(0, 10, &[]), None);
    }

    #[test]
    fn a_batch_has_no_more_rows_than_it_may_but_in_its_first_window() {
        let half = ROWS_MAX / 2;
        assert_eq!(cut(0, 100, 10, &[]), 100);
        assert_eq!(cut(0, 100, 10, &[(0, half), (20, half)]), 100);
        assert_eq!(cut(0, 100, 10, &[(0, half), (20, half), (50, 1)]), 50);
        assert_eq!(cut(0, 100, 10, &[(0, 3 * ROWS_MAX)]), 100);
        assert_eq!(cut(0, 100, 10, &[(0, 3 * ROWS_MAX), (10, 1)]), 10);
        assert_eq!(cut(30, 100, 10, &[(50, 3 * ROWS_MAX)]), 50);
    }
}
