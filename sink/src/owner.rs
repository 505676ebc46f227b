//! Who may write for a run: raising oneself to be it, the fences of its statements, and ending what others left running.

use std::time::Duration;

use uuid::Uuid;
use weir_schemas::tables::quote;

use crate::connection::{Connection, LONG, QUICK};
use crate::error::Failure;

/// What a refused INSERT says, after ClickHouse's own words.
const REFUSAL: &str = "weir: this process does not own the run any more";

/// A run of a generation, as `owners` and query ids name it.
///
/// Two generations may have a run of the same name: a run's name alone would let one refuse the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnedRun {
    /// `v<generation>/<run>`.
    key: String,
    query_prefix: String,
    /// The table that the run's mutations work on.
    table: String,
}

/// An owner: its statements, and only its, may write, until somebody raises above it.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    run: OwnedRun,
    /// Number and uuid, at fixed widths.
    pair: String,
    /// The queries are numbered, so that each has an id of its own.
    queries: u64,
}

impl OwnedRun {
    pub(crate) fn new(database: &str, generation: u32, table: &str, run: &str) -> OwnedRun {
        let key = format!("v{generation}/{run}");
        OwnedRun { query_prefix: format!("weir:{database}:{key}:"), key, table: table.to_owned() }
    }

    /// Makes a new owner, above all that there are. Sent once: an unclear answer means another raise, with another uuid.
    ///
    /// Two that read the same number at the same time are still two: the larger uuid owns the run.
    pub(crate) async fn raise(&self, clickhouse: &Connection) -> Result<Owner, Failure> {
        let database = &clickhouse.database;
        let largest: String = clickhouse
            .row(&format!("SELECT max(owner) FROM {database}.owners WHERE run = {}", quote(&self.key)), QUICK)
            .await?;
        let number = largest.split('-').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) + 1;
        let uuid = Uuid::new_v4();
        let pair = format!("{number:020}-{}", uuid.simple());
        let query_id = format!("{}raise:{}", self.query_prefix, uuid.simple());
        let sql = format!("INSERT INTO {database}.owners (run, owner) VALUES ({}, {})", quote(&self.key), quote(&pair));
        clickhouse.execute(&sql, Some(query_id), QUICK).await?;
        Ok(Owner { run: self.clone(), pair, queries: 0 })
    }

    /// Ends everything of the run that still runs, and returns when it is gone.
    ///
    /// An INSERT that started before the raise would land after it. A killed mutation's parts are still being rewritten
    /// when `KILL MUTATION` answers, so `system.merges` is waited for.
    pub(crate) async fn end_running(&self, clickhouse: &Connection) -> Result<(), Failure> {
        let prefix = quote(&self.query_prefix);
        clickhouse.execute(&format!("KILL QUERY WHERE startsWith(query_id, {prefix}) SYNC"), None, LONG).await?;
        let table = format!("database = {} AND table = {}", quote(&clickhouse.database_name), quote(&self.table));
        // A mutation shows whose it is by the fence in its command.
        let ours = format!("{table} AND NOT is_done AND position(command, {}) > 0", quote(&quote(&self.key)));
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            let (mutations, rewriting): (u64, u64) = clickhouse
                .row(
                    &format!(
                        "SELECT assumeNotNull((SELECT count() FROM system.mutations WHERE {ours})), \
                         assumeNotNull((SELECT count() FROM system.merges WHERE {table} AND is_mutation))"
                    ),
                    QUICK,
                )
                .await?;
            if mutations > 0 {
                clickhouse.execute(&format!("KILL MUTATION WHERE {ours} SYNC"), None, LONG).await?;
            } else if rewriting == 0 {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(Failure::timed_out("the end of the mutations that run"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Owner {
    /// A condition for an INSERT's WHERE: the statement fails, code 395, if another is the run's largest when it starts.
    pub(crate) fn or_fail(&self, clickhouse: &Connection) -> String {
        format!("NOT throwIf({} != {}, {})", self.largest(clickhouse), quote(&self.pair), quote(REFUSAL))
    }

    /// A condition for a DELETE's WHERE: nothing is deleted if another is the run's largest. (A `throwIf` there would
    /// hold up all later mutations of the table.)
    pub(crate) fn or_nothing(&self, clickhouse: &Connection) -> String {
        format!("{} = {}", self.largest(clickhouse), quote(&self.pair))
    }

    fn largest(&self, clickhouse: &Connection) -> String {
        format!("(SELECT max(owner) FROM {}.owners WHERE run = {})", clickhouse.database, quote(&self.run.key))
    }

    /// An id for a statement of this owner; `deed` is for who reads the process list.
    pub(crate) fn query_id(&mut self, deed: &str) -> String {
        self.queries += 1;
        format!("{}{}:{}:{deed}", self.run.query_prefix, self.pair, self.queries)
    }
}
