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

#[test]
fn a_file_that_was_cut_short_is_refused_with_its_name_and_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = EmbeddedLog::open(dir.path(), Arc::new(SystemClock)).unwrap();
        log.create_topic("t", &TopicKind::Import { partitions: 1 }).unwrap();
        let appends = (0..400).map(|_| log.append("t", 0, vec![7; 10_000].into(), Some(1)));
        let appended = futures::executor::block_on(futures::future::join_all(appends));
        assert!(appended.into_iter().all(|appended| appended.is_ok()));
    }
    // One that holds nothing, too.
    let young = tempfile::tempdir().unwrap();
    drop(EmbeddedLog::open(young.path(), Arc::new(SystemClock)).unwrap());
    std::fs::File::options().write(true).open(young.path().join("data.mdb")).unwrap().set_len(8_192).unwrap();
    assert!(EmbeddedLog::open(young.path(), Arc::new(SystemClock)).is_err());
    let whole = std::fs::read(dir.path().join("data.mdb")).unwrap();
    for bytes in [1, 5_000, 8_192, 100_000, 1_000_000, 3_000_000] {
        let cut = tempfile::tempdir().unwrap();
        std::fs::write(cut.path().join("data.mdb"), &whole[..bytes]).unwrap();
        let Err(error) = EmbeddedLog::open(cut.path(), Arc::new(SystemClock)) else {
            panic!("{bytes} of {} bytes were taken for a log", whole.len());
        };
        let said = error.to_string();
        assert!(said.contains(&cut.path().canonicalize().unwrap().display().to_string()), "{said}");
        assert!(bytes < 8_192 || said.contains("cut short") && said.contains("move the file away"), "{said}");
    }
    // The room behind the last record is not missed.
    let shorter = tempfile::tempdir().unwrap();
    std::fs::write(shorter.path().join("data.mdb"), &whole[..whole.len() - 500_000]).unwrap();
    let log = EmbeddedLog::open(shorter.path(), Arc::new(SystemClock)).unwrap();
    assert_eq!(log.bounds("t", 0).unwrap().end, 400);
}
