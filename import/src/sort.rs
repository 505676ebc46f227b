//! Puts entries into the order of their times, in bounded memory, stable.
//!
//! ```text
//!  push ─▶ memory full? ─▶ sort ─▶ a run in the file ─┐
//!                                  a run in the file ─┼─▶ merge ─▶ next
//!                                  a run in the file ─┘
//! ```
//!
//! Invariants
//! - entries of equal times come out in the order in which they were pushed, however often it spilled
//! - the file has no name: it is gone with the process, even one that was killed
//!
//! Why not a crate: `extsort` and `ext-sort` hold one object an entry and open one file a run; here an entry is bytes
//! in one buffer and all runs share one file, so neither allocations nor open files grow with the input.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    fs::File,
    io::{self, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Takes entries in any order.
pub(crate) struct Sorter {
    dir: PathBuf,
    memory_bytes: usize,
    arena: Vec<u8>,
    keys: Vec<Key>,
    spilled: Option<Spilled>,
    entries: u64,
}

/// Where an entry is in the arena, and its time. By time first, so that their order is the entries'.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    time_ms: i64,
    at: u32,
    len: u32,
}

struct Spilled {
    file: File,
    bytes: u64,
    runs: Vec<Range<u64>>,
}

/// Time and length before each entry of a run.
const HEAD_BYTES: usize = 12;

impl Sorter {
    /// Spills into a file without a name in `dir` whenever it holds more than `memory_bytes` (at most 2 GiB).
    pub(crate) fn new(dir: &Path, memory_bytes: usize) -> Self {
        let memory_bytes = memory_bytes.min(2 << 30);
        Self { dir: dir.into(), memory_bytes, arena: Vec::new(), keys: Vec::new(), spilled: None, entries: 0 }
    }

    /// Where it spills.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Entries so far.
    pub(crate) fn len(&self) -> u64 {
        self.entries
    }

    /// Takes an entry, which `write` appends.
    pub(crate) fn push(&mut self, time_ms: i64, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let at = self.arena.len();
        write(&mut self.arena);
        self.keys.push(Key { time_ms, at: at as u32, len: (self.arena.len() - at) as u32 });
        self.entries += 1;
        if self.arena.len() + self.keys.len() * size_of::<Key>() >= self.memory_bytes {
            self.spill()?;
        }
        Ok(())
    }

    /// Forgets all entries.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(&self.dir, self.memory_bytes);
    }

    fn spill(&mut self) -> io::Result<()> {
        let spilled = match &mut self.spilled {
            Some(spilled) => spilled,
            none => none.insert(Spilled { file: tempfile::tempfile_in(&self.dir)?, bytes: 0, runs: Vec::new() }),
        };
        self.keys.sort_unstable();
        let mut out = io::BufWriter::with_capacity(1 << 20, &spilled.file);
        for key in &self.keys {
            out.write_all(&key.time_ms.to_le_bytes())?;
            out.write_all(&key.len.to_le_bytes())?;
            out.write_all(&self.arena[key.range()])?;
        }
        out.flush()?;
        drop(out);
        let end = spilled.bytes + (self.arena.len() + self.keys.len() * HEAD_BYTES) as u64;
        spilled.runs.push(spilled.bytes..end);
        spilled.bytes = end;
        self.arena.clear();
        self.keys.clear();
        Ok(())
    }

    /// All entries in their order.
    pub(crate) fn sorted(mut self) -> io::Result<Sorted> {
        if self.spilled.is_some() && !self.keys.is_empty() {
            self.spill()?;
        }
        let Some(spilled) = self.spilled else {
            self.keys.sort_unstable();
            return Ok(Sorted::Memory { arena: self.arena, keys: self.keys, next: 0 });
        };
        // The buffers of all runs together take what the entries took before.
        let buffer_bytes = (self.memory_bytes / spilled.runs.len()).clamp(8 << 10, 1 << 20);
        let mut runs = Vec::with_capacity(spilled.runs.len());
        let mut heads = BinaryHeap::with_capacity(spilled.runs.len());
        for (index, range) in spilled.runs.into_iter().enumerate() {
            let mut run = Run { range, buffer: Vec::new(), buffer_bytes, entry: 0..0 };
            if let Some(time_ms) = run.advance(&spilled.file)? {
                heads.push(Reverse((time_ms, index)));
            }
            runs.push(run);
        }
        Ok(Sorted::Merge { file: spilled.file, runs, heads, given: false })
    }
}

impl Key {
    fn range(&self) -> Range<usize> {
        self.at as usize..self.at as usize + self.len as usize
    }
}

/// Gives entries in the order of their times.
pub(crate) enum Sorted {
    Memory {
        arena: Vec<u8>,
        keys: Vec<Key>,
        next: usize,
    },
    /// Earlier runs first among equal times: each is younger than the one before it.
    Merge {
        file: File,
        runs: Vec<Run>,
        heads: BinaryHeap<Reverse<(i64, usize)>>,
        given: bool,
    },
}

impl Sorted {
    /// The next entry and its time, ms since the Unix epoch.
    pub(crate) fn next(&mut self) -> io::Result<Option<(i64, &[u8])>> {
        match self {
            Sorted::Memory { arena, keys, next } => {
                let Some(key) = keys.get(*next) else { return Ok(None) };
                *next += 1;
                Ok(Some((key.time_ms, &arena[key.range()])))
            }
            Sorted::Merge { file, runs, heads, given } => {
                if std::mem::replace(given, true)
                    && let Some(mut head) = heads.peek_mut()
                {
                    let Reverse((_, index)) = *head;
                    match runs[index].advance(file)? {
                        Some(time_ms) => *head = Reverse((time_ms, index)),
                        None => drop(PeekMut::pop(head)),
                    }
                }
                let Some(Reverse((time_ms, index))) = heads.peek() else { return Ok(None) };
                Ok(Some((*time_ms, runs[*index].entry())))
            }
        }
    }
}

/// Reads a run piece by piece.
pub(crate) struct Run {
    /// What of the file is not yet in the buffer.
    range: Range<u64>,
    buffer: Vec<u8>,
    buffer_bytes: usize,
    /// Where in the buffer the current entry is.
    entry: Range<usize>,
}

impl Run {
    fn entry(&self) -> &[u8] {
        &self.buffer[self.entry.clone()]
    }

    /// Goes to the next entry, and gives its time.
    fn advance(&mut self, file: &File) -> io::Result<Option<i64>> {
        let at = self.entry.end;
        if at == self.buffer.len() && self.range.is_empty() {
            self.buffer = Vec::new();
            self.entry = 0..0;
            return Ok(None);
        }
        let at = self.need(file, at, HEAD_BYTES)?;
        let (time_ms, rest) = self.buffer[at..].split_first_chunk::<8>().expect("a whole head");
        let time_ms = i64::from_le_bytes(*time_ms);
        let len = u32::from_le_bytes(*rest.first_chunk().expect("a whole head")) as usize;
        let at = self.need(file, at, HEAD_BYTES + len)?;
        self.entry = at + HEAD_BYTES..at + HEAD_BYTES + len;
        Ok(Some(time_ms))
    }

    /// Has `bytes` from `at` on in the buffer, and says where they are now.
    fn need(&mut self, file: &File, at: usize, bytes: usize) -> io::Result<usize> {
        if self.buffer.len() - at >= bytes {
            return Ok(at);
        }
        self.buffer.drain(..at);
        let had = self.buffer.len();
        let wanted = bytes.max(self.buffer_bytes) - had;
        let read = wanted.min((self.range.end - self.range.start) as usize);
        self.buffer.resize(had + read, 0);
        file.read_exact_at(&mut self.buffer[had..], self.range.start)?;
        self.range.start += read as u64;
        if self.buffer.len() < bytes {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a sorted run ends early"));
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(entries: &[(i64, Vec<u8>)], memory_bytes: usize) -> Vec<(i64, Vec<u8>)> {
        let dir = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(dir.path(), memory_bytes);
        for (time_ms, bytes) in entries {
            sorter.push(*time_ms, |out| out.extend_from_slice(bytes)).unwrap();
        }
        assert_eq!(sorter.len(), entries.len() as u64);
        let mut sorted = sorter.sorted().unwrap();
        let mut out = Vec::new();
        while let Some((time_ms, bytes)) = sorted.next().unwrap() {
            out.push((time_ms, bytes.to_vec()));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has no name");
        out
    }

    #[test]
    fn an_entry_larger_than_all_memory_is_sorted_too() {
        let entries = vec![(5, vec![1; 20_000]), (-3, vec![2; 10]), (5, vec![]), (i64::MIN, vec![3])];
        let mut expected = entries.clone();
        expected.sort_by_key(|(time_ms, _)| *time_ms);
        assert_eq!(sorted(&entries, 1), expected);
    }

    #[test]
    fn what_was_cleared_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(dir.path(), 50);
        (0..100).for_each(|time_ms| sorter.push(time_ms, |out| out.push(1)).unwrap());
        sorter.clear();
        sorter.push(7, |out| out.push(2)).unwrap();
        let mut sorted = sorter.sorted().unwrap();
        assert_eq!(sorted.next().unwrap(), Some((7, &[2][..])));
        assert_eq!(sorted.next().unwrap(), None);
    }

    proptest! {
        #[test]
        fn whatever_the_memory_the_order_is_that_of_a_stable_sort(
            entries in proptest::collection::vec((0i64..20, proptest::collection::vec(any::<u8>(), 0..60)), 0..300),
            memory_bytes in 1usize..6_000,
        ) {
            let mut expected = entries.clone();
            expected.sort_by_key(|(time_ms, _)| *time_ms);
            prop_assert_eq!(sorted(&entries, memory_bytes), expected);
        }
    }
}
