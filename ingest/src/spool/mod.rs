//! Where events are durable while the log is away: a bounded store on the collector's own disk.
//!
//! ```text
//!  Collector ──▶ log answers within `after`? ── yes ──▶ 202
//!                    │ no, or it is known to be away
//!                    ▼
//!                  store (fsync) ──▶ 202          drain: look up what is doubtful ─▶ append in order ─▶ trim
//!                    └────────────────────────────▶ one at a time while the log is away, groups when it is back
//! ```
//!
//! Invariants
//! - a batch keeps its `(collector, sequence)` and its partition, here, over a restart, and in the log
//! - a batch leaves the store after its append was acknowledged, or was found in the log, never before
//! - a batch that may be in the log already is sent again only while every reader would see a copy in it; once that is
//!   no longer sure it is looked up first
//! - of a store that was just opened only the first [`DRAIN_RECORDS_MAX`] batches can have been tried by the drain
//!
//! While the log is away nothing new is tried on it but the oldest batch, which tells when it is back. From then on new
//! events go straight to it again, while the drain works beside them: any event may be in any partition, and of what
//! waits here all is late already.

mod drain;
mod memory;
mod store;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;
use weir_log::{Clock, Log, LogError};

pub(crate) use memory::{Memory, RememberedSalt};
use store::Store;
pub(crate) use store::Waiting;

use crate::{SpoolConfig, telemetry};

/// Batches that the drain has under way at once.
///
/// Their bytes are bounded too, so this is for small ones: 64 appends share the log's round trip and one fsync here.
const DRAIN_RECORDS_MAX: usize = 64;

/// A collector's spool. Clones are the same one; one process at a time has it open.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    memory: Memory,
    clock: Arc<dyn Clock>,
    config: SpoolConfig,
    reach: watch::Sender<Reach>,
    /// The offset that the next batch gets.
    end: watch::Sender<i64>,
    /// Below this offset all is in the log.
    next: watch::Sender<i64>,
    /// Whether the last batch found no room, so that it is told once.
    full: AtomicBool,
    stop: watch::Sender<bool>,
    draining: watch::Sender<bool>,
}

/// What is known of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// It was not looked at since the start: nothing may be written to it.
    Unknown,
    Here,
    Away,
}

/// How full a spool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolUsage {
    /// What its batches take on disk.
    pub bytes: u64,
    pub bytes_max: u64,
    pub batches: u64,
    /// When the oldest batch was made, ms since the Unix epoch; `None`: it is empty.
    pub oldest_ms: Option<i64>,
}

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("the spool in {path} is another collector's (give each a data_dir of its own)")]
    Taken { path: PathBuf },
    #[error(
        "the spool in {path} cannot be opened: {cause} (see to the disk; what is in the folder is not in the log yet)"
    )]
    Unusable { path: PathBuf, cause: String },
}

impl Spool {
    /// Opens the spool in directory `path`, making it if there is none, and says what it holds.
    ///
    /// The log counts as here, unless [`hold`](Self::hold) says otherwise.
    pub fn open(path: impl AsRef<Path>, clock: Arc<dyn Clock>, config: SpoolConfig) -> Result<Self, SpoolError> {
        let path = path.as_ref();
        let store = Store::open(path, Arc::clone(&clock), config.bytes_max)?;
        let memory = Memory::open(path)?;
        let unusable = |error: LogError| SpoolError::Unusable { path: path.to_owned(), cause: error.to_string() };
        let bounds = store.bounds().map_err(unusable)?;
        let usage = store.usage().map_err(unusable)?;
        telemetry::SpoolOpened { path, usage: &usage, now_ms: clock.now_ms() }.emit();
        let inner = Inner {
            store,
            memory,
            clock,
            config,
            reach: watch::Sender::new(Reach::Here),
            end: watch::Sender::new(bounds.end),
            next: watch::Sender::new(bounds.start),
            full: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            draining: watch::Sender::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How full the spool in directory `path` is, whoever has it open; `None` if there is none.
    pub fn look(path: impl AsRef<Path>, clock: Arc<dyn Clock>, bytes_max: u64) -> Result<Option<SpoolUsage>, LogError> {
        Store::look(path.as_ref(), clock, bytes_max)
    }

    /// All goes into the spool until [`reached`](Self::reached): for a log whose topics have not been looked at.
    pub fn hold(&self) {
        self.inner.reach.send_replace(Reach::Unknown);
    }

    /// The log is there, and its topics are as they must be.
    pub fn reached(&self) {
        self.inner.reach.send_if_modified(|reach| {
            let held = *reach == Reach::Unknown;
            if held {
                *reach = Reach::Here;
            }
            held
        });
    }

    /// Whether all goes in here, see [`hold`](Self::hold).
    pub(crate) fn is_held(&self) -> bool {
        *self.inner.reach.borrow() == Reach::Unknown
    }

    /// How many partitions were in use when this collector last knew; `None` if it never did.
    pub fn partitions(&self) -> Option<u32> {
        self.inner.memory.partitions()
    }

    /// How full it is.
    pub fn usage(&self) -> Result<SpoolUsage, LogError> {
        self.inner.store.usage()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        *self.inner.next.borrow() >= *self.inner.end.borrow()
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.inner.memory
    }

    /// How long the log may take before a batch comes here.
    pub(crate) fn after(&self) -> Duration {
        self.inner.config.after
    }

    /// Whether a batch is to come here without a try on the log.
    ///
    /// Not when nothing waits here, as when there was no room: the drain would have nothing to try the log with.
    pub(crate) fn is_first(&self) -> bool {
        match *self.inner.reach.borrow() {
            Reach::Unknown => true,
            Reach::Here => false,
            Reach::Away => !self.is_empty(),
        }
    }

    /// An append failed with `error`.
    pub(crate) fn log_is_away(&self, error: &dyn std::fmt::Display) {
        self.inner.set_reach(Reach::Away, error);
    }

    /// An append was acknowledged.
    pub(crate) fn log_is_here(&self) {
        self.inner.set_reach(Reach::Here, &"");
    }

    /// Resolves after the batch is durable here.
    pub(crate) async fn put(&self, batch: Waiting) -> Result<(), LogError> {
        let inner = &self.inner;
        let put = inner.store.put(&batch).await;
        match &put {
            Ok(offset) => {
                inner.end.send_modify(|end| *end = (*end).max(offset + 1));
                inner.full.store(false, Ordering::Relaxed);
                telemetry::BatchSpooled { events: batch.events }.emit();
            }
            Err(error) => {
                let first = !inner.full.swap(true, Ordering::Relaxed);
                telemetry::SpoolRefused { events: batch.events, error, first }.emit();
            }
        }
        put.map(drop)
    }

    /// Begins to drain into `log`, in a task of the runtime that this is called in.
    pub(crate) fn drain_into(&self, log: Arc<dyn Log>, append_timeout: Duration) {
        self.inner.draining.send_replace(true);
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            drain::run(&inner, &log, append_timeout).await;
            inner.draining.send_replace(false);
        });
    }

    /// Ends the drain; what is left waits for the next start.
    pub(crate) async fn stop(&self) {
        self.inner.stop.send_replace(true);
        let _ = self.inner.draining.subscribe().wait_for(|draining| !draining).await;
    }

    /// Sets the gauges.
    pub(crate) fn measure(&self) {
        let away = *self.inner.reach.borrow() != Reach::Here;
        match self.usage() {
            Ok(usage) => telemetry::SpoolLevel { usage: &usage, now_ms: self.inner.clock.now_ms(), away }.emit(),
            Err(error) => tracing::warn!(%error, "the spool cannot be looked at"),
        }
    }
}

impl Inner {
    fn set_reach(&self, to: Reach, error: &dyn std::fmt::Display) {
        self.reach.send_if_modified(|reach| {
            let changed = *reach != to && *reach != Reach::Unknown;
            if changed {
                *reach = to;
                match to {
                    Reach::Away => telemetry::LogAway { error }.emit(),
                    Reach::Here | Reach::Unknown => telemetry::LogBack.emit(),
                }
            }
            changed
        });
    }
}
