//! The configuration of the weir that is drilled: real processes, in one folder.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use weir_schemas::{SchemaVersion, WindowStart};
use weir_sink::Target;

use crate::{
    parts::{free_port, weir},
    process::Process,
};

pub(crate) const SITES: [&str; 3] = ["one.example", "two.example", "three.example"];
pub(crate) const TOKEN: &str = "a-write-token-of-a-drill";
/// Of the console's API.
const OPERATOR: &str = "weir_of-a-drill";
pub(crate) const PARTITIONS: u32 = 3;

/// Everything that weir's processes need to know.
pub(crate) struct Site {
    pub(crate) dir: PathBuf,
    pub(crate) collector: String,
    /// The collector's: status of log, runs and spool.
    pub(crate) console: String,
    pub(crate) version: SchemaVersion,
    /// The same, with its file.
    pub(crate) schema: Schema,
    weir: PathBuf,
}

/// A schema version, and the file that it is in.
#[derive(Debug, Clone)]
pub(crate) struct Schema {
    pub(crate) version: SchemaVersion,
    pub(crate) file: PathBuf,
}

/// An import whose events are all in its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) id: String,
    pub(crate) events: u64,
    first_ms: i64,
    last_ms: i64,
}

impl Import {
    fn of(written: &Value) -> anyhow::Result<Import> {
        let id = written["id"].as_str().map(str::to_owned);
        let told =
            id.zip(written["events"].as_u64()).zip(written["first_ms"].as_i64().zip(written["last_ms"].as_i64()));
        let ((id, events), (first_ms, last_ms)) = told.with_context(|| format!("weir log said {written}"))?;
        Ok(Import { id, events, first_ms, last_ms })
    }

    /// The windows that its events lie in, `[from, to)`.
    pub(crate) fn windows(&self, version: &SchemaVersion) -> (WindowStart, WindowStart) {
        let width = version.width;
        (width.window_of(self.first_ms), width.next(width.window_of(self.last_ms)))
    }
}

impl Schema {
    /// `text` with values without a bound, so that every event can be found again, and if `short` with windows and a lateness of so
    /// many seconds, so that batches are many.
    pub(crate) fn write(text: &str, dir: &Path, name: &str, short: Option<(u32, u32)>) -> anyhow::Result<Schema> {
        let mut schema = String::new();
        for line in text.lines() {
            schema += &match (line.split('=').next().map(str::trim), short) {
                (Some("width"), Some((width_s, _))) => format!("width = \"{width_s}s\""),
                (Some("lateness"), Some((_, lateness_s))) => format!("lateness = \"{lateness_s}s\""),
                (Some("values_max"), _) => "values_max = 1000000".to_owned(),
                _ => line.to_owned(),
            };
            schema.push('\n');
        }
        let file = dir.join(name);
        std::fs::write(&file, &schema)?;
        Ok(Schema { version: SchemaVersion::parse(&schema, name)?, file })
    }
}

impl Site {
    /// With windows of a second.
    pub(crate) fn new(dir: &Path, bootstrap: &str) -> anyhow::Result<Site> {
        Site::of(dir, bootstrap, Some((1, 2)))
    }

    /// `short` as of [`Schema::write`].
    pub(crate) fn of(dir: &Path, bootstrap: &str, short: Option<(u32, u32)>) -> anyhow::Result<Site> {
        let schema = Schema::write(include_str!("../../../schemas/versions/v1.toml"), dir, "drill.toml", short)?;
        let local = || Ok::<_, anyhow::Error>(format!("127.0.0.1:{}", free_port()?));
        let site = Site {
            dir: dir.to_owned(),
            collector: local()?,
            console: local()?,
            version: schema.version.clone(),
            schema,
            weir: weir()?,
        };
        let hash_of = |word| Sha256::digest(word).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let hash = hash_of(TOKEN);
        let mut config = format!(
            "[schema]\nfile = \"{}\"\n\
             [log]\nkind = \"kafka\"\npartitions = {PARTITIONS}\n\
             [kafka]\nbootstrap = \"{bootstrap}\"\n\
             [listen]\ncollector = \"{}\"\nconsole = \"127.0.0.1:0\"\n\
             [pipeline]\nworkers = 2\n\
             [ingest.limits.site]\nper_second = 0\n",
            site.schema.file.display(),
            site.collector
        );
        for name in SITES {
            config += &format!(
                "[[ingest.sites]]\nname = \"{name}\"\nhosts = [\"{name}\"]\nwrite_token_sha256 = \"{hash}\"\n"
            );
        }
        config +=
            &format!("[[console.tokens]]\nname = \"drill\"\nrole = \"operator\"\nhash = \"{}\"\n", hash_of(OPERATOR));
        std::fs::write(dir.join("weir.toml"), config)?;
        Ok(site)
    }

    /// `weir` with the configuration and these words, and a folder of its own.
    fn command(&self, data: &str, words: &[&str], set: &[String]) -> Command {
        let mut command = Command::new(&self.weir);
        command.arg("--config").arg(self.dir.join("weir.toml"));
        command.args(["--set", &format!("data_dir={}", self.dir.join(data).display())]);
        command
            .args(set.iter().flat_map(|pair| ["--set", pair]))
            .args(words)
            .env("RUST_LOG", "info")
            .env_remove("WEIR_CLICKHOUSE__URL");
        command
    }

    /// The folder of the collector's spool.
    pub(crate) fn spool(&self) -> PathBuf {
        self.dir.join("collector/spool")
    }

    pub(crate) fn start_collector(&self, set: &[String]) -> anyhow::Result<Process> {
        let mut set = set.to_vec();
        set.push(format!("listen.console={}", self.console));
        let said = self.dir.join("collector.log");
        Process::spawn("the collector", &mut self.command("collector", &["ingest"], &set), &said)
    }

    /// A supervisor with its runs, in a folder called `name`.
    pub(crate) fn start_pipeline(&self, name: &str, target: &Target) -> anyhow::Result<Process> {
        let said = self.dir.join(format!("{name}.log"));
        let mut command = self.command(name, &["pipeline"], &settings(target));
        Process::spawn(name, &mut command, &said)
    }

    /// An operator's command, by the collector's console; what it printed.
    pub(crate) fn operate(&self, words: &[&str]) -> anyhow::Result<String> {
        let console = format!("http://{}", self.console);
        let words = [words, &["--reason", "a drill", "--console", &console]].concat();
        told(&words, self.command("operator", &words, &[]).env("WEIR_TOKEN", OPERATOR))
    }

    /// `weir backup` with these words, about this ClickHouse; what it printed.
    pub(crate) fn backup(&self, target: &Target, words: &[&str]) -> anyhow::Result<String> {
        let words = [&["backup"], words].concat();
        told(&words, &mut self.command("operator", &words, &settings(target)))
    }

    /// `weir migrate` with these words, about this ClickHouse; what it printed.
    pub(crate) fn migrate(&self, target: &Target, words: &[&str]) -> anyhow::Result<String> {
        let words = [&["migrate"], words].concat();
        told(&words, &mut self.command("operator", &words, &settings(target)))
    }

    /// `weir import` of a file.
    pub(crate) fn import(&self, target: &Target, site: &str, file: &Path) -> anyhow::Result<String> {
        let words = ["import", "--site", site, &file.display().to_string()];
        told(&words, &mut self.command("operator", &words, &settings(target)))
    }

    /// So many events, straight into the log, in so long if the machine can; how many there were.
    pub(crate) fn generate(&self, events: u64, long: Duration, seed: u64) -> anyhow::Result<u64> {
        let rate = (events as f64 / long.as_secs_f64()).to_string();
        let (long, seed) = (format!("{}ms", long.as_millis()), seed.to_string());
        let words = ["generate", "--rate", &rate, "--for", &long, "--sites", "50", "--seed", &seed, "--json"];
        let said = told(&words, &mut self.command("generator", &words, &[]))?;
        let read: Value = serde_json::from_str(said.lines().last().unwrap_or_default())?;
        read["accepted"].as_u64().with_context(|| format!("weir generate said {said}"))
    }

    /// The control records, as `weir log` has them.
    pub(crate) fn ordered(&self) -> anyhow::Result<Vec<Value>> {
        let output = self.command("operator", &["log", "--json"], &[]).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let read: Value = serde_json::from_str(said.trim()).with_context(|| format!("weir log said {said}"))?;
        Ok(read["records"].as_array().cloned().unwrap_or_default())
    }

    /// The imports that were ever made whole.
    pub(crate) fn imports(&self) -> anyhow::Result<Vec<Import>> {
        self.actions()?.filter(|action| action["do"] == "import_written").map(|action| Import::of(&action)).collect()
    }

    /// What the newest control record says that does this.
    pub(crate) fn newest(&self, what: &str) -> anyhow::Result<Option<Value>> {
        Ok(self.actions()?.find(|action| action["do"] == what))
    }

    /// The same, to this run.
    pub(crate) fn newest_of(&self, run: &str, what: &str) -> anyhow::Result<Option<Value>> {
        Ok(self.actions()?.find(|action| action["do"] == what && action["run"] == run))
    }

    /// The newest first.
    fn actions(&self) -> anyhow::Result<impl Iterator<Item = Value>> {
        Ok(self.ordered()?.into_iter().rev().map(|mut record| record["action"].take()))
    }

    /// What `weir digest` prints of the windows from an instant to another one, ms, but for the digits' grouping: rows and
    /// digest.
    pub(crate) fn digest(
        &self,
        schema: &Schema,
        target: &Target,
        (from_ms, to_ms): (i64, i64),
    ) -> anyhow::Result<String> {
        let at = |ms| jiff::Timestamp::from_millisecond(ms).map(|at| at.to_string());
        let words = ["digest", "--json", "--from", &at(from_ms)?, "--to", &at(to_ms)?];
        let set = [settings(target), vec![format!("schema.file={}", schema.file.display())]].concat();
        let mut command = self.command("digest", &words, &set);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        anyhow::ensure!(output.status.success(), "weir digest: {said}{}", String::from_utf8_lossy(&output.stderr));
        let read: Value = serde_json::from_str(said.trim()).with_context(|| format!("weir digest said {said}"))?;
        let (rows, digest) = (read["rows"].as_u64(), read["digest"].as_str());
        let (rows, digest) = rows.zip(digest).with_context(|| format!("weir digest said {said}"))?;
        Ok(format!("{rows} rows {digest}"))
    }
}

/// What the command printed; an error if it did not end well.
fn told(words: &[&str], command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(output.status.success(), "weir {words:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    eprint!("{said}");
    Ok(said)
}

fn settings(target: &Target) -> Vec<String> {
    let Target { url, database, user, password } = target;
    vec![
        format!("clickhouse.url={url}"),
        format!("clickhouse.database={database}"),
        format!("clickhouse.user={user}"),
        format!("clickhouse.password={password}"),
    ]
}
