use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Clock, EmbeddedLog, KafkaLog, Log, LogError, Result};

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

/// The same for who only looks: an embedded log that is not there is not made.
///
/// [`LogError::Embedded`] says where none is.
pub fn open_existing(config: &LogConfig, clock: Arc<dyn Clock>) -> Result<Arc<dyn Log>> {
    if let LogConfig::Embedded { path } = config
        && !EmbeddedLog::is_at(path)
    {
        let cause = "there is none (`weir serve` makes one; is data_dir the one that it was started with?)";
        return Err(LogError::Embedded { path: path.display().to_string(), cause: cause.to_owned() });
    }
    open(config, clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> serde_json::Result<LogConfig> {
        serde_json::from_str(json)
    }

    #[test]
    fn who_only_looks_makes_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data/log");
        let config = LogConfig::Embedded { path: path.clone() };
        let refused = open_existing(&config, Arc::new(crate::SystemClock)).err().unwrap();
        assert!(matches!(refused, LogError::Embedded { .. }), "{refused}");
        assert!(!dir.path().join("data").exists());
        let log = open(&config, Arc::new(crate::SystemClock)).unwrap();
        assert!(crate::ControlLog::look(log.clone()).unwrap().is_none());
        assert_eq!(log.topics().unwrap(), Vec::<String>::new(), "no topic is made either");
        crate::ControlLog::open(log.clone()).unwrap();
        assert!(crate::ControlLog::look(log).unwrap().is_some());
        drop(open_existing(&config, Arc::new(crate::SystemClock)).unwrap());
    }

    #[test]
    fn a_configuration_is_read_and_what_it_does_not_know_is_refused() {
        let embedded = read(r#"{"kind": "embedded", "path": "/tmp/log"}"#).unwrap();
        assert_eq!(embedded, LogConfig::Embedded { path: "/tmp/log".into() });
        let kafka = read(r#"{"kind": "kafka", "bootstrap": "a:1", "options": {"linger.ms": "5"}}"#).unwrap();
        let options = [("linger.ms".to_owned(), "5".to_owned())].into();
        assert_eq!(kafka, LogConfig::Kafka { bootstrap: "a:1".to_owned(), options });
        assert!(read(r#"{"kind": "kafka", "bootstrap": "a:1", "brokers": "b:2"}"#).is_err());
        assert!(read(r#"{"kind": "paper", "path": "/tmp/log"}"#).is_err());
    }
}
