//! Sorted runs of rows, in memory or on disk, and their merge.
//!
//! ```text
//!  rows ──▶ RunWriter ──▶ file ─┐
//!                               ├─▶ Spilled: of each size few ──▶ merge ──▶ each row once, in order
//!                         file ─┘
//! ```
//!
//! Law: the merge of runs gives each key (site, dimension, window start, value) once, in order, with its counts added up
//! and its visitors united; so how rows were cut into runs, and which went to disk, cannot be seen in the result.

use std::{
    cmp::Ordering,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use weir_schemas::RowBlock;

/// One row, borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowRef<'a> {
    pub(crate) site: &'a str,
    pub(crate) dimension: &'a str,
    pub(crate) window_start_ms: i64,
    pub(crate) value: &'a str,
    pub(crate) counts: &'a [u64],
    /// Ascending, distinct.
    pub(crate) visitors: &'a [u64],
}

impl<'a> RowRef<'a> {
    pub(crate) fn of(block: &'a RowBlock, row: usize, measures: usize) -> Self {
        Self {
            site: block.strings.get(block.site[row]),
            dimension: block.strings.get(block.dimension[row]),
            window_start_ms: block.window_start_ms[row],
            value: block.strings.get(block.value[row]),
            counts: &block.counts[row * measures..(row + 1) * measures],
            visitors: block.visitors_of(row),
        }
    }

    fn order(&self, other: &RowRef<'_>) -> Ordering {
        self.site
            .cmp(other.site)
            .then_with(|| self.dimension.cmp(other.dimension))
            .then_with(|| self.window_start_ms.cmp(&other.window_start_ms))
            .then_with(|| self.value.cmp(other.value))
    }
}

/// Rows sorted by (site, dimension, window start, value), each key once.
///
/// Serializable because timely asks it of all that workers exchange; the workers of a run share one process, and hand the
/// runs over as they are.
#[derive(Debug, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "runs on disk are few")]
pub(crate) enum Run {
    Memory(RowBlock),
    #[serde(skip)]
    Disk(File),
}

/// Bytes that are read or written of a run at once: 16 runs and their merge take a quarter of a MB.
const BUFFER_BYTES: usize = 1 << 14;

/// Memory that a block takes, bytes, about.
pub(crate) fn block_bytes(block: &RowBlock) -> usize {
    row_bytes(block.len(), block.counts.len(), block.visitors.len()) + block.strings.bytes()
}

/// The same of rows without their strings.
pub(crate) fn row_bytes(rows: usize, counts: usize, visitors: usize) -> usize {
    rows * (3 * 4 + 8 + 8) + counts * 8 + visitors * 8
}

impl Run {
    /// Memory that it takes, bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Run::Memory(block) => block_bytes(block),
            Run::Disk(_) => 0,
        }
    }
}

/// A run that is being written, to a nameless file, which is gone with the process.
pub(crate) struct RunWriter {
    out: BufWriter<File>,
    /// Of the row before: what most rows share with it is not written again.
    site: String,
    dimension: String,
    rows: u64,
}

impl RunWriter {
    pub(crate) fn create(dir: &Path) -> io::Result<RunWriter> {
        let out = BufWriter::with_capacity(BUFFER_BYTES, tempfile::tempfile_in(dir)?);
        Ok(RunWriter { out, site: String::new(), dimension: String::new(), rows: 0 })
    }

    /// Adds a row; rows must come in order.
    pub(crate) fn push(&mut self, row: &RowRef<'_>) -> io::Result<()> {
        let out = &mut self.out;
        let same = self.rows > 0 && self.site == row.site && self.dimension == row.dimension;
        out.write_all(&[u8::from(same)])?;
        if !same {
            for (known, text) in [(&mut self.site, row.site), (&mut self.dimension, row.dimension)] {
                known.replace_range(.., text);
                write_text(out, text)?;
            }
        }
        write_text(out, row.value)?;
        out.write_all(&row.window_start_ms.to_le_bytes())?;
        row.counts.iter().try_for_each(|count| out.write_all(&count.to_le_bytes()))?;
        out.write_all(&(row.visitors.len() as u64).to_le_bytes())?;
        row.visitors.iter().try_for_each(|visitor| out.write_all(&visitor.to_le_bytes()))?;
        self.rows += 1;
        Ok(())
    }

    pub(crate) fn finish(self) -> io::Result<Run> {
        let mut file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(Run::Disk(file))
    }
}

fn write_text(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(&(text.len() as u32).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

/// As many runs of one size are merged into one of the next: a window that spills n times has about
/// 15 × log16(n) files open, and each of its rows is written log16(n) times.
const RUNS_OF_A_SIZE_MAX: usize = 16;

/// What of a window is on disk.
#[derive(Debug, Default)]
pub(crate) struct Spilled {
    /// By size: each of `sizes[n + 1]` was merged from [`RUNS_OF_A_SIZE_MAX`] of `sizes[n]`.
    sizes: Vec<Vec<Run>>,
}

impl Spilled {
    pub(crate) fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    pub(crate) fn push(&mut self, run: Run, dir: &Path, measures: usize) -> io::Result<()> {
        let (mut run, mut size) = (run, 0);
        loop {
            if self.sizes.len() == size {
                self.sizes.push(Vec::new());
            }
            let same = &mut self.sizes[size];
            same.push(run);
            if same.len() < RUNS_OF_A_SIZE_MAX {
                return Ok(());
            }
            let mut merged = RunWriter::create(dir)?;
            merge(std::mem::take(same), measures, |row| merged.push(&row))?;
            run = merged.finish()?;
            size += 1;
        }
    }

    pub(crate) fn into_runs(self) -> Vec<Run> {
        self.sizes.into_iter().flatten().collect()
    }
}

/// A run that is being read: the row it stands at.
#[allow(clippy::large_enum_variant, reason = "runs on disk are few")]
enum Cursor {
    Memory { block: RowBlock, row: usize },
    Disk(Box<DiskCursor>),
}

struct DiskCursor {
    file: BufReader<File>,
    site: String,
    dimension: String,
    value: String,
    window_start_ms: i64,
    counts: Vec<u64>,
    visitors: Vec<u64>,
}

impl Cursor {
    /// At the run's first row; `None` if it has none.
    fn open(run: Run, measures: usize) -> io::Result<Option<Cursor>> {
        match run {
            Run::Memory(block) => Ok((!block.is_empty()).then_some(Cursor::Memory { block, row: 0 })),
            Run::Disk(file) => {
                let mut cursor = Box::new(DiskCursor {
                    file: BufReader::with_capacity(BUFFER_BYTES, file),
                    site: String::new(),
                    dimension: String::new(),
                    value: String::new(),
                    window_start_ms: 0,
                    counts: vec![0; measures],
                    visitors: Vec::new(),
                });
                Ok(cursor.advance()?.then_some(Cursor::Disk(cursor)))
            }
        }
    }

    fn row(&self, measures: usize) -> RowRef<'_> {
        match self {
            Cursor::Memory { block, row } => RowRef::of(block, *row, measures),
            Cursor::Disk(cursor) => RowRef {
                site: &cursor.site,
                dimension: &cursor.dimension,
                window_start_ms: cursor.window_start_ms,
                value: &cursor.value,
                counts: &cursor.counts,
                visitors: &cursor.visitors,
            },
        }
    }

    /// To the next row; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        match self {
            Cursor::Memory { block, row } => {
                *row += 1;
                Ok(*row < block.len())
            }
            Cursor::Disk(cursor) => cursor.advance(),
        }
    }
}

impl DiskCursor {
    fn advance(&mut self) -> io::Result<bool> {
        use std::io::BufRead;
        if self.file.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let mut same = [0];
        self.file.read_exact(&mut same)?;
        if same == [0] {
            read_text(&mut self.file, &mut self.site)?;
            read_text(&mut self.file, &mut self.dimension)?;
        }
        read_text(&mut self.file, &mut self.value)?;
        self.window_start_ms = read_u64(&mut self.file)? as i64;
        for count in &mut self.counts {
            *count = read_u64(&mut self.file)?;
        }
        self.visitors.clear();
        for _ in 0..read_u64(&mut self.file)? {
            let visitor = read_u64(&mut self.file)?;
            self.visitors.push(visitor);
        }
        Ok(true)
    }
}

fn read_text(file: &mut impl Read, text: &mut String) -> io::Result<()> {
    let mut length = [0; 4];
    file.read_exact(&mut length)?;
    let mut bytes = std::mem::take(text).into_bytes();
    bytes.resize(u32::from_le_bytes(length) as usize, 0);
    file.read_exact(&mut bytes)?;
    *text = String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(())
}

fn read_u64(file: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Gives `each` every key once, in order. Memory: a row and a buffer of each run on disk, and the largest row.
pub(crate) fn merge(
    runs: Vec<Run>,
    measures: usize,
    mut each: impl FnMut(RowRef<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut cursors = Vec::with_capacity(runs.len());
    for run in runs {
        cursors.extend(Cursor::open(run, measures)?);
    }
    // A binary heap of the cursors by the row they stand at, smallest first.
    let mut heap: Vec<usize> = Vec::with_capacity(cursors.len());
    for cursor in 0..cursors.len() {
        heap.push(cursor);
        sift_up(&mut heap, &cursors, measures);
    }
    let mut same: Vec<usize> = Vec::new();
    let (mut counts, mut visitors) = (Vec::new(), Vec::new());
    while let Some(first) = heap.first().copied() {
        take_first(&mut heap, &cursors, measures);
        same.clear();
        same.push(first);
        while let Some(next) = heap.first().copied() {
            if cursors[next].row(measures).order(&cursors[first].row(measures)) != Ordering::Equal {
                break;
            }
            take_first(&mut heap, &cursors, measures);
            same.push(next);
        }
        let row = cursors[first].row(measures);
        if same.len() == 1 {
            each(row)?;
        } else {
            counts.clear();
            counts.extend_from_slice(row.counts);
            visitors.clear();
            visitors.extend_from_slice(row.visitors);
            for other in &same[1..] {
                let other = cursors[*other].row(measures);
                counts.iter_mut().zip(other.counts).for_each(|(count, add)| *count += add);
                visitors.extend_from_slice(other.visitors);
            }
            // Sorted runs one behind the other: the stable sort merges them.
            visitors.sort();
            visitors.dedup();
            each(RowRef { counts: &counts, visitors: &visitors, ..row })?;
        }
        for cursor in &same {
            if cursors[*cursor].advance()? {
                heap.push(*cursor);
                sift_up(&mut heap, &cursors, measures);
            }
        }
    }
    Ok(())
}

fn before(cursors: &[Cursor], a: usize, b: usize, measures: usize) -> bool {
    cursors[a].row(measures).order(&cursors[b].row(measures)) == Ordering::Less
}

fn sift_up(heap: &mut [usize], cursors: &[Cursor], measures: usize) {
    let mut at = heap.len() - 1;
    while at > 0 && before(cursors, heap[at], heap[(at - 1) / 2], measures) {
        heap.swap(at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

fn take_first(heap: &mut Vec<usize>, cursors: &[Cursor], measures: usize) {
    heap.swap_remove(0);
    let mut at = 0;
    loop {
        let children = [2 * at + 1, 2 * at + 2].into_iter().filter(|child| *child < heap.len());
        let smallest = children.reduce(|a, b| if before(cursors, heap[b], heap[a], measures) { b } else { a });
        match smallest {
            Some(child) if before(cursors, heap[child], heap[at], measures) => {
                heap.swap(at, child);
                at = child;
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    type Key = (String, String, i64, String);

    #[test]
    fn many_runs_on_disk_become_few_files_and_hold_each_key_once_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut spilled = Spilled::default();
        let mut wanted: BTreeMap<Key, (u64, BTreeSet<u64>)> = BTreeMap::new();
        for number in 0..1_000_u64 {
            let mut file = RunWriter::create(dir.path()).unwrap();
            for (site, dimension) in [("a", "page"), ("a", "site"), ("b", "page")] {
                let (value, window_start_ms) = ((number % 37).to_string(), (number % 3) as i64);
                let (counts, visitors) = ([number], [number % 11, 100 + number]);
                file.push(&RowRef {
                    site,
                    dimension,
                    window_start_ms,
                    value: &value,
                    counts: &counts,
                    visitors: &visitors,
                })
                .unwrap();
                let (count, seen) = wanted.entry((site.into(), dimension.into(), window_start_ms, value)).or_default();
                *count += number;
                seen.extend(visitors);
            }
            spilled.push(file.finish().unwrap(), dir.path(), 1).unwrap();
        }
        let runs = spilled.into_runs();
        // 1,000 is 3 × 256 + 14 × 16 + 8.
        assert_eq!(runs.len(), 3 + 14 + 8);
        let mut found = Vec::new();
        merge(runs, 1, |row| {
            let key = (row.site.to_owned(), row.dimension.to_owned(), row.window_start_ms, row.value.to_owned());
            found.push((key, (row.counts[0], row.visitors.iter().copied().collect::<BTreeSet<_>>())));
            Ok(())
        })
        .unwrap();
        assert_eq!(found, wanted.into_iter().collect::<Vec<_>>());
    }
}
