use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, LazyLock, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use heed::{
    CommitOrAbort, Database, Env, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls, types::Bytes as HeedBytes,
};

use super::{
    keys::{PartitionState, TopicId, partition_key},
    watch::Watch,
};
use crate::{LogError, Result, telemetry};

pub(super) type Table = Database<'static, HeedBytes, HeedBytes>;

/// Address space that the file is mapped into, not disk: the file grows as it is written. Halved until the machine
/// grants it.
const MAP_BYTES_MAX: usize = 256 << 30;
const MAP_BYTES_MIN: usize = 1 << 30;

/// Reads that may go on at one instant, over all processes. A reader takes a slot only while it hands out records, so
/// this is far more than threads that read; scanning the slots costs a writer about 1 ns each.
const READERS_MAX: u32 = 1_024;

/// How long a wait for another process's commit sleeps between two looks at the last transaction's number: a look is
/// two loads, so 200 a second are under 1 % of a core, and a reader is at most this late.
const LOOK_EVERY_MAX: Duration = Duration::from_millis(5);
const LOOK_EVERY_MIN: Duration = Duration::from_millis(1);

/// Bytes of the file that appends leave to deletes, which write the pages that they change anew: a sweep copies a few
/// dozen pages of 4 kB.
const ROOM_BYTES: u64 = 1 << 20;

/// Bytes at the end of the file that its head may speak of although they were never written: LMDB does not write pages that
/// the transaction which took them has given back. Those are a few, and where the disk can promise room they are in it.
const NOT_WRITTEN_BYTES: u64 = 8 * PAGE_BYTES;

/// The LMDB environment, opened once a process and path (LMDB's rule: its locks are the process's), and its tables.
pub(super) struct Store {
    pub(super) path: PathBuf,
    pub(super) env: Env<WithoutTls>,
    file: File,
    /// Name → [`super::topics::TopicRow`], JSON.
    pub(super) topics: Table,
    /// (topic, partition) → [`PartitionState`].
    pub(super) partitions: Table,
    /// (topic, partition, offset) → stamp (8 bytes), payload.
    pub(super) records: Table,
    /// (topic, partition, stamp) → offset, for each record with a stamp above all before it.
    pub(super) times: Table,
    /// (topic, group, partition) → offset (8 bytes), metadata.
    pub(super) progress: Table,
    /// A few numbers and the remains of deleted topics, see [`super::topics`].
    pub(super) state: Table,
    pub(super) watch: Watch,
    committed: Mutex<()>,
    committed_here: Condvar,
}

/// What LMDB calls its file in the directory.
pub(super) const FILE: &str = "data.mdb";

static OPEN: LazyLock<Mutex<HashMap<PathBuf, Weak<Store>>>> = LazyLock::new(Mutex::default);

impl Store {
    /// Opens the store in directory `path`, making it if there is none.
    pub(super) fn open(path: &Path) -> Result<Arc<Store>> {
        Self::open_mapped(path, MAP_BYTES_MAX)
    }

    /// The same with at most `map_bytes` of address space.
    pub(super) fn open_mapped(path: &Path, map_bytes: usize) -> Result<Arc<Store>> {
        let failed = |cause: String| LogError::Embedded { path: path.display().to_string(), cause };
        std::fs::create_dir_all(path).map_err(|error| failed(format!("cannot make the directory: {error}")))?;
        let path = path.canonicalize().map_err(|error| failed(error.to_string()))?;
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, store| store.strong_count() > 0);
        if let Some(store) = open.get(&path).and_then(Weak::upgrade) {
            return Ok(store);
        }
        // The last owner may still be on its way out in another thread.
        if let Some(closing) = heed::env_closing_event(&path) {
            closing.wait_timeout(Duration::from_secs(10));
        }
        let store = Arc::new(Self::open_new(path.clone(), map_bytes)?);
        open.insert(path, Arc::downgrade(&store));
        Ok(store)
    }

    fn open_new(path: PathBuf, map_bytes: usize) -> Result<Store> {
        let failed =
            |error: heed::Error| LogError::Embedded { path: path.display().to_string(), cause: cause_of(&error) };
        let had = std::fs::metadata(path.join(FILE)).ok().map(|file| file.len());
        if had == Some(0) {
            telemetry::store_made_anew(&path);
        }
        let env = open_env(&path, map_bytes).map_err(failed)?;
        let file = File::options().read(true).write(true).open(path.join(FILE));
        let file = file.map_err(|error| failed(error.into()))?;
        // A page behind the end of the file would end the process when it is looked at.
        let used = used_bytes(&env);
        match had.filter(|had| *had < used) {
            Some(had) if had > 0 && had + NOT_WRITTEN_BYTES < used => {
                return Err(LogError::Embedded {
                    path: path.join(FILE).display().to_string(),
                    cause: format!(
                        "it was cut short: it has {had} bytes, and its head speaks of {used} (bring its copy back, or move \
                         the file away: what is in it is lost then)"
                    ),
                });
            }
            // Zeros are no page either: then it is LMDB that says so.
            Some(_) => file.set_len(used).map_err(|error| failed(error.into()))?,
            None => {}
        }
        env.clear_stale_readers().map_err(failed)?;
        let wtxn = env.write_txn().map_err(failed)?;
        let tables = env
            .create_databases_and_commit(wtxn, |opener, wtxn| {
                let mut table = |name| opener.create_database::<HeedBytes, HeedBytes>(wtxn, Some(name));
                let tables = (
                    table("topics")?,
                    table("partitions")?,
                    table("records")?,
                    table("times")?,
                    table("progress")?,
                    table("state")?,
                );
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(tables))
            })
            .map_err(failed)?;
        let CommitOrAbort::Commit((topics, partitions, records, times, progress, state)) = tables else {
            unreachable!("nothing above aborts");
        };
        // The names of the files are durable only when their directory is.
        File::open(&path).and_then(|dir| dir.sync_all()).map_err(|error| failed(error.into()))?;
        let store = Store {
            path,
            env,
            file,
            topics,
            partitions,
            records,
            times,
            progress,
            state,
            watch: Watch::default(),
            committed: Mutex::new(()),
            committed_here: Condvar::new(),
        };
        // So that a file that is cut short shows it. A full disk is for those who append.
        let _ = store.make_room(0);
        Ok(store)
    }

    /// The error that callers see for an error of LMDB.
    pub(super) fn error(&self, error: heed::Error) -> LogError {
        self.failure(cause_of(&error))
    }

    pub(super) fn failure(&self, cause: impl Into<String>) -> LogError {
        LogError::Embedded { path: self.path.display().to_string(), cause: cause.into() }
    }

    pub(super) fn read(&self) -> Result<RoTxn<'_, WithoutTls>> {
        match self.env.read_txn() {
            Err(heed::Error::Mdb(MdbError::ReadersFull)) => {
                // Slots of killed processes are free again once somebody looks.
                self.env.clear_stale_readers().map_err(|error| self.error(error))?;
                self.env.read_txn().map_err(|error| self.error(error))
            }
            other => other.map_err(|error| self.error(error)),
        }
    }

    pub(super) fn write(&self) -> Result<RwTxn<'_>> {
        self.env.write_txn().map_err(|error| self.error(error))
    }

    /// Sees to it that `bytes` can be appended and [`ROOM_BYTES`] are left then; an error if the disk has not so many.
    ///
    /// Without that room nothing could be deleted from a full disk, and so it would stay full.
    pub(super) fn make_room(&self, bytes: u64) -> heed::Result<()> {
        let used = used_bytes(&self.env);
        let (has, wanted) = (self.file.metadata()?.len(), used + bytes + ROOM_BYTES);
        if has >= wanted {
            return Ok(());
        }
        // A step ahead, so that few appends come here.
        let more = wanted + ROOM_BYTES - has;
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), has, more) {
            // Of a file system that cannot promise anything nothing is asked.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(_) if has.saturating_sub(self.in_use()?) >= bytes + ROOM_BYTES => Ok(()),
            Err(error) => Err(heed::Error::Io(error.into())),
        }
    }

    /// Bytes of the file that are not free to be used again.
    fn in_use(&self) -> heed::Result<u64> {
        let txn = self.env.read_txn()?;
        let tables = [self.topics, self.partitions, self.records, self.times, self.progress, self.state];
        tables.iter().map(|table| Ok(table.stat(&txn)?.non_free_page_size() as u64)).sum()
    }

    /// Makes the transaction durable and wakes those who wait for one, here at once, in other processes soon.
    pub(super) fn commit(&self, wtxn: RwTxn<'_>) -> heed::Result<()> {
        wtxn.commit()?;
        drop(self.committed.lock().unwrap_or_else(PoisonError::into_inner));
        self.committed_here.notify_all();
        Ok(())
    }

    /// Whether a commit that failed just now left nothing behind.
    ///
    /// LMDB writes the head last, and lets nobody begin anything once that write has failed: so if one can still begin,
    /// the commit failed before it, while it wrote pages that nothing refers to.
    pub(super) fn surely_undone(&self) -> bool {
        self.env.read_txn().is_ok()
    }

    /// Number of the last transaction that any process committed.
    pub(super) fn last_txn(&self) -> usize {
        self.env.info().last_txn_id
    }

    /// Waits until the last transaction is another than `seen`; false if `timeout` went by before that.
    pub(super) fn wait_for_commit(&self, seen: usize, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut look_every = LOOK_EVERY_MIN;
        let mut guard = self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.last_txn() != seen {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            guard =
                self.committed_here.wait_timeout(guard, left.min(look_every)).unwrap_or_else(PoisonError::into_inner).0;
            look_every = (look_every * 2).min(LOOK_EVERY_MAX);
        }
    }

    /// `None` if there is no such partition.
    pub(super) fn partition(&self, txn: &RoTxn, topic: TopicId, partition: u32) -> Result<Option<PartitionState>> {
        let bytes = self.partitions.get(txn, &partition_key(topic, partition)).map_err(|error| self.error(error))?;
        match bytes {
            None => Ok(None),
            Some(bytes) => PartitionState::from_bytes(bytes)
                .map(Some)
                .ok_or_else(|| self.failure(format!("the state of partition {partition} is {} bytes", bytes.len()))),
        }
    }

    pub(super) fn put_partition(
        &self,
        wtxn: &mut RwTxn,
        topic: TopicId,
        partition: u32,
        state: PartitionState,
    ) -> Result<()> {
        self.partitions
            .put(wtxn, &partition_key(topic, partition), &state.to_bytes())
            .map_err(|error| self.error(error))
    }
}

/// How far the file is in use, as its head says.
fn used_bytes(env: &Env<WithoutTls>) -> u64 {
    (env.info().last_page_number as u64 + 1) * PAGE_BYTES
}

fn open_env(path: &Path, mut map_bytes: usize) -> heed::Result<Env<WithoutTls>> {
    loop {
        // Without thread-local slots: a slot is taken for the time of one transaction, not for the life of a thread.
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(map_bytes).max_readers(READERS_MAX).max_dbs(6);
        // SAFETY: LMDB's own locks guard the file between processes, no unsafe flag is set, and the store's directory
        // is written by nothing else.
        match unsafe { options.open(path) } {
            Err(heed::Error::Io(error)) if error.raw_os_error() == Some(ENOMEM) && map_bytes > MAP_BYTES_MIN => {
                map_bytes /= 2;
            }
            other => return other,
        }
    }
}

/// LMDB's pages are those of the machine's memory; larger ones only make the room smaller.
const PAGE_BYTES: u64 = 4_096;
/// Of Linux, macOS and the BSDs: more address space than this process may have.
const ENOMEM: i32 = 12;
const EIO: i32 = 5;

/// What an error of LMDB means to an operator.
pub(super) fn cause_of(error: &heed::Error) -> String {
    match error {
        heed::Error::Mdb(MdbError::MapFull) => {
            "full: all of its address space is used (shorten the retention, or raise the limit on address space)"
                .to_owned()
        }
        heed::Error::Mdb(MdbError::ReadersFull) => {
            format!("all {READERS_MAX} reader slots are taken (too many processes have the log open)")
        }
        heed::Error::Mdb(MdbError::MapResized) => {
            "it has grown beyond what this process may map (raise the limit on address space)".to_owned()
        }
        heed::Error::Mdb(MdbError::Panic) => {
            "a write to its head failed earlier (look at the disk, then restart this process)".to_owned()
        }
        heed::Error::Io(error)
            if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::FileTooLarge) =>
        {
            "the disk is full (free some space; nothing that was acknowledged is lost)".to_owned()
        }
        // A write that the disk takes only a part of is an I/O error to LMDB.
        heed::Error::Io(error) if error.raw_os_error() == Some(EIO) => {
            "the disk is full, or failing (free some space, look at the disk; nothing that was acknowledged is lost)"
                .to_owned()
        }
        other => other.to_string(),
    }
}
