//! Sorted runs of rows, in memory or on disk, and their merge.
//!
//! Law: the merge of runs gives each key (site, dimension, window start, value) once, in order, with its counts added up
//! and its visitors united; so how rows were cut into runs, and which went to disk, cannot be seen in the result.

use std::{
    cmp::Ordering,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    path::Path,
};

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
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "runs on disk are few")]
pub(crate) enum Run {
    Memory(RowBlock),
    Disk(File),
}

/// Memory that a block takes, bytes, about.
pub(crate) fn block_bytes(block: &RowBlock) -> usize {
    block.len() * (3 * 4 + 8 + 8) + block.counts.len() * 8 + block.visitors.len() * 8 + block.strings.len() * 24
}

impl Run {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Run::Memory(block) => block_bytes(block),
            Run::Disk(_) => 0,
        }
    }

    /// Writes the run to a nameless file in `dir`, which is gone with the process.
    pub(crate) fn spill(self, dir: &Path, measures: usize) -> io::Result<Run> {
        let Run::Memory(block) = self else { return Ok(self) };
        let mut out = BufWriter::with_capacity(1 << 16, tempfile::tempfile_in(dir)?);
        for row in 0..block.len() {
            write_row(&mut out, &RowRef::of(&block, row, measures))?;
        }
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(Run::Disk(file))
    }
}

fn write_row(out: &mut impl Write, row: &RowRef<'_>) -> io::Result<()> {
    for text in [row.site, row.dimension, row.value] {
        out.write_all(&(text.len() as u32).to_le_bytes())?;
        out.write_all(text.as_bytes())?;
    }
    out.write_all(&row.window_start_ms.to_le_bytes())?;
    row.counts.iter().try_for_each(|count| out.write_all(&count.to_le_bytes()))?;
    out.write_all(&(row.visitors.len() as u64).to_le_bytes())?;
    row.visitors.iter().try_for_each(|visitor| out.write_all(&visitor.to_le_bytes()))
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
                    file: BufReader::with_capacity(1 << 16, file),
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
        for text in [&mut self.site, &mut self.dimension, &mut self.value] {
            let mut length = [0; 4];
            self.file.read_exact(&mut length)?;
            let mut bytes = std::mem::take(text).into_bytes();
            bytes.resize(u32::from_le_bytes(length) as usize, 0);
            self.file.read_exact(&mut bytes)?;
            *text = String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
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

fn read_u64(file: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Gives `each` every key once, in order. Memory: a row of each run, and the largest row.
pub(crate) fn merge(runs: Vec<Run>, measures: usize, mut each: impl FnMut(RowRef<'_>)) -> io::Result<()> {
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
            each(row);
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
            each(RowRef { counts: &counts, visitors: &visitors, ..row });
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
