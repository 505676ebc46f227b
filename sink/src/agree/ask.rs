//! Questions that are asked again when an answer may have failed by chance: one that does must not cost hours of comparing.

use std::time::Duration;

use clickhouse::{RowOwned, RowRead};

use crate::connection::{Connection, LONG, Target};
use crate::error::{Failure, Kind};

/// A restarting server, a full one, a connection that was cut: for so many tries.
const TRIES: u32 = 3;
const BACKOFF: Duration = Duration::from_secs(2);

/// A server that is only read.
#[derive(Clone)]
pub(super) struct Asked {
    clickhouse: Connection,
}

impl Asked {
    pub(super) fn of(target: &Target) -> Asked {
        Asked { clickhouse: Connection::to(target) }
    }

    /// The database as an identifier.
    pub(super) fn database(&self) -> &str {
        &self.clickhouse.database
    }

    pub(super) async fn rows<T: RowOwned + RowRead>(&self, sql: &str) -> Result<Vec<T>, Failure> {
        let mut tries = 0;
        loop {
            match self.clickhouse.rows(sql, LONG).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => again(&mut tries, failure).await?,
            }
        }
    }

    /// What the rows come to, which are many: each is taken as it comes, and forgotten if not all of them come.
    pub(super) async fn folded<T: RowOwned + RowRead, A: Default>(
        &self,
        sql: &str,
        take: impl Fn(&mut A, T),
    ) -> Result<A, Failure> {
        let mut tries = 0;
        loop {
            let mut all = A::default();
            match self.clickhouse.each(sql, |row| take(&mut all, row)).await {
                Ok(()) => return Ok(all),
                Err(failure) => again(&mut tries, failure).await?,
            }
        }
    }
}

/// Waits, or gives up.
async fn again(tries: &mut u32, failure: Failure) -> Result<(), Failure> {
    *tries += 1;
    if failure.kind != Kind::Unclear || *tries >= TRIES {
        return Err(failure);
    }
    tokio::time::sleep(BACKOFF * *tries).await;
    Ok(())
}
