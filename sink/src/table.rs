//! What a writer asks of where the rows are kept, one statement each. ClickHouse is one; the simulation has another.

use uuid::Uuid;
use weir_schemas::WindowStart;

pub use crate::error::{Failure, Kind};
use crate::owner::Owner;
use crate::{Altered, Content, Deed};

/// Windows `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Windows {
    pub from: WindowStart,
    pub to: WindowStart,
}

/// Which statement of an owner it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement<'a> {
    pub owner: &'a Owner,
    pub deed: Deed,
    /// Counts the owner's statements, so that each has an id of its own.
    pub number: u64,
}

/// What the record says of windows, an interval in s since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    pub from_s: u32,
    pub to_s: u32,
    pub state: State,
    /// What the table held of a batch when it was recorded; nothing, of other states.
    pub content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// A batch that is in the table.
    Done,
    /// Live does not write them any more, whether they are done or not: the gap run does.
    Left,
    /// Nobody writes them: a person has given them up. To every run they are as good as done.
    Lost,
}

/// DELETEs that are not over, of rows or of the record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mutations {
    /// Those that will still rewrite parts.
    pub unfinished: u64,
    /// Parts that are being rewritten, by any mutation: a killed one goes on with the parts at hand.
    pub rewriting: u64,
}

/// What has started and is not over: of one run, or, for a restore, of all.
pub trait Running: Send + Sync {
    /// Ends the queries that have started, raises and DELETEs too, and answers when they are gone. A DELETE's mutation, of
    /// rows or of the record, goes on.
    fn kill_queries(&self) -> impl Future<Output = Result<(), Failure>> + Send;

    fn mutations(&self) -> impl Future<Output = Result<Mutations, Failure>> + Send;

    /// Ends the mutations; may answer while parts are still being rewritten.
    fn kill_mutations(&self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// The table, and the record of owners and batches beside it, as one run sees them.
///
/// Each method is one statement, which may be done in part, late, twice, or not at all, whatever it answers: the
/// protocol is in what calls them. Of a statement with an owner the law is: when it starts, it does nothing unless its
/// owner is the run's largest. INSERT and the three records then answer [`Kind::Refused`]; the two that take out answer
/// well.
pub trait Table: Running {
    /// Where it is, for errors: a URL.
    fn place(&self) -> &str;

    /// Its name, for errors.
    fn name(&self) -> &str;

    /// For a new owner. Never the same one again.
    fn fresh(&self) -> Uuid {
        Uuid::new_v4()
    }

    /// The number of the run's largest owner; 0 if there is none.
    fn largest(&self) -> impl Future<Output = Result<u64, Failure>> + Send;

    /// Adds an owner of the run.
    fn raise(&self, owner: &Owner) -> impl Future<Output = Result<(), Failure>> + Send;

    /// What is recorded, by whichever run, of windows from `from_s` to `to_s`, in any order.
    fn recorded(&self, from_s: u32, to_s: u32) -> impl Future<Output = Result<Vec<Recorded>, Failure>> + Send;

    /// All that was ever left, done since or not: few.
    fn left(&self) -> impl Future<Output = Result<Vec<Recorded>, Failure>> + Send;

    /// What it holds of these windows, whoever wrote it.
    fn ask(&self, windows: Windows) -> impl Future<Output = Result<Content, Failure>> + Send;

    /// Puts in the rows of `body`, one block of ClickHouse's Native format: all or none of them.
    fn insert(&self, as_: Statement<'_>, body: Vec<u8>) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Takes out all rows of these windows, part by part.
    fn delete(&self, as_: Statement<'_>, windows: Windows) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Records these windows as done.
    fn record(
        &self,
        as_: Statement<'_>,
        windows: Windows,
        content: Content,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Records these windows as left.
    fn leave(&self, as_: Statement<'_>, windows: Windows) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Records these windows as lost.
    fn lose(&self, as_: Statement<'_>, windows: Windows) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Takes out what is recorded, in one of these states, of windows that reach into these, one by one.
    fn forget(
        &self,
        as_: Statement<'_>,
        windows: Windows,
        states: &[State],
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// What is wrong with how the tables were made.
    fn altered(&self) -> impl Future<Output = Result<Option<Altered>, Failure>> + Send;
}

/// A table that has another one beside it, which a replay has filled, and whole days of which it can take.
///
/// What takes a day carries no fence, as its kind knows none: it names the other table by the owner that has taken it over,
/// so that what an earlier owner has sent finds no such table.
pub trait Replacing: Table {
    /// Gives the other table the owner's name, whoever's it has. [`Kind::Refused`] if the owner is not the run's largest any
    /// more after that.
    fn take_over(&self, owner: &Owner) -> impl Future<Output = Result<(), Failure>> + Send;

    /// What it holds of these windows, by window (s since the Unix epoch), ascending; those without rows are left out.
    fn held(&self, windows: Windows) -> impl Future<Output = Result<Vec<(u32, Content)>, Failure>> + Send;

    /// The same of the other table, which is the owner's.
    fn replayed(
        &self,
        owner: &Owner,
        windows: Windows,
    ) -> impl Future<Output = Result<Vec<(u32, Content)>, Failure>> + Send;

    /// Makes the rows of a whole day (UTC) those of the other table, all at once: a reader sees the old or the new ones.
    fn replace(&self, as_: Statement<'_>, day: Windows) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Records these as done: all of them or none, if they are few.
    fn record_all(&self, as_: Statement<'_>, of: &[Recorded]) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Takes out just these of what is recorded as done.
    fn forget_just(&self, as_: Statement<'_>, of: &[Recorded]) -> impl Future<Output = Result<(), Failure>> + Send;
}
