//! Lines that could not be read, for people to look at.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, BufWriter, Seek, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::line::Malformed;

/// The file of rejects; made with the first one. Only its owner may read it: lines hold visitors' addresses.
///
/// One line each, fields parted by tabs: file, line number (from 1), reason, the line (cut, escaped).
pub(crate) struct Rejects {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

/// How much of a line is kept.
const SHOWN_BYTES: usize = 500;

impl Rejects {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Where it is, if there was anything to reject.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.is_some().then_some(&self.path)
    }

    /// Where it is or would be.
    pub(crate) fn place(&self) -> &Path {
        &self.path
    }

    pub(crate) fn add(&mut self, input: &str, line_number: u64, reason: Malformed, line: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
                // One that was there has the mode it had.
                if file.metadata()?.is_file() {
                    file.set_permissions(Permissions::from_mode(0o600))?;
                }
                none.insert(BufWriter::new(file))
            }
        };
        let shown = &line[..line.len().min(SHOWN_BYTES)];
        let more = if shown.len() < line.len() { "…" } else { "" };
        writeln!(file, "{input}\t{line_number}\t{reason}\t{}{more}", shown.escape_ascii())
    }

    /// Takes back what was added.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.flush()?;
            file.get_ref().set_len(0)?;
            file.get_mut().rewind()?;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.flush())
    }
}
