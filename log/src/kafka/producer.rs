use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, channel::oneshot, future::BoxFuture};
use rdkafka::{
    ClientContext, Message,
    bindings::{rd_kafka_message_status, rd_kafka_msg_status_t},
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};

use super::{
    config::{Config, RECORD_BYTES_MIN},
    context::{self, REQUEST_TIMEOUT},
};
use crate::{Appended, LogError, Result, telemetry};

/// How long a dropped handle waits for its appends; what is left then is answered as unclear.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(15);

/// Appends to Kafka. Records of one partition land in the order of the calls: one idempotent producer sends them all.
pub(super) struct Producer {
    inner: ThreadedProducer<Delivery>,
    record_bytes_max: usize,
    set_bytes_max: usize,
}

/// Takes librdkafka's delivery reports and answers those who wait.
struct Delivery {
    record_bytes_max: usize,
}

/// An append that waits for its delivery report.
struct Waiting {
    topic: Arc<str>,
    partition: u32,
    bytes: usize,
    begun: Instant,
    answer: oneshot::Sender<Result<Appended>>,
}

impl Producer {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let config = config.producer();
        let native = config.create_native_config().map_err(|error| LogError::Kafka(error.to_string()))?;
        let bytes = |name| native.get(name).ok().and_then(|bytes| bytes.parse().ok()).unwrap_or(1_000_000);
        let record_bytes_max = bytes("message.max.bytes");
        let set_bytes_max = record_bytes_max.min(bytes("batch.size")).max(RECORD_BYTES_MIN);
        let inner = config
            .create_with_context(Delivery { record_bytes_max })
            .map_err(|error| LogError::Kafka(error.to_string()))?;
        Ok(Self { inner, record_bytes_max, set_bytes_max })
    }

    /// How much may go to a partition at once: several records while they are not over librdkafka's bounds (compressed
    /// they are never larger), or one that has the whole room of a record.
    pub(super) fn set_bytes_max(&self) -> usize {
        self.set_bytes_max
    }

    /// Learns of partitions that were added, sooner than by the next refresh.
    pub(super) fn refresh(&self, topic: &str) -> Result<()> {
        let metadata = self.inner.client().fetch_metadata(Some(topic), REQUEST_TIMEOUT);
        metadata.map(drop).map_err(|error| context::error_of(topic, &error))
    }

    pub(super) fn append(
        &self,
        topic: &str,
        partition: u32,
        payload: &Bytes,
        stamp_ms: Option<i64>,
    ) -> BoxFuture<'static, Result<Appended>> {
        let (answer, receiver) = oneshot::channel();
        let topic: Arc<str> = topic.into();
        let waiting =
            Box::new(Waiting { topic: topic.clone(), partition, bytes: payload.len(), begun: Instant::now(), answer });
        let mut record = BaseRecord::<(), [u8], _>::with_opaque_to(&topic, waiting)
            .partition(i32::try_from(partition).unwrap_or(i32::MAX))
            .payload(payload);
        if let Some(stamp_ms) = stamp_ms {
            record = record.timestamp(stamp_ms);
        }
        if let Err((error, record)) = self.inner.send(record) {
            let refused = match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    LogError::TooLarge { bytes: payload.len(), bytes_max: self.record_bytes_max }
                }
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                    LogError::Unavailable("too many appends wait for the brokers".to_owned())
                }
                error => context::error_of(&topic, &error),
            };
            telemetry::append_failed("kafka", &refused);
            drop(record);
            return std::future::ready(Err(refused)).boxed();
        }
        async move {
            receiver.await.unwrap_or_else(|_| {
                let cause = "the producer was closed before the brokers answered".to_owned();
                Err(LogError::Unclear { topic: topic.to_string(), partition, cause })
            })
        }
        .boxed()
    }
}

impl Drop for Producer {
    /// Waits until everything that was handed over has been answered.
    fn drop(&mut self) {
        if let Err(error) = self.inner.flush(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "some appends had no answer when the log was closed");
        }
    }
}

impl ClientContext for Delivery {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::log_error(&error, reason);
    }
}

impl ProducerContext for Delivery {
    type DeliveryOpaque = Box<Waiting>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Box<Waiting>) {
        let answer = match result {
            Ok(message) => match (message.offset(), message.timestamp().to_millis()) {
                (offset @ 0.., Some(stamp_ms)) => Ok(Appended { offset, stamp_ms }),
                // A retry found the record in the log: it is there, but the broker no longer says where.
                (offset, stamp) => Err(LogError::Unclear {
                    topic: waiting.topic.to_string(),
                    partition: waiting.partition,
                    cause: format!("it is in the log, but its place is not known (offset {offset}, stamp {stamp:?})"),
                }),
            },
            Err((error, message)) => {
                // SAFETY: the message lives until this callback returns.
                let status = unsafe { rd_kafka_message_status(message.ptr()) };
                Err(self.failure(error, status, &waiting))
            }
        };
        match &answer {
            Ok(_) => {
                telemetry::appended("kafka", waiting.begun.elapsed());
                telemetry::group("kafka", 1, waiting.bytes);
            }
            Err(error) => telemetry::append_failed("kafka", error),
        }
        // Who no longer waits does not want to know.
        let _ = waiting.answer.send(answer);
    }
}

impl Delivery {
    /// librdkafka knows whether a record was never sent, or may have been written although no answer came.
    fn failure(&self, error: &KafkaError, status: rd_kafka_msg_status_t, waiting: &Waiting) -> LogError {
        let topic = &*waiting.topic;
        if status != rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED {
            let cause = error.to_string();
            return LogError::Unclear { topic: topic.to_owned(), partition: waiting.partition, cause };
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                LogError::TooLarge { bytes: waiting.bytes, bytes_max: self.record_bytes_max }
            }
            Some(RDKafkaErrorCode::PurgeQueue) => {
                LogError::Unavailable("the log was closed before the record was sent".to_owned())
            }
            _ => context::error_of(topic, error),
        }
    }
}
