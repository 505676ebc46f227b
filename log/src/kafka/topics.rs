use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use rdkafka::{
    admin::{
        AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier,
        TopicReplication,
    },
    consumer::Consumer,
    error::RDKafkaErrorCode,
    metadata::MetadataTopic,
};

use super::{
    KafkaLog,
    context::{Context, REQUEST_TIMEOUT, error_of, error_of_code, refused},
};
use crate::{LogError, Result, SALTS_RETENTION, TopicKind};

/// What a topic's setting must be.
struct Needed {
    setting: &'static str,
    /// What a new topic gets.
    value: String,
    rule: Rule,
}

enum Rule {
    Equal,
    /// ms, or -1 for ever.
    Retention,
    /// A number that is at least this.
    AtLeast(usize),
    /// Set for a new topic, not checked.
    Free,
}

/// Kafka's own default of `max.message.bytes`.
const MESSAGE_BYTES_DEFAULT: usize = 1_048_588;

/// The settings that `kind` needs of a topic into which up to `set_bytes_max` are written at once; everything else is the
/// operator's business.
fn needed(kind: &TopicKind, set_bytes_max: usize) -> Vec<Needed> {
    let equal = |setting, value: &str| Needed { setting, value: value.to_owned(), rule: Rule::Equal };
    let stamps = match kind {
        TopicKind::Import { .. } => "CreateTime",
        _ => "LogAppendTime",
    };
    let mut needed = vec![
        equal("message.timestamp.type", stamps),
        equal("cleanup.policy", "delete"),
        // With a bound on bytes nobody knows how long a record stays.
        equal("retention.bytes", "-1"),
    ];
    if let TopicKind::Events { .. } | TopicKind::Import { .. } = kind {
        // A smaller one takes most batches, until there is a crowd and they are full.
        needed.push(Needed {
            setting: "max.message.bytes",
            value: set_bytes_max.max(MESSAGE_BYTES_DEFAULT).to_string(),
            rule: Rule::AtLeast(set_bytes_max),
        });
    }
    match kind {
        TopicKind::Control | TopicKind::Import { .. } => needed.push(equal("retention.ms", "-1")),
        TopicKind::Events { retention, .. } => needed.push(Needed {
            setting: "retention.ms",
            value: retention.as_millis().to_string(),
            rule: Rule::Retention,
        }),
        TopicKind::Salts => {
            needed.push(equal("retention.ms", &SALTS_RETENTION.as_millis().to_string()));
            // A segment goes when its newest record is old enough: small ones, so that a salt does not stay for days.
            needed.push(Needed { setting: "segment.ms", value: "3600000".to_owned(), rule: Rule::Free });
        }
    }
    needed
}

impl Needed {
    fn is_met(&self, found: &str) -> bool {
        match self.rule {
            Rule::Equal => found == self.value,
            Rule::Free => true,
            Rule::AtLeast(least) => found.parse::<usize>().is_ok_and(|found| found >= least),
            Rule::Retention => match (found.parse::<i64>(), self.value.parse::<i64>()) {
                (Ok(-1), _) => true,
                (Ok(found), Ok(needed)) => found >= needed,
                _ => false,
            },
        }
    }

    fn to_text(&self) -> String {
        match self.rule {
            Rule::Retention => format!("at least {} (as configured)", self.value),
            Rule::AtLeast(least) => format!("at least {least}"),
            _ => self.value.clone(),
        }
    }
}

impl KafkaLog {
    pub(super) fn create(&self, topic: &str, kind: &TopicKind) -> Result<()> {
        let partitions = match kind {
            TopicKind::Events { partitions, .. } | TopicKind::Import { partitions } => *partitions,
            TopicKind::Control | TopicKind::Salts => 1,
        };
        // Look first: who may only read and write can still start once the topics are there.
        if self.find(topic)?.is_none() {
            let needed = needed(kind, self.producer.set_bytes_max());
            let count = i32::try_from(partitions).map_err(|_| refused(topic, "too many partitions"))?;
            // -1: the broker's own replication factor.
            let new = needed.iter().fold(NewTopic::new(topic, count, TopicReplication::Fixed(-1)), |new, needed| {
                new.set(needed.setting, &needed.value)
            });
            let results = block_on(self.admin.create_topics([&new], &options()));
            match first(topic, results)? {
                // Another process was quicker; its topic is checked like any other.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(error_of_code(topic, code)),
            }
            self.wait_until(topic, "made", |found| found.is_some_and(|count| count >= partitions))?;
        }
        self.check(topic, kind)
    }

    /// [`LogError::WrongTopic`] names the first setting that is not as `kind` needs it.
    fn check(&self, topic: &str, kind: &TopicKind) -> Result<()> {
        let settings = self.settings(topic)?;
        for needed in needed(kind, self.producer.set_bytes_max()) {
            let found = settings.get(needed.setting).map_or("", |(value, _)| value);
            if !needed.is_met(found) {
                return Err(LogError::WrongTopic {
                    topic: topic.to_owned(),
                    setting: needed.setting.to_owned(),
                    found: found.to_owned(),
                    needed: needed.to_text(),
                });
            }
        }
        Ok(())
    }

    /// See [`Log::repair_topic`](crate::Log::repair_topic) of a topic that is there.
    pub(super) fn repair_existing(&self, topic: &str, kind: &TopicKind) -> Result<()> {
        let settings = self.settings(topic)?;
        let mut wanted: BTreeMap<&str, &str> = settings
            .iter()
            .filter(|(_, (_, own))| *own)
            .map(|(name, (value, _))| (name.as_str(), value.as_str()))
            .collect();
        let needed = needed(kind, self.producer.set_bytes_max());
        for needed in &needed {
            let found = settings.get(needed.setting).map_or("", |(value, _)| value);
            if !needed.is_met(found) {
                wanted.insert(needed.setting, &needed.value);
            }
        }
        let alter = wanted
            .into_iter()
            .fold(AlterConfig::new(ResourceSpecifier::Topic(topic)), |alter, (name, value)| alter.set(name, value));
        let results = block_on(self.admin.alter_configs([&alter], &options()));
        first(topic, results)?.map_err(|(_, code)| error_of_code(topic, code))?;
        // A broker may answer before it uses what it was told.
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            match self.check(topic, kind) {
                Err(LogError::WrongTopic { .. }) if Instant::now() < deadline => thread::sleep(LOOK_EVERY),
                other => return other,
            }
        }
    }

    pub(super) fn delete(&self, topic: &str) -> Result<()> {
        let results = block_on(self.admin.delete_topics(&[topic], &options()));
        match first(topic, results)? {
            Ok(_) => self.wait_until(topic, "deleted", |found| found.is_none()),
            Err((_, RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition)) => Ok(()),
            Err((_, code)) => Err(error_of_code(topic, code)),
        }
    }

    pub(super) fn grow_to(&self, topic: &str, partitions: u32) -> Result<()> {
        if self.find(topic)?.ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))? >= partitions {
            return Ok(());
        }
        let more = NewPartitions::new(topic, partitions as usize);
        let results = block_on(self.admin.create_partitions([&more], &options()));
        match first(topic, results)? {
            // Another process was quicker: there are as many by now, or more.
            Ok(_) | Err((_, RDKafkaErrorCode::InvalidPartitions)) => {}
            Err((_, code)) => return Err(error_of_code(topic, code)),
        }
        self.wait_until(topic, "grown", |found| found.is_some_and(|count| count >= partitions))?;
        self.producer.refresh(topic)
    }

    /// A setting that bounds what is kept; `None`: it does not.
    pub(super) fn bound(&self, topic: &str, setting: &str) -> Result<Option<u64>> {
        let settings = self.settings(topic)?;
        let found = settings.get(setting).map_or("", |(value, _)| value);
        match found.parse::<i64>() {
            Ok(-1) => Ok(None),
            Ok(bound @ 0..) => Ok(Some(bound.unsigned_abs())),
            _ => Err(refused(topic, format!("{setting}={found} is no bound"))),
        }
    }

    /// Name → (value, whether it is the topic's own and not a default).
    fn settings(&self, topic: &str) -> Result<BTreeMap<String, (String, bool)>> {
        let described = block_on(self.admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options()));
        let resource = first(topic, described)?.map_err(|code| error_of_code(topic, code))?;
        let settings = resource.entries.into_iter().filter_map(|entry| {
            let own = entry.source == ConfigSource::DynamicTopic;
            entry.value.map(|value| (entry.name, (value, own)))
        });
        Ok(settings.collect())
    }

    /// How many partitions the topic has, each with a leader; `None` if there is no such topic.
    pub(super) fn find(&self, topic: &str) -> Result<Option<u32>> {
        let found = self.ask(|client| {
            let metadata = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
            Ok(metadata.topics().iter().find(|found| found.name() == topic).map(count_of))
        });
        match found.map_err(|error| error_of(topic, &error))? {
            None | Some(Ok(None)) => Ok(None),
            Some(Ok(count)) => Ok(count),
            Some(Err(code)) => Err(error_of_code(topic, code)),
        }
    }

    /// The brokers learn of a change one after the other: waits until what they say is as it should be.
    fn wait_until(&self, topic: &str, done: &str, holds: impl Fn(Option<u32>) -> bool) -> Result<()> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            match self.find(topic) {
                Ok(found) if holds(found) => return Ok(()),
                Ok(_) | Err(LogError::Unavailable(_)) if Instant::now() < deadline => thread::sleep(LOOK_EVERY),
                Ok(found) => {
                    let found = found.map_or("no partitions".to_owned(), |count| format!("{count} partitions"));
                    let waited = REQUEST_TIMEOUT.as_secs();
                    return Err(LogError::Unavailable(format!(
                        "topic {topic} was {done}, but after {waited} s the brokers still say that it has {found}"
                    )));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(20);

fn count_of(topic: &MetadataTopic) -> std::result::Result<Option<u32>, RDKafkaErrorCode> {
    match topic.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => return Ok(None),
        Some(code) => return Err(code),
    }
    if topic.partitions().iter().any(|partition| partition.leader() < 0) {
        return Err(RDKafkaErrorCode::LeaderNotAvailable);
    }
    Ok(Some(topic.partitions().len() as u32))
}

/// Why a partition is unknown that somebody asked about, by what the brokers say of its topic.
pub(super) fn why_unknown(topic: Option<&MetadataTopic>, partition: i32) -> RDKafkaErrorCode {
    let Some(topic) = topic else { return RDKafkaErrorCode::UnknownTopicOrPartition };
    match topic.error().map(RDKafkaErrorCode::from) {
        Some(code) => code,
        // By the time of this look it may have a leader again: it is asked once more either way.
        None if topic.partitions().iter().any(|found| found.id() == partition) => RDKafkaErrorCode::LeaderNotAvailable,
        None => RDKafkaErrorCode::UnknownPartition,
    }
}

pub(super) fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

/// The answer about the one topic that was asked about.
fn first<T>(topic: &str, results: rdkafka::error::KafkaResult<Vec<T>>) -> Result<T> {
    results
        .map_err(|error| error_of(topic, &error))?
        .into_iter()
        .next()
        .ok_or_else(|| refused(topic, "the broker gave no answer"))
}

/// The client that makes and checks topics.
pub(super) type Admin = AdminClient<Context>;

#[cfg(test)]
mod tests {
    use super::*;

    fn met(kind: &TopicKind, setting: &str, found: &str) -> bool {
        needed(kind, 1_000_000).iter().find(|needed| needed.setting == setting).unwrap().is_met(found)
    }

    #[test]
    fn retention_may_be_longer_than_configured_and_is_never_shorter() {
        let kind = TopicKind::Events { partitions: 1, retention: Duration::from_secs(100) };
        let found =
            ["100000", "100001", "-1", "99999", "0", "-2", "", "x"].map(|found| met(&kind, "retention.ms", found));
        assert_eq!(found, [true, true, true, false, false, false, false, false]);
    }

    #[test]
    fn a_topic_of_events_takes_the_largest_batch() {
        for kind in [
            TopicKind::Events { partitions: 1, retention: Duration::from_secs(100) },
            TopicKind::Import { partitions: 1 },
        ] {
            let found =
                ["1048588", "1000000", "999999", "0", "", "-1"].map(|found| met(&kind, "max.message.bytes", found));
            assert_eq!(found, [true, true, false, false, false, false]);
        }
    }

    #[test]
    fn what_is_kept_for_ever_must_have_no_bound_at_all() {
        for kind in [TopicKind::Control, TopicKind::Import { partitions: 1 }] {
            assert!(met(&kind, "retention.ms", "-1") && !met(&kind, "retention.ms", "604800000"));
            assert!(met(&kind, "retention.bytes", "-1") && !met(&kind, "retention.bytes", "1000000"));
        }
    }
}
