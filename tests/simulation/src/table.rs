//! The simulated server as the sink sees it.

use std::sync::Arc;

use uuid::Uuid;
use weir_sink::{
    Content, Owner,
    table::{Failure, Mutations, Statement, Table, Windows},
};

use crate::{
    native,
    server::{Answer, Batch, Server, Work},
};

/// The client of one process.
#[derive(Clone)]
pub(crate) struct SimTable {
    pub(crate) server: Arc<Server>,
    pub(crate) process: usize,
    /// Whether statements carry their owner: they do.
    pub(crate) fenced: bool,
}

impl SimTable {
    async fn nothing(&self, work: Work) -> Result<(), Failure> {
        self.server.ask(self.process, work).await.map(drop)
    }

    fn owner(&self, statement: Statement<'_>) -> Option<Owner> {
        self.fenced.then_some(*statement.owner)
    }
}

pub(crate) fn seconds(windows: Windows) -> (u32, u32) {
    ((windows.from.ms() / 1_000) as u32, (windows.to.ms() / 1_000) as u32)
}

impl Table for SimTable {
    fn place(&self) -> &str {
        "simulated"
    }

    fn name(&self) -> &str {
        "stats_v1"
    }

    fn fresh(&self) -> Uuid {
        Uuid::from_u128(self.server.state().uuid())
    }

    async fn largest(&self) -> Result<u64, Failure> {
        match self.server.ask(self.process, Work::Largest).await? {
            Answer::Number(number) => Ok(number),
            other => unreachable!("{other:?}"),
        }
    }

    async fn raise(&self, owner: &Owner) -> Result<(), Failure> {
        self.nothing(Work::Raise(*owner)).await
    }

    async fn kill_queries(&self) -> Result<(), Failure> {
        self.nothing(Work::KillQueries).await
    }

    async fn mutations(&self) -> Result<Mutations, Failure> {
        match self.server.ask(self.process, Work::Mutations).await? {
            Answer::Mutations(mutations) => Ok(mutations),
            other => unreachable!("{other:?}"),
        }
    }

    async fn kill_mutations(&self) -> Result<(), Failure> {
        self.nothing(Work::KillMutations).await
    }

    async fn covered(&self, from_s: u32) -> Result<Vec<(u32, u32)>, Failure> {
        match self.server.ask(self.process, Work::Covered(from_s)).await? {
            Answer::Intervals(intervals) => Ok(intervals),
            other => unreachable!("{other:?}"),
        }
    }

    async fn ask(&self, windows: Windows) -> Result<Content, Failure> {
        let (from_s, to_s) = seconds(windows);
        match self.server.ask(self.process, Work::Ask(from_s, to_s)).await? {
            Answer::Content(content) => Ok(content),
            other => unreachable!("{other:?}"),
        }
    }

    async fn insert(&self, as_: Statement<'_>, body: Vec<u8>) -> Result<(), Failure> {
        self.nothing(Work::Insert(self.owner(as_), Arc::new(native::rows(&body)))).await
    }

    async fn delete(&self, as_: Statement<'_>, windows: Windows) -> Result<(), Failure> {
        let (from_s, to_s) = seconds(windows);
        self.nothing(Work::Delete(self.owner(as_), from_s, to_s)).await
    }

    async fn record(&self, as_: Statement<'_>, windows: Windows, content: Content) -> Result<(), Failure> {
        let (from_s, to_s) = seconds(windows);
        self.nothing(Work::Record(self.owner(as_), Batch { from_s, to_s, content })).await
    }

    async fn differs(&self) -> Result<Option<String>, Failure> {
        Ok(None)
    }
}
