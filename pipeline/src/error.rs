use weir_log::LogError;

/// Why a run ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(
        "topic {topic} partition {partition}: retention has cut the log at offset {start}, and what run {run} needs from \
         {} on is not surely whole (`weir recover {run} --accept-loss` goes on after the cut)",
        weir_schemas::instant(*.from_ms)
    )]
    Cut { run: String, topic: String, partition: u32, start: i64, from_ms: i64 },
    #[error(
        "topic {topic} partition {partition} is not what the import wrote: {what} is {found}, its end says {said} (take \
         the import back with `weir import undo`, and import the file again)"
    )]
    Damaged { topic: String, partition: u32, what: &'static str, found: u64, said: u64 },
    #[error("windows cannot be spilled to {dir}: {cause} (free some space there, or raise pipeline.memory_bytes_max)")]
    Spill { dir: String, cause: std::io::Error },
    #[error("the workers could not be started: {0}")]
    Workers(String),
    #[error("the sink takes no more windows")]
    SinkGone,
}

impl PipelineError {
    /// Whether starting the run again would come to the same. A reader that retention has overtaken is not it: the run
    /// that begins at its checkpoint says whether what it needs is gone.
    pub fn needs_a_person(&self) -> bool {
        match self {
            PipelineError::Log(LogError::WrongTopic { .. })
            | PipelineError::Cut { .. }
            | PipelineError::Damaged { .. } => true,
            PipelineError::Log(_)
            | PipelineError::Spill { .. }
            | PipelineError::Workers(_)
            | PipelineError::SinkGone => false,
        }
    }
}
