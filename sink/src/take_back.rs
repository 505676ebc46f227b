//! Windows that were done are made not done, so that their run asks for them again, or they are given up.

use weir_schemas::tables::{quote, stats_table};
use weir_schemas::{SchemaVersion, WindowStart};

use crate::SinkError;
use crate::clickhouse::ClickHouse;
use crate::connection::{Connection, LONG, QUICK, Target};
use crate::digest::seconds;
use crate::error::Failure;
use crate::owner::{self, Owner};
use crate::table::Table;

/// How far back what was done is not believed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All windows from here on: their run computes each again, and writes those that the table does not hold as they
    /// must be. Their rows stay meanwhile.
    From(WindowStart),
    /// The windows `[from, to)`, which are not computed: their rows go too, and `emissions` says `lost`.
    Lost { from: WindowStart, to: WindowStart },
}

/// Takes windows of `run` out of what is done. May be repeated, also after it was cut short.
///
/// First the run is raised above whoever owns it, and what it still runs is ended, as for any deed: a forgotten writer that
/// wakes afterwards is refused. Then the record goes, and after it, of windows that are given up, the rows: cut in between,
/// they are not said to be done, which is the truth. That a record goes can never double or lose a row, since no batch is
/// written before the table was asked for its windows, and none is recorded that was not found equal.
pub async fn take_back(
    target: &Target,
    run: &str,
    version: &SchemaVersion,
    origin: &str,
    extent: Extent,
) -> Result<(), SinkError> {
    let taken = Taken { clickhouse: Connection::to(target), run, version, origin };
    taken.take(target, extent).await.map_err(|failure| failure.into_error(&target.url, run))
}

struct Taken<'a> {
    clickhouse: Connection,
    run: &'a str,
    version: &'a SchemaVersion,
    origin: &'a str,
}

impl Taken<'_> {
    async fn take(&self, target: &Target, extent: Extent) -> Result<(), Failure> {
        let run = ClickHouse::new(target, self.run, self.version, self.origin);
        let owner = owner::raise(&run).await?;
        owner::end_running(&run).await?;
        let database = &self.clickhouse.database;
        // A batch that begins before and reaches into it is not done as a whole any more.
        let (from, to) = match extent {
            Extent::From(from) => (from, None),
            Extent::Lost { from, to } => (from, Some(to)),
        };
        let before = to.map_or(String::new(), |to| format!(" AND window_from < toDateTime({}, 'UTC')", at(to)));
        // What is asked for again is not lost any more, if it comes: else the run would pass over it.
        let states = if to.is_none() { "'done', 'lost'" } else { "'done'" };
        let done = format!(
            "generation = {} AND origin = {} AND state IN ({states}) AND window_to > toDateTime({}, 'UTC'){before}",
            self.version.number,
            quote(self.origin),
            at(from)
        );
        self.delete(&run, &owner, "emissions", &done).await?;
        let Extent::Lost { from, to } = extent else { return Ok(()) };
        let rows = format!(
            "origin = {} AND emitted_in >= toDateTime({}, 'UTC') AND emitted_in < toDateTime({}, 'UTC')",
            quote(self.origin),
            at(from),
            at(to)
        );
        self.delete(&run, &owner, &stats_table(self.version), &rows).await?;
        let lost = format!(
            "INSERT INTO {database}.emissions (generation, origin, run, state, window_from, window_to, rows, digest) \
             SELECT {}, {}, {}, 'lost', toDateTime({}, 'UTC'), toDateTime({}, 'UTC'), 0, 0 WHERE {}",
            self.version.number,
            quote(self.origin),
            quote(self.run),
            at(from),
            at(to),
            run.or_fail(&owner),
        );
        self.clickhouse.execute(&lost, None, QUICK).await
    }

    /// Looks first: a mutation of what is not there would rewrite nothing, and take its time.
    async fn delete(&self, run: &ClickHouse, owner: &Owner, table: &str, rows: &str) -> Result<(), Failure> {
        let database = &self.clickhouse.database;
        let count = format!("SELECT count() FROM {database}.{table} WHERE {rows}");
        if self.clickhouse.row::<u64>(&count, LONG).await? == 0 {
            return Ok(());
        }
        let sql = format!(
            "ALTER TABLE {database}.{table} DELETE WHERE {rows} AND {} SETTINGS mutations_sync = 2",
            run.or_nothing(owner)
        );
        self.clickhouse.execute(&sql, None, LONG).await?;
        match self.clickhouse.row::<u64>(&count, LONG).await? {
            0 => Ok(()),
            left => Err(Failure {
                kind: crate::table::Kind::Unclear,
                said: format!(
                    "{left} rows of {table} are still there after their DELETE (another owner of {}?)",
                    run.name()
                ),
            }),
        }
    }
}

fn at(window: WindowStart) -> u32 {
    seconds(window.ms())
}
