use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, base_consumer::PartitionQueue},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    config::Config,
    context::{Context, REQUEST_TIMEOUT, error_of, error_of_code, refused},
    progress::partition_number,
};
use crate::{LogError, Reader, RecordRef, Result, Wake};

/// librdkafka wants a group for `assign()`; nothing is ever committed under this one.
const READER_GROUP: &str = "weir-reader";

/// How long a wait lasts at most between two looks at the client's own events (errors, log lines).
const SERVE_EVERY: Duration = Duration::from_millis(100);

/// Reads a topic with a client of its own, each partition from a queue of its own: holding one is not polling its
/// queue, so what was fetched stays (`pause()` would throw it away).
pub(super) struct KafkaReader {
    topic: String,
    /// In the order of their first assignment. Before `consumer`, so that the queues go first.
    partitions: Vec<Assigned>,
    consumer: Arc<BaseConsumer<Context>>,
    bell: Arc<Bell>,
    turn: usize,
}

struct Assigned {
    partition: u32,
    /// Where to begin, until the assignment is made, by the next poll: all at once, so that none waits for a fetch
    /// that is under way for another.
    begin: Option<i64>,
    /// The next offset to come.
    next: i64,
    held: bool,
    queue: Option<PartitionQueue<Context>>,
    /// Why nothing comes, until it is assigned anew.
    failed: Option<RDKafkaErrorCode>,
}

/// Rung by librdkafka's threads when a queue that was empty is not.
#[derive(Default)]
struct Bell {
    rung: Mutex<u64>,
    changed: Condvar,
    wake: Mutex<Option<Wake>>,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
        // Cloned, so that no lock is held while the wake runs.
        let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(wake) = wake {
            wake();
        }
    }

    fn count(&self) -> u64 {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is rung once more than `seen`, or for `timeout`.
    fn wait(&self, seen: u64, timeout: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(rung, timeout, |rung| *rung == seen);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl KafkaReader {
    pub(super) fn new(config: &Config, topic: &str) -> Result<Self> {
        let mut consumer: BaseConsumer<Context> = config
            .consumer(Some(READER_GROUP))
            .create_with_context(Context)
            .map_err(|error| LogError::Kafka(error.to_string()))?;
        let bell = Arc::new(Bell::default());
        let theirs = bell.clone();
        consumer.set_nonempty_callback(move || theirs.ring());
        Ok(Self { topic: topic.to_owned(), partitions: Vec::new(), consumer: Arc::new(consumer), bell, turn: 0 })
    }

    /// Makes the assignments that are asked for.
    fn begin(&mut self) -> Result<()> {
        if self.partitions.iter().all(|assigned| assigned.begin.is_none()) {
            return Ok(());
        }
        let (mut gone, mut new) = (TopicPartitionList::new(), TopicPartitionList::new());
        for assigned in &mut self.partitions {
            let Some(begin) = assigned.begin else { continue };
            let partition = partition_number(&self.topic, assigned.partition)?;
            if assigned.queue.take().is_some() {
                gone.add_partition(&self.topic, partition);
            }
            new.add_partition_offset(&self.topic, partition, Offset::Offset(begin))
                .map_err(|error| error_of(&self.topic, &error))?;
        }
        if gone.count() > 0 {
            self.consumer.incremental_unassign(&gone).map_err(|error| error_of(&self.topic, &error))?;
        }
        // The queue is split off before the first fetch: librdkafka then leaves it split.
        for assigned in self.partitions.iter_mut().filter(|assigned| assigned.begin.is_some()) {
            let partition = partition_number(&self.topic, assigned.partition)?;
            let mut queue = self
                .consumer
                .split_partition_queue(&self.topic, partition)
                .ok_or_else(|| refused(&self.topic, format!("no queue for partition {partition}")))?;
            let bell = self.bell.clone();
            queue.set_nonempty_callback(move || bell.ring());
            assigned.queue = Some(queue);
        }
        self.consumer.incremental_assign(&new).map_err(|error| error_of(&self.topic, &error))?;
        for assigned in &mut self.partitions {
            if let Some(begin) = assigned.begin.take() {
                assigned.next = begin;
                assigned.failed = None;
            }
        }
        Ok(())
    }

    /// The client's own events: lines to log, and errors, of which only the fatal ones end reading.
    fn serve(&self) -> Result<()> {
        while let Some(event) = self.consumer.poll(Duration::ZERO) {
            match event {
                Err(error @ KafkaError::MessageConsumptionFatal(_)) => return Err(error_of(&self.topic, &error)),
                // Brokers that are away for a while: librdkafka goes on by itself when they are back.
                Err(error) => tracing::debug!(%error, topic = self.topic, "while reading"),
                Ok(message) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    return Err(refused(
                        &self.topic,
                        format!("partition {partition}: record {offset} came outside its queue"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// One look at all queues, without waiting.
    fn drain(&mut self, records_max: usize, each: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize> {
        let count = self.partitions.len();
        let active = self.partitions.iter().filter(|assigned| !assigned.held).count();
        let mut given = 0;
        self.turn = self.turn.wrapping_add(1);
        // Round after round, so that a partition with much to give does not keep the others waiting. A failure is told
        // by a poll that gives nothing: by the next one, if there was something to give.
        loop {
            let mut more = false;
            for place in 0..count {
                let assigned = &mut self.partitions[(self.turn + place) % count];
                if assigned.held {
                    continue;
                }
                let share = (records_max / active).max(1).min(records_max - given);
                let taken = assigned.take(share, each);
                if let Some(code) = assigned.failed
                    && given + taken == 0
                {
                    let (partition, next) = (assigned.partition, assigned.next);
                    return Err(match code {
                        RDKafkaErrorCode::AutoOffsetReset => self.out_of_range(partition, next),
                        code => error_of_code(&self.topic, code),
                    });
                }
                given += taken;
                more |= taken == share;
            }
            if !more || given >= records_max {
                return Ok(given);
            }
        }
    }

    /// Why the broker does not have the offset.
    fn out_of_range(&self, partition: u32, offset: i64) -> LogError {
        let watermarks = partition_number(&self.topic, partition).and_then(|number| {
            let answer = self.consumer.fetch_watermarks(&self.topic, number, REQUEST_TIMEOUT);
            answer.map_err(|error| match error.rdkafka_error_code() {
                // The broker has just answered for this partition: it is there, and has no leader.
                Some(RDKafkaErrorCode::UnknownPartition) => {
                    error_of_code(&self.topic, RDKafkaErrorCode::LeaderNotAvailable)
                }
                _ => error_of(&self.topic, &error),
            })
        });
        match watermarks {
            Ok((start, _)) if offset < start => {
                LogError::BelowStart { topic: self.topic.clone(), partition, offset, start }
            }
            Ok((_, end)) => {
                refused(&self.topic, format!("partition {partition}: offset {offset} is past the end {end}"))
            }
            Err(error) => error,
        }
    }
}

impl Assigned {
    /// Gives up to `most` records to `each`.
    fn take(&mut self, most: usize, each: &mut dyn FnMut(RecordRef<'_>)) -> usize {
        let Some(queue) = &self.queue else { return 0 };
        let mut taken = 0;
        while taken < most && self.failed.is_none() {
            match queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    let offset = message.offset();
                    self.next = offset + 1;
                    taken += 1;
                    each(RecordRef {
                        partition: self.partition,
                        offset,
                        stamp_ms: message.timestamp().to_millis().unwrap_or(0),
                        payload: message.payload().unwrap_or_default(),
                    });
                }
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(
                        code @ (RDKafkaErrorCode::AutoOffsetReset
                        | RDKafkaErrorCode::UnknownTopic
                        | RDKafkaErrorCode::UnknownTopicOrPartition
                        | RDKafkaErrorCode::UnknownPartition
                        | RDKafkaErrorCode::TopicAuthorizationFailed),
                    ) => self.failed = Some(code),
                    _ => tracing::debug!(%error, partition = self.partition, "while reading"),
                },
            }
        }
        taken
    }
}

impl Reader for KafkaReader {
    fn assign(&mut self, partition: u32, offset: i64) -> Result<()> {
        partition_number(&self.topic, partition)?;
        match self.partitions.iter_mut().find(|assigned| assigned.partition == partition) {
            Some(assigned) => {
                assigned.begin = Some(offset);
                assigned.held = false;
            }
            None => self.partitions.push(Assigned {
                partition,
                begin: Some(offset),
                next: offset,
                held: false,
                queue: None,
                failed: None,
            }),
        }
        Ok(())
    }

    fn poll(&mut self, records_max: usize, timeout: Duration, each: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize> {
        self.begin()?;
        let deadline = Instant::now() + timeout;
        loop {
            // Counted before looking: what comes after the look rings once more.
            let seen = self.bell.count();
            self.serve()?;
            let given = self.drain(records_max, each)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if given > 0 || left.is_zero() || records_max == 0 {
                return Ok(given);
            }
            self.bell.wait(seen, left.min(SERVE_EVERY));
        }
    }

    fn hold(&mut self, partition: u32, held: bool) {
        for assigned in self.partitions.iter_mut().filter(|assigned| assigned.partition == partition) {
            assigned.held = held;
        }
        // What came while it was held rang for nobody who could take it.
        if !held {
            self.bell.ring();
        }
    }

    fn set_wake(&mut self, wake: Wake) {
        *self.bell.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(wake.clone());
        // Something may have come before.
        wake();
    }
}
