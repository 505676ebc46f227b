use std::{path::PathBuf, sync::Arc, time::Duration};

use weir_log::{Clock, EmbeddedLog, Log, SystemClock, TopicKind};

use crate::fixture::{Fixture, append, fresh};

struct Embedded {
    path: PathBuf,
}

/// Runs a case on a new log.
pub(crate) fn with(case: impl FnOnce(&dyn Fixture)) {
    let dir = tempfile::tempdir().unwrap();
    case(&Embedded { path: dir.path().to_owned() });
}

impl Embedded {
    fn open(&self) -> EmbeddedLog {
        EmbeddedLog::open(&self.path, Arc::new(SystemClock)).unwrap()
    }
}

impl Fixture for Embedded {
    fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.open())
    }

    fn cut(&self, topic: &str, partition: u32, offset: i64) {
        self.open().trim(topic, partition, offset).unwrap();
    }

    fn make_wrong(&self, topic: &str) {
        self.open().create_topic(topic, &TopicKind::Import { partitions: 1 }).unwrap();
    }

    fn pass_retention_check(&self) {
        struct Tomorrow;
        impl Clock for Tomorrow {
            fn now_ms(&self) -> i64 {
                SystemClock.now_ms() + 24 * 60 * 60 * 1000
            }
        }
        let log = EmbeddedLog::open(&self.path, Arc::new(Tomorrow)).unwrap();
        let canary = fresh("canary");
        log.create_topic(&canary, &TopicKind::Events { partitions: 1, retention: Duration::from_secs(60) }).unwrap();
        append(&*self.log(), &canary, 0, "gone tomorrow");
        log.enforce_retention().unwrap();
        assert_eq!(log.bounds(&canary, 0).unwrap().start, 1, "retention did not take the canary");
    }

    fn address(&self) -> String {
        format!("embedded {}", self.path.display())
    }
}
