//! Whole days of the table become what a replay has computed into a table beside it, and their record with them.

use std::collections::{BTreeMap, BTreeSet};

use weir_schemas::control::REPLAY_RUN;
use weir_schemas::{SchemaVersion, WindowStart, WindowWidth};

use crate::SinkError;
use crate::clickhouse::ClickHouse;
use crate::connection::Target;
use crate::decide::Deed;
use crate::digest::{Content, seconds};
use crate::error::{Failure, Kind};
use crate::owner;
use crate::table::{Recorded, Replacing, State, Windows};
use crate::take_back::Counting;

pub(crate) const DAY_S: u32 = 24 * 60 * 60;

/// Records that one statement puts in or takes out: some 50 kB of it, and a statement may have 256 kB.
const RECORDS_MAX: usize = 1_000;

/// Who replaces days of the live rows by what a replay has put into the table beside them ([`crate::Scratch`]).
///
/// Each of the days must be finished: all its windows are done, and no run will write there. Who takes back, or gives up,
/// windows of them, or brings a copy back, ends it ([`end_replay`]), on whichever machine it is; so what was ordered before
/// must be looked at between [`Replacer::begin`] and [`Replacer::replace`].
///
/// Laws
/// - A day's rows change at once: a reader sees the old ones or the new ones.
/// - What is done stays done: a batch is recorded anew, with the same windows, before its old record goes. So no run that
///   looks behind itself finds a hole there, and none writes.
/// - A batch is recorded anew only after the table was asked, and holds just what the replay has computed of it.
/// - Cut anywhere, the rows of each day are the old or the new ones; where they are new and the record old, or both are
///   there, the two differ: an audit must not be believed before once more has done the rest.
pub struct Replacer<T> {
    table: T,
    width: WindowWidth,
    owner: Counting,
}

impl<T: Replacing> Replacer<T> {
    /// Ends who was it before, and is it from then on.
    pub async fn begin(table: T, width: WindowWidth) -> Result<Replacer<T>, SinkError> {
        let begun = async {
            let owner = owner::raise(&table).await?;
            table.take_over(&owner).await?;
            owner::end_running(&table).await?;
            Ok(owner)
        };
        let owner = Counting::new(begun.await.map_err(|failure| error(failure, &table))?);
        Ok(Replacer { table, width, owner })
    }

    /// Replaces `days` (UTC, days since the Unix epoch). May be repeated by another one, also after it was cut short.
    pub async fn replace(mut self, days: &[i64]) -> Result<(), SinkError> {
        let replaced = replace(&self.table, self.width, &mut self.owner, days).await;
        replaced.map_err(|failure| error(failure, &self.table))
    }
}

fn error(failure: Failure, table: &impl Replacing) -> SinkError {
    failure.into_error(table.place(), REPLAY_RUN)
}

/// Ends what a replay does to the table, on whichever machine: what it sends afterwards does nothing, since its owner is not
/// the largest any more, and the table that it takes days from has another name. What it computes beside goes on.
pub async fn end_replay(target: &Target, version: &SchemaVersion) -> Result<(), SinkError> {
    let replay = ClickHouse::new(target, REPLAY_RUN, version, "");
    let ended = async {
        owner::raise(&replay).await?;
        replay.give_back().await?;
        owner::end_running(&replay).await
    };
    ended.await.map_err(|failure| error(failure, &replay))
}

async fn replace(
    table: &impl Replacing,
    width: WindowWidth,
    owner: &mut Counting,
    days: &[i64],
) -> Result<(), Failure> {
    let mut wanted = Days { width, days: days.iter().copied().collect(), rows: BTreeMap::new() };
    let mut replayed = Vec::new();
    for &day in days {
        let windows = day_windows(width, day);
        let rows = table.replayed(owner.owner(), windows).await?;
        wanted.rows.extend(rows.clone());
        replayed.push((windows, rows));
    }
    // What cannot be recorded anew is refused before anything is changed.
    let (mut old, mut new) = (BTreeSet::new(), BTreeSet::new());
    for &day in days {
        for of in done(table, day_windows(width, day)).await? {
            let mut pieces = wanted.cut(&of);
            for piece in pieces.iter_mut().filter(|piece| !piece.replaced) {
                piece.of.content = table.ask(wanted.windows(&piece.of)).await?;
            }
            let Some(anew) = anew(&of, &pieces) else {
                let said = format!(
                    "the batch from {} s to {} s has other rows on a day beside than it had",
                    of.from_s, of.to_s
                );
                return Err(Failure { kind: Kind::Hopeless("replay the day before and the day after too"), said });
            };
            if anew != [of] {
                old.insert(key(&of));
                new.extend(anew.iter().map(key));
            }
        }
    }
    for (windows, rows) in replayed {
        table.replace(owner.as_(Deed::Replace), windows).await?;
        if table.held(windows).await? != rows {
            let said = format!("the windows from {} ms on do not come out as they were replayed", windows.from.ms());
            return Err(Failure { kind: Kind::Unclear, said });
        }
    }
    for &day in days {
        for there in done(table, day_windows(width, day)).await? {
            new.remove(&key(&there));
        }
    }
    let new: Vec<Recorded> = new.into_iter().map(recorded).collect();
    for some in new.chunks(RECORDS_MAX) {
        table.record_all(owner.as_(Deed::Done), some).await?;
    }
    let going: Vec<Recorded> = old.iter().copied().map(recorded).collect();
    for some in going.chunks(RECORDS_MAX) {
        table.forget_just(owner.as_(Deed::Forget), some).await?;
    }
    // One of an owner that is not the largest any more takes out nothing, and answers well.
    for &day in days {
        if done(table, day_windows(width, day)).await?.iter().any(|of| old.contains(&key(of))) {
            let said = format!("records of {} are still there after their DELETE (another owner?)", table.name());
            return Err(Failure { kind: Kind::Unclear, said });
        }
    }
    Ok(())
}

/// Whether something that is recorded as done of the day is not what the table holds of it, whatever that is.
pub(crate) async fn is_misrecorded(table: &impl Replacing, width: WindowWidth, day: i64) -> Result<bool, Failure> {
    let windows = day_windows(width, day);
    let recorded = done(table, windows).await?;
    let held = table.held(windows).await?.into_iter().collect();
    let held = Days { width, days: BTreeSet::from([day]), rows: held };
    let differs = |of: &Recorded| {
        let content = held.content(of.from_s, of.to_s);
        // The rows of a batch that reaches over midnight may be another day's.
        content != of.content && (content.rows > 0 || held.cut(of).len() == 1)
    };
    Ok(recorded.iter().any(differs))
}

/// The windows of a day.
pub(crate) fn day_windows(width: WindowWidth, day: i64) -> Windows {
    let day_ms = i64::from(DAY_S) * 1000;
    Windows { from: width.window_of(day * day_ms), to: width.window_of((day + 1) * day_ms) }
}

async fn done(table: &impl Replacing, windows: Windows) -> Result<Vec<Recorded>, Failure> {
    let mut recorded = table.recorded(seconds(windows.from.ms()), seconds(windows.to.ms())).await?;
    recorded.retain(|of| of.state == State::Done);
    Ok(recorded)
}

/// What days hold, by window.
struct Days {
    width: WindowWidth,
    days: BTreeSet<i64>,
    rows: BTreeMap<u32, Content>,
}

impl Days {
    fn windows(&self, of: &Recorded) -> Windows {
        let window = |at_s: u32| -> WindowStart { self.width.window_of(i64::from(at_s) * 1000) };
        Windows { from: window(of.from_s), to: window(of.to_s) }
    }

    fn content(&self, from_s: u32, to_s: u32) -> Content {
        let mut sum = Content::default();
        self.rows.range(from_s..to_s).for_each(|(_, content)| sum += *content);
        sum
    }

    /// A batch cut at each midnight, with what the days hold of it.
    fn cut(&self, of: &Recorded) -> Vec<Piece> {
        let piece = |day: u32| {
            let (from_s, to_s) =
                ((day * DAY_S).max(of.from_s), day.saturating_add(1).saturating_mul(DAY_S).min(of.to_s));
            let of = Recorded { from_s, to_s, state: of.state, content: self.content(from_s, to_s) };
            Piece { of, replaced: self.days.contains(&i64::from(day)) }
        };
        (of.from_s / DAY_S..=(of.to_s - 1) / DAY_S).map(piece).collect()
    }
}

/// What a batch has on one day.
struct Piece {
    of: Recorded,
    /// It is one of the days that are replaced.
    replaced: bool,
}

/// What a batch is to be recorded as: what it was, with what its days hold now; cut at midnight if several of them have
/// rows. A writer's batch has rows on one day only, and reaches over midnight without any: `None` if days that are not
/// replaced do not hold what that tells of them.
fn anew(of: &Recorded, pieces: &[Piece]) -> Option<Vec<Recorded>> {
    let sum = |replaced: bool| {
        let mut sum = Content::default();
        pieces.iter().filter(|piece| piece.replaced == replaced).for_each(|piece| sum += piece.of.content);
        sum
    };
    let (mut content, beside) = (sum(true), sum(false));
    let is_right = match beside.rows {
        0 => content.rows > 0 || of.content.rows == 0,
        _ => beside == of.content,
    };
    if !is_right && pieces.iter().any(|piece| !piece.replaced) {
        return None;
    }
    content += beside;
    let with_rows = pieces.iter().filter(|piece| piece.of.content.rows > 0).count();
    let whole = || vec![Recorded { content, ..*of }];
    Some(if with_rows > 1 { pieces.iter().map(|piece| piece.of).collect() } else { whole() })
}

type Key = (u32, u32, u64, u64);

fn key(of: &Recorded) -> Key {
    (of.from_s, of.to_s, of.content.rows, of.content.digest)
}

fn recorded((from_s, to_s, rows, digest): Key) -> Recorded {
    Recorded { from_s, to_s, state: State::Done, content: Content { rows, digest } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(from_s: u32, to_s: u32, rows: u64) -> Recorded {
        recorded((from_s, to_s, rows, rows * 10))
    }

    /// Day 1 has 3 rows after its midnight and 4 before the next one.
    fn days() -> Days {
        let content = |rows| Content { rows, digest: rows * 10 };
        let rows = BTreeMap::from([(DAY_S + 60, content(3)), (2 * DAY_S - 60, content(4))]);
        Days { width: WindowWidth::new(60_000).expect("divides a day"), days: BTreeSet::from([1]), rows }
    }

    /// What a batch is recorded as, where the day before and the day after hold so many rows of it.
    fn anew_of(of: Recorded, beside: [u64; 2]) -> Option<Vec<Recorded>> {
        let mut pieces = days().cut(&of);
        for piece in pieces.iter_mut().filter(|piece| !piece.replaced) {
            let rows = beside[usize::from(piece.of.from_s > DAY_S)];
            piece.of.content = Content { rows, digest: rows * 10 };
        }
        anew(&of, &pieces)
    }

    #[test]
    fn a_batch_of_a_day_is_recorded_with_what_the_day_holds() {
        let of = |from_s, to_s, rows| anew_of(batch(from_s, to_s, rows), [0, 0]);
        assert_eq!(of(DAY_S, DAY_S + 120, 9), Some(vec![batch(DAY_S, DAY_S + 120, 3)]));
        assert_eq!(of(DAY_S + 120, DAY_S + 180, 9), Some(vec![batch(DAY_S + 120, DAY_S + 180, 0)]));
        assert_eq!(of(DAY_S, 2 * DAY_S, 7), Some(vec![batch(DAY_S, 2 * DAY_S, 7)]));
    }

    #[test]
    fn one_that_reaches_over_midnight_is_cut_if_both_sides_have_rows_and_refused_if_the_other_is_not_as_it_was() {
        let (early, late) = ((DAY_S - 60, DAY_S + 60), (2 * DAY_S - 120, 2 * DAY_S + 60));
        let whole = |(from_s, to_s), rows| batch(from_s, to_s, rows);
        assert_eq!(anew_of(whole(early, 0), [0, 0]), Some(vec![whole(early, 0)]), "as empty as it was");
        assert_eq!(anew_of(whole(early, 5), [5, 0]), Some(vec![whole(early, 5)]), "its rows are the other day's");
        assert_eq!(anew_of(whole(late, 9), [0, 0]), Some(vec![whole(late, 4)]));
        let cut = vec![batch(2 * DAY_S - 120, 2 * DAY_S, 4), batch(2 * DAY_S, 2 * DAY_S + 60, 5)];
        assert_eq!(anew_of(whole(late, 5), [0, 5]), Some(cut));
        for (of, beside) in [(whole(early, 5), [4, 0]), (whole(early, 5), [0, 0]), (whole(late, 0), [0, 1])] {
            assert_eq!(anew_of(of, beside), None, "{of:?} {beside:?}");
        }
    }
}
