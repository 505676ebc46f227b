//! Flags of every bench that makes traffic.

use std::time::Duration;

use crate::traffic::Shape;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TrafficArgs {
    /// How many events
    #[arg(long, default_value_t = 10_000_000, value_name = "N")]
    pub events: u64,
    /// What the traffic is like
    #[arg(long, value_enum, default_value_t = Shape::Plain)]
    pub shape: Shape,
    /// Events in a record
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub batch: u64,
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub partitions: u32,
    /// The last line is one JSON object
    #[arg(long)]
    pub json: bool,
}

/// As in `2h`.
pub(crate) fn span(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}
