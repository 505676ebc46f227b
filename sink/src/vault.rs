//! Copies of a database in ClickHouse: each deed of [`Vault`] as SQL.
//!
//! A restore works in a database of its own, `<database>_restore_<id>`, and exchanges tables with it. Another restore
//! drops that database, so that nothing the first one sends afterwards finds its tables.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;
use weir_schemas::SchemaVersion;
use weir_schemas::tables::{Definition, quote, quote_name, stats_table};

use crate::SinkError;
use crate::clickhouse::give_back;
use crate::connection::{Connection, LONG, QUICK, Target};
use crate::decide::united;
use crate::error::Failure;
use crate::restore::{Vault, copy_on, restore_on};
use crate::table::{Mutations, Running};

/// Copies the record and the tables of `versions` into the folder `at` of the server's `backups.allowed_path`, which must
/// not be there; with `base`, an earlier copy, only what that does not hold. `false`: a restore or a DELETE was
/// under way or began meanwhile; the copy is void.
pub async fn copy(
    target: &Target,
    versions: &[SchemaVersion],
    at: &str,
    base: Option<&str>,
) -> Result<bool, SinkError> {
    let copied = copy_on(&ClickHouse { base, ..ClickHouse::new(target, versions, at) }).await;
    copied.map_err(|failure| failure.into_error(&target.url, "copy"))
}

/// Brings back what [`copy`] has put into the folder `at`: the same `versions`, whose tables must be there.
///
/// Every run is refused from when it begins until it has returned `Ok`, and goes on from the copy's checkpoint then. Cut
/// anywhere, or after an error, it must be begun again: until then everything stays closed.
pub async fn restore(target: &Target, versions: &[SchemaVersion], at: &str) -> Result<(), SinkError> {
    let restored = restore_on(&ClickHouse::new(target, versions, at)).await;
    restored.map_err(|failure| failure.into_error(&target.url, "restore"))
}

/// Whether a restore is at work, or was cut short: its own database is there.
pub(crate) async fn is_at_work(target: &Target) -> Result<bool, Failure> {
    Ok(!ClickHouse::new(target, &[], "").stagings().await?.is_empty())
}

/// What has started of all runs.
pub(crate) fn all_runs(target: &Target) -> impl Running {
    ClickHouse::new(target, &[], "")
}

/// For what copies or brings back a whole table.
const FOR_HOURS: Duration = Duration::from_secs(24 * 60 * 60);

/// A database, for one copy or one restore.
struct ClickHouse<'a> {
    connection: Connection,
    versions: &'a [SchemaVersion],
    at: &'a str,
    base: Option<&'a str>,
    /// Of all statements of all runs, copies and restores of this database.
    query_prefix: String,
    /// Of all databases that restores of this one work in.
    staging_prefix: String,
    id: Uuid,
}

impl<'a> ClickHouse<'a> {
    fn new(target: &Target, versions: &'a [SchemaVersion], at: &'a str) -> ClickHouse<'a> {
        ClickHouse {
            connection: Connection::to(target),
            versions,
            at,
            base: None,
            query_prefix: format!("weir:{}:", target.database),
            staging_prefix: format!("{}_restore_", target.database),
            id: Uuid::new_v4(),
        }
    }

    fn staging_name(&self) -> String {
        format!("{}{}", self.staging_prefix, self.id.simple())
    }

    fn staging(&self) -> String {
        quote_name(&self.staging_name())
    }

    /// The databases that restores of this one work in.
    async fn stagings(&self) -> Result<Vec<String>, Failure> {
        self.connection.databases(&self.staging_prefix).await
    }

    fn of_database(&self) -> String {
        format!("database = {}", quote(&self.connection.database_name))
    }

    /// A statement that [`Running::kill_queries`] of another restore ends.
    async fn execute(&self, sql: &str) -> Result<(), Failure> {
        let query_id = format!("{}vault:{}", self.query_prefix, Uuid::new_v4().simple());
        self.connection.execute(sql, Some(query_id), FOR_HOURS).await
    }

    async fn back_up(&self, table: &str) -> Result<(), Failure> {
        let base = self.base.map(|base| format!(" SETTINGS base_backup = {}", file(base, table))).unwrap_or_default();
        let (database, to) = (&self.connection.database, file(self.at, table));
        self.execute(&format!("BACKUP TABLE {database}.{table} TO {to}{base}")).await
    }

    async fn bring(&self, table: &str) -> Result<(), Failure> {
        self.execute(&restore_sql(&self.connection.database, &self.staging(), table, self.at)).await
    }

    async fn exchange(&self, table: &str) -> Result<(), Failure> {
        let (database, staging) = (&self.connection.database, self.staging());
        self.execute(&format!("EXCHANGE TABLES {staging}.{table} AND {database}.{table}")).await
    }
}

/// Where a copy has a table.
fn file(at: &str, table: &str) -> String {
    format!("File({})", quote(&format!("{at}/{table}")))
}

/// Brings a table of `database` from a copy into the database `into`; both as identifiers.
fn restore_sql(database: &str, into: &str, table: &str, at: &str) -> String {
    format!("RESTORE TABLE {database}.{table} AS {into}.{table} FROM {}", file(at, table))
}

/// Brings all of a copy of `target`'s database into that of `into`, without the rows that no `done` of its record covers.
pub(crate) async fn bring_into(
    target: &Target,
    into: &Target,
    versions: &[SchemaVersion],
    at: &str,
) -> Result<(), Failure> {
    let connection = Connection::to(target);
    let (database, into) = (&connection.database, &quote_name(&into.database));
    let bring = |table: &str| restore_sql(database, into, table, at);
    connection.execute(&bring("emissions"), None, FOR_HOURS).await?;
    for version in versions {
        let table = stats_table(version);
        connection.execute(&bring(&table), None, FOR_HOURS).await?;
        let covered = covered(&connection, into, version).await?;
        let sql = format!("ALTER TABLE {into}.{table} DELETE WHERE NOT ({covered}) SETTINGS mutations_sync = 2");
        connection.execute(&sql, None, FOR_HOURS).await?;
    }
    Ok(())
}

/// A condition that holds for the rows that some `done` of the record in `database` covers.
async fn covered(connection: &Connection, database: &str, version: &SchemaVersion) -> Result<String, Failure> {
    let sql = format!(
        "SELECT DISTINCT origin, toUnixTimestamp(window_from), toUnixTimestamp(window_to) FROM {}.emissions \
         WHERE generation = {} AND state = 'done'",
        database, version.number
    );
    let done: Vec<(String, u32, u32)> = connection.rows(&sql, LONG).await?;
    let mut by_origin: BTreeMap<String, Vec<(u32, u32)>> = BTreeMap::new();
    for (origin, from_s, to_s) in done {
        by_origin.entry(origin).or_default().push((from_s, to_s));
    }
    let of_origin = |(origin, windows): (String, Vec<(u32, u32)>)| {
        let within = |(from_s, to_s)| {
            format!("emitted_in >= toDateTime({from_s}, 'UTC') AND emitted_in < toDateTime({to_s}, 'UTC')")
        };
        let within: Vec<String> = united(windows).into_iter().map(within).collect();
        format!("(origin = {} AND ({}))", quote(&origin), within.join(" OR "))
    };
    let all: Vec<String> = by_origin.into_iter().map(of_origin).collect();
    Ok(if all.is_empty() { "0".to_owned() } else { all.join(" OR ") })
}

impl Running for ClickHouse<'_> {
    async fn kill_queries(&self) -> Result<(), Failure> {
        let prefix = quote(&self.query_prefix);
        self.connection.execute(&format!("KILL QUERY WHERE startsWith(query_id, {prefix}) SYNC"), None, LONG).await
    }

    async fn mutations(&self) -> Result<Mutations, Failure> {
        let of = self.of_database();
        let sql = format!(
            "SELECT assumeNotNull((SELECT count() FROM system.mutations WHERE {of} AND NOT is_done)), \
             assumeNotNull((SELECT count() FROM system.merges WHERE {of} AND is_mutation))"
        );
        let (unfinished, rewriting) = self.connection.row(&sql, QUICK).await?;
        Ok(Mutations { unfinished, rewriting })
    }

    async fn kill_mutations(&self) -> Result<(), Failure> {
        let sql = format!("KILL MUTATION WHERE {} AND NOT is_done SYNC", self.of_database());
        self.connection.execute(&sql, None, LONG).await
    }
}

impl Vault for ClickHouse<'_> {
    async fn standing(&self) -> Result<Option<String>, Failure> {
        let of = self.of_database();
        let emissions = format!("{}.emissions", self.connection.database);
        // A mutation is listed after it is over, too. What is done and lost is being given up: the mutation comes yet.
        let sql = format!(
            "SELECT concat(toString(uuid), ' ', \
             toString(assumeNotNull((SELECT sum(cityHash64(table, mutation_id)) FROM system.mutations WHERE {of})))) \
             FROM system.tables WHERE {of} AND name = 'owners' \
             AND (SELECT count() FROM system.mutations WHERE {of} AND NOT is_done) = 0 \
             AND (SELECT count() FROM {emissions} AS done, {emissions} AS lost WHERE done.state = 'done' \
             AND lost.state = 'lost' AND done.generation = lost.generation AND done.origin = lost.origin \
             AND done.window_from < lost.window_to AND lost.window_from < done.window_to) = 0"
        );
        Ok(self.connection.rows::<String>(&sql, QUICK).await?.pop())
    }

    async fn copy_record(&self) -> Result<(), Failure> {
        self.back_up("emissions").await
    }

    async fn copy_rows(&self) -> Result<(), Failure> {
        for version in self.versions {
            self.back_up(&stats_table(version)).await?;
        }
        Ok(())
    }

    async fn close(&self) -> Result<(), Failure> {
        // Its name is gone at once. SYNC would wait for what has started and reads it: that is ended next.
        let sql = format!("DROP TABLE IF EXISTS {}.owners", self.connection.database);
        self.connection.execute(&sql, None, QUICK).await?;
        // What takes days from a replay's table has no fence but that name.
        for version in self.versions {
            give_back(&self.connection, version).await?;
        }
        Ok(())
    }

    async fn take_over(&self) -> Result<(), Failure> {
        self.connection.drop_databases(&self.staging_prefix).await?;
        self.connection.execute(&format!("CREATE DATABASE {} ENGINE = Atomic", self.staging()), None, LONG).await
    }

    async fn bring_record(&self) -> Result<(), Failure> {
        self.bring("emissions").await?;
        // A copy may have more generations than there are now.
        let (staging, numbers) = (self.staging(), self.versions.iter().map(|version| version.number.to_string()));
        let numbers = numbers.collect::<Vec<_>>().join(", ");
        self.execute(&format!(
            "ALTER TABLE {staging}.emissions DELETE WHERE generation NOT IN ({numbers}) SETTINGS mutations_sync = 2"
        ))
        .await?;
        self.exchange("emissions").await
    }

    async fn bring_rows(&self) -> Result<(), Failure> {
        for version in self.versions {
            let table = stats_table(version);
            self.bring(&table).await?;
            // Before anybody sees them.
            let covered = covered(&self.connection, &self.connection.database, version).await?;
            let staging = self.staging();
            self.execute(&format!(
                "ALTER TABLE {staging}.{table} DELETE WHERE NOT ({covered}) SETTINGS mutations_sync = 2"
            ))
            .await?;
            self.exchange(&table).await?;
        }
        Ok(())
    }

    async fn open(&self) -> Result<(), Failure> {
        self.execute(&Definition::owners().create(&self.staging_name())).await?;
        let (database, staging) = (&self.connection.database, self.staging());
        self.execute(&format!("RENAME TABLE {staging}.owners TO {database}.owners")).await?;
        self.connection.execute(&format!("DROP DATABASE IF EXISTS {staging} SYNC"), None, LONG).await
    }
}
