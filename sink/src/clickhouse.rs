//! A run's table in ClickHouse, with `owners` and `emissions` beside it: each statement of [`Table`] as SQL.

use weir_schemas::SchemaVersion;
use weir_schemas::tables::{quote, quote_name, stats_table};

use crate::connection::{Connection, LONG, QUICK, Target};
use crate::digest::{self, Content, seconds};
use crate::error::{Failure, Kind};
use crate::events::word;
use crate::owner::Owner;
use crate::replay::Scratch;
use crate::table::{Mutations, Recorded, Replacing, Running, State, Statement, Table, Windows};
use crate::{Altered, body, carry, prepare};

/// What a refused INSERT says, after ClickHouse's own words.
const REFUSAL: &str = "weir: this process does not own the run any more";

/// The rows of one origin in a generation's table, as one run writes them.
#[derive(Clone)]
pub(crate) struct ClickHouse {
    connection: Connection,
    version: SchemaVersion,
    table: String,
    run: String,
    origin: String,
    /// `v<generation>/<run>`, as `owners` names it: two generations may have a run of the same name, and a run's name
    /// alone would let one refuse the other.
    key: String,
    query_prefix: String,
}

/// The table of a run in ClickHouse: the statements that [`run`](crate::run()) sends, for who wants to send them one by one.
pub fn table_of(target: &Target, run: &str, version: &SchemaVersion, origin: &str) -> impl Table + Clone + use<> {
    ClickHouse::new(target, run, version, origin)
}

/// The same of live rows, with the table beside it that a replay has filled.
pub fn replacing_of(target: &Target, run: &str, version: &SchemaVersion) -> impl Replacing + Clone + use<> {
    ClickHouse::new(target, run, version, "")
}

impl ClickHouse {
    pub(crate) fn new(target: &Target, run: &str, version: &SchemaVersion, origin: &str) -> ClickHouse {
        let key = format!("v{}/{run}", version.number);
        ClickHouse {
            connection: Connection::to(target),
            version: version.clone(),
            table: stats_table(version),
            run: run.to_owned(),
            origin: origin.to_owned(),
            query_prefix: format!("weir:{}:{key}:", target.database),
            key,
        }
    }

    fn query_id(&self, statement: Statement<'_>) -> String {
        let Statement { owner, deed, number } = statement;
        format!("{}{owner}:{number}:{}", self.query_prefix, word(deed))
    }

    /// A condition for an INSERT's WHERE: the statement fails, code 395, if another is the run's largest when it starts.
    fn or_fail(&self, owner: &Owner) -> String {
        format!("NOT throwIf({} != {}, {})", self.largest_owner(), quote(&owner.to_string()), quote(REFUSAL))
    }

    /// A condition for a DELETE's WHERE: nothing is deleted if another is the run's largest. (A `throwIf` there would
    /// hold up all later mutations of the table.)
    fn or_nothing(&self, owner: &Owner) -> String {
        format!("{} = {}", self.largest_owner(), quote(&owner.to_string()))
    }

    fn largest_owner(&self) -> String {
        format!("(SELECT max(owner) FROM {}.owners WHERE run = {})", self.connection.database, quote(&self.key))
    }

    /// The rows of these windows, whoever wrote them.
    fn of_windows(&self, windows: Windows) -> String {
        format!(
            "origin = {} AND emitted_in >= toDateTime({}, 'UTC') AND emitted_in < toDateTime({}, 'UTC')",
            quote(&self.origin),
            seconds(windows.from.ms()),
            seconds(windows.to.ms())
        )
    }

    /// Which entries of `system.mutations` and `system.merges` are the table's, or the record's.
    fn of_tables(&self) -> String {
        format!(
            "database = {} AND table IN ({}, 'emissions')",
            quote(&self.connection.database_name),
            quote(&self.table)
        )
    }

    /// The record of the run's origin.
    fn of_origin(&self) -> String {
        format!("generation = {} AND origin = {}", self.version.number, quote(&self.origin))
    }

    async fn records(&self, which: &str) -> Result<Vec<Recorded>, Failure> {
        let sql = format!(
            "SELECT DISTINCT toUnixTimestamp(window_from), toUnixTimestamp(window_to), toString(state), rows, digest \
             FROM {}.emissions WHERE {} AND {which}",
            self.connection.database,
            self.of_origin()
        );
        let records: Vec<(u32, u32, String, u64, u64)> = self.connection.rows(&sql, LONG).await?;
        let recorded = |(from_s, to_s, state, rows, digest): (u32, u32, String, u64, u64)| {
            let state = [State::Done, State::Left, State::Lost].into_iter().find(|of| state_word(*of) == state)?;
            Some(Recorded { from_s, to_s, state, content: Content { rows, digest } })
        };
        Ok(records.into_iter().filter_map(recorded).collect())
    }

    async fn put_record(
        &self,
        as_: Statement<'_>,
        state: State,
        windows: Windows,
        content: Content,
    ) -> Result<(), Failure> {
        let sql = format!(
            "INSERT INTO {}.emissions (generation, origin, run, state, window_from, window_to, rows, digest) \
             SELECT {}, {}, {}, {}, toDateTime({}, 'UTC'), toDateTime({}, 'UTC'), {}, {} WHERE {}",
            self.connection.database,
            self.version.number,
            quote(&self.origin),
            quote(&self.run),
            quote(state_word(state)),
            seconds(windows.from.ms()),
            seconds(windows.to.ms()),
            content.rows,
            content.digest,
            self.or_fail(as_.owner),
        );
        self.connection.execute(&sql, Some(self.query_id(as_)), QUICK).await
    }

    /// The database beside this one that a replay fills.
    fn beside(&self) -> String {
        beside(&self.connection.database_name)
    }

    /// What the table beside is called while it is the owner's.
    fn owned(&self, owner: &Owner) -> String {
        format!("{}_{}_{}", self.table, owner.number, owner.uuid.simple())
    }

    /// What a replay before has made the owner's, a next one may fill.
    pub(crate) async fn give_back(&self) -> Result<(), Failure> {
        give_back(&self.connection, &self.version).await
    }

    /// What a table holds, by window.
    async fn by_window(&self, table: &str, windows: Windows) -> Result<Vec<(u32, Content)>, Failure> {
        let sql = format!(
            "SELECT toUnixTimestamp(emitted_in) AS at, count(), sum({}) FROM {table} WHERE {} GROUP BY at ORDER BY at",
            digest::sql(&self.version),
            self.of_windows(windows)
        );
        let held: Vec<(u32, u64, u64)> = self.connection.rows(&sql, LONG).await?;
        Ok(held.into_iter().map(|(at_s, rows, digest)| (at_s, Content { rows, digest })).collect())
    }

    /// A mutation shows whose it is by the fence in its command.
    fn own_mutations(&self) -> String {
        format!("{} AND NOT is_done AND position(command, {}) > 0", self.of_tables(), quote(&quote(&self.key)))
    }
}

/// The database beside `database` that a replay fills.
pub(crate) fn beside(database: &str) -> String {
    format!("{database}_replay")
}

/// The table of `version` beside that of the connection's database has its own name again, whoever has taken it over: what
/// was sent to it by another name finds no table.
pub(crate) async fn give_back(connection: &Connection, version: &SchemaVersion) -> Result<(), Failure> {
    let table = stats_table(version);
    rename_beside(connection, &table, &table).await.map(drop)
}

/// Gives the table beside this name, whatever a replay has given it; `false`: there is none, or the database beside is
/// somebody else's. If somebody else does at the same time, one of the two does nothing.
async fn rename_beside(connection: &Connection, table: &str, to: &str) -> Result<bool, Failure> {
    let beside = beside(&connection.database_name);
    let sql = format!(
        "SELECT name FROM system.tables WHERE database = {beside} AND (name = {} OR match(name, {})) \
         AND (SELECT count() FROM system.databases WHERE name = {beside} AND startsWith(comment, {})) > 0",
        quote(table),
        quote(&format!("^{table}_[0-9]+_[0-9a-f]{{32}}$")),
        quote(Scratch::OURS),
        beside = quote(&beside),
    );
    let Some(is) = connection.rows::<String>(&sql, QUICK).await?.pop() else { return Ok(false) };
    if is != to {
        let (beside, is, to) = (quote_name(&beside), quote_name(&is), quote_name(to));
        let sql = format!("RENAME TABLE IF EXISTS {beside}.{is} TO {beside}.{to}");
        connection.execute(&sql, None, QUICK).await?;
    }
    Ok(true)
}

/// Records, each as `(from, to, rows, digest)`.
fn tuples(of: &[Recorded]) -> String {
    let tuple = |of: &Recorded| format!("({}, {}, {}, {})", of.from_s, of.to_s, of.content.rows, of.content.digest);
    of.iter().map(tuple).collect::<Vec<_>>().join(", ")
}

/// A state, as `emissions` names it.
fn state_word(state: State) -> &'static str {
    match state {
        State::Done => "done",
        State::Left => "left",
        State::Lost => "lost",
    }
}

/// The live rows of these windows in an older version's table.
pub(crate) struct Old<'a> {
    pub(crate) version: &'a SchemaVersion,
    pub(crate) windows: Windows,
}

/// What a statement that carries rows over may take, beside live: as of a comparison of two tables.
const BESIDE: &str = "max_threads = 2, max_memory_usage = 400000000, max_bytes_before_external_group_by = 200000000";

impl ClickHouse {
    /// What an older table's rows come to as this one's.
    pub(crate) async fn ask_old(&self, old: &Old<'_>) -> Result<Content, Failure> {
        let rows = carry::rows_sql(&self.connection.database, old, &self.version);
        let sql = format!("SELECT count(), sum({}) FROM ({rows}) SETTINGS {BESIDE}", digest::sql(&self.version));
        let (rows, digest) = self.connection.row(&sql, LONG).await?;
        Ok(Content { rows, digest })
    }

    /// Puts an older table's rows in. Not all or none of them: what is cut in between leaves some.
    pub(crate) async fn insert_old(&self, as_: Statement<'_>, old: &Old<'_>) -> Result<(), Failure> {
        let mut names = vec!["site", "dimension", "value", "window_start", "emitted_in"];
        names.extend(self.version.measures.iter().map(|measure| measure.name()));
        names.extend(["visitors", "visitor_check"]);
        let names = names.join(", ");
        let sql = format!(
            "INSERT INTO {}.{} ({names}, origin) SELECT {names}, '' FROM ({}) WHERE {} \
             SETTINGS {BESIDE}, max_insert_threads = 1, min_insert_block_size_rows = 500000, \
             min_insert_block_size_bytes = 67108864",
            self.connection.database,
            self.table,
            carry::rows_sql(&self.connection.database, old, &self.version),
            self.or_fail(as_.owner),
        );
        self.connection.execute(&sql, Some(self.query_id(as_)), LONG).await
    }

    /// How many rows this table has of these windows, by wider ones (s since the Unix epoch), ascending; those without are left
    /// out.
    pub(crate) async fn rows_by_window(&self, windows: Windows, width_s: u32) -> Result<Vec<(u32, u64)>, Failure> {
        let sql = format!(
            "SELECT toUInt32(intDiv(toUnixTimestamp(emitted_in), {width_s}) * {width_s}) AS at, count() FROM {}.{} \
             WHERE {} GROUP BY at ORDER BY at",
            self.connection.database,
            self.table,
            self.of_windows(windows)
        );
        self.connection.rows(&sql, LONG).await
    }
}

impl Running for ClickHouse {
    async fn kill_queries(&self) -> Result<(), Failure> {
        let prefix = quote(&self.query_prefix);
        self.connection.execute(&format!("KILL QUERY WHERE startsWith(query_id, {prefix}) SYNC"), None, LONG).await
    }

    async fn mutations(&self) -> Result<Mutations, Failure> {
        let sql = format!(
            "SELECT assumeNotNull((SELECT count() FROM system.mutations WHERE {})), \
             assumeNotNull((SELECT count() FROM system.merges WHERE {} AND is_mutation))",
            self.own_mutations(),
            self.of_tables()
        );
        let (unfinished, rewriting) = self.connection.row(&sql, QUICK).await?;
        Ok(Mutations { unfinished, rewriting })
    }

    async fn kill_mutations(&self) -> Result<(), Failure> {
        self.connection.execute(&format!("KILL MUTATION WHERE {} SYNC", self.own_mutations()), None, LONG).await
    }
}

impl Table for ClickHouse {
    fn place(&self) -> &str {
        &self.connection.url
    }

    fn name(&self) -> &str {
        &self.table
    }

    async fn largest(&self) -> Result<u64, Failure> {
        let sql =
            format!("SELECT max(owner) FROM {}.owners WHERE run = {}", self.connection.database, quote(&self.key));
        let largest: String = self.connection.row(&sql, QUICK).await?;
        Ok(largest.split('-').next().and_then(|number| number.parse().ok()).unwrap_or(0))
    }

    async fn raise(&self, owner: &Owner) -> Result<(), Failure> {
        let query_id = format!("{}raise:{}", self.query_prefix, owner.uuid.simple());
        let sql = format!(
            "INSERT INTO {}.owners (run, owner) VALUES ({}, {})",
            self.connection.database,
            quote(&self.key),
            quote(&owner.to_string())
        );
        self.connection.execute(&sql, Some(query_id), QUICK).await
    }

    async fn recorded(&self, from_s: u32, to_s: u32) -> Result<Vec<Recorded>, Failure> {
        // A batch that only reaches into them matters too.
        let within = format!("window_to > toDateTime({from_s}, 'UTC') AND window_from < toDateTime({to_s}, 'UTC')");
        self.records(&within).await
    }

    async fn left(&self) -> Result<Vec<Recorded>, Failure> {
        self.records("state = 'left'").await
    }

    async fn ask(&self, windows: Windows) -> Result<Content, Failure> {
        let sql = format!(
            "SELECT count(), sum({}) FROM {}.{} WHERE {}",
            digest::sql(&self.version),
            self.connection.database,
            self.table,
            self.of_windows(windows)
        );
        let (rows, digest) = self.connection.row(&sql, LONG).await?;
        Ok(Content { rows, digest })
    }

    async fn insert(&self, as_: Statement<'_>, body: Vec<u8>) -> Result<(), Failure> {
        let columns = body::columns(&self.version);
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        let structure: Vec<String> = columns.iter().map(|(name, data_type)| format!("{name} {data_type}")).collect();
        let sql = format!(
            "INSERT INTO {}.{} ({names}, origin) SELECT {names}, {} FROM input({}) WHERE {} FORMAT Native",
            self.connection.database,
            self.table,
            quote(&self.origin),
            quote(&structure.join(", ")),
            self.or_fail(as_.owner),
        );
        self.connection.insert(&sql, self.query_id(as_), body).await
    }

    async fn delete(&self, as_: Statement<'_>, windows: Windows) -> Result<(), Failure> {
        let sql = format!(
            "ALTER TABLE {}.{} DELETE WHERE {} AND {} SETTINGS mutations_sync = 2",
            self.connection.database,
            self.table,
            self.of_windows(windows),
            self.or_nothing(as_.owner)
        );
        self.connection.execute(&sql, Some(self.query_id(as_)), LONG).await
    }

    async fn record(&self, as_: Statement<'_>, windows: Windows, content: Content) -> Result<(), Failure> {
        self.put_record(as_, State::Done, windows, content).await
    }

    async fn leave(&self, as_: Statement<'_>, windows: Windows) -> Result<(), Failure> {
        self.put_record(as_, State::Left, windows, Content::default()).await
    }

    async fn lose(&self, as_: Statement<'_>, windows: Windows) -> Result<(), Failure> {
        self.put_record(as_, State::Lost, windows, Content::default()).await
    }

    async fn forget(&self, as_: Statement<'_>, windows: Windows, states: &[State]) -> Result<(), Failure> {
        let states: Vec<String> = states.iter().map(|state| quote(state_word(*state))).collect();
        let sql = format!(
            "ALTER TABLE {}.emissions DELETE WHERE {} AND state IN ({}) AND window_to > toDateTime({}, 'UTC') \
             AND window_from < toDateTime({}, 'UTC') AND {} SETTINGS mutations_sync = 2",
            self.connection.database,
            self.of_origin(),
            states.join(", "),
            seconds(windows.from.ms()),
            seconds(windows.to.ms()),
            self.or_nothing(as_.owner)
        );
        self.connection.execute(&sql, Some(self.query_id(as_)), LONG).await
    }

    async fn altered(&self) -> Result<Option<Altered>, Failure> {
        prepare::check(&self.connection, &self.version).await
    }
}

impl Replacing for ClickHouse {
    async fn take_over(&self, owner: &Owner) -> Result<(), Failure> {
        if !rename_beside(&self.connection, &self.table, &self.owned(owner)).await? {
            let said = format!("{}.{} is not there", self.beside(), self.table);
            return Err(Failure { kind: Kind::Hopeless("begin the replay again"), said });
        }
        // Who raises above it gives the table its own name back afterwards: that may have come before this name.
        match self.connection.row::<u8>(&format!("SELECT assumeNotNull({})", self.or_nothing(owner)), QUICK).await? {
            0 => Err(Failure { kind: Kind::Refused, said: REFUSAL.to_owned() }),
            _ => Ok(()),
        }
    }

    async fn held(&self, windows: Windows) -> Result<Vec<(u32, Content)>, Failure> {
        self.by_window(&format!("{}.{}", self.connection.database, self.table), windows).await
    }

    async fn replayed(&self, owner: &Owner, windows: Windows) -> Result<Vec<(u32, Content)>, Failure> {
        self.by_window(&format!("{}.{}", quote_name(&self.beside()), self.owned(owner)), windows).await
    }

    async fn replace(&self, as_: Statement<'_>, day: Windows) -> Result<(), Failure> {
        // A day of which a replay has nothing is refused without it, by a server that knows it; the others take it as it is.
        let empty = "allow_replace_partition_from_empty_source";
        let known = format!("SELECT count() FROM system.settings WHERE name = {}", quote(empty));
        let settings = match self.connection.row::<u64>(&known, QUICK).await? {
            0 => String::new(),
            _ => format!(" SETTINGS {empty} = 1"),
        };
        let sql = format!(
            "ALTER TABLE {}.{} REPLACE PARTITION ({}, toDate(toDateTime({}, 'UTC'), 'UTC')) FROM {}.{}{settings}",
            self.connection.database,
            self.table,
            quote(&self.origin),
            seconds(day.from.ms()),
            quote_name(&self.beside()),
            self.owned(as_.owner)
        );
        self.connection.execute(&sql, Some(self.query_id(as_)), LONG).await
    }

    async fn record_all(&self, as_: Statement<'_>, of: &[Recorded]) -> Result<(), Failure> {
        let sql = format!(
            "INSERT INTO {}.emissions (generation, origin, run, state, window_from, window_to, rows, digest) \
             SELECT {}, {}, {}, {}, toDateTime(from_s, 'UTC'), toDateTime(to_s, 'UTC'), of_rows, of_digest \
             FROM values('from_s UInt32, to_s UInt32, of_rows UInt64, of_digest UInt64', {}) WHERE {}",
            self.connection.database,
            self.version.number,
            quote(&self.origin),
            quote(&self.run),
            quote(state_word(State::Done)),
            tuples(of),
            self.or_fail(as_.owner),
        );
        self.connection.execute(&sql, Some(self.query_id(as_)), QUICK).await
    }

    async fn forget_just(&self, as_: Statement<'_>, of: &[Recorded]) -> Result<(), Failure> {
        let sql = format!(
            "ALTER TABLE {}.emissions DELETE WHERE {} AND state = {} \
             AND (toUnixTimestamp(window_from), toUnixTimestamp(window_to), rows, digest) IN ({}) AND {} \
             SETTINGS mutations_sync = 2",
            self.connection.database,
            self.of_origin(),
            quote(state_word(State::Done)),
            tuples(of),
            self.or_nothing(as_.owner)
        );
        self.connection.execute(&sql, Some(self.query_id(as_)), LONG).await
    }
}
