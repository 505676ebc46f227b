//! The owner of a run: turn after turn, raise, end, read, ask, one deed.

use std::time::Duration;

use futures::FutureExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;
use weir_schemas::{Closed, Origin, SchemaVersion, WindowStart};

use crate::clickhouse::ClickHouse;
use crate::connection::Target;
use crate::decide::{After, Deed, Hole, Place, after, checkpoint_from, gap_from, next_deed};
use crate::digest::{Content, seconds};
use crate::error::{Failure, Kind};
use crate::events::{BatchDiffered, BatchDone, Raised, Waiting, WindowsLeft, word};
use crate::inbox::Inbox;
use crate::limits::Limits;
use crate::owner::{self, Owner};
use crate::pending::{Batch, Pending};
use crate::prepare::Altered;
use crate::table::{Statement, Table, Windows};
use crate::{SinkError, body};

/// Between tries, doubling.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// An INSERT that was cut between chunks differs once, and with a crash in its repair twice; this often is not chance.
const DIFFERED_OFTEN: u32 = 3;

/// Which run, and what of it.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// Its name: `live`, `import-…`.
    pub run: String,
    pub version: SchemaVersion,
    pub origin: Origin,
    /// Where it began, ever: from here to `from` all is recorded.
    pub first: WindowStart,
    /// Where the run goes on: what [`crate::checkpoint()`] gave, or where the first of [`crate::gaps()`] begins.
    pub from: WindowStart,
    /// Where the run ends; `None`: never. There always is one with [`Left::Own`].
    pub to: Option<WindowStart>,
    pub left: Left,
}

/// How a run stands to windows that were left for later (`weir resume live --live-first`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// They are as good as done.
    #[default]
    Passed,
    /// The same; and before anything else, all from the checkpoint to here is left.
    To(WindowStart),
    /// They are what it is there for: the gap run.
    Own,
}

impl RunSpec {
    /// The first window that its pipeline hands over.
    pub fn begins(&self) -> WindowStart {
        match self.left {
            Left::To(to) => to.max(self.from),
            Left::Passed | Left::Own => self.from,
        }
    }
}

/// A batch is in the table: the windows `[from, through)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    pub from: WindowStart,
    /// Every window before it is in the table.
    pub through: WindowStart,
    pub rows: u64,
}

/// What [`run_telling`] tells while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    Done(Done),
    /// Something does not go well, and is tried again: one sentence. Holds until [`News::GoesOn`].
    Waits(String),
    /// What it waited for has come.
    GoesOn,
}

/// Why [`run`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything before `RunSpec::to` is in the table.
    Complete,
    /// The channel was closed, and everything that came through it is in the table.
    Drained,
    /// As told; what was not yet done will be done by the next owner.
    Shutdown,
}

/// Writes what `closed` brings into the table of `spec.version`, each window exactly once, until one of [`End`].
///
/// `on_done` is called for each batch after it was found equal in the table and recorded; `through` never goes back.
/// `shutdown` is heard between batches: the one at hand is finished, unless something does not go well. What ClickHouse may do better next time is tried again for ever, with a line in the
/// log each time. Errors: [`SinkError::Refused`] when another process has become the owner, [`SinkError::Stopped`] and
/// [`SinkError::Altered`] when a person is needed, [`SinkError::CheckpointMoved`] when the pipeline must begin elsewhere.
pub async fn run(
    target: &Target,
    spec: RunSpec,
    limits: Limits,
    closed: Receiver<Closed>,
    on_done: impl FnMut(Done),
    shutdown: impl Future<Output = ()>,
) -> Result<End, SinkError> {
    run_telling(target, spec, limits, closed, of_done(on_done), shutdown).await
}

/// [`run`], which also tells what it waits for.
pub async fn run_telling(
    target: &Target,
    spec: RunSpec,
    limits: Limits,
    closed: Receiver<Closed>,
    tell: impl FnMut(News),
    shutdown: impl Future<Output = ()>,
) -> Result<End, SinkError> {
    let table = ClickHouse::new(target, &spec.run, &spec.version, &spec.origin);
    run_telling_on(&table, spec, limits, closed, tell, shutdown).await
}

/// [`run`] on any table.
pub async fn run_on(
    table: &impl Table,
    spec: RunSpec,
    limits: Limits,
    closed: Receiver<Closed>,
    on_done: impl FnMut(Done),
    shutdown: impl Future<Output = ()>,
) -> Result<End, SinkError> {
    run_telling_on(table, spec, limits, closed, of_done(on_done), shutdown).await
}

fn of_done(mut on_done: impl FnMut(Done)) -> impl FnMut(News) {
    move |news| {
        if let News::Done(done) = news {
            on_done(done);
        }
    }
}

async fn run_telling_on(
    table: &impl Table,
    spec: RunSpec,
    limits: Limits,
    closed: Receiver<Closed>,
    tell: impl FnMut(News),
    shutdown: impl Future<Output = ()>,
) -> Result<End, SinkError> {
    let inbox = Inbox::new(limits.pending_bytes_max);
    let mut writing = std::pin::pin!(write(table, spec, limits, &inbox, tell, shutdown));
    tokio::select! {
        biased;
        end = &mut writing => end,
        () = inbox.fill(closed) => writing.await,
    }
}

async fn write(
    table: &impl Table,
    spec: RunSpec,
    limits: Limits,
    inbox: &Inbox,
    mut tell: impl FnMut(News),
    shutdown: impl Future<Output = ()>,
) -> Result<End, SinkError> {
    let mut shutdown = std::pin::pin!(shutdown.fuse());
    let mut stops = false;
    let mut writer = Writer::new(table, spec, limits);
    loop {
        writer.take(inbox);
        match writer.next() {
            Next::Over(end) => return Ok(end),
            Next::Turn => match writer.turn(&mut tell).await? {
                After::Keep | After::Raise => tokio::task::yield_now().await,
                After::RaiseLater | After::Stop if stops => return Ok(End::Shutdown),
                After::RaiseLater | After::Stop => tokio::select! {
                    biased;
                    () = &mut shutdown => return Ok(End::Shutdown),
                    () = tokio::time::sleep(writer.backoff) => writer.backoff = (2 * writer.backoff).min(BACKOFF_MAX),
                },
            },
            Next::Wait(_) if stops => return Ok(End::Shutdown),
            Next::Wait(until) => tokio::select! {
                biased;
                () = &mut shutdown => return Ok(End::Shutdown),
                () = inbox.changed() => {}
                () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
            },
        }
        stops = stops || futures::poll!(&mut shutdown).is_ready();
        if stops && writer.at_hand.is_none() {
            return Ok(End::Shutdown);
        }
    }
}

/// What the loop does next.
enum Next {
    Turn,
    /// Until then, or until a message comes.
    Wait(Option<Instant>),
    Over(End),
}

/// Why a turn ended early.
enum Trouble {
    Failed(&'static str, Failure),
    /// What was recorded before this window is not any more.
    Moved {
        held_from: WindowStart,
    },
    Altered(Altered),
}

struct Writer<'a, T> {
    table: &'a T,
    spec: RunSpec,
    limits: Limits,
    pending: Pending,
    /// Where the next batch ends at the latest, as the record said last; `None`: nothing is recorded after it.
    until: Option<WindowStart>,
    /// `None`: the next turn raises first.
    owner: Option<Owner>,
    /// How many have been sent by any owner.
    statements: u64,
    /// No more windows will come.
    drained: bool,
    /// A batch whose `done` was sent, and when work on it began.
    recording: Option<(Batch, Instant)>,
    /// The batch at hand, and since when: its bounds stay until it is done, though more windows come meanwhile, or the
    /// table would never hold just what was put there.
    at_hand: Option<(Batch, Instant)>,
    last_done: Instant,
    backoff: Duration,
    /// How often the table has held something else than the batch at hand.
    differed: u32,
    /// It was told what is waited for.
    waits: bool,
}

impl<T: Table> Writer<'_, T> {
    fn new(table: &T, spec: RunSpec, limits: Limits) -> Writer<'_, T> {
        Writer {
            table,
            pending: Pending::new(spec.version.width, spec.begins(), !spec.origin.is_empty(), limits),
            spec,
            limits,
            until: None,
            owner: None,
            statements: 0,
            drained: false,
            recording: None,
            at_hand: None,
            last_done: Instant::now(),
            backoff: BACKOFF_MIN,
            differed: 0,
            waits: false,
        }
    }

    fn take(&mut self, inbox: &Inbox) {
        self.drained = inbox.hand_over(&mut self.pending);
    }

    fn next(&self) -> Next {
        if self.spec.to.is_some_and(|to| self.pending.from() >= to) {
            return Next::Over(End::Complete);
        }
        match self.pending.batch(self.end()) {
            None if self.drained => Next::Over(End::Drained),
            // Before there is work too: what a former owner left running is ended at once.
            _ if self.owner.is_none() => Next::Turn,
            None => Next::Wait(None),
            Some(batch) if batch.wanted.rows > 0 || self.drained || Some(batch.to) == self.end() => Next::Turn,
            Some(_) if self.last_done.elapsed() >= self.limits.empty_every => Next::Turn,
            Some(_) => Next::Wait(Some(self.last_done + self.limits.empty_every)),
        }
    }

    /// No batch reaches over it: the run's end, or what is recorded already.
    fn end(&self) -> Option<WindowStart> {
        self.spec.to.into_iter().chain(self.until).min()
    }

    async fn turn(&mut self, tell: &mut impl FnMut(News)) -> Result<After, SinkError> {
        let (what, failure) = match self.try_turn(tell).await {
            Ok(after) => return Ok(after),
            Err(Trouble::Failed(what, failure)) => (what, failure),
            Err(Trouble::Altered(altered)) => return Err(SinkError::Altered(altered)),
            Err(Trouble::Moved { held_from }) => {
                let (run, held_from_ms) = (self.spec.run.clone(), held_from.ms());
                return Err(SinkError::CheckpointMoved { run, held_from_ms });
            }
        };
        self.owner = None;
        if failure.kind == Kind::Unclear {
            Waiting { run: &self.spec.run, what, reason: &failure.said, again_in: self.backoff }.emit();
            self.waits = true;
            tell(News::Waits(format!("clickhouse is asked again ({what}): {}", failure.said)));
            return Ok(After::RaiseLater);
        }
        // A refusal by the table is easier to mend when it says what is wrong with it.
        if let (Kind::Hopeless(_), Ok(Some(altered))) = (failure.kind, self.table.altered().await) {
            return Err(SinkError::Altered(altered));
        }
        Err(failure.into_error(self.table.place(), &self.spec.run))
    }

    async fn try_turn(&mut self, tell: &mut impl FnMut(News)) -> Result<After, Trouble> {
        let failed = |what| move |failure| Trouble::Failed(what, failure);
        let owner = match self.owner {
            Some(owner) => owner,
            None => {
                let owner = owner::raise(self.table).await.map_err(failed("raise"))?;
                owner::end_running(self.table).await.map_err(failed("end what runs"))?;
                Raised { run: &self.spec.run }.emit();
                *self.owner.insert(owner)
            }
        };
        if let Left::To(to) = self.spec.left {
            let from = self.checkpoint(self.spec.from).await?.0;
            if from < to {
                return self.leave(&owner, Windows { from, to }).await;
            }
            // What is recorded stays recorded, or this owner is refused.
            self.spec.left = Left::Passed;
        }
        let (checkpoint, until) = self.checkpoint(self.pending.from()).await?;
        self.until = until;
        self.pending.done_through(checkpoint);
        if let Some((batch, began)) = self.recording.take_if(|(batch, _)| checkpoint >= batch.to) {
            self.done(batch, began, tell);
        }
        self.recording = None;
        let (from, end) = (self.pending.from(), self.end());
        let at_hand = self.at_hand.take_if(|(batch, _)| batch.from == from && end.is_none_or(|end| batch.to <= end));
        let next = || Some((self.pending.batch(end)?, Instant::now()));
        let Some((batch, began)) = at_hand.or_else(next) else {
            return Ok(After::Keep);
        };
        self.at_hand = Some((batch, began));
        let held = self.table.ask(batch.windows()).await.map_err(failed("ask the table"))?;
        let deed = next_deed(held, batch.wanted);
        self.statements += 1;
        let statement = Statement { owner: &owner, deed, number: self.statements };
        let answer = match deed {
            Deed::Done => {
                self.recording = Some((batch, began));
                self.table.record(statement, batch.windows(), batch.wanted).await
            }
            Deed::Delete => {
                let (held, wanted) = (held.rows, batch.wanted.rows);
                BatchDiffered { run: &self.spec.run, from_ms: batch.from.ms(), held, wanted }.emit();
                self.differed += 1;
                if self.differed >= DIFFERED_OFTEN {
                    self.wonder(&batch, held, tell).await?;
                }
                self.table.delete(statement, batch.windows()).await
            }
            Deed::Insert => self.insert(&owner, &batch).await,
            Deed::Leave | Deed::Lose | Deed::Forget | Deed::Replace => {
                unreachable!("the table decides among the others")
            }
        };
        let next = self.answered(deed, answer)?;
        if self.waits && self.differed < DIFFERED_OFTEN {
            self.waits = false;
            tell(News::GoesOn);
        }
        if deed == Deed::Done
            && let Some((batch, began)) = self.recording.take()
        {
            self.done(batch, began, tell);
        }
        Ok(next)
    }

    /// How far the run is complete that was complete through `at`, and what is recorded next after that.
    async fn checkpoint(&self, at: WindowStart) -> Result<(WindowStart, Option<WindowStart>), Trouble> {
        let RunSpec { version, first, to, left, .. } = &self.spec;
        let (at_s, to_s) = (seconds(at.ms()), to.map_or(u32::MAX, |to| seconds(to.ms())));
        // One before: whether what was recorded still is.
        let recorded = self.table.recorded(at_s.saturating_sub(1), to_s.max(at_s)).await;
        let recorded = recorded.map_err(|failure| Trouble::Failed("read the checkpoint", failure))?;
        let hole = match left {
            Left::Own => gap_from(at_s, to_s, &recorded),
            Left::Passed | Left::To(_) => checkpoint_from(Place { first_s: seconds(first.ms()), at_s }, &recorded),
        };
        let Hole { from_s, until_s } = hole.ok_or(Trouble::Moved { held_from: at })?;
        let window = |at_s| version.width.window_of(i64::from(at_s) * 1000);
        Ok((window(from_s), until_s.map(window)))
    }

    async fn leave(&mut self, owner: &Owner, windows: Windows) -> Result<After, Trouble> {
        WindowsLeft { run: &self.spec.run, from_ms: windows.from.ms(), to_ms: windows.to.ms() }.emit();
        self.statements += 1;
        let statement = Statement { owner, deed: Deed::Leave, number: self.statements };
        let answer = self.table.leave(statement, windows).await;
        self.answered(Deed::Leave, answer)
    }

    fn answered(&mut self, deed: Deed, answer: Result<(), Failure>) -> Result<After, Trouble> {
        let next = after(deed, answer.as_ref().copied().map_err(|failure| failure.kind));
        if next != After::Keep {
            self.owner = None;
        }
        answer.map_err(|failure| Trouble::Failed(word(deed), failure))?;
        self.backoff = BACKOFF_MIN;
        Ok(next)
    }

    fn done(&mut self, batch: Batch, began: Instant, tell: &mut impl FnMut(News)) {
        self.last_done = Instant::now();
        self.at_hand = None;
        let Batch { from, to: through, wanted: Content { rows, .. }, .. } = batch;
        let run = &self.spec.run;
        BatchDone { run, from_ms: from.ms(), through_ms: through.ms(), rows, took: began.elapsed() }.emit();
        self.differed = 0;
        tell(News::Done(Done { from, through, rows }));
    }

    /// A batch that was put in more than once, and each time the table held something else: it may have been altered so
    /// that it cannot come out equal, or somebody else writes to it.
    async fn wonder(&mut self, batch: &Batch, held: u64, tell: &mut impl FnMut(News)) -> Result<(), Trouble> {
        let looked = self.table.altered().await.map_err(|failure| Trouble::Failed("look at the table", failure));
        if let Some(altered) = looked? {
            return Err(Trouble::Altered(altered));
        }
        self.waits = true;
        tell(News::Waits(format!(
            "the windows from {} on do not come out as they were written: {} rows, and {} times the table held others, now \
             {held} (does somebody else write to {}? system.query_log says who)",
            weir_schemas::instant(batch.from.ms()),
            batch.wanted.rows,
            self.differed,
            self.table.name(),
        )));
        Ok(())
    }

    async fn insert(&mut self, owner: &Owner, batch: &Batch) -> Result<(), Failure> {
        let blocks = self.pending.blocks(batch);
        let of = body::chunks(batch.wanted.rows, batch.bytes, &self.limits);
        let assigned = body::assign(&blocks, of);
        for chunk in 0..of {
            let body = body::native(&self.spec.version, &blocks, &assigned, chunk);
            if !body.is_empty() {
                self.statements += 1;
                let statement = Statement { owner, deed: Deed::Insert, number: self.statements };
                self.table.insert(statement, body).await?;
            }
        }
        Ok(())
    }
}
