//! Bugs that are planted, so that the simulation is seen to find them.
//!
//! None of them has a switch in the product. Those of the protocol are a table that does not do what the writer asked
//! ([`PlantedTable`], or a server that is sent no owner), those of reading a log that lies, those between pipeline and
//! sink are done to the windows on their way. What is left, mistakes in the pipeline's own rule, is planted into a copy of
//! its sources (package `weir-pipeline-planted`), made when that is built: a feature of the pipeline itself would be in the
//! product's binary as soon as the whole workspace is built at once.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard},
};

use uuid::Uuid;
use weir_schemas::{Closed, RowBlock};
use weir_sink::{
    Altered, Content, Owner,
    table::{Failure, Mutations, Recorded, Running, State, Statement, Table, Windows},
};

use crate::{native, table::SimTable};

/// What can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Bug {
    /// A batch is taken for inserted because its INSERTs were answered well.
    BelievedAnswers,
    /// A batch is recorded as done, then inserted.
    DoneBeforeInsert,
    /// Statements carry no owner.
    WithoutOwner,
    /// An owner is raised, and what runs is ended, at the start only.
    RaisedOnce,
    /// What still runs is not ended after a raise.
    NothingEnded,
    /// The record of what is left carries no owner.
    LeftWithoutOwner,
    /// What is taken back is so without raising first: no statement carries an owner.
    TakenBackUnraised,
    /// Who takes back raises, and sends its statements without an owner.
    TakenBackUnfenced,
    /// Who takes back does not end what still runs.
    TakenBackNotEnded,
    /// Of what is given up the rows go before the record.
    GivenUpRowsFirst,
    /// Of a batch that is cut the rest is recorded anew, whatever the table holds of the batch.
    RestBelieved,
    /// A copy takes the rows first, then the record.
    RowsFirst,
    /// A restore leaves `owners` where it is while it works.
    RestoreOpen,
    /// A spool sends what may be in the log for long without looking.
    NothingLookedUp,
    /// An event is late if its window has closed by the run's merged watermark.
    MergedWatermark,
    /// A reader drops ticks.
    DroppedTick,
    /// A record's own stamp is its arrival time.
    NoRunningMaximum,
    /// A run reads from its first window on, not from a horizon before it.
    HorizonOfZero,
    /// A copy is beaten only by one that itself counted.
    CopyMustCount,
    /// A run waits for a new partition only once it has seen a record of it.
    NewPartition,
    /// A visitor counts once for the windows that are written together.
    RowsByBatch,
    /// Rows are ordered by the numbers of their strings.
    OrderedByInterned,
}

impl Bug {
    /// The properties that it breaks, as a failure names them first: it is found when one of them fails, and not when
    /// something else does.
    pub fn breaks(self) -> &'static [&'static str] {
        match self {
            Bug::BelievedAnswers
            | Bug::DoneBeforeInsert
            | Bug::WithoutOwner
            | Bug::RaisedOnce
            | Bug::NothingEnded
            | Bug::LeftWithoutOwner
            | Bug::RowsFirst
            | Bug::RestoreOpen => &["exactly once", "order"],
            Bug::TakenBackUnraised | Bug::TakenBackUnfenced | Bug::TakenBackNotEnded => {
                &["exactly once", "order", "given up", "no holes"]
            }
            Bug::GivenUpRowsFirst => &["exactly once"],
            Bug::RestBelieved => &["exactly once", "equality"],
            Bug::NothingLookedUp => &["conservation"],
            // A partition that is silent holds the watermark back for ever.
            Bug::DroppedTick => &["liveness"],
            Bug::MergedWatermark
            | Bug::NoRunningMaximum
            | Bug::HorizonOfZero
            | Bug::CopyMustCount
            | Bug::NewPartition
            | Bug::RowsByBatch
            | Bug::OrderedByInterned => &["equality"],
        }
    }

    /// Found where copies are many.
    pub(crate) fn is_about_copies(self) -> bool {
        matches!(self, Bug::HorizonOfZero | Bug::CopyMustCount)
    }

    /// Found where statements arrive late or twice.
    pub(crate) fn is_about_owners(self) -> bool {
        matches!(self, Bug::BelievedAnswers | Bug::WithoutOwner | Bug::RaisedOnce)
    }

    /// Found where live goes on with today, and another run fills the gap.
    pub(crate) fn is_about_gaps(self) -> bool {
        self == Bug::LeftWithoutOwner
    }

    /// Found where a copy is brought back.
    pub(crate) fn is_about_restores(self) -> bool {
        matches!(self, Bug::RowsFirst | Bug::RestoreOpen)
    }

    /// It is who takes back that is wrong: found where a person orders that often.
    pub(crate) fn is_in_taking_back(self) -> bool {
        matches!(
            self,
            Bug::TakenBackUnraised
                | Bug::TakenBackUnfenced
                | Bug::TakenBackNotEnded
                | Bug::GivenUpRowsFirst
                | Bug::RestBelieved
        )
    }

    pub(crate) fn is_in_pipeline(self) -> bool {
        self.planted().is_some()
    }

    /// What it is called in the pipeline's planted copy.
    pub(crate) fn planted(self) -> Option<weir_pipeline_planted::Plant> {
        use weir_pipeline_planted::Plant;
        match self {
            Bug::MergedWatermark => Some(Plant::MergedWatermark),
            Bug::NoRunningMaximum => Some(Plant::NoRunningMaximum),
            Bug::CopyMustCount => Some(Plant::CopyMustCount),
            Bug::OrderedByInterned => Some(Plant::OrderedByInterned),
            _ => None,
        }
    }
}

/// Rows that depend on what was written together: a visitor that one window has counted is not counted by the next.
pub(crate) fn count_visitors_once_a_batch(windows: &mut [Closed]) {
    let mut counted: BTreeSet<(String, String, String, u64)> = BTreeSet::new();
    for closed in windows {
        let Closed::Window(emission) = closed else { continue };
        for block in &mut emission.blocks {
            let (mut visitors, mut ends) = (Vec::new(), Vec::new());
            for row in 0..block.len() {
                let text = |index: &[u32], block: &RowBlock| block.strings.get(index[row]).to_owned();
                let (site, dimension, value) =
                    (text(&block.site, block), text(&block.dimension, block), text(&block.value, block));
                let fresh = |id: &&u64| counted.insert((site.clone(), dimension.clone(), value.clone(), **id));
                visitors.extend(block.visitors_of(row).iter().filter(fresh).copied().collect::<Vec<u64>>());
                ends.push(visitors.len());
            }
            (block.visitors, block.visitors_end) = (visitors, ends);
        }
    }
}

/// A table between writer and server that makes a wrong writer of a right one, if there is a bug.
pub(crate) struct PlantedTable {
    inner: SimTable,
    bug: Option<Bug>,
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    /// Of the batch that is being inserted: what was answered well, or is not yet sent.
    inserted: Content,
    held: Vec<Vec<u8>>,
    /// The first owner.
    owner: Option<Owner>,
    ended: bool,
}

impl PlantedTable {
    pub(crate) fn new(inner: SimTable, bug: Option<Bug>) -> PlantedTable {
        PlantedTable { inner, bug, remembered: Mutex::default() }
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().expect("no holder panics")
    }

    /// The owner that a statement is sent with.
    fn owner(&self, statement: Statement<'_>) -> Owner {
        let first = self.remembered().owner;
        first.filter(|_| self.is(Bug::RaisedOnce)).unwrap_or(*statement.owner)
    }

    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn has_ended(&self) -> bool {
        let nothing = self.is(Bug::NothingEnded) || self.is(Bug::TakenBackNotEnded);
        nothing || self.is(Bug::RaisedOnce) && self.remembered().ended
    }
}

fn content(body: &[u8]) -> Content {
    native::rows(body).iter().fold(Content::default(), |mut sum, row| {
        sum += row.content();
        sum
    })
}

impl Running for PlantedTable {
    async fn kill_queries(&self) -> Result<(), Failure> {
        if self.has_ended() { Ok(()) } else { self.inner.kill_queries().await }
    }

    async fn mutations(&self) -> Result<Mutations, Failure> {
        if self.has_ended() {
            return Ok(Mutations::default());
        }
        let mutations = self.inner.mutations().await?;
        self.remembered().ended = mutations == Mutations::default();
        Ok(mutations)
    }

    async fn kill_mutations(&self) -> Result<(), Failure> {
        self.inner.kill_mutations().await
    }
}

impl Table for PlantedTable {
    fn place(&self) -> &str {
        self.inner.place()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn fresh(&self) -> Uuid {
        self.inner.fresh()
    }

    async fn largest(&self) -> Result<u64, Failure> {
        self.inner.largest().await
    }

    async fn raise(&self, owner: &Owner) -> Result<(), Failure> {
        let raised = self.is(Bug::RaisedOnce) && self.remembered().owner.is_some();
        if raised || self.is(Bug::TakenBackUnraised) {
            return Ok(());
        }
        self.inner.raise(owner).await?;
        self.remembered().owner = Some(*owner);
        Ok(())
    }

    async fn recorded(&self, from_s: u32, to_s: u32) -> Result<Vec<Recorded>, Failure> {
        let mut recorded = self.inner.recorded(from_s, to_s).await?;
        if self.is(Bug::RestBelieved) {
            for of in recorded.iter_mut().filter(|of| of.state == State::Done) {
                of.content = self.inner.held(of.from_s, of.to_s).await?;
            }
        }
        Ok(recorded)
    }

    async fn left(&self) -> Result<Vec<Recorded>, Failure> {
        self.inner.left().await
    }

    async fn ask(&self, windows: Windows) -> Result<Content, Failure> {
        let inserted = self.remembered().inserted;
        if inserted.rows > 0 { Ok(inserted) } else { self.inner.ask(windows).await }
    }

    async fn insert(&self, as_: Statement<'_>, body: Vec<u8>) -> Result<(), Failure> {
        let inserts = content(&body);
        match self.bug {
            // Sent only after the batch was recorded.
            Some(Bug::DoneBeforeInsert) => self.remembered().held.push(body),
            _ => {
                let owner = self.owner(as_);
                self.inner.insert(Statement { owner: &owner, ..as_ }, body).await?;
            }
        }
        if self.is(Bug::BelievedAnswers) || self.is(Bug::DoneBeforeInsert) {
            self.remembered().inserted += inserts;
        }
        Ok(())
    }

    async fn delete(&self, as_: Statement<'_>, windows: Windows) -> Result<(), Failure> {
        let owner = self.owner(as_);
        self.remembered().inserted = Content::default();
        self.remembered().held.clear();
        self.inner.delete(Statement { owner: &owner, ..as_ }, windows).await
    }

    async fn record(&self, as_: Statement<'_>, windows: Windows, content: Content) -> Result<(), Failure> {
        let owner = self.owner(as_);
        let as_ = Statement { owner: &owner, ..as_ };
        self.remembered().inserted = Content::default();
        let held = std::mem::take(&mut self.remembered().held);
        self.inner.record(as_, windows, content).await?;
        for body in held {
            self.inner.insert(as_, body).await?;
        }
        Ok(())
    }

    async fn leave(&self, as_: Statement<'_>, windows: Windows) -> Result<(), Failure> {
        let owner = self.owner(as_);
        self.inner.leave(Statement { owner: &owner, ..as_ }, windows).await
    }

    async fn lose(&self, as_: Statement<'_>, windows: Windows) -> Result<(), Failure> {
        if self.is(Bug::GivenUpRowsFirst) {
            self.inner.delete(as_, windows).await?;
        }
        self.inner.lose(as_, windows).await
    }

    async fn forget(&self, as_: Statement<'_>, windows: Windows, states: &[State]) -> Result<(), Failure> {
        self.inner.forget(as_, windows, states).await
    }

    async fn altered(&self) -> Result<Option<Altered>, Failure> {
        self.inner.altered().await
    }
}
