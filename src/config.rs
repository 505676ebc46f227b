//! What weir runs with: `weir.toml`, then `WEIR_*`, then flags, the later over the earlier, each value with its source.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Env, Format, Serialized, Toml},
    value::{Dict, Map, Value},
};
use serde::{Deserialize, Serialize};
use weir_ingest::IngestConfig;
use weir_schemas::SchemaVersion;
use weir_sink::{
    Target,
    server::{Program, ServerSpec},
};

/// Everything that can be set. `weir config` prints it with where each value came from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where weir keeps what is its own: the embedded log, the embedded ClickHouse, spilled windows.
    pub data_dir: PathBuf,
    pub log: LogSection,
    pub kafka: KafkaSection,
    pub listen: ListenSection,
    pub ingest: IngestConfig,
    pub pipeline: PipelineSection,
    pub clickhouse: ClickHouseSection,
    pub schema: SchemaSection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogKind {
    /// LMDB under `data_dir`: one machine, several processes.
    Embedded,
    /// Apache Kafka at `kafka.bootstrap`.
    Kafka,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogSection {
    pub kind: LogKind,
    /// Partitions of the events topic when it is made.
    pub partitions: u32,
    /// How long live events are kept: how far back a replay can reach.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KafkaSection {
    pub bootstrap: String,
    /// Any librdkafka property, passed through: TLS, SASL, …
    pub options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenSection {
    /// Where hits come in.
    pub collector: SocketAddr,
    /// Status and metrics; loopback unless you know who can reach it.
    pub console: SocketAddr,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PipelineSection {
    /// Timely workers of one run.
    pub workers: usize,
    /// Bytes that open windows of one run may take before they spill to disk.
    pub memory_bytes_max: usize,
    /// How long a partition may be silent before a tick is appended to it.
    #[serde(with = "humantime_serde")]
    pub tick_after: Duration,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClickHouseSection {
    /// A server of yours; empty: weir starts one under `data_dir`.
    pub url: String,
    pub user: String,
    pub password: String,
    pub database: String,
    /// Of the user `analyst` of the server that weir starts; empty: none, on loopback only.
    pub analyst_password: String,
    /// Where the server that weir starts listens.
    pub listen_host: String,
    /// Port of the server that weir starts.
    pub http_port: u16,
    /// Where `libchdb.so` is, for a machine without a `clickhouse` binary.
    pub lib: Option<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchemaSection {
    /// A schema version that the binary carries.
    pub version: u32,
    /// A file to take instead.
    pub file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Config {
            data_dir: "weir-data".into(),
            log: LogSection {
                kind: LogKind::Embedded,
                partitions: 4,
                retention: Duration::from_secs(30 * 24 * 60 * 60),
            },
            kafka: KafkaSection { bootstrap: "127.0.0.1:9092".into(), options: BTreeMap::new() },
            listen: ListenSection { collector: ([0, 0, 0, 0], 8080).into(), console: ([127, 0, 0, 1], 8081).into() },
            ingest: IngestConfig::default(),
            pipeline: PipelineSection {
                workers: cores.min(4),
                memory_bytes_max: 512 << 20,
                tick_after: Duration::from_secs(1),
            },
            clickhouse: ClickHouseSection {
                url: String::new(),
                user: "weir".into(),
                password: String::new(),
                database: "weir".into(),
                analyst_password: String::new(),
                listen_host: "127.0.0.1".into(),
                http_port: 8123,
                lib: None,
            },
            schema: SchemaSection { version: 1, file: None },
        }
    }
}

/// The variables that are not settings: they tell the tests and tools where fetched parts are.
const TOOL_VARIABLES: [&str; 4] = ["WEIR_CHDB_LIB", "WEIR_MMDB", "WEIR_KAFKA_LIB", "WEIR_WRITE_TOKEN"];

/// Flags that any command takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file; without it `weir.toml` in this folder, if it is there
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets one value, as `weir config` names it: `--set log.kind=kafka`
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// The configuration in force, and the figment that knows each value's source.
pub(crate) struct Loaded {
    pub config: Config,
    figment: Figment,
}

impl ConfigArgs {
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        match &self.config {
            Some(file) if !file.is_file() => {
                bail!("there is no configuration file {} (see `--config`)", file.display())
            }
            Some(file) => figment = figment.merge(Toml::file_exact(file)),
            None if Path::new("weir.toml").is_file() => figment = figment.merge(Toml::file_exact("weir.toml")),
            None => {}
        }
        for (variable, key) in [("WEIR_CHDB_LIB", "clickhouse.lib"), ("WEIR_MMDB", "ingest.mmdb")] {
            if let Ok(value) = std::env::var(variable) {
                figment = figment.merge(Pairs::parse(variable, &[format!("{key}={value}")])?);
            }
        }
        let settings = Env::prefixed("WEIR_")
            .filter(|name| {
                let whole = format!("WEIR_{}", name.as_str().to_ascii_uppercase());
                !TOOL_VARIABLES.contains(&whole.as_str()) && !whole.starts_with("WEIR_TEST_")
            })
            .split("__");
        figment = figment.merge(settings).merge(Pairs::parse(FLAG, &self.set)?);
        let config: Config = figment.extract().map_err(|error| anyhow::anyhow!("{}", told(&error)))?;
        config.validate()?;
        Ok(Loaded { config, figment })
    }
}

/// A figment error as one line per fault: the key, what is wrong with it, and where it was set.
fn told(errors: &figment::Error) -> String {
    let mut lines = Vec::new();
    for error in errors.clone() {
        let key = error.path.join(".");
        let place = match &error.metadata {
            Some(metadata) => match &metadata.source {
                Some(source) => format!(" in {source}"),
                None => format!(" in {}", metadata.name),
            },
            None => String::new(),
        };
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        lines.push(format!("configuration: {key}{}{place} (`weir config` prints every key)", error.kind));
    }
    lines.join("\n")
}

impl Config {
    fn validate(&self) -> anyhow::Result<()> {
        self.ingest.validate().map_err(|error| anyhow::anyhow!("configuration: {error}"))?;
        if self.log.partitions == 0 || self.log.partitions > 1024 {
            bail!("configuration: log.partitions={} (1 to 1024)", self.log.partitions);
        }
        if self.pipeline.workers == 0 || self.pipeline.workers > 64 {
            bail!("configuration: pipeline.workers={} (1 to 64)", self.pipeline.workers);
        }
        if self.pipeline.memory_bytes_max < 16 << 20 {
            bail!(
                "configuration: pipeline.memory_bytes_max={} is below 16 MiB (16777216), the least that windows need",
                self.pipeline.memory_bytes_max
            );
        }
        if !self.clickhouse.database.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            || self.clickhouse.database.is_empty()
        {
            bail!("configuration: clickhouse.database={:?} (letters, digits and _)", self.clickhouse.database);
        }
        Ok(())
    }

    /// The schema version that `schema` names.
    pub(crate) fn schema_version(&self) -> anyhow::Result<SchemaVersion> {
        schema_version(self.schema.version, self.schema.file.as_deref())
    }

    /// Where the log is.
    pub(crate) fn log_config(&self) -> weir_log::LogConfig {
        match self.log.kind {
            LogKind::Embedded => weir_log::LogConfig::Embedded { path: self.data_dir.join("log") },
            LogKind::Kafka => weir_log::LogConfig::Kafka {
                bootstrap: self.kafka.bootstrap.clone(),
                options: self.kafka.options.clone(),
            },
        }
    }

    /// Names of the sites with the time zones that their days are shown in.
    pub(crate) fn timezones(&self) -> BTreeMap<String, String> {
        self.ingest.sites.iter().map(|site| (site.name.clone(), site.timezone.clone())).collect()
    }

    /// The ClickHouse that weir starts, when none is configured.
    pub(crate) fn clickhouse_server(&self) -> anyhow::Result<ServerSpec> {
        let section = &self.clickhouse;
        let program = match (&section.lib, weir_sink::server::clickhouse_on_path()) {
            (Some(lib), _) => Program::Embedded { lib: lib.clone() },
            (None, Some(path)) => Program::Clickhouse { path },
            (None, None) => bail!(
                "there is no ClickHouse: neither clickhouse.url nor clickhouse.lib is set, and no `clickhouse` is on the \
                 PATH (install ClickHouse, or take the library that `./dev demo` fetches)"
            ),
        };
        Ok(ServerSpec {
            program,
            child_command: vec![std::env::current_exe()?.into(), "clickhouse".into()],
            dir: std::path::absolute(self.data_dir.join("clickhouse"))?,
            listen_host: section.listen_host.clone(),
            http_port: section.http_port,
            database: section.database.clone(),
            analyst_password: section.analyst_password.clone(),
            memory_bytes: weir_sink::server::memory_default_bytes(),
        })
    }

    /// The ClickHouse to write to, as another process than the one that started it reaches it.
    pub(crate) fn target(&self) -> anyhow::Result<Target> {
        let section = &self.clickhouse;
        if !section.url.is_empty() {
            let (user, password) = (section.user.clone(), section.password.clone());
            return Ok(Target { url: section.url.clone(), database: section.database.clone(), user, password });
        }
        let dir = self.data_dir.join("clickhouse");
        let password = weir_sink::server::writer_password(&dir)
            .with_context(|| format!("the ClickHouse in {} has not been started yet", dir.display()))?;
        Ok(Target {
            url: format!("http://{}:{}", section.listen_host, section.http_port),
            database: section.database.clone(),
            user: "weir".into(),
            password,
        })
    }

    /// The topic of live events, as it must be.
    pub(crate) fn events_kind(&self) -> weir_log::TopicKind {
        weir_log::TopicKind::Events { partitions: self.log.partitions, retention: self.log.retention }
    }
}

/// The schema version in `file`, else the one that the binary carries under `number`.
pub(crate) fn schema_version(number: u32, file: Option<&Path>) -> anyhow::Result<SchemaVersion> {
    match file {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("schema.file={} cannot be read", file.display()))?;
            Ok(SchemaVersion::parse(&text, &file.display().to_string())?)
        }
        None => SchemaVersion::builtin(number)
            .with_context(|| format!("schema.version={number}: this binary does not carry it")),
    }
}

impl Loaded {
    /// (key, value, source) of everything in force, in the order of the keys; secrets are not shown.
    pub(crate) fn entries(&self) -> Vec<(String, String, String)> {
        let mut entries = Vec::new();
        if let Ok(value) = self.figment.extract::<Value>() {
            self.walk(String::new(), &value, &mut entries);
        }
        entries
    }

    fn walk(&self, key: String, value: &Value, entries: &mut Vec<(String, String, String)>) {
        match value {
            Value::Dict(_, dict) if !dict.is_empty() => {
                for (name, inner) in dict {
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    self.walk(key, inner, entries);
                }
            }
            _ => {
                let secret = key.contains("password") || key.ends_with("token");
                let shown = if secret && value.as_str() != Some("") { "(set)".to_owned() } else { plain(value) };
                let source = match self.figment.get_metadata(value.tag()) {
                    Some(Metadata { source: Some(source), .. }) if !source.to_string().contains(".rs:") => {
                        source.to_string()
                    }
                    Some(metadata) if metadata.name.contains("environment") => "environment".to_owned(),
                    Some(metadata) if metadata.name == FLAG || metadata.name.starts_with("WEIR_") => {
                        metadata.name.clone().into_owned()
                    }
                    _ => "default".to_owned(),
                };
                entries.push((key, shown, source));
            }
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Char(_, c) => c.to_string(),
        Value::Bool(_, b) => b.to_string(),
        Value::Num(_, n) => n
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| n.to_u128().map(|n| n.to_string()))
            .or_else(|| n.to_f64().map(|n| n.to_string()))
            .unwrap_or_default(),
        Value::Empty(..) => "-".to_owned(),
        Value::Dict(_, dict) => {
            let inner: Vec<String> = dict.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
            format!("{{{}}}", inner.join(", "))
        }
        Value::Array(_, values) => format!("[{}]", values.iter().map(plain).collect::<Vec<_>>().join(", ")),
    }
}

const FLAG: &str = "flag --set";

/// `KEY=VALUE` pairs as a source of their own.
struct Pairs {
    source: String,
    dict: Dict,
}

impl Pairs {
    fn parse(source: &str, set: &[String]) -> anyhow::Result<Pairs> {
        let mut dict = Dict::new();
        for pair in set {
            let Some((key, value)) = pair.split_once('=') else {
                bail!("--set {pair}: KEY=VALUE is needed (`weir config` prints every key)");
            };
            let value: Value = value.parse().expect("any text is a value");
            let mut parts: Vec<&str> = key.split('.').collect();
            let last = parts.pop().unwrap_or(key);
            let mut place = &mut dict;
            for part in parts {
                let inner = place.entry(part.to_owned()).or_insert_with(|| Value::from(Dict::new()));
                let Value::Dict(_, inner) = inner else { bail!("--set {key}: {part} is not a table") };
                place = inner;
            }
            place.insert(last.to_owned(), value);
        }
        Ok(Pairs { source: source.to_owned(), dict })
    }
}

impl Provider for Pairs {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}
