use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

use crate::LogError;

/// How long a question to the brokers may take.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What every client does besides its work: librdkafka's own lines go where Weir's go.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Context {}

/// librdkafka calls a lost connection an error; it connects anew by itself, so to Weir it is a warning.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::debug!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Debug => tracing::trace!(target: "librdkafka", facility, "{message}"),
    }
}

pub(super) fn log_error(error: &KafkaError, reason: &str) {
    tracing::warn!(target: "librdkafka", %error, "{reason}");
}

/// Asks again while the brokers agree among themselves who leads, as after a restart or for a new topic.
pub(super) fn patiently<T>(mut question: impl FnMut() -> KafkaResult<T>) -> KafkaResult<T> {
    use RDKafkaErrorCode as Code;
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    loop {
        match question() {
            Err(error)
                if Instant::now() < deadline
                    && matches!(
                        error.rdkafka_error_code(),
                        Some(
                            Code::NotLeaderForPartition
                                | Code::LeaderNotAvailable
                                | Code::NotCoordinator
                                | Code::CoordinatorNotAvailable
                                | Code::CoordinatorLoadInProgress
                                | Code::WaitingForCoordinator
                        )
                    ) =>
            {
                thread::sleep(Duration::from_millis(50));
            }
            answer => return answer,
        }
    }
}

/// What an error means to who asked about `topic`.
pub(super) fn error_of(topic: &str, error: &KafkaError) -> LogError {
    match error.rdkafka_error_code() {
        Some(code) => error_of_code(topic, code),
        None => LogError::Kafka(error.to_string()),
    }
}

pub(super) fn error_of_code(topic: &str, code: RDKafkaErrorCode) -> LogError {
    use RDKafkaErrorCode as Code;
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition => LogError::UnknownTopic(topic.to_owned()),
        Code::UnknownPartition => LogError::Kafka(format!("topic {topic} has no such partition")),
        Code::AllBrokersDown
        | Code::BrokerTransportFailure
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::RequestTimedOut
        | Code::Resolve
        | Code::NotCoordinator
        | Code::WaitingForCoordinator
        | Code::CoordinatorNotAvailable
        | Code::CoordinatorLoadInProgress
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::MessageTimedOut => LogError::Unavailable(format!("topic {topic}: {code}")),
        _ => LogError::Kafka(format!("topic {topic}: {code}")),
    }
}

/// A pair that makes a broker's refusal readable: which topic, what it said.
pub(super) fn refused(topic: &str, what: impl Display) -> LogError {
    LogError::Kafka(format!("topic {topic}: {what}"))
}
