//! What a collector must know to take events while it has not reached the log: the partitions in use, and the salts of
//! the days. A small file beside the batches, replaced whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde::{Deserialize, Serialize};

use super::SpoolError;

pub(crate) struct Memory {
    dir: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    partitions: Option<u32>,
    salts: Vec<RememberedSalt>,
}

/// A day's salt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RememberedSalt {
    /// Days since the Unix epoch, UTC.
    pub(crate) day: i64,
    pub(crate) salt: [u8; 16],
    /// Whether it is the one that all collectors agreed on.
    pub(crate) agreed: bool,
}

const FILE: &str = "known.json";

impl Memory {
    pub(super) fn open(dir: &Path) -> Result<Self, SpoolError> {
        let unusable = |cause: String| SpoolError::Unusable { path: dir.to_owned(), cause };
        let known = match fs::read(dir.join(FILE)) {
            Ok(json) => serde_json::from_slice(&json).map_err(|error| unusable(format!("{FILE}: {error}")))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Known::default(),
            Err(error) => return Err(unusable(format!("{FILE}: {error}"))),
        };
        Ok(Self { dir: dir.to_owned(), known: Mutex::new(known) })
    }

    pub(crate) fn partitions(&self) -> Option<u32> {
        self.known.lock().expect("no holder panics").partitions
    }

    pub(crate) fn salts(&self) -> Vec<RememberedSalt> {
        self.known.lock().expect("no holder panics").salts.clone()
    }

    pub(crate) fn remember_partitions(&self, partitions: u32) {
        self.change(|known| known.partitions = Some(partitions));
    }

    /// These and no others.
    pub(crate) fn remember_salts(&self, salts: Vec<RememberedSalt>) {
        self.change(|known| known.salts = salts);
    }

    /// A disk that does not take it costs what a restart while the log is away would need, and no more.
    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock().expect("no holder panics");
        let before = known.clone();
        change(&mut known);
        if *known != before
            && let Err(error) = self.write(&known)
        {
            tracing::warn!(%error, path = %self.dir.display(), "the spool cannot remember partitions and salts");
            // So that the next change writes this one too.
            *known = before;
        }
    }

    fn write(&self, known: &Known) -> io::Result<()> {
        let new = self.dir.join("known.json.new");
        // Salts tell whose hash was whose: for the owner's eyes only.
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(known)?)?;
        file.sync_all()?;
        fs::rename(&new, self.dir.join(FILE))?;
        File::open(&self.dir)?.sync_all()
    }
}
