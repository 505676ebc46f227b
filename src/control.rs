//! The control topic as one process sees it: read to its end at the start, then followed.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;
use weir_log::{Clock, ControlLog, Follower, Log};
use weir_schemas::{World, control::ControlRecord};

/// All control records so far; cheap to clone, all clones see the same.
#[derive(Clone)]
pub(crate) struct Control {
    pub log: ControlLog,
    records: Arc<Mutex<Vec<ControlRecord>>>,
    /// How many were set aside.
    unreadable: Arc<AtomicU64>,
    _follower: Arc<Follower>,
}

impl Control {
    /// Reads the topic to its end, then follows it. Blocks the thread.
    pub(crate) fn open(log: Arc<dyn Log>) -> anyhow::Result<Control> {
        let log = ControlLog::open(log)?;
        let all = log.read_all()?;
        let records = all.records.into_iter().map(|(_, record)| record).collect();
        let records: Arc<Mutex<Vec<ControlRecord>>> = Arc::new(Mutex::new(records));
        let unreadable: Arc<AtomicU64> = Arc::new(all.unreadable.into());
        let (seen, set_aside) = (records.clone(), unreadable.clone());
        let follower = log.follow(all.end, move |_, record| match record {
            Some(record) => seen.lock().expect("no holder panics").push(record),
            None => drop(set_aside.fetch_add(1, Ordering::Relaxed)),
        })?;
        Ok(Control { log, records, unreadable, _follower: Arc::new(follower) })
    }

    /// How many partitions are in use, now and whenever that changes, until `stopping`.
    pub(crate) fn partitions_in_use(
        &self,
        clock: Arc<dyn Clock>,
        mut stopping: watch::Receiver<bool>,
    ) -> watch::Receiver<u32> {
        let control = self.clone();
        let now_in_use = move || {
            let in_use = weir_log::partitions_in_use(&control.records());
            in_use.iter().filter(|partition| partition.effective_ms <= clock.now_ms()).count().max(1) as u32
        };
        let (sender, receiver) = watch::channel(now_in_use());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = tokio::time::sleep(Duration::from_secs(1)) => {}
                    _ = stopping.changed() => return,
                }
                let now = now_in_use();
                sender.send_if_modified(|known| std::mem::replace(known, now) != now);
            }
        });
        receiver
    }

    pub(crate) fn world(&self) -> World {
        World::of(self.records.lock().expect("no holder panics").iter())
    }

    pub(crate) fn records(&self) -> Vec<ControlRecord> {
        self.records.lock().expect("no holder panics").clone()
    }

    /// How many records cannot be read, and are set aside.
    pub(crate) fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }
}
