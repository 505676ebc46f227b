//! Windows that were done are made not done, so that their run asks for them again, or they are given up.

use weir_schemas::{SchemaVersion, WindowStart, WindowWidth, control::GAP_RUN, kind_of, run_of};

use crate::SinkError;
use crate::clickhouse::ClickHouse;
use crate::connection::Target;
use crate::decide::Deed;
use crate::digest::{Content, seconds};
use crate::error::{Failure, Kind};
use crate::owner::{self, Owner};
use crate::replace::end_replay;
use crate::table::{Recorded, State, Statement, Table, Windows};

/// How far back what was done is not believed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All windows from here on: their run computes each again, and writes those that the table does not hold as they
    /// must be. Their rows stay meanwhile.
    From(WindowStart),
    /// The same of the windows `[from, to)` alone: what lies after is another run's.
    Again { from: WindowStart, to: WindowStart },
    /// The windows `[from, to)`, which are not computed: their rows go too, and `emissions` says `lost`.
    Lost { from: WindowStart, to: WindowStart },
}

/// Takes windows of `run` out of what is done. May be repeated, also after it was cut short.
///
/// Laws
/// - Nothing is given up but what is ordered. Of a batch that is cut, what lies outside is recorded anew if the table holds
///   the batch as it was recorded. If it does not, nobody knows which of its rows are right: all of its record goes, and
///   what lies outside is a hole, which the run fills from the log as any other.
/// - A record that goes can never double or lose a row: no batch is written before the table was asked for its windows,
///   none is recorded that was not found equal, and none reaches over what is recorded. Rows without a record are
///   harmless, a record without rows is not: of windows that are given up it goes before them.
/// - Cut anywhere it has said nothing that is not so but that windows are lost whose rows are still there; once more does
///   the rest.
///
/// First the run is raised above whoever owns it, and what it still runs is ended, as for any deed: a forgotten writer that
/// wakes afterwards is refused. Of windows that are given up so is the gap run's, after they were recorded as lost: from
/// then on it passes over them. Of live rows a replay that replaces days is ended too, before anything else.
pub async fn take_back(
    target: &Target,
    run: &str,
    version: &SchemaVersion,
    origin: &str,
    extent: Extent,
) -> Result<(), SinkError> {
    if origin.is_empty() {
        end_replay(target, version).await?;
    }
    let table = ClickHouse::new(target, run, version, origin);
    let gap = origin.is_empty().then(|| ClickHouse::new(target, &run_of(kind_of(run).0, GAP_RUN), version, origin));
    let taken = take_back_on(&table, gap.as_ref(), version.width, extent).await;
    taken.map_err(|failure| failure.into_error(&target.url, run))
}

/// The same on any table; `gap` is it as the gap run sees it, if there may be one.
pub async fn take_back_on<T: Table>(
    table: &T,
    gap: Option<&T>,
    width: WindowWidth,
    extent: Extent,
) -> Result<(), Failure> {
    let mut taking = Taking::begin(table, width).await?;
    match extent {
        Extent::From(from) => {
            let to = taking.all().to;
            taking.ask_again(Windows { from, to }).await
        }
        Extent::Again { from, to } => taking.ask_again(Windows { from, to }).await,
        Extent::Lost { from, to } => {
            let windows = Windows { from, to };
            taking.keep_rests(windows, &[State::Done]).await?;
            taking.table.lose(taking.owner.as_(Deed::Lose), windows).await?;
            if let Some(gap) = gap {
                owner::raise(gap).await?;
                owner::end_running(gap).await?;
            }
            taking.forget(windows, &[State::Done]).await?;
            taking.remove(windows).await
        }
    }
}

/// Removes all rows of `origin`, and all record of them: an import is taken back as a whole. May be repeated, also after it
/// was cut short.
///
/// As of [`take_back`]; cut between record and rows, the origin is not complete any more, which is the truth. Errors:
/// [`SinkError::UndoLive`] for the empty origin.
pub async fn undo(target: &Target, run: &str, version: &SchemaVersion, origin: &str) -> Result<(), SinkError> {
    if origin.is_empty() {
        return Err(SinkError::UndoLive);
    }
    let undone = undo_on(&ClickHouse::new(target, run, version, origin), version.width).await;
    undone.map_err(|failure| failure.into_error(&target.url, run))
}

/// The same on any table.
pub async fn undo_on(table: &impl Table, width: WindowWidth) -> Result<(), Failure> {
    let mut taking = Taking::begin(table, width).await?;
    let all = taking.all();
    taking.forget(all, &[State::Done, State::Left, State::Lost]).await?;
    taking.remove(all).await
}

/// Who takes back, statement after statement.
struct Taking<'a, T> {
    table: &'a T,
    width: WindowWidth,
    owner: Counting,
}

/// An owner, and how many statements it has sent.
pub(crate) struct Counting {
    owner: Owner,
    statements: u64,
}

impl Counting {
    pub(crate) fn new(owner: Owner) -> Counting {
        Counting { owner, statements: 0 }
    }

    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(crate) fn as_(&mut self, deed: Deed) -> Statement<'_> {
        self.statements += 1;
        Statement { owner: &self.owner, deed, number: self.statements }
    }
}

impl<T: Table> Taking<'_, T> {
    async fn begin(table: &T, width: WindowWidth) -> Result<Taking<'_, T>, Failure> {
        let owner = owner::raise(table).await?;
        owner::end_running(table).await?;
        Ok(Taking { table, width, owner: Counting::new(owner) })
    }

    /// All windows that there may be.
    fn all(&self) -> Windows {
        self.windows(0, u32::MAX)
    }

    fn windows(&self, from_s: u32, to_s: u32) -> Windows {
        let window = |at_s| self.width.window_of(i64::from(at_s) * 1000);
        Windows { from: window(from_s), to: window(to_s) }
    }

    /// What is asked for again is not lost any more, if it comes: else the run would pass over it.
    async fn ask_again(&mut self, windows: Windows) -> Result<(), Failure> {
        self.keep_rests(windows, &[State::Done, State::Lost]).await?;
        self.forget(windows, &[State::Done, State::Lost]).await
    }

    /// Records anew what the records in `states` that `windows` cut have outside of them, before those go.
    async fn keep_rests(&mut self, windows: Windows, states: &[State]) -> Result<(), Failure> {
        let recorded = self.recorded(windows, states).await?;
        for of in recorded {
            let whole = self.windows(of.from_s, of.to_s);
            let (from, to) = (whole.from.max(windows.from), whole.to.min(windows.to));
            let parts = [Windows { to: from, ..whole }, Windows { from, to }, Windows { from: to, ..whole }];
            let rests = [0, 2].into_iter().filter(|nth| parts[*nth].from < parts[*nth].to);
            if of.state == State::Lost {
                for rest in rests {
                    self.table.lose(self.owner.as_(Deed::Lose), parts[rest]).await?;
                }
            } else if (from, to) != (whole.from, whole.to) {
                // What is recorded anew is what was compared, whatever happens to the table meanwhile.
                let (mut held, mut sum) = ([Content::default(); 3], Content::default());
                for (held, part) in held.iter_mut().zip(parts) {
                    *held = self.table.ask(part).await?;
                    sum += *held;
                }
                for rest in rests.filter(|_| sum == of.content) {
                    self.table.record(self.owner.as_(Deed::Done), parts[rest], held[rest]).await?;
                }
            }
        }
        Ok(())
    }

    /// Looks first: a mutation of what is not there would rewrite nothing, and take its time. And after: one of an owner
    /// that is not the largest any more takes out nothing, and answers well.
    async fn forget(&mut self, windows: Windows, states: &[State]) -> Result<(), Failure> {
        let before = self.recorded(windows, states).await?;
        if before.is_empty() {
            return Ok(());
        }
        self.table.forget(self.owner.as_(Deed::Forget), windows, states).await?;
        // A gap run may be at work on windows that it still has to write.
        let after = self.recorded(windows, states).await?;
        self.gone(after.iter().filter(|of| before.contains(of)).count() as u64, "records")
    }

    async fn recorded(&self, windows: Windows, states: &[State]) -> Result<Vec<Recorded>, Failure> {
        let mut recorded = self.table.recorded(seconds(windows.from.ms()), seconds(windows.to.ms())).await?;
        recorded.retain(|of| states.contains(&of.state));
        Ok(recorded)
    }

    /// The same of rows.
    async fn remove(&mut self, windows: Windows) -> Result<(), Failure> {
        if self.table.ask(windows).await?.rows == 0 {
            return Ok(());
        }
        self.table.delete(self.owner.as_(Deed::Delete), windows).await?;
        self.gone(self.table.ask(windows).await?.rows, "rows")
    }

    fn gone(&self, left: u64, what: &str) -> Result<(), Failure> {
        if left == 0 {
            return Ok(());
        }
        let said =
            format!("{left} {what} of {} are still there after their DELETE (another owner?)", self.table.name());
        Err(Failure { kind: Kind::Unclear, said })
    }
}
