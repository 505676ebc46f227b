//! The simulated server as the sink sees it.

use std::sync::Arc;

use uuid::Uuid;
use weir_sink::{
    Altered, Content, Owner, Vault,
    table::{Failure, Mutations, Recorded, Running, Statement, Table, Windows},
};

use crate::{
    Bug, native,
    server::{Answer, Batch, Server, Work},
};

/// The client of one process.
#[derive(Clone)]
pub(crate) struct SimTable {
    pub(crate) server: Arc<Server>,
    pub(crate) process: usize,
    pub(crate) bug: Option<Bug>,
}

impl SimTable {
    async fn nothing(&self, work: Work) -> Result<(), Failure> {
        self.server.ask(self.process, work).await.map(drop)
    }

    async fn records(&self, work: Work) -> Result<Vec<Recorded>, Failure> {
        match self.server.ask(self.process, work).await? {
            Answer::Records(records) => Ok(records),
            other => unreachable!("{other:?}"),
        }
    }

    fn owner(&self, statement: Statement<'_>) -> Option<Owner> {
        Some(*statement.owner).filter(|_| self.bug != Some(Bug::WithoutOwner))
    }
}

pub(crate) fn seconds(windows: Windows) -> (u32, u32) {
    ((windows.from.ms() / 1_000) as u32, (windows.to.ms() / 1_000) as u32)
}

impl Running for SimTable {
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

    async fn recorded(&self, from_s: u32, to_s: u32) -> Result<Vec<Recorded>, Failure> {
        self.records(Work::Recorded(from_s, to_s)).await
    }

    async fn left(&self) -> Result<Vec<Recorded>, Failure> {
        self.records(Work::Left).await
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

    async fn leave(&self, as_: Statement<'_>, windows: Windows) -> Result<(), Failure> {
        let (from_s, to_s) = seconds(windows);
        let owner = self.owner(as_).filter(|_| self.bug != Some(Bug::LeftWithoutOwner));
        self.nothing(Work::Leave(owner, from_s, to_s)).await
    }

    async fn altered(&self) -> Result<Option<Altered>, Failure> {
        Ok(None)
    }
}

/// The same server, as a copy or a restore sees it.
pub(crate) struct SimVault {
    pub(crate) table: SimTable,
    pub(crate) id: u128,
    pub(crate) bug: Option<Bug>,
}

impl Running for SimVault {
    async fn kill_queries(&self) -> Result<(), Failure> {
        self.table.kill_queries().await
    }

    async fn mutations(&self) -> Result<Mutations, Failure> {
        self.table.mutations().await
    }

    async fn kill_mutations(&self) -> Result<(), Failure> {
        self.table.kill_mutations().await
    }
}

impl Vault for SimVault {
    async fn owners(&self) -> Result<Option<String>, Failure> {
        match self.table.server.ask(self.table.process, Work::Owners).await? {
            Answer::Owners(owners) => Ok(owners),
            other => unreachable!("{other:?}"),
        }
    }

    async fn copy_record(&self) -> Result<(), Failure> {
        let rows_first = self.bug == Some(Bug::RowsFirst);
        self.table.nothing(if rows_first { Work::CopyRows(self.id) } else { Work::CopyRecord(self.id) }).await
    }

    async fn copy_rows(&self) -> Result<(), Failure> {
        let rows_first = self.bug == Some(Bug::RowsFirst);
        self.table.nothing(if rows_first { Work::CopyRecord(self.id) } else { Work::CopyRows(self.id) }).await
    }

    async fn close(&self) -> Result<(), Failure> {
        if self.bug == Some(Bug::RestoreOpen) { Ok(()) } else { self.table.nothing(Work::Close).await }
    }

    async fn take_over(&self) -> Result<(), Failure> {
        self.table.nothing(Work::TakeOver(self.id)).await
    }

    async fn bring_record(&self) -> Result<(), Failure> {
        self.table.nothing(Work::BringRecord(self.id)).await
    }

    async fn bring_rows(&self) -> Result<(), Failure> {
        self.table.nothing(Work::BringRows(self.id)).await
    }

    async fn open(&self) -> Result<(), Failure> {
        self.table.nothing(Work::Open(self.id)).await
    }
}
