//! The log on Kafka, by librdkafka.
//!
//! ```text
//!  append ─▶ idempotent producer, acks=all ─▶ broker ─▶ delivery report: offset, stamp
//!  Reader ◀─ queue of each partition ◀─ consumer with assign()
//!  commit, committed ─▶ a client per group, which joins nothing
//! ```
//!
//! Invariants
//! - an append that may have been written although it failed is [`LogError::Unclear`], never less
//! - nothing here makes a topic by asking for it, joins a group, or commits by itself
//! - a topic whose settings could lose or restamp records is refused before anything is written to it
//!
//! A client connects when it is first used, so a handle can be had while the brokers are away.

mod config;
mod context;
mod describe;
mod producer;
mod progress;
mod reader;
mod topics;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

use self::{
    config::Config,
    context::{Context, REQUEST_TIMEOUT, error_of},
    producer::Producer,
    progress::partition_number,
    reader::KafkaReader,
};
use crate::{Appended, Bounds, Committed, Log, LogError, Reader, Result, TopicKind};

/// A handle on the topics of a Kafka cluster. Dropping it waits until its appends have been answered.
pub struct KafkaLog {
    config: Config,
    producer: Producer,
    admin: topics::Admin,
    /// Looks things up.
    lookup: BaseConsumer<Context>,
    groups: Mutex<HashMap<String, Arc<BaseConsumer<Context>>>>,
}

impl KafkaLog {
    /// Makes the clients for the brokers at `bootstrap` (`host:port`, separated by commas), with any other properties
    /// of librdkafka in `options`. Does not connect yet.
    ///
    /// [`LogError::Kafka`] for a property that librdkafka does not know, or that is not to be changed.
    pub fn connect(bootstrap: &str, options: &BTreeMap<String, String>) -> Result<Self> {
        let config = Config::new(bootstrap, options)?;
        let failed = |error: KafkaError| LogError::Kafka(error.to_string());
        Ok(Self {
            producer: Producer::new(&config)?,
            admin: config.admin().create_with_context(Context).map_err(failed)?,
            lookup: config.consumer(None).create_with_context(Context).map_err(failed)?,
            groups: Mutex::default(),
            config,
        })
    }

    /// Deletes the records of a partition below `offset`, for all who read it.
    pub fn delete_records(&self, topic: &str, partition: u32, offset: i64) -> Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition_number(topic, partition)?, Offset::Offset(offset))
            .map_err(|error| error_of(topic, &error))?;
        let deleted = context::patiently(|| {
            let deleted = futures::executor::block_on(self.admin.delete_records(&list, &topics::options()))?;
            deleted.elements().iter().try_for_each(|element| element.error())
        });
        deleted.map_err(|error| error_of(topic, &error))
    }

    /// Asks with the client that looks things up, and lets it say what it has to log.
    fn ask<T>(&self, question: impl Fn(&BaseConsumer<Context>) -> KafkaResult<T>) -> KafkaResult<T> {
        let answer = context::patiently(|| question(&self.lookup));
        serve(&self.lookup);
        answer
    }

    /// The same about one partition. Of one that has no leader at the moment librdkafka says what it says of one that is not
    /// there (`rd_kafka_topic_partition_list_query_leaders`): whether it is, the topic's metadata tell.
    fn ask_of<T>(
        &self,
        topic: &str,
        partition: i32,
        question: impl Fn(&BaseConsumer<Context>) -> KafkaResult<T>,
    ) -> Result<T> {
        let answer = self.ask(|client| match question(client) {
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition) => {
                let metadata = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
                let found = metadata.topics().iter().find(|found| found.name() == topic);
                Err(KafkaError::MetadataFetch(topics::why_unknown(found, partition)))
            }
            answer => answer,
        });
        answer.map_err(|error| error_of(topic, &error))
    }
}

/// Lets a client that is not read from hand over its log lines and errors.
fn serve(consumer: &BaseConsumer<Context>) {
    while consumer.poll(Duration::ZERO).is_some() {}
}

impl Log for KafkaLog {
    fn create_topic(&self, topic: &str, kind: &TopicKind) -> Result<()> {
        self.create(topic, kind)
    }

    fn repair_topic(&self, topic: &str, kind: &TopicKind) -> Result<()> {
        match self.find(topic)? {
            Some(_) => self.repair_existing(topic, kind),
            None => self.create(topic, kind),
        }
    }

    fn delete_topic(&self, topic: &str) -> Result<()> {
        self.delete(topic)
    }

    fn topics(&self) -> Result<Vec<String>> {
        let names = self.ask(|client| {
            let metadata = client.fetch_metadata(None, REQUEST_TIMEOUT)?;
            Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect::<Vec<_>>())
        });
        let brokers = self.config.bootstrap();
        let mut names = names.map_err(|error| LogError::Unavailable(format!("brokers at {brokers}: {error}")))?;
        names.sort();
        Ok(names)
    }

    fn partitions(&self, topic: &str) -> Result<u32> {
        self.find(topic)?.ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))
    }

    fn topic_id(&self, topic: &str) -> Result<Option<String>> {
        self.id_of(topic)
    }

    fn grow(&self, topic: &str, partitions: u32) -> Result<()> {
        self.grow_to(topic, partitions)
    }

    fn append(
        &self,
        topic: &str,
        partition: u32,
        payload: Bytes,
        stamp_ms: Option<i64>,
    ) -> BoxFuture<'static, Result<Appended>> {
        self.producer.append(topic, partition, &payload, stamp_ms)
    }

    fn reader(&self, topic: &str) -> Result<Box<dyn Reader>> {
        self.partitions(topic)?;
        Ok(Box::new(KafkaReader::new(&self.config, topic)?))
    }

    fn bounds(&self, topic: &str, partition: u32) -> Result<Bounds> {
        let number = partition_number(topic, partition)?;
        let (start, end) =
            self.ask_of(topic, number, |client| client.fetch_watermarks(topic, number, REQUEST_TIMEOUT))?;
        Ok(Bounds { start, end })
    }

    fn offset_at(&self, topic: &str, partition: u32, at_ms: i64) -> Result<Option<i64>> {
        let number = partition_number(topic, partition)?;
        let found = self.ask_of(topic, number, |client| {
            let mut list = TopicPartitionList::new();
            // Negative times are commands to the broker.
            list.add_partition_offset(topic, number, Offset::Offset(at_ms.max(0)))?;
            let found = client.offsets_for_times(list, REQUEST_TIMEOUT)?;
            let element = found.find_partition(topic, number).ok_or(KafkaError::NoMessageReceived)?;
            element.error()?;
            Ok(element.offset())
        })?;
        Ok(match found {
            Offset::Offset(offset) => Some(offset),
            // -1, the end: all there is was stamped before.
            _ => None,
        })
    }

    fn commit(&self, group: &str, topic: &str, progress: &[Committed]) -> Result<()> {
        self.commit_progress(group, topic, progress)
    }

    fn committed(&self, group: &str, topic: &str) -> Result<Vec<Committed>> {
        self.committed_progress(group, topic)
    }

    fn retention(&self, topic: &str) -> Result<Option<Duration>> {
        Ok(self.bound(topic, "retention.ms")?.map(Duration::from_millis))
    }

    fn retention_bytes(&self, topic: &str) -> Result<Option<u64>> {
        self.bound(topic, "retention.bytes")
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Instant};

    use rdkafka::mocking::MockCluster;

    use super::*;

    #[test]
    fn a_partition_without_a_leader_is_waited_for_and_one_that_is_not_there_is_not() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 2, 1).unwrap();
        let log = KafkaLog::connect(&cluster.bootstrap_servers(), &BTreeMap::new()).unwrap();
        assert_eq!(log.bounds("t", 1).unwrap(), Bounds { start: 0, end: 0 });
        let anew = || KafkaLog::connect(&cluster.bootstrap_servers(), &BTreeMap::new()).unwrap();
        // As of a broker that its controller has fenced, for a moment.
        let ask_without = |ask: fn(&KafkaLog)| {
            cluster.partition_leader("t", 1, None).unwrap();
            let log = anew();
            thread::scope(|scope| {
                let asking = scope.spawn(|| ask(&log));
                thread::sleep(Duration::from_secs(1));
                assert!(!asking.is_finished(), "it was answered while there was none");
                cluster.partition_leader("t", 1, Some(1)).unwrap();
                asking.join().unwrap();
            });
        };
        ask_without(|log| assert_eq!(log.bounds("t", 1).unwrap(), Bounds { start: 0, end: 0 }));
        ask_without(|log| assert_eq!(log.offset_at("t", 1, 0).unwrap(), None));
        let asking = Instant::now();
        let not_there = [log.bounds("t", 7).map(drop), log.offset_at("t", 7, 0).map(drop)];
        for answer in not_there {
            let Err(LogError::Kafka(said)) = answer else { panic!("{answer:?}") };
            assert_eq!(said, "topic t has no such partition");
        }
        assert!(asking.elapsed() < REQUEST_TIMEOUT, "it is not waited for");
        cluster.partition_leader("t", 1, None).unwrap();
        let without = anew().bounds("t", 1);
        assert!(matches!(without, Err(LogError::Unavailable(_))), "{without:?}");
    }
}
