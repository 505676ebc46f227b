//! The simulated server as the sink sees it.

use std::sync::Arc;

use uuid::Uuid;
use weir_sink::{
    Altered, Content, Owner, Vault,
    table::{Failure, Mutations, Recorded, Running, State, Statement, Table, Windows},
};

use crate::{
    Bug, native,
    plan::Role,
    server::{Answer, Server, Work},
};

/// The client of one process.
#[derive(Clone)]
pub(crate) struct SimTable {
    pub(crate) server: Arc<Server>,
    pub(crate) process: usize,
    /// Whose table it is.
    pub(crate) role: Role,
    pub(crate) bug: Option<Bug>,
}

impl SimTable {
    async fn answer(&self, work: Work) -> Result<Answer, Failure> {
        self.server.ask(self.process, self.role, work).await
    }

    async fn nothing(&self, work: Work) -> Result<(), Failure> {
        self.answer(work).await.map(drop)
    }

    async fn records(&self, work: Work) -> Result<Vec<Recorded>, Failure> {
        match self.answer(work).await? {
            Answer::Records(records) => Ok(records),
            other => unreachable!("{other:?}"),
        }
    }

    pub(crate) async fn held(&self, from_s: u32, to_s: u32) -> Result<Content, Failure> {
        match self.answer(Work::Ask(from_s, to_s)).await? {
            Answer::Content(content) => Ok(content),
            other => unreachable!("{other:?}"),
        }
    }

    async fn put(&self, owner: Option<Owner>, windows: Windows, state: State, content: Content) -> Result<(), Failure> {
        let (from_s, to_s) = seconds(windows);
        self.nothing(Work::Record(owner, Recorded { from_s, to_s, state, content })).await
    }

    fn owner(&self, statement: Statement<'_>) -> Option<Owner> {
        let without = [Bug::WithoutOwner, Bug::TakenBackUnfenced, Bug::TakenBackUnraised];
        Some(*statement.owner).filter(|_| !self.bug.is_some_and(|bug| without.contains(&bug)))
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
        match self.answer(Work::Mutations).await? {
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
        match self.answer(Work::Largest).await? {
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
        self.held(from_s, to_s).await
    }

    async fn insert(&self, as_: Statement<'_>, body: Vec<u8>) -> Result<(), Failure> {
        self.nothing(Work::Insert(self.owner(as_), Arc::new(native::rows(&body)))).await
    }

    async fn delete(&self, as_: Statement<'_>, windows: Windows) -> Result<(), Failure> {
        let (from_s, to_s) = seconds(windows);
        self.nothing(Work::Delete(self.owner(as_), from_s, to_s)).await
    }

    async fn record(&self, as_: Statement<'_>, windows: Windows, content: Content) -> Result<(), Failure> {
        self.put(self.owner(as_), windows, State::Done, content).await
    }

    async fn leave(&self, as_: Statement<'_>, windows: Windows) -> Result<(), Failure> {
        let owner = self.owner(as_).filter(|_| self.bug != Some(Bug::LeftWithoutOwner));
        self.put(owner, windows, State::Left, Content::default()).await
    }

    async fn lose(&self, as_: Statement<'_>, windows: Windows) -> Result<(), Failure> {
        self.put(self.owner(as_), windows, State::Lost, Content::default()).await
    }

    async fn forget(&self, as_: Statement<'_>, windows: Windows, states: &[State]) -> Result<(), Failure> {
        let (from_s, to_s) = seconds(windows);
        self.nothing(Work::Forget(self.owner(as_), from_s, to_s, states.to_vec())).await
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
    async fn standing(&self) -> Result<Option<String>, Failure> {
        match self.table.answer(Work::Standing).await? {
            Answer::Standing(standing) => Ok(standing),
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
