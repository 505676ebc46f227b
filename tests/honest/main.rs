//! What a run must not go over silently stops it, and only it, says so, and is mended by the command that it names.

mod clickhouse;
mod log;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::process::Output;

use support::{Place, password, wait_for};
pub(crate) use support::{post, text, write};
use weir_sink::{Target, audit::Audit};

/// The table is compared often, so that a test need not wait a minute.
pub(crate) const OFTEN: &str = "[pipeline]\naudit_every = \"500ms\"\n";

/// Waits until live has stopped by this fault; what its status says.
pub(crate) fn wait_stopped(place: &Place, kind: &str) -> String {
    wait_run_stopped(place, 0, kind)
}

/// The same of the run that the status names at `run`.
pub(crate) fn wait_run_stopped(place: &Place, run: usize, kind: &str) -> String {
    wait_for(kind, || {
        let progress = place.status()?["runs"][run]["progress"].clone();
        let stopped = progress["stopped"].as_str()?;
        // What the console shows may be a second old: another reason is that of the stop before.
        (progress["fault"]["kind"] == kind).then(|| stopped.to_owned())
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
