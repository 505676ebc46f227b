//! How ClickHouse is reached.

use std::time::Duration;

use bytes::Bytes;
use clickhouse::{Client, Compression, RowOwned, RowRead};
use weir_schemas::tables::{quote, quote_name};

use crate::SinkError;
use crate::error::Failure;

/// A ClickHouse, over HTTP, as somebody who may make tables in `database`.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// `http://host:8123`.
    pub url: String,
    pub database: String,
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}/{}", self.user, self.url, self.database)
    }
}

/// For what answers from memory or metadata.
pub(crate) const QUICK: Duration = Duration::from_secs(30);
/// For what reads, writes or rewrites rows.
pub(crate) const LONG: Duration = Duration::from_secs(600);
/// A body that stalls this long makes the server give the INSERT up; with ClickHouse's default a `KILL QUERY … SYNC`
/// waits half a minute for a client that has gone.
const RECEIVE_TIMEOUT_S: &str = "5";
/// Bytes handed to the connection at once; each is compressed for itself.
const SEND_BYTES: usize = 1 << 20;

/// For tables that are replicated; on others they change nothing, so every statement carries them.
///
/// An INSERT is acknowledged by most replicas, one at a time, and a SELECT (a fence too) sees all that was acknowledged, or
/// fails. An INSERT of rows that were there before a DELETE is not taken for a repetition of theirs. A DELETE may have a
/// fence, which is a subquery.
const ON_REPLICAS: [(&str, &str); 5] = [
    ("insert_quorum", "auto"),
    ("insert_quorum_parallel", "0"),
    ("select_sequential_consistency", "1"),
    ("insert_deduplicate", "0"),
    ("allow_nondeterministic_mutations", "1"),
];

impl Target {
    /// A client for any query; names must carry the database.
    pub fn client(&self) -> Client {
        // Over a network bytes are dearer than CPU; within a machine they are not.
        let loopback =
            ["http://127.", "http://localhost", "http://[::1]"].iter().any(|host| self.url.starts_with(host));
        Client::default()
            .with_url(&self.url)
            .with_compression(if loopback { Compression::None } else { Compression::Lz4 })
            .with_user(&self.user)
            .with_password(&self.password)
            .with_product_info("weir", env!("CARGO_PKG_VERSION"))
    }

    /// Whether it answers this user.
    pub async fn ping(&self) -> Result<(), SinkError> {
        let one = Connection::to(self).row::<u8>("SELECT toUInt8(1)", Duration::from_secs(5)).await;
        one.map(drop).map_err(|failure| failure.into_error(&self.url, ""))
    }
}

/// A client, and the ways in which the sink uses it.
#[derive(Clone)]
pub(crate) struct Connection {
    client: Client,
    pub(crate) url: String,
    /// The database as an identifier.
    pub(crate) database: String,
    /// The database as it is.
    pub(crate) database_name: String,
}

impl Connection {
    pub(crate) fn to(target: &Target) -> Connection {
        let client =
            ON_REPLICAS.iter().fold(target.client(), |client, (name, value)| client.with_setting(*name, *value));
        Connection {
            client,
            url: target.url.clone(),
            database: quote_name(&target.database),
            database_name: target.database.clone(),
        }
    }

    /// Runs a statement without rows in its answer.
    pub(crate) async fn execute(&self, sql: &str, query_id: Option<String>, limit: Duration) -> Result<(), Failure> {
        let mut query = self.client.query_raw(sql).with_setting("async_insert", "0");
        if let Some(query_id) = query_id {
            query = query.with_setting("query_id", query_id);
        }
        within(limit, sql, query.execute()).await
    }

    /// The databases whose names begin so.
    pub(crate) async fn databases(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let sql = format!("SELECT name FROM system.databases WHERE startsWith(name, {})", quote(prefix));
        self.rows(&sql, QUICK).await
    }

    /// Drops the databases whose names begin so.
    pub(crate) async fn drop_databases(&self, prefix: &str) -> Result<(), Failure> {
        for name in self.databases(prefix).await? {
            self.execute(&format!("DROP DATABASE IF EXISTS {} SYNC", quote_name(&name)), None, LONG).await?;
        }
        Ok(())
    }

    pub(crate) async fn rows<T: RowOwned + RowRead>(&self, sql: &str, limit: Duration) -> Result<Vec<T>, Failure> {
        within(limit, sql, self.client.query_raw(sql).fetch_all::<T>()).await
    }

    /// Hands over row after row, as they come: for answers that may be large.
    pub(crate) async fn each<T: RowOwned + RowRead>(&self, sql: &str, mut take: impl FnMut(T)) -> Result<(), Failure> {
        let read = async {
            let mut rows = self.client.query_raw(sql).fetch::<T>()?;
            while let Some(row) = rows.next().await? {
                take(row);
            }
            Ok(())
        };
        within(LONG, sql, read).await
    }

    pub(crate) async fn row<T: RowOwned + RowRead>(&self, sql: &str, limit: Duration) -> Result<T, Failure> {
        within(limit, sql, self.client.query_raw(sql).fetch_one::<T>()).await
    }

    /// Sends `body`, one Native block, as one INSERT that becomes one part or nothing.
    pub(crate) async fn insert(&self, sql: &str, query_id: String, body: Vec<u8>) -> Result<(), Failure> {
        let mut insert = self.client.insert_formatted_with(sql).with_timeouts(Some(QUICK), Some(LONG));
        for (name, value) in [
            ("query_id", query_id.as_str()),
            ("async_insert", "0"),
            ("receive_timeout", RECEIVE_TIMEOUT_S),
            ("http_receive_timeout", RECEIVE_TIMEOUT_S),
            // One block: nothing on the way splits it, and none of its rows is written before all are read.
            ("max_block_size", "100000000"),
            ("max_insert_block_size", "100000000"),
            ("min_insert_block_size_rows", "100000000"),
            ("min_insert_block_size_bytes", "100000000000"),
            ("max_threads", "1"),
            ("max_insert_threads", "1"),
            ("input_format_parallel_parsing", "0"),
        ] {
            insert = insert.with_setting(name, value);
        }
        let mut body = Bytes::from(body);
        let sent = async {
            while !body.is_empty() {
                insert.send(body.split_to(body.len().min(SEND_BYTES))).await?;
            }
            insert.end().await
        };
        sent.await.map_err(|error| Failure::of(&error))
    }
}

async fn within<T>(
    limit: Duration,
    sql: &str,
    asked: impl Future<Output = clickhouse::error::Result<T>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer.map_err(|error| Failure::of(&error)),
        Err(_) => Err(Failure::timed_out(sql.split(['\n', '(']).next().unwrap_or(sql))),
    }
}
