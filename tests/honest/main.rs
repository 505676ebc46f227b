//! What a run must not go over silently stops it, and only it, says so, and is mended by the command that it names.

mod clickhouse;
mod log;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::{path::Path, process::Output};

use serde_json::Value;
use support::{Place, http, wait_for};
use weir_sink::{Target, audit::Audit};

/// The table is compared often, so that a test need not wait a minute.
pub(crate) const OFTEN: &str = "[pipeline]\naudit_every = \"500ms\"\n";

/// So many hits of a page, acknowledged; their number.
pub(crate) fn post(place: &Place, page: &str, hits: u64) -> u64 {
    let hit = serde_json::json!({
        "site": "one.example", "url": format!("https://one.example{page}"), "ip": "203.0.113.7",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    });
    let body = Value::Array((0..hits).map(|_| hit.clone()).collect()).to_string();
    assert_eq!(place.post(&body).unwrap().0, 202, "the collector goes on, whatever has stopped");
    hits
}

/// Waits until live has stopped by this fault; what its status says.
pub(crate) fn wait_stopped(place: &Place, kind: &str) -> String {
    wait_run_stopped(place, 0, kind)
}

/// The same of the run that the status names at `run`.
pub(crate) fn wait_run_stopped(place: &Place, run: usize, kind: &str) -> String {
    wait_for(kind, || {
        let progress = place.status()?["runs"][run]["progress"].clone();
        let stopped = progress["stopped"].as_str()?;
        assert_eq!(progress["fault"]["kind"], kind, "{progress}");
        Some(stopped.to_owned())
    })
}

/// Recovers live.
pub(crate) fn recover(place: &Place, more: &[&str]) -> Output {
    recover_run(place, "live", more)
}

pub(crate) fn recover_run(place: &Place, run: &str, more: &[&str]) -> Output {
    let args = ["recover", run, "--reason", "of a test"];
    place.weir(&args.iter().chain(more).copied().collect::<Vec<_>>())
}

/// What a command printed, either way.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A statement by the writer on the ClickHouse of `place`.
pub(crate) fn write(place: &Place, sql: &str) -> String {
    write_as(place.clickhouse, &password(&place.dir.path().join("data/clickhouse")), sql)
}

pub(crate) fn password(dir: &Path) -> String {
    weir_sink::server::writer_password(dir).unwrap()
}

pub(crate) fn write_as(port: u16, password: &str, sql: &str) -> String {
    wait_for("clickhouse", || {
        let url = format!("http://127.0.0.1:{port}/?user=weir&password={password}");
        let (status, text) = http("POST", &url, Some(sql), None).ok()?;
        assert_eq!(status, 200, "{sql}: {text}");
        Some(text)
    })
}

/// Everything in the table is what was recorded, digests and all.
pub(crate) fn audited(place: &Place) {
    let target = Target {
        url: format!("http://127.0.0.1:{}", place.clickhouse),
        database: "weir".into(),
        user: "weir".into(),
        password: password(&place.dir.path().join("data/clickhouse")),
    };
    let schema = std::fs::read_to_string(place.dir.path().join("quick.toml")).unwrap();
    let version = weir_schemas::SchemaVersion::parse(&schema, "quick.toml").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(Audit::new(&target, &version).full()).unwrap();
    assert!(found.is_empty(), "{found:?}");
}
