//! The open windows of one worker, and the memory they may take.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use weir_schemas::{
    RowBlock, SchemaVersion, WindowStart,
    wire::{self, BatchView},
};

use crate::{
    buffer::{Buffer, Layout},
    classify::Classifier,
    group::Grouper,
    rule,
    runs::{RowRef, Run, merge},
    status::Status,
};

/// Rows of one message between workers: some MB, so that a large window is merged while it is still being sent.
const CHUNK_ROWS: usize = 32_768;

/// Buffers that are kept for the next windows; few windows are open at once.
const SPARE_MAX: usize = 4;

/// One event's times, as the rule has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) time_ms: i64,
    pub(crate) claim_too_old: bool,
    pub(crate) closes_in: WindowStart,
}

impl Times {
    /// Those of an event that arrived at `arrival_ms`.
    pub(crate) fn of(version: &SchemaVersion, batch: &BatchView<'_>, event: usize, arrival_ms: i64) -> Times {
        let claimed = batch.claimed_ms.get(event).copied().filter(|claimed| *claimed != wire::NO_CLAIM);
        let (time_ms, claim_too_old) = rule::event_time(claimed, batch.received_ms[event], arrival_ms);
        let closes_in = rule::closes_in(time_ms, arrival_ms, version.lateness_ms, version.width);
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
    /// Bytes that all open windows may take in this worker.
    bytes_max: usize,
    bytes: usize,
    spill_dir: PathBuf,
    status: Arc<Status>,
}

/// One window that has not closed: its events, and what was compacted of it.
struct Open {
    buffer: Buffer,
    runs: Vec<Run>,
}

impl Open {
    fn bytes(&self) -> usize {
        self.buffer.bytes() + self.runs.iter().map(Run::bytes).sum::<usize>()
    }
}

impl Windows {
    pub(crate) fn new(version: &SchemaVersion, bytes_max: usize, spill_dir: PathBuf, status: Arc<Status>) -> Self {
        Self {
            layout: Layout::new(version),
            classifier: Classifier::new(version),
            grouper: Grouper::default(),
            spare: Vec::new(),
            version: version.clone(),
            open: BTreeMap::new(),
            bytes_max,
            bytes: 0,
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
        let Self { version, layout, classifier, spare, open, bytes, .. } = self;
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
                        runs: Vec::new(),
                    }),
                };
                let row = classifier.row(batch, layout, event, prop);
                let lag = width.index_of(times.closes_in) - width.index_of(counts_for);
                window.buffer.push(&row, lag as u32);
                *bytes += Buffer::row_bytes(layout.columns.len()) + row.props.len() * 12;
                at_hand = Some((times.closes_in, window));
            }
            prop += props;
        }
        self.status.add(|status| &status.events_late, late);
        self.status.add(|status| &status.claims_too_old, too_old);
        if self.bytes + self.classifier.bytes() > self.bytes_max {
            self.shrink()?;
        }
        Ok(())
    }

    /// Aggregates what is open, the largest first, and what is still too large goes to disk; then the symbols are
    /// forgotten, if they are what takes the room.
    fn shrink(&mut self) -> io::Result<()> {
        let mut windows: Vec<(usize, WindowStart)> =
            self.open.iter().map(|(window, open)| (open.bytes(), *window)).collect();
        windows.sort_unstable_by_key(|(bytes, window)| (std::cmp::Reverse(*bytes), *window));
        let symbols_too = self.classifier.bytes() > self.bytes_max / 4;
        for (_, window) in &windows {
            if !symbols_too && self.bytes <= self.bytes_max / 2 {
                break;
            }
            self.compact(*window);
        }
        for (_, window) in &windows {
            if self.bytes <= self.bytes_max / 2 {
                break;
            }
            let open = self.open.get_mut(window).expect("listed above");
            let in_memory = open.runs.iter().filter(|run| matches!(run, Run::Memory(_))).count() as u64;
            let runs = std::mem::take(&mut open.runs);
            for run in runs {
                open.runs.push(run.spill(&self.spill_dir, self.layout.measures)?);
            }
            self.status.add(|status| &status.runs_spilled, in_memory);
            self.recount();
        }
        if symbols_too {
            self.classifier.forget();
        }
        Ok(())
    }

    /// Turns the events of a window into a sorted run.
    fn compact(&mut self, window: WindowStart) {
        let Some(open) = self.open.get_mut(&window) else { return };
        if !open.buffer.is_empty() {
            let (width, symbols) = (self.version.width, &mut self.classifier.symbols);
            open.runs.push(Run::Memory(self.grouper.rows(&open.buffer, &self.layout, window, width, symbols)));
            open.buffer.clear();
        }
        self.recount();
    }

    fn recount(&mut self) {
        self.bytes = self.open.values().map(Open::bytes).sum();
    }

    /// The windows that are open and begin before `end`, ascending.
    pub(crate) fn open_before(&self, end: Option<WindowStart>) -> Vec<WindowStart> {
        self.open.keys().copied().take_while(|window| end.is_none_or(|end| *window < end)).collect()
    }

    /// How many windows are open, and the bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.open.len(), self.bytes)
    }

    /// Closes a window: gives its rows to `send`, in sorted blocks, each with the worker that merges its rows.
    pub(crate) fn close(
        &mut self,
        window: WindowStart,
        peers: usize,
        mut send: impl FnMut(usize, RowBlock),
    ) -> io::Result<()> {
        self.compact(window);
        let Some(open) = self.open.remove(&window) else { return Ok(()) };
        self.recount();
        if self.spare.len() < SPARE_MAX {
            self.spare.push(open.buffer);
        }
        let mut runs = open.runs;
        if let [Run::Memory(_)] = runs.as_slice()
            && let Some(Run::Memory(block)) = runs.pop()
        {
            // Not merged with anything: cut by whole sites and dimensions, or not at all.
            split(block, peers, self.layout.measures)
                .into_iter()
                .enumerate()
                .for_each(|(peer, block)| send(peer, block));
            return Ok(());
        }
        let mut chunks: Vec<Chunk> = (0..peers).map(|_| Chunk::default()).collect();
        merge(runs, self.layout.measures, |row| {
            let peer = merger_of(row.site, row.dimension, peers);
            chunks[peer].push(&row);
            if chunks[peer].block.len() >= CHUNK_ROWS {
                send(peer, std::mem::take(&mut chunks[peer]).finish());
            }
        })?;
        for (peer, chunk) in chunks.into_iter().enumerate() {
            if !chunk.block.is_empty() {
                send(peer, chunk.finish());
            }
        }
        Ok(())
    }
}

/// The rows of a sorted block, for each worker those that it merges, sorted.
fn split(block: RowBlock, peers: usize, measures: usize) -> Vec<RowBlock> {
    if peers == 1 {
        return vec![block];
    }
    const UNUSED: u32 = u32::MAX;
    let mut parts = vec![RowBlock::default(); peers];
    let mut places = vec![vec![UNUSED; block.strings.len()]; peers];
    let mut begin = 0;
    while begin < block.len() {
        let key = (block.site[begin], block.dimension[begin]);
        let same = |row: &usize| (block.site[*row], block.dimension[*row]) == key;
        let end = (begin..block.len()).find(|row| !same(row)).unwrap_or(block.len());
        let peer = merger_of(block.strings.get(key.0), block.strings.get(key.1), peers);
        let (part, place) = (&mut parts[peer], &mut places[peer]);
        let RowBlock { strings, .. } = part;
        let mut taken = |index: u32| {
            let place = &mut place[index as usize];
            if *place == UNUSED {
                *place = strings.push(block.strings.get(index));
            }
            *place
        };
        let (site, dimension) = (taken(key.0), taken(key.1));
        part.value.extend(block.value[begin..end].iter().map(|value| taken(*value)));
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

/// A block that is being filled, with each string once.
#[derive(Default)]
struct Chunk {
    strings: weir_schemas::Interner,
    block: RowBlock,
}

impl Chunk {
    fn push(&mut self, row: &RowRef<'_>) {
        self.block.site.push(self.strings.intern(row.site));
        self.block.dimension.push(self.strings.intern(row.dimension));
        self.block.value.push(self.strings.intern(row.value));
        self.block.window_start_ms.push(row.window_start_ms);
        self.block.counts.extend_from_slice(row.counts);
        self.block.visitors.extend_from_slice(row.visitors);
        self.block.visitors_end.push(self.block.visitors.len());
    }

    fn finish(mut self) -> RowBlock {
        self.block.strings = self.strings.into_strings();
        self.block
    }
}
