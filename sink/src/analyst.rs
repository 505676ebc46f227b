//! The user that people query as, on a ClickHouse that somebody else runs: how to make it, and whether it is closed enough.

use weir_schemas::tables::{public_views, quote, quote_name};

use crate::{
    SinkError, Target,
    connection::{Connection, QUICK},
    server::ANALYST,
};

/// What one query of the analyst may take; each is fixed, so that a query cannot raise it for itself.
const LIMITS: [(&str, u64); 5] = [
    ("max_memory_usage", 4 << 30),
    ("max_memory_usage_for_user", 8 << 30),
    ("max_threads", 4),
    ("max_execution_time", 60),
    ("max_concurrent_queries_for_user", 20),
];

/// The statements that make the analyst, for somebody who may make users. They can be run again.
pub fn analyst_sql(database: &str, password: &str) -> Vec<String> {
    let limits: Vec<String> = LIMITS.iter().map(|(name, value)| format!("{name} = {value} READONLY")).collect();
    let create = format!(
        "CREATE USER IF NOT EXISTS {ANALYST} IDENTIFIED WITH sha256_password BY {} SETTINGS readonly = 2 READONLY, {}",
        quote(password),
        limits.join(", ")
    );
    let grant = |view: &str| format!("GRANT SELECT ON {}.{view} TO {ANALYST}", quote_name(database));
    std::iter::once(create).chain(public_views().into_iter().map(grant)).collect()
}

/// What this user can do that an analyst must not, or cannot do that one must; in words, nothing if all is well.
///
/// `analyst` is the server as the analyst reaches it. Errors: [`SinkError`] when the user cannot log in, or the server does
/// not answer.
pub async fn analyst_faults(analyst: &Target) -> Result<Vec<String>, SinkError> {
    analyst.ping().await?;
    let (clickhouse, database) = (Connection::to(analyst), quote_name(&analyst.database));
    let mut faults = Vec::new();
    for view in public_views() {
        let asked = clickhouse.execute(&format!("SELECT * FROM {database}.{view} LIMIT 0"), None, QUICK).await;
        if let Err(failure) = asked {
            faults.push(format!("cannot read {view}: {}", failure.said));
        }
    }
    let closed = [
        ("reads tables behind the views", format!("SELECT * FROM {database}.emissions LIMIT 0")),
        ("writes", format!("INSERT INTO {database}.emissions (run) SELECT '' WHERE 0")),
        // It is there already: whoever may make tables changes nothing.
        ("makes tables", format!("CREATE TABLE IF NOT EXISTS {database}.emissions (run String) ENGINE = Memory")),
        ("reads the server's files", "SELECT * FROM file('doctor', LineAsString) LIMIT 0".to_owned()),
        ("calls other servers", "SELECT * FROM url('http://127.0.0.1:9/', LineAsString) LIMIT 0".to_owned()),
        ("asks other databases", "SELECT * FROM remote('127.0.0.1', system.one) LIMIT 0".to_owned()),
        ("raises its memory", "SELECT 1 SETTINGS max_memory_usage = 0".to_owned()),
        ("raises its time", "SELECT 1 SETTINGS max_execution_time = 0".to_owned()),
        ("gives up being read-only", "SELECT 1 SETTINGS readonly = 0".to_owned()),
    ];
    for (what, sql) in closed {
        // Anything but a refusal, a connection that fails too, says that the user got as far as trying.
        match clickhouse.execute(&sql, None, QUICK).await {
            Err(failure) if REFUSALS.iter().any(|refusal| failure.said.contains(refusal)) => {}
            _ => faults.push(what.to_owned()),
        }
    }
    Ok(faults)
}

/// How ClickHouse names what a user may not do.
const REFUSALS: [&str; 3] = ["ACCESS_DENIED", "READONLY", "SETTING_CONSTRAINT_VIOLATION"];
