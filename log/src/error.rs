/// What a log can answer instead.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("topic {0} does not exist (run `weir doctor --fix`, or make it with your Kafka tools)")]
    UnknownTopic(String),
    #[error(
        "topic {topic} has {setting}={found}, weir needs {needed} (run `weir doctor --fix`, or set it with your Kafka tools)"
    )]
    WrongTopic { topic: String, setting: String, found: String, needed: String },
    #[error(
        "topic {topic} partition {partition}: offset {offset} is below the log's start {start}: retention has taken what lies between (see `weir status`)"
    )]
    BelowStart { topic: String, partition: u32, offset: i64, start: i64 },
    #[error("append to {topic} partition {partition} got no clear answer: {cause}")]
    Unclear { topic: String, partition: u32, cause: String },
    #[error("the log is not to be had: {0}")]
    Unavailable(String),
    #[error("a record of {bytes} bytes is over the limit of {bytes_max} (send fewer events in one batch)")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("embedded log at {path}: {cause}")]
    Embedded { path: String, cause: String },
    #[error("kafka: {0}")]
    Kafka(String),
}
