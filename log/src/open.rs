use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Clock, EmbeddedLog, KafkaLog, Log, Result};

/// Which log, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum LogConfig {
    /// In a directory of this machine.
    Embedded { path: PathBuf },
    /// On the brokers at `bootstrap` (`host:port`, separated by commas); `options` are properties of librdkafka.
    Kafka {
        bootstrap: String,
        #[serde(default)]
        options: BTreeMap<String, String>,
    },
}

/// Opens the log that `config` names. `clock` stamps the records of an embedded log; Kafka has its own.
pub fn open(config: &LogConfig, clock: Arc<dyn Clock>) -> Result<Arc<dyn Log>> {
    Ok(match config {
        LogConfig::Embedded { path } => Arc::new(EmbeddedLog::open(path, clock)?),
        LogConfig::Kafka { bootstrap, options } => Arc::new(KafkaLog::connect(bootstrap, options)?),
    })
}
