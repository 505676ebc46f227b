use std::{collections::BTreeMap, time::Duration};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

use crate::{LogError, Result};

/// Properties without which Weir's promises do not hold; they cannot be passed through.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is `bootstrap` of [kafka]"),
    ("metadata.broker.list", "it is `bootstrap` of [kafka]"),
    ("group.id", "groups are named after runs"),
    ("group.instance.id", "partitions are assigned, not balanced"),
    ("enable.idempotence", "a record must not be doubled or reordered by a retry"),
    ("acks", "a record must be durable before it is acknowledged"),
    ("request.required.acks", "a record must be durable before it is acknowledged"),
    ("transactional.id", "appends are not transactions"),
    ("enable.gapless.guarantee", "an append that failed may be followed by others"),
    ("auto.offset.reset", "a reader below the log's start must not go on silently"),
    ("enable.auto.commit", "progress is written by those who made it"),
    ("auto.commit.enable", "progress is written by those who made it"),
    ("enable.auto.offset.store", "progress is written by those who made it"),
    ("enable.partition.eof", "ends are asked for"),
    ("allow.auto.create.topics", "a topic that a broker makes by itself would lose or restamp records"),
    ("log.queue", "librdkafka's log lines go to Weir's"),
];

/// Properties that librdkafka knows for consumers only (its CONFIGURATION.md, column C): a producer would warn.
const CONSUMER_ONLY: &[&str] = &[
    "auto.commit.interval.ms",
    "check.crcs",
    "consume.callback.max.messages",
    "coordinator.query.interval.ms",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.protocol",
    "group.protocol.type",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "offset.store.method",
    "offset.store.path",
    "offset.store.sync.interval.ms",
    "partition.assignment.strategy",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "session.timeout.ms",
];

/// And those for producers only (column P).
const PRODUCER_ONLY: &[&str] = &[
    "batch.num.messages",
    "batch.size",
    "compression.codec",
    "compression.level",
    "compression.type",
    "delivery.report.only.error",
    "delivery.timeout.ms",
    "linger.ms",
    "message.send.max.retries",
    "message.timeout.ms",
    "partitioner",
    "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queuing.strategy",
    "request.timeout.ms",
    "retries",
    "sticky.partitioning.linger.ms",
    "transaction.timeout.ms",
];

/// Less than this must not be refused as one record: the largest batch of events, and what is around it.
///
/// It is also librdkafka's default for `message.max.bytes`.
pub(super) const RECORD_BYTES_MIN: usize = 1_000_000;
const _: () = assert!(weir_schemas::BATCH_BYTES_MAX + 1_000 < RECORD_BYTES_MIN);

/// How long an append is tried before it fails; a broker that restarts is back within a few seconds.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// What all clients of a log share: where the brokers are, and the operator's own properties.
#[derive(Debug, Clone)]
pub(super) struct Config {
    bootstrap: String,
    options: BTreeMap<String, String>,
}

impl Config {
    /// [`LogError::Kafka`] for a property that is not the operator's to set.
    pub(super) fn new(bootstrap: &str, options: &BTreeMap<String, String>) -> Result<Self> {
        if let Some((name, why)) = OWNED.iter().find(|(name, _)| options.contains_key(*name)) {
            return Err(LogError::Kafka(format!(
                "option {name} is Weir's own: {why} (take it out of [kafka.options])"
            )));
        }
        if let Some(bytes) = options.get("message.max.bytes")
            && bytes.parse::<usize>().is_ok_and(|bytes| bytes < RECORD_BYTES_MIN)
        {
            return Err(LogError::Kafka(format!(
                "option message.max.bytes={bytes} is below {RECORD_BYTES_MIN}: a full batch of events would never be \
                 taken (raise it, or take it out of [kafka.options])"
            )));
        }
        Ok(Self { bootstrap: bootstrap.to_owned(), options: options.clone() })
    }

    pub(super) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// For appends: no record twice, none out of order, none acknowledged before it is on all replicas in sync.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.common();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("linger.ms", "1")
            .set("message.timeout.ms", APPEND_TIMEOUT.as_millis().to_string())
            // A producer that has nothing to do for ten minutes is not disconnected by the broker in mid-append.
            .set("connections.max.idle.ms", "300000");
        self.with_options(config, CONSUMER_ONLY)
    }

    /// For reading with `assign()`, for progress, and (without a group) for looking things up.
    pub(super) fn consumer(&self, group: Option<&str>) -> ClientConfig {
        let mut config = self.common();
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "false")
            // The default of 1000 throttles a consumer four times.
            .set("fetch.queue.backoff.ms", "1")
            // It holds for each partition: 8 MB are some hundred thousand events.
            .set("queued.max.messages.kbytes", "8192")
            // A partition assigned while a fetch waits at the broker is fetched at most this much later.
            .set("fetch.wait.max.ms", "100");
        if let Some(group) = group {
            config.set("group.id", group);
        }
        self.with_options(config, PRODUCER_ONLY)
    }

    /// For making and checking topics; its failures are answers, so it need not log them.
    pub(super) fn admin(&self) -> ClientConfig {
        let mut config = self.common();
        config.set_log_level(RDKafkaLogLevel::Emerg);
        self.with_options(config, &[CONSUMER_ONLY, PRODUCER_ONLY].concat())
    }

    fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", "weir")
            // Neither a question about a topic nor an append to it makes one, which would have the broker's defaults.
            .set("allow.auto.create.topics", "false")
            // Partitions that somebody added are known here so much later; their effective time lies further ahead.
            .set("topic.metadata.refresh.interval.ms", "10000");
        config.set_log_level(RDKafkaLogLevel::Info);
        config
    }

    /// The operator's properties last, so that they win, without those that this kind of client does not know.
    fn with_options(&self, mut config: ClientConfig, unknown: &[&str]) -> ClientConfig {
        for (name, value) in self.options.iter().filter(|(name, _)| !unknown.contains(&name.as_str())) {
            config.set(name, value);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(options: &[(&str, &str)]) -> Result<Config> {
        let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Config::new("localhost:1", &options)
    }

    #[test]
    fn an_option_goes_to_those_clients_that_know_it() {
        let config =
            config(&[("linger.ms", "7"), ("fetch.min.bytes", "9"), ("security.protocol", "SASL_SSL")]).unwrap();
        let (producer, consumer, admin) = (config.producer(), config.consumer(Some("g")), config.admin());
        let found = |client: &ClientConfig| {
            ["linger.ms", "fetch.min.bytes", "security.protocol"].map(|name| client.get(name).map(str::to_owned))
        };
        let ssl = Some("SASL_SSL".to_owned());
        assert_eq!(found(&producer), [Some("7".to_owned()), None, ssl.clone()]);
        assert_eq!(found(&consumer), [None, Some("9".to_owned()), ssl.clone()]);
        assert_eq!(found(&admin), [None, None, ssl]);
    }

    #[test]
    fn a_record_may_not_be_bounded_below_the_largest_batch() {
        let refused = config(&[("message.max.bytes", "999999")]).unwrap_err().to_string();
        assert!(refused.contains("message.max.bytes=999999"), "{refused}");
        config(&[("message.max.bytes", "1000000")]).unwrap();
    }

    #[test]
    fn an_option_that_would_break_a_promise_is_refused_with_the_reason() {
        for name in ["acks", "enable.idempotence", "auto.offset.reset", "group.id", "enable.auto.commit"] {
            let refused = config(&[(name, "x")]).unwrap_err().to_string();
            assert!(refused.contains(name) && refused.contains("[kafka.options]"), "{refused}");
        }
    }
}
