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
    providers::{Format, Serialized, Toml},
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
    pub console: ConsoleSection,
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
    ///
    /// At least what a run needs that has stopped and is started again, see [`RETENTION_OUTAGE`].
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
pub(crate) struct ConsoleSection {
    /// What the status page, its feed and its API call themselves.
    pub name: String,
    /// Where people find the page; empty: it is not said.
    pub url: String,
    /// Who may see and do what, beside whoever reads `data_dir/operator-token`; `weir token` prints an entry.
    pub tokens: Vec<weir_console::Token>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PipelineSection {
    /// Timely workers of one run.
    pub workers: usize,
    /// Bytes that one run may hold, about: a half for open windows, which spill to disk over it, and a half for closed ones
    /// on their way into the table. One window that is larger alone is held whole when it closes.
    pub memory_bytes_max: usize,
    /// How long a partition may be silent before a tick is appended to it.
    #[serde(with = "humantime_serde")]
    pub tick_after: Duration,
    /// How often the table is compared with what was recorded of it.
    #[serde(with = "humantime_serde")]
    pub audit_every: Duration,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClickHouseSection {
    /// A server of yours, `http://HOST:PORT`; empty: weir starts one under `data_dir`.
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
    /// Where the server that weir starts puts copies (`weir backup`); without it `backups` under `data_dir`. Another disk
    /// than that of `data_dir` is better.
    pub backups_dir: Option<PathBuf>,
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
            console: ConsoleSection { name: "Web statistics".into(), url: String::new(), tokens: Vec::new() },
            ingest: IngestConfig::default(),
            pipeline: PipelineSection {
                workers: cores.min(4),
                memory_bytes_max: 512 << 20,
                tick_after: Duration::from_secs(1),
                audit_every: Duration::from_secs(60),
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
                backups_dir: None,
            },
            schema: SchemaSection { version: 1, file: None },
        }
    }
}

const PREFIX: &str = "WEIR_";

/// How long a run may be stopped, by a fault at night or an operator, and find all that it has not counted still in the log.
///
/// Started again it reads from its checkpoint, which lags a window and the lateness, less the horizon within which copies
/// are known (10 min) and the largest step back of the log's clock (1 min): with schema version 1, 6 h 12 min 10 s. A log
/// that keeps less loses what a run of an ordinary morning needs.
const RETENTION_OUTAGE: Duration = Duration::from_secs(6 * 60 * 60);

/// The setting that a variable is: `WEIR_LOG__KIND` is `log.kind`. Properties of librdkafka have dots where a variable has
/// underscores: `WEIR_KAFKA__OPTIONS__SECURITY_PROTOCOL`. `None`: it tells a tool or a test where something is.
fn key_of(variable: &str) -> Option<String> {
    match variable {
        "WEIR_CHDB_LIB" => return Some("clickhouse.lib".to_owned()),
        "WEIR_MMDB" => return Some("ingest.mmdb".to_owned()),
        "WEIR_KAFKA_LIB" | "WEIR_WRITE_TOKEN" | "WEIR_TOKEN" => return None,
        _ if variable.starts_with("WEIR_TEST_") => return None,
        _ => {}
    }
    let key = variable.strip_prefix(PREFIX)?.to_ascii_lowercase().replace("__", ".");
    Some(match key.strip_prefix(OPTIONS) {
        Some(property) => format!("{OPTIONS}{}", property.replace('_', ".")),
        None => key,
    })
}

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
        let defaults = Figment::from(Serialized::defaults(Config::default()));
        let mut figment = defaults.clone();
        match &self.config {
            Some(file) if !file.is_file() => {
                bail!("there is no configuration file {} (see `--config`)", file.display())
            }
            Some(file) => figment = figment.merge(Toml::file_exact(file)),
            None if Path::new("weir.toml").is_file() => figment = figment.merge(Toml::file_exact("weir.toml")),
            None => {}
        }
        for (variable, value) in std::env::vars_os() {
            let Some(variable) = variable.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            if let Some(key) = key_of(variable) {
                let Some(value) = value.to_str() else { bail!("configuration: {variable} is not UTF-8 (set it anew)") };
                figment = figment.merge(Pair::new(variable, &key, value, &defaults)?);
            }
        }
        for pair in &self.set {
            let Some((key, value)) = pair.split_once('=') else {
                bail!("--set {pair}: KEY=VALUE is needed (`weir config` prints every key)");
            };
            figment = figment.merge(Pair::new(FLAG, key, value, &defaults)?);
        }
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
        crate::token::validate(&self.console.tokens)?;
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
        let least = self.retention_min();
        if self.log.retention < least {
            bail!(
                "configuration: log.retention={} is below {}: a run that is started again after {} would not find all that \
                 it needs (raise it)",
                humantime::format_duration(self.log.retention),
                humantime::format_duration(least),
                humantime::format_duration(RETENTION_OUTAGE)
            );
        }
        self.validate_clickhouse_url()
    }

    /// The least that the log must keep; of a schema that cannot be read, as it is told elsewhere, without its part.
    fn retention_min(&self) -> Duration {
        let (window_ms, lateness_ms) = self.window_and_lateness_ms();
        let before = window_ms + lateness_ms + weir_schemas::DEDUP_HORIZON_MS + weir_schemas::STEP_BACK_MAX_MS;
        RETENTION_OUTAGE + Duration::from_millis(before.unsigned_abs())
    }

    /// The URL is shown in errors, in the log and in `weir status`: it must hold nothing secret.
    fn validate_clickhouse_url(&self) -> anyhow::Result<()> {
        if self.clickhouse.url.is_empty() {
            return Ok(());
        }
        let Ok(url) = reqwest::Url::parse(&self.clickhouse.url) else {
            bail!("configuration: clickhouse.url is no URL (write it as http://HOST:8123)");
        };
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            bail!(
                "configuration: clickhouse.url holds a user, a password or a query, and would be shown with it (put them into \
                 clickhouse.user and clickhouse.password, and leave http://HOST:PORT)"
            );
        }
        if !matches!(url.scheme(), "http" | "https") {
            bail!("configuration: clickhouse.url={url} is not http or https");
        }
        Ok(())
    }

    /// The text of the schema version that `schema` names, and where that stands.
    fn schema(&self) -> anyhow::Result<(String, String)> {
        match &self.schema.file {
            Some(file) => {
                let place = file.display().to_string();
                Ok((
                    std::fs::read_to_string(file).with_context(|| format!("schema.file={place} cannot be read"))?,
                    place,
                ))
            }
            None => {
                let number = self.schema.version;
                let text = SchemaVersion::builtin_text(number)
                    .with_context(|| format!("schema.version={number}: this binary does not carry it"))?;
                Ok((text.to_owned(), format!("v{number}.toml")))
            }
        }
    }

    pub(crate) fn schema_text(&self) -> anyhow::Result<String> {
        Ok(self.schema()?.0)
    }

    /// The schema version that `schema` names: the first generation's, at the first start.
    pub(crate) fn schema_version(&self) -> anyhow::Result<SchemaVersion> {
        let (text, place) = self.schema()?;
        Ok(SchemaVersion::parse(&text, &place)?)
    }

    /// A window's width and the lateness, ms; of a schema that cannot be read, as is told elsewhere, 0.
    pub(crate) fn window_and_lateness_ms(&self) -> (i64, i64) {
        self.schema_version().map_or((0, 0), |version| (version.width.ms(), version.lateness_ms))
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

    /// Where events wait while the log is away. `None`: nowhere, because the log lies on the same disk, or by configuration.
    pub(crate) fn spool_dir(&self) -> Option<PathBuf> {
        (self.log.kind == LogKind::Kafka && self.ingest.spool.bytes_max > 0).then(|| self.data_dir.join("spool"))
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
                 PATH (install ClickHouse, or take the library that `./dev demo` fetches: set WEIR_CHDB_LIB to \
                 .weir/node/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so)"
            ),
        };
        Ok(ServerSpec {
            program,
            child_command: vec![std::env::current_exe()?.into(), "clickhouse".into()],
            dir: std::path::absolute(self.data_dir.join("clickhouse"))?,
            backups: std::path::absolute(section.backups_dir.clone().unwrap_or_else(|| self.data_dir.join("backups")))?,
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
        let password = weir_sink::server::writer_password(&dir).with_context(|| {
            format!(
                "the writer's password in {} cannot be read (has ClickHouse been started there yet?)",
                dir.display()
            )
        })?;
        Ok(Target {
            url: weir_sink::server::url(&section.listen_host, section.http_port),
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
                let shown =
                    if is_secret(&key) && value.as_str() != Some("") { "(set)".to_owned() } else { plain(value) };
                let source = match self.figment.get_metadata(value.tag()) {
                    Some(Metadata { source: Some(source), .. }) if !source.to_string().contains(".rs:") => {
                        source.to_string()
                    }
                    Some(metadata) if metadata.name == FLAG || metadata.name.starts_with(PREFIX) => {
                        metadata.name.clone().into_owned()
                    }
                    _ => "default".to_owned(),
                };
                entries.push((key, shown, source));
            }
        }
    }
}

/// Properties of librdkafka that are shown: where and how, never with what. Of the many others some are secrets
/// (`ssl.key.pem`, `sasl.oauthbearer.config`, …), and a later librdkafka may know more of them.
const OPTIONS_SHOWN: &[&str] = &[
    "batch.num.messages",
    "batch.size",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "debug",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.wait.max.ms",
    "linger.ms",
    "max.partition.fetch.bytes",
    "message.max.bytes",
    "message.timeout.ms",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "security.protocol",
    "socket.keepalive.enable",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "topic.metadata.refresh.interval.ms",
];

/// Whether the value of `key` is for nobody to see.
fn is_secret(key: &str) -> bool {
    match key.strip_prefix(OPTIONS) {
        Some(property) => !OPTIONS_SHOWN.contains(&property),
        None => key.contains("password") || key.ends_with("token"),
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

/// Where librdkafka's own properties are; their names hold dots.
const OPTIONS: &str = "kafka.options.";

/// One setting as a source of its own.
struct Pair {
    source: String,
    dict: Dict,
}

impl Pair {
    /// A value is text where the setting is text, so that a password of digits stays one; elsewhere it is read as TOML
    /// would be.
    fn new(source: &str, key: &str, value: &str, defaults: &Figment) -> anyhow::Result<Pair> {
        let is_text = match defaults.find_value(key) {
            // What has no default is a path.
            Ok(default) => matches!(default, Value::String(..) | Value::Char(..) | Value::Empty(..)),
            Err(_) => key.starts_with(OPTIONS),
        };
        let value = if is_text { Value::from(value) } else { value.parse().expect("any text is a value") };
        let mut parts: Vec<&str> = match key.strip_prefix(OPTIONS) {
            Some(property) => vec!["kafka", "options", property],
            None => key.split('.').collect(),
        };
        let last = parts.pop().unwrap_or(key);
        let mut dict = Dict::from([(last.to_owned(), value)]);
        for part in parts.into_iter().rev() {
            dict = Dict::from([(part.to_owned(), Value::from(dict))]);
        }
        Ok(Pair { source: source.to_owned(), dict })
    }
}

impl Provider for Pair {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[&str]) -> anyhow::Result<Config> {
        let args = ConfigArgs { config: None, set: pairs.iter().map(|pair| (*pair).to_owned()).collect() };
        Ok(args.load()?.config)
    }

    #[test]
    fn a_value_of_digits_is_text_where_the_setting_is_text_and_a_number_elsewhere() {
        let config = set(&["clickhouse.password=0123", "clickhouse.http_port=9000", "clickhouse.lib=7"]).unwrap();
        assert_eq!(config.clickhouse.password, "0123");
        assert_eq!(config.clickhouse.http_port, 9000);
        assert_eq!(config.clickhouse.lib, Some(PathBuf::from("7")));
        let refused = set(&["clickhouse.http_port=many"]).unwrap_err().to_string();
        assert!(refused.contains("clickhouse.http_port") && refused.contains(FLAG), "{refused}");
    }

    #[test]
    fn properties_of_librdkafka_keep_their_dots() {
        let config = set(&["kafka.options.sasl.password=12"]).unwrap();
        assert_eq!(config.kafka.options.get("sasl.password").map(String::as_str), Some("12"));
    }

    #[test]
    fn a_retention_that_a_night_would_outlast_is_refused() {
        let refused = set(&["log.retention=6h"]).unwrap_err().to_string();
        assert!(refused.contains("log.retention=6h is below 6h 12m 10s"), "{refused}");
        set(&["log.retention=6h 12m 10s"]).unwrap();
    }

    #[test]
    fn a_url_with_a_secret_in_it_is_refused_without_being_shown() {
        for url in ["http://weir:hush@ch:8123", "http://ch:8123/?user=weir&password=hush", "ch hush"] {
            let refused = set(&[&format!("clickhouse.url={url}")]).unwrap_err().to_string();
            assert!(refused.contains("clickhouse.url") && !refused.contains("hush"), "{refused}");
        }
        set(&["clickhouse.url=https://ch.example:8443"]).unwrap();
    }

    #[test]
    fn of_librdkafkas_properties_only_harmless_ones_are_shown() {
        for secret in ["ssl.key.pem", "ssl.key.password", "sasl.jaas.config", "sasl.oauthbearer.client.secret", "new"] {
            assert!(is_secret(&format!("kafka.options.{secret}")), "{secret}");
        }
        assert!(!is_secret("kafka.options.security.protocol") && !is_secret("kafka.bootstrap"));
    }

    #[test]
    fn a_variable_names_its_setting() {
        assert_eq!(key_of("WEIR_LOG__KIND").as_deref(), Some("log.kind"));
        assert_eq!(key_of("WEIR_KAFKA__OPTIONS__SASL_PASSWORD").as_deref(), Some("kafka.options.sasl.password"));
        assert_eq!(key_of("WEIR_CLICKHOUSE__ANALYST_PASSWORD").as_deref(), Some("clickhouse.analyst_password"));
        assert_eq!(key_of("WEIR_TEST_KAFKA"), None);
    }
}
