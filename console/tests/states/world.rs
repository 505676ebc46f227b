//! A real log under a clock that is set, to be looked at.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use bytes::Bytes;
use weir_console::{Seen, Snapshot, observe};
use weir_log::{Clock, Committed, Log, LogConfig, TopicKind};
use weir_schemas::{
    SchemaVersion,
    control::{Action, ControlRecord, EVENTS_TOPIC},
    progress::{Metadata, PartitionProgress, RunProgress, group_of},
};

/// A clock that is set.
pub(crate) struct SetClock(pub(crate) AtomicI64);

impl Clock for SetClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A log, what is said in its control topic, and what is kept from look to look.
pub(crate) struct World {
    pub(crate) clock: Arc<SetClock>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) control: Vec<ControlRecord>,
    pub(crate) seen: Seen,
    /// Whoever orders something gives it as the reason.
    pub(crate) reason: String,
    began_ms: i64,
    _dir: tempfile::TempDir,
}

pub(crate) const SECOND_MS: i64 = 1_000;
pub(crate) const MINUTE_MS: i64 = 60_000;

impl World {
    pub(crate) fn new(began_ms: i64) -> World {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SetClock(began_ms.into()));
        let config = LogConfig::Embedded { path: dir.path().to_owned() };
        let log = weir_log::open(&config, clock.clone()).unwrap();
        let retention = std::time::Duration::from_secs(30 * 86_400);
        log.create_topic(EVENTS_TOPIC, &TopicKind::Events { partitions: 2, retention }).unwrap();
        let seen = Seen::new(MINUTE_MS, 10 * SECOND_MS);
        let mut world = World { clock, log, control: Vec::new(), seen, reason: "a disk".into(), began_ms, _dir: dir };
        world.say(Action::PartitionsInUse { partitions: 2, effective_ms: began_ms });
        world
    }

    pub(crate) fn say(&mut self, action: Action) {
        let (at_ms, who, reason) = (self.clock.now_ms(), "ops@db1".into(), self.reason.clone());
        self.control.push(ControlRecord { at_ms, who, reason, action });
    }

    /// Somebody starts to fill generation 2.
    pub(crate) fn convert(&mut self, id: i64, from_ms: i64) {
        let version = SchemaVersion::builtin_text(2).unwrap().to_owned();
        self.say(Action::ConversionStarted { id, generation: 2, version, from_ms, carried: None });
    }

    /// Generation 2 is shown from now on, both being complete through `at_ms`, and the first one kept for so long.
    pub(crate) fn swap(&mut self, id: i64, at_ms: i64, hold_ms: i64) {
        self.say(Action::Show { id, generation: Some(2), at_ms, hold_ms });
        self.say(Action::Shown { id });
    }

    /// Somebody pauses a run now, and it stops at once.
    pub(crate) fn pause(&mut self, run: &str, id: i64, until_ms: Option<i64>, through_ms: i64) {
        self.say(Action::Pause { run: run.into(), id, until_ms, allow_loss: false });
        self.say(Action::Paused { run: run.into(), id, through_ms });
    }

    /// A record in each partition, once a second, for so many seconds.
    pub(crate) fn live_through(&self, seconds: i64) {
        for _ in 0..seconds {
            self.clock.0.fetch_add(SECOND_MS, Ordering::Relaxed);
            for partition in 0..2 {
                let appended = self.log.append(EVENTS_TOPIC, partition, Bytes::from_static(b"a hit"), None);
                futures::executor::block_on(appended).unwrap();
            }
        }
    }

    /// A run tells that it has read `offset` records of each partition, and that the table has all before `through_ms`.
    pub(crate) fn report(&self, run: &str, offset: i64, through_ms: i64) {
        let complete_through_ms = Some(through_ms);
        self.tell(run, EVENTS_TOPIC, offset, RunProgress { complete_through_ms, ..RunProgress::default() });
    }

    /// A run tells this of itself now, and that it has read `offset` records of each partition of its topic.
    pub(crate) fn tell(&self, run: &str, topic: &str, offset: i64, progress: RunProgress) {
        let progress = RunProgress { at_ms: self.clock.now_ms(), ..progress };
        let partition =
            PartitionProgress { arrival_ms: Some(self.began_ms + offset * SECOND_MS), offset: Some(offset) };
        let committed = (0..2).map(|number| Committed {
            partition: number,
            offset,
            metadata: serde_json::to_string(&Metadata { partition, run: (number == 0).then(|| progress.clone()) })
                .unwrap(),
        });
        self.log.commit(&group_of(run), topic, &committed.collect::<Vec<_>>()).unwrap();
    }

    pub(crate) fn look(&mut self) -> Snapshot {
        observe(self.log.as_ref(), &self.control, self.clock.now_ms(), &mut self.seen).unwrap()
    }
}
