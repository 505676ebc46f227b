//! A run's table in ClickHouse, with `owners` and `emissions` beside it: each statement of [`Table`] as SQL.

use weir_schemas::SchemaVersion;
use weir_schemas::tables::{quote, stats_table};

use crate::connection::{Connection, LONG, QUICK, Target};
use crate::digest::{self, Content, seconds};
use crate::error::Failure;
use crate::events::word;
use crate::owner::Owner;
use crate::table::{Mutations, Recorded, Running, State, Statement, Table, Windows};
use crate::{Altered, body, prepare};

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

    /// A mutation shows whose it is by the fence in its command.
    fn own_mutations(&self) -> String {
        format!("{} AND NOT is_done AND position(command, {}) > 0", self.of_tables(), quote(&quote(&self.key)))
    }
}

/// A state, as `emissions` names it.
fn state_word(state: State) -> &'static str {
    match state {
        State::Done => "done",
        State::Left => "left",
        State::Lost => "lost",
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
