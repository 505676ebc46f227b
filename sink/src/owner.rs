//! Who may write for a run: raising oneself to be it, and ending what others left running.

use std::time::Duration;

use uuid::Uuid;

use crate::connection::LONG;
use crate::error::Failure;
use crate::table::{Running, Table};

/// Between looks at mutations that are being ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// An owner of a run: its statements, and only its, may write, until somebody raises above it.
///
/// Owners of a run are ordered by number, then by uuid: two that read the same number at the same time are still two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub number: u64,
    pub uuid: Uuid,
}

impl std::fmt::Display for Owner {
    /// At fixed widths, so that texts are ordered as owners are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:020}-{}", self.number, self.uuid.simple())
    }
}

/// Makes a new owner, above all that there are. Sent once: an unclear answer means another raise, with another uuid.
pub(crate) async fn raise(table: &impl Table) -> Result<Owner, Failure> {
    let owner = Owner { number: table.largest().await? + 1, uuid: table.fresh() };
    table.raise(&owner).await?;
    Ok(owner)
}

/// Ends everything that still runs, and returns when it is gone.
///
/// An INSERT that started before the raise would land after it. A killed mutation's parts are still being rewritten
/// when `KILL MUTATION` answers, so that is waited for.
pub(crate) async fn end_running(table: &impl Running) -> Result<(), Failure> {
    table.kill_queries().await?;
    let deadline = tokio::time::Instant::now() + LONG;
    loop {
        let mutations = table.mutations().await?;
        if mutations.unfinished > 0 {
            table.kill_mutations().await?;
        } else if mutations.rewriting == 0 {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(Failure::timed_out("the end of the mutations that run"));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_ordered_by_number_then_by_uuid_and_their_texts_alike() {
        let owner = |number, uuid| Owner { number, uuid: Uuid::from_u128(uuid) };
        let ascending = [owner(1, 9), owner(2, 1), owner(2, 7), owner(10, 0), owner(u64::MAX, 0)];
        assert!(ascending.is_sorted_by(|a, b| a < b && a.to_string() < b.to_string()));
    }
}
