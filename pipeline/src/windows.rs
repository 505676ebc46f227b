//! The open windows of one worker, and the memory they may take.
//!
//! ```text
//!  events ──▶ buffer ──close──▶ rows, in memory while there is room for them ──────────▶ Run::Memory ─▶ mergers
//!               └──too large──▶ sorted runs, the first in memory ──▶ files ──close──▶ Run::Disk, one a merger
//! ```

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use weir_schemas::{
    RowBlock, SchemaVersion, WindowStart,
    wire::{self, BatchView},
};

use crate::{
    buffer::{Buffer, Layout},
    classify::Classifier,
    group::{GROUPED_EVENT_BYTES, Grouper, Part, Used},
    room::Room,
    rule::{self, Rule},
    runs::{RowRef, Run, RunWriter, Spilled, block_bytes, merge},
    status::Status,
};

/// Buffers that are kept for the next windows; few windows are open at once.
const SPARE_MAX: usize = 4;

/// How a worker's bytes for open windows are shared out.
#[derive(Debug, Clone, Copy)]
struct Shares {
    /// Events as they came, what grouping the largest buffer takes, and symbols.
    events: usize,
    /// Rows of windows that were too large, before they go to disk.
    rows: usize,
    /// Rows while they are made.
    part: usize,
}

impl Shares {
    /// Five eighths, a quarter, and an eighth.
    fn of(bytes: usize) -> Shares {
        Shares { events: bytes / 8 * 5, rows: bytes / 4, part: bytes / 8 }
    }
}

/// One event's times, as the rule has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) time_ms: i64,
    pub(crate) claim_too_old: bool,
    pub(crate) closes_in: WindowStart,
}

impl Times {
    /// Those of an event that arrived at `arrival_ms`. One that was carried over closes before the run's first window.
    pub(crate) fn of(rule: &Rule, batch: &BatchView<'_>, event: usize, arrival_ms: i64) -> Times {
        let claimed = batch.claimed_ms.get(event).copied().filter(|claimed| *claimed != wire::NO_CLAIM);
        let (time_ms, claim_too_old) = rule::event_time(claimed, batch.received_ms[event], arrival_ms);
        let closes_in = rule.closes_in(time_ms, arrival_ms);
        Times { time_ms, claim_too_old, closes_in }
    }
}

/// What windows are made of, and what they may take.
pub(crate) struct Windows {
    version: SchemaVersion,
    pub(crate) layout: Layout,
    classifier: Classifier,
    grouper: Grouper,
    /// Of windows that have closed: their room is used again.
    spare: Vec<Buffer>,
    open: BTreeMap<WindowStart, Open>,
    shares: Shares,
    spill_dir: PathBuf,
    status: Arc<Status>,
}

/// One window that has not closed: its events, and the rows of events that were too many.
struct Open {
    buffer: Buffer,
    rows: Vec<RowBlock>,
    spilled: Spilled,
}

impl Windows {
    /// `bytes_max`: for all open windows of this worker.
    pub(crate) fn new(version: &SchemaVersion, bytes_max: usize, spill_dir: PathBuf, status: Arc<Status>) -> Self {
        Self {
            layout: Layout::new(version),
            classifier: Classifier::new(version),
            grouper: Grouper::default(),
            spare: Vec::new(),
            version: version.clone(),
            open: BTreeMap::new(),
            shares: Shares::of(bytes_max),
            spill_dir,
            status,
        }
    }

    /// Puts those events of a batch into their windows for which `which` gives their times.
    pub(crate) fn add(
        &mut self,
        batch: &BatchView<'_>,
        mut which: impl FnMut(usize) -> Option<Times>,
    ) -> io::Result<()> {
        let Self { version, layout, classifier, spare, open, .. } = self;
        let width = version.width;
        classifier.begin(batch);
        let (mut late, mut too_old, mut prop) = (0, 0, 0);
        // Most events of a batch leave with the same window.
        let mut at_hand: Option<(WindowStart, &mut Open)> = None;
        for event in 0..batch.events {
            let props = batch.props.get(event).map_or(0, |props| *props as usize);
            if let Some(times) = which(event) {
                let counts_for = width.window_of(times.time_ms);
                late += u64::from(counts_for != times.closes_in);
                too_old += u64::from(times.claim_too_old);
                let window = match at_hand.take() {
                    Some((window, open)) if window == times.closes_in => open,
                    _ => open.entry(times.closes_in).or_insert_with(|| Open {
                        buffer: spare.pop().unwrap_or_else(|| Buffer::new(layout)),
                        rows: Vec::new(),
                        spilled: Spilled::default(),
                    }),
                };
                let row = classifier.row(batch, layout, event, prop);
                let lag = width.index_of(times.closes_in) - width.index_of(counts_for);
                window.buffer.push(&row, lag as u32);
                at_hand = Some((times.closes_in, window));
            }
            prop += props;
        }
        self.status.add(|status| &status.events_late, late);
        self.status.add(|status| &status.claims_too_old, too_old);
        if self.event_bytes() > self.shares.events { self.shrink() } else { Ok(()) }
    }

    /// What counts against [`Shares::events`].
    fn event_bytes(&self) -> usize {
        let buffers = || self.open.values().map(|open| &open.buffer);
        let largest = buffers().map(Buffer::len).max().unwrap_or(0);
        let held: usize = buffers().chain(&self.spare).map(Buffer::bytes).sum();
        held + self.grouper.bytes().max(largest * GROUPED_EVENT_BYTES) + self.classifier.bytes()
    }

    fn row_bytes(&self) -> usize {
        self.open.values().flat_map(|open| &open.rows).map(block_bytes).sum()
    }

    /// Makes rows of the events of open windows, the largest first, until a half is free; then the symbols are forgotten,
    /// if they are what takes the room.
    fn shrink(&mut self) -> io::Result<()> {
        self.spare.clear();
        self.grouper = Grouper::default();
        let symbols_too = self.classifier.bytes() > self.shares.events / 4;
        let mut windows: Vec<(usize, WindowStart)> =
            self.open.iter().map(|(window, open)| (open.buffer.bytes(), *window)).collect();
        windows.sort_unstable_by_key(|(bytes, window)| (std::cmp::Reverse(*bytes), *window));
        for (_, window) in windows {
            if !symbols_too && self.event_bytes() <= self.shares.events / 2 {
                break;
            }
            self.compact(window)?;
        }
        if symbols_too {
            self.classifier.forget();
        }
        Ok(())
    }

    /// Makes rows of the events of a window: in memory while these have room, else on disk.
    fn compact(&mut self, window: WindowStart) -> io::Result<()> {
        let mut bytes = self.row_bytes();
        let Self { version, layout, classifier, grouper, shares, spill_dir, status, .. } = self;
        let Some(Open { buffer, rows, spilled }) = self.open.get_mut(&window) else { return Ok(()) };
        let symbols = &mut classifier.symbols;
        grouper.rows(buffer, layout, window, version.width, symbols, shares.part, |part| {
            if bytes + part.bytes() <= shares.rows {
                let block = part.block();
                bytes += block_bytes(&block);
                rows.push(block);
                return Ok(());
            }
            status.add(|status| &status.runs_spilled, 1);
            spilled.push(written(&part, spill_dir)?, spill_dir, layout.measures)
        })?;
        *buffer = Buffer::new(layout);
        *grouper = Grouper::default();
        Ok(())
    }

    /// The windows that are open and begin before `end`, ascending.
    pub(crate) fn open_before(&self, end: Option<WindowStart>) -> Vec<WindowStart> {
        self.open.keys().copied().take_while(|window| end.is_none_or(|end| *window < end)).collect()
    }

    /// How many windows are open, and the bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        let buffers: usize = self.open.values().map(|open| open.buffer.bytes()).sum();
        (self.open.len(), buffers + self.row_bytes())
    }

    /// Closes a window: gives its rows to `send`, as sorted runs, each with the worker that merges its rows.
    ///
    /// They stay in memory while `room` has some, which whoever merges them gives back. What is on disk, in part or whole,
    /// goes as one file a merger, and never comes back into memory.
    pub(crate) fn close(
        &mut self,
        window: WindowStart,
        peers: usize,
        room: &Room,
        mut send: impl FnMut(usize, Run),
    ) -> io::Result<()> {
        let Some(Open { mut buffer, rows, mut spilled }) = self.open.remove(&window) else { return Ok(()) };
        let Self { version, layout, classifier, grouper, shares, spill_dir, status, spare, .. } = self;
        let measures = layout.measures;
        let mut send_block = |block: RowBlock| {
            for (peer, block) in split(block, peers, measures).into_iter().enumerate() {
                if !block.is_empty() {
                    room.force(block_bytes(&block));
                    send(peer, Run::Memory(block));
                }
            }
        };
        for block in rows {
            if spilled.is_empty() && room.has(block_bytes(&block)) {
                send_block(block);
            } else {
                status.add(|status| &status.runs_spilled, 1);
                spilled.push(spill(&block, spill_dir, measures)?, spill_dir, measures)?;
            }
        }
        let symbols = &mut classifier.symbols;
        grouper.rows(&buffer, layout, window, version.width, symbols, shares.part, |part| {
            if spilled.is_empty() && room.has(part.bytes()) {
                send_block(part.block());
                return Ok(());
            }
            status.add(|status| &status.runs_spilled, 1);
            spilled.push(written(&part, spill_dir)?, spill_dir, measures)
        })?;
        buffer.clear();
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
        if spilled.is_empty() {
            return Ok(());
        }
        let mut files: Vec<Option<RunWriter>> = (0..peers).map(|_| None).collect();
        merge(spilled.into_runs(), measures, |row| {
            let file = &mut files[merger_of(row.site, row.dimension, peers)];
            if file.is_none() {
                *file = Some(RunWriter::create(spill_dir)?);
            }
            file.as_mut().expect("made above").push(&row)
        })?;
        for (peer, file) in files.into_iter().enumerate() {
            if let Some(file) = file {
                send(peer, file.finish()?);
            }
        }
        Ok(())
    }
}

fn written(part: &Part<'_>, dir: &Path) -> io::Result<Run> {
    let mut file = RunWriter::create(dir)?;
    part.for_each(|row| file.push(row))?;
    file.finish()
}

fn spill(block: &RowBlock, dir: &Path, measures: usize) -> io::Result<Run> {
    let mut file = RunWriter::create(dir)?;
    (0..block.len()).try_for_each(|row| file.push(&RowRef::of(block, row, measures)))?;
    file.finish()
}

/// The rows of a sorted block, for each worker those that it merges, sorted.
fn split(block: RowBlock, peers: usize, measures: usize) -> Vec<RowBlock> {
    if peers == 1 {
        return vec![block];
    }
    let mut parts = vec![RowBlock::default(); peers];
    let mut used: Vec<Used<'_>> = (0..peers).map(|_| Used::new(&block.strings)).collect();
    let mut begin = 0;
    while begin < block.len() {
        let key = (block.site[begin], block.dimension[begin]);
        let same = |row: &usize| (block.site[*row], block.dimension[*row]) == key;
        let end = (begin..block.len()).find(|row| !same(row)).unwrap_or(block.len());
        let peer = merger_of(block.strings.get(key.0), block.strings.get(key.1), peers);
        let (part, used) = (&mut parts[peer], &mut used[peer]);
        let (site, dimension) = (used.place(key.0), used.place(key.1));
        part.value.extend(block.value[begin..end].iter().map(|value| used.place(*value)));
        part.site.resize(part.value.len(), site);
        part.dimension.resize(part.value.len(), dimension);
        part.window_start_ms.extend_from_slice(&block.window_start_ms[begin..end]);
        part.counts.extend_from_slice(&block.counts[begin * measures..end * measures]);
        let first = if begin == 0 { 0 } else { block.visitors_end[begin - 1] };
        let shift = part.visitors.len();
        part.visitors.extend_from_slice(&block.visitors[first..block.visitors_end[end - 1]]);
        part.visitors_end.extend(block.visitors_end[begin..end].iter().map(|at| at - first + shift));
        begin = end;
    }
    for (part, used) in parts.iter_mut().zip(used) {
        part.strings = used.into_strings();
    }
    parts
}

/// The worker that merges all rows of a site and dimension.
fn merger_of(site: &str, dimension: &str, peers: usize) -> usize {
    if peers == 1 {
        return 0;
    }
    let hash = xxhash_rust::xxh3::xxh3_64_with_seed(dimension.as_bytes(), xxhash_rust::xxh3::xxh3_64(site.as_bytes()));
    (hash % peers as u64) as usize
}
