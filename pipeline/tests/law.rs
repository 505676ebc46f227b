//! The law: whatever workers, interleaving, memory and starting point, a run gives the rows that the oracle gives.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use support::memory_log::MemoryLog;
use weir_log::{Clock, PartitionInUse};
use weir_oracle::{Key, Record, Table, event, pick};
use weir_pipeline::{Ended, PipelineError, Rule, RunSpec, Seam, Snapshot, SourceKind, Status, run};
use weir_schemas::{
    CLOCK_BOUND_MS, Closed, Event, STEP_BACK_MAX_MS, SchemaVersion, WindowStart, WindowWidth,
    wire::{BatchBuilder, End, batch_record, end_record, tick_record},
};

const BEGIN_MS: i64 = 1_700_000_000_000;
const MINUTE_MS: i64 = 60_000;

struct FixedClock;

impl Clock for FixedClock {
    fn now_ms(&self) -> i64 {
        BEGIN_MS
    }
}

/// A history, and everything that a run over it is told.
struct History {
    log: MemoryLog,
    effective_ms: Vec<i64>,
    version: SchemaVersion,
    to: WindowStart,
}

fn version(values_max: usize, width_ms: i64, lateness_ms: i64) -> SchemaVersion {
    let width = weir_schemas::WindowWidth::new(width_ms).unwrap();
    SchemaVersion { width, lateness_ms, values_max, ..SchemaVersion::builtin(1).unwrap() }
}

/// Appends by collectors whose clocks are off, to a log whose clock is off, steps back, and now and then leaps.
fn draw(rng: &mut StdRng) -> History {
    let partitions = rng.random_range(1..=4usize);
    let mut effective_ms = vec![BEGIN_MS; partitions];
    if partitions > 1 && rng.random_bool(0.4) {
        effective_ms[partitions - 1] = BEGIN_MS + rng.random_range(1..20) * MINUTE_MS;
    }
    let version = version(
        pick(rng, &[2, 1_000]),
        pick(rng, &[10_000, MINUTE_MS, 5 * MINUTE_MS]),
        pick(rng, &[0, 10_000, 90_000]),
    );
    let mut records: Vec<Vec<Record>> = vec![Vec::new(); partitions];
    let mut sent: Vec<Vec<Vec<u8>>> = vec![Vec::new(); partitions];
    let mut largest = vec![0; partitions];
    let (mut now_ms, mut ids, mut sequence) = (BEGIN_MS, Vec::new(), 0);
    for _ in 0..rng.random_range(10..60) {
        now_ms += pick(rng, &[0, 500, 7_000, MINUTE_MS, 4 * MINUTE_MS]);
        let partition = rng.random_range(0..partitions);
        if effective_ms[partition] > now_ms + 30_000 {
            continue;
        }
        let sent_ms = now_ms + pick(rng, &[0, 0, 0, -3_000, 2_000]);
        let step_back = rng.random_range(0..STEP_BACK_MAX_MS);
        let mut stamp_ms =
            (now_ms - pick(rng, &[0, 0, step_back, -1_000])).max(largest[partition] - STEP_BACK_MAX_MS + 1);
        largest[partition] = largest[partition].max(stamp_ms);
        if rng.random_bool(0.04) {
            stamp_ms += pick(rng, &[CLOCK_BOUND_MS, 24 * 60 * MINUTE_MS, 70 * 365 * 24 * 60 * MINUTE_MS]);
        }
        let payload = match rng.random_range(0..20) {
            0..3 => tick_record(sent_ms),
            3 => b"not weir's".to_vec(),
            4..8 if !sent[partition].is_empty() => {
                let again = rng.random_range(0..sent[partition].len());
                batch_record(sent_ms, &sent[partition][again])
            }
            _ => {
                sequence += 1;
                let mut batch = BatchBuilder::new([3; 16], sequence);
                (0..rng.random_range(1..6)).for_each(|_| batch.push(&event(rng, now_ms, &mut ids)));
                sent[partition].push(batch.finish());
                batch_record(sent_ms, sent[partition].last().unwrap())
            }
        };
        records[partition].push(Record { stamp_ms, payload: payload.into() });
    }
    // Time goes on until everything that the run is to emit has closed.
    let end_ms = now_ms + CLOCK_BOUND_MS + 40 * MINUTE_MS;
    for partition in &mut records {
        partition
            .push(Record { stamp_ms: end_ms + 20 * MINUTE_MS, payload: tick_record(end_ms + 20 * MINUTE_MS).into() });
    }
    let to = version.width.window_of(end_ms);
    History { log: MemoryLog::new(records, rng.random()), effective_ms, version, to }
}

impl History {
    fn first(&self) -> WindowStart {
        let first_ms = self.effective_ms.iter().min().unwrap() - self.version.lateness_ms;
        self.version.width.window_of(first_ms)
    }

    fn spec(&self, from: WindowStart, workers: usize, memory_bytes_max: usize) -> RunSpec {
        let in_use = self.effective_ms.iter().enumerate();
        RunSpec {
            run: "test".into(),
            version: self.version.clone(),
            topic: "t".into(),
            kind: SourceKind::Live,
            from,
            seam: None,
            to: Some(self.to),
            partitions: in_use
                .map(|(partition, effective_ms)| PartitionInUse {
                    partition: partition as u32,
                    effective_ms: *effective_ms,
                })
                .collect(),
            workers,
            memory_bytes_max,
            spill_dir: std::env::temp_dir(),
            tick_after: Duration::from_secs(3_600),
            pace: Default::default(),
        }
    }

    /// What the oracle says of the windows `[from, to)`.
    fn wanted(&self, from: WindowStart) -> Table {
        let partitions = self.log.partitions.lock().unwrap().clone();
        let mut table = weir_oracle::table(&partitions, &self.effective_ms, &self.version);
        table.retain(|(emitted_in, ..), _| *emitted_in >= from.ms() && *emitted_in < self.to.ms());
        table
    }
}

/// Runs to the end, and checks what is said on the way: windows ascend, each comes once, and nothing after its close.
fn rows(spec: RunSpec, log: MemoryLog) -> Result<(Table, Snapshot), PipelineError> {
    let (to, measures) = (spec.to, spec.version.measures.len());
    let (sender, mut closed) = tokio::sync::mpsc::channel(4);
    let status = Arc::new(Status::default());
    let said = status.clone();
    let running = std::thread::spawn(move || {
        run(spec, Arc::new(log), Arc::new(FixedClock), sender, said, Arc::new(AtomicBool::new(false)))
    });
    let (mut table, mut through) = (Table::new(), None);
    while let Some(message) = closed.blocking_recv() {
        match message {
            Closed::Through(window) => {
                assert!(Some(window) >= through, "complete-through went back");
                through = Some(window);
            }
            Closed::Window(emission) => {
                assert!(Some(emission.window) >= through, "a window came after it had closed");
                for block in &emission.blocks {
                    for row in 0..block.len() {
                        let text = |index: &[u32]| block.strings.get(index[row]).to_owned();
                        let window_start_ms = block.window_start_ms[row];
                        let key = (
                            emission.window.ms(),
                            text(&block.site),
                            text(&block.dimension),
                            window_start_ms,
                            text(&block.value),
                        );
                        let counts = block.counts[row * measures..(row + 1) * measures].to_vec();
                        let visitors = block.visitors_of(row);
                        assert!(visitors.is_sorted_by(|a, b| a < b), "visitors are distinct and ascend");
                        let visitors: BTreeSet<u64> = visitors.iter().copied().collect();
                        assert_eq!(table.insert(key, (counts, visitors)), None, "a key came twice");
                    }
                }
            }
        }
    }
    let ended = running.join().expect("the run does not panic")?;
    assert_eq!((ended, through), (Ended::AtEnd, to));
    Ok((table, status.snapshot()))
}

fn check(seed: u64) -> Snapshot {
    let mut rng = StdRng::seed_from_u64(seed);
    let history = draw(&mut rng);
    let first = history.first();
    let later = BEGIN_MS + rng.random_range(0..90) * MINUTE_MS;
    let from = pick(&mut rng, &[first, history.version.width.window_of(later).min(history.to).max(first)]);
    let memory = pick(&mut rng, &[1 << 30, 20_000]);
    let spec = history.spec(from, rng.random_range(1..=4), memory);
    let (found, snapshot) = rows(spec, history.log.clone()).unwrap();
    let wanted = history.wanted(from);
    for (key, row) in &wanted {
        assert_eq!(found.get(key), Some(row), "seed {seed}: {key:?}, from {from:?}");
    }
    assert_eq!(found, wanted, "seed {seed}, from {from:?}");
    snapshot
}

#[test]
fn a_run_gives_what_the_oracle_gives_whatever_workers_interleaving_memory_and_start() {
    let snapshots: Vec<Snapshot> = (0..250).map(check).collect();
    let some = |what: &str, count: fn(&Snapshot) -> u64| {
        assert!(snapshots.iter().map(count).sum::<u64>() > 0, "no history had {what}");
    };
    some("late events", |snapshot| snapshot.events_late);
    some("old claims", |snapshot| snapshot.claims_too_old);
    some("copies", |snapshot| snapshot.copies);
    some("records that are not weir's", |snapshot| snapshot.records_unreadable);
    some("stamps that leap", |snapshot| snapshot.stamps_bounded);
    some("runs on disk", |snapshot| snapshot.runs_spilled);
}

#[test]
fn a_range_that_retention_has_cut_is_refused_or_gives_what_the_whole_log_gives() {
    let (mut refused, mut equal) = (0, 0);
    for seed in 1_000..1_150 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut history = draw(&mut rng);
        let later = BEGIN_MS + rng.random_range(0..120) * MINUTE_MS;
        let from = history.version.width.window_of(later).min(history.to).max(history.first());
        let wanted = history.wanted(from);
        for (partition, start) in history.log.starts.iter_mut().enumerate() {
            *start = rng.random_range(0..history.log.partitions.lock().unwrap()[partition].len() as i64) / 2;
        }
        match rows(history.spec(from, 2, 1 << 30), history.log.clone()) {
            Ok((found, _)) => {
                assert_eq!(found, wanted, "seed {seed}");
                equal += 1;
            }
            Err(PipelineError::Cut { .. }) => refused += 1,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(refused > 0 && equal > 0, "{refused} refused, {equal} equal");
}

/// Counts, in the order of the measures, and distinct visitors.
type Row = (Vec<u64>, BTreeSet<u64>);

/// What tables have of each site and window that it counts for, whatever they left with, by windows of this width.
fn by_window<'a>(tables: impl IntoIterator<Item = &'a Table>, width: WindowWidth) -> BTreeMap<(String, i64), Row> {
    let mut all: BTreeMap<(String, i64), Row> = BTreeMap::new();
    for ((_, site, dimension, start_ms, _), (counts, visitors)) in tables.into_iter().flatten() {
        if dimension == "site" {
            let row = all.entry((site.clone(), width.window_of(*start_ms).ms())).or_default();
            row.0.resize(counts.len(), 0);
            row.0.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            row.1.extend(visitors);
        }
    }
    all
}

#[test]
fn rows_that_were_carried_over_and_those_of_a_run_from_the_seam_on_have_every_event_once() {
    let (mut refused, mut alike, mut late_in_both) = (0, 0, 0);
    for seed in 2_000..2_300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut history = draw(&mut rng);
        let old = history.version.clone();
        let width = WindowWidth::new(old.width.ms() * pick(&mut rng, &[1, 1, 2, 3])).unwrap();
        let lateness_ms = pick(&mut rng, &[old.lateness_ms, 0, 10_000, 90_000, 20 * MINUTE_MS]);
        history.version = SchemaVersion { number: 2, width, lateness_ms, ..old.clone() };
        history.to = width.window_of(history.to.ms());
        let at = width.window_of(BEGIN_MS + rng.random_range(-5..60) * MINUTE_MS).min(history.to);
        if rng.random_bool(0.5) {
            for (partition, start) in history.log.starts.iter_mut().enumerate() {
                *start = rng.random_range(0..history.log.partitions.lock().unwrap()[partition].len() as i64) / 4;
            }
        }
        let seam = Some(Seam { at, old: Rule::of(&old) });
        let computed = match rows(RunSpec { seam, ..history.spec(at, 2, 1 << 30) }, history.log.clone()) {
            Ok((computed, _)) => computed,
            Err(PipelineError::Cut { .. }) => {
                refused += 1;
                continue;
            }
            Err(error) => panic!("seed {seed}: {error}"),
        };
        let partitions = history.log.partitions.lock().unwrap().clone();
        let table = |version| weir_oracle::table(&partitions, &history.effective_ms, version);
        let mut carried = table(&old);
        carried.retain(|(emitted_in, ..), _| *emitted_in < at.ms());
        let whole = table(&history.version);
        let (found, wanted) = (by_window([&carried, &computed], width), by_window([&whole], width));
        assert_eq!(found, wanted, "seed {seed}: from {at:?}, {old:?} to {:?}", history.version);
        let before = |(emitted_in, _, _, start_ms, _): &&Key| *start_ms < at.ms() && *emitted_in == at.ms();
        late_in_both += computed.keys().filter(before).count();
        if (old.width, old.lateness_ms) == (width, lateness_ms) {
            carried.extend(computed);
            assert_eq!(carried, whole, "seed {seed}: from {at:?}, and both are cut alike");
            alike += 1;
        }
    }
    assert!(refused > 0 && alike > 20, "{refused} were refused, {alike} cut alike");
    assert!(late_in_both > 0, "nothing left in the first window that counts for one before");
}

/// An import of `events` page views, one a second, over two partitions, `batched` of them at a time in a batch of each; `digest` is
/// added to what the ends say.
fn import(events: u64, batched: u64, digest: u64) -> History {
    let mut records = vec![Vec::new(), Vec::new()];
    for (partition, records) in records.iter_mut().enumerate() {
        let mut end = End { events: 0, last_ms: 0, digest };
        for batch_number in 0..events / batched {
            let mut batch = BatchBuilder::new([9; 16], batch_number * 2 + partition as u64);
            for second in (0..batched).filter(|second| second % 2 == partition as u64) {
                end.last_ms = BEGIN_MS + (batch_number * batched + second) as i64 * 1_000;
                let event = Event {
                    site: "a.example".into(),
                    page: "/".into(),
                    received_ms: end.last_ms,
                    visitor: 1 + second,
                    ..Event::default()
                };
                batch.push(&event);
                end.events += 1;
            }
            let bytes = batch.finish();
            end.digest = end.digest.wrapping_add(xxhash_rust::xxh3::xxh3_64(&bytes));
            records.push(Record { stamp_ms: end.last_ms, payload: batch_record(0, &bytes).into() });
        }
        records.push(Record { stamp_ms: end.last_ms, payload: end_record(0, end).into() });
    }
    let version = version(1_000, MINUTE_MS, 10_000);
    let to = version.width.next(version.width.window_of(BEGIN_MS + events as i64 * 1_000 - 1));
    History { log: MemoryLog::new(records, 7), effective_ms: Vec::new(), version, to }
}

fn import_rows(history: &History) -> Result<(Table, Snapshot), PipelineError> {
    let from = history.version.width.window_of(BEGIN_MS);
    rows(RunSpec { kind: SourceKind::Import, ..history.spec(from, 2, 1 << 30) }, history.log.clone())
}

#[test]
fn an_import_ends_by_itself_and_none_of_it_is_late() {
    let (found, snapshot) = import_rows(&import(400, 20, 0)).unwrap();
    let sites = found.iter().filter(|((_, _, dimension, ..), _)| dimension == "site");
    assert_eq!(sites.map(|(_, (counts, _))| counts[0]).sum::<u64>(), 400);
    assert!(found.keys().all(|(emitted_in, _, _, window_start, _)| emitted_in == window_start));
    assert_eq!((snapshot.events_late, snapshot.events_read), (0, 400));
}

#[test]
fn an_import_that_goes_on_in_its_middle_gives_the_rows_of_the_windows_that_are_left() {
    let history = import(400, 20, 0);
    let (mut whole, _) = import_rows(&history).unwrap();
    let from = history.version.width.window_of(BEGIN_MS + 200_000);
    let spec = RunSpec { kind: SourceKind::Import, ..history.spec(from, 2, 1 << 30) };
    let (left, _) = rows(spec, history.log.clone()).unwrap();
    whole.retain(|(emitted_in, ..), _| *emitted_in >= from.ms());
    assert!(!whole.is_empty());
    assert_eq!(left, whole);
}

#[test]
fn an_import_that_is_not_what_its_end_says_is_refused() {
    assert!(matches!(import_rows(&import(400, 20, 1)), Err(PipelineError::Damaged { what: "the digest", .. })));
}

/// Each record passes a hundred windows, and the rows of all of them would not fit into memory.
#[test]
fn an_import_over_many_windows_is_read_no_further_than_its_rows_have_room() {
    const EVENTS: u64 = 40_000;
    let mut history = import(EVENTS, 2_000, 0);
    history.version = version(1_000, 10_000, 10_000);
    history.to = history.version.width.window_of(BEGIN_MS + EVENTS as i64 * 1_000);
    let spec = history.spec(history.version.width.window_of(BEGIN_MS), 2, 1 << 20);
    let (found, snapshot) = rows(RunSpec { kind: SourceKind::Import, ..spec }, history.log.clone()).unwrap();
    let sites = found.iter().filter(|((_, _, dimension, ..), _)| dimension == "site");
    assert_eq!(sites.map(|(_, (counts, _))| counts[0]).sum::<u64>(), EVENTS);
    assert_eq!(snapshot.runs_spilled, 0);
}

#[test]
fn a_run_that_is_stopped_or_whose_sink_goes_hands_over_no_window_that_has_not_closed() {
    let history = draw(&mut StdRng::seed_from_u64(4));
    // No tick ends the log, so nothing ends the run but the stop.
    history.log.partitions.lock().unwrap().iter_mut().for_each(|records| drop(records.pop()));
    let wanted = history.wanted(history.first());
    let (sender, mut closed) = tokio::sync::mpsc::channel(1_000);
    let stop = Arc::new(AtomicBool::new(false));
    let (spec, log, stopping) = (history.spec(history.first(), 3, 1 << 30), history.log.clone(), stop.clone());
    let running = std::thread::spawn(move || {
        run(spec, Arc::new(log), Arc::new(FixedClock), sender, Arc::new(Status::default()), stopping)
    });
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::SeqCst);
    assert_eq!(running.join().unwrap().unwrap(), Ended::Stopped);
    while let Some(message) = closed.blocking_recv() {
        if let Closed::Window(emission) = message {
            let rows = wanted.keys().filter(|(emitted_in, ..)| *emitted_in == emission.window.ms()).count();
            assert_eq!(emission.rows(), rows, "{:?}", emission.window);
        }
    }

    let (sender, closed) = tokio::sync::mpsc::channel(1);
    drop(closed);
    let history = draw(&mut StdRng::seed_from_u64(5));
    let (spec, log) = (history.spec(history.first(), 3, 1 << 30), Arc::new(history.log.clone()));
    let ended =
        run(spec, log, Arc::new(FixedClock), sender, Arc::new(Status::default()), Arc::new(AtomicBool::new(false)));
    assert!(matches!(ended, Err(PipelineError::SinkGone)));
}

#[test]
fn a_flood_of_random_values_is_spilled_and_leaves_as_other_while_other_sites_keep_their_rows() {
    const EVENTS: u64 = 200_000;
    let mut records = Vec::new();
    for (sequence, chunk) in (0..EVENTS).collect::<Vec<_>>().chunks(4_000).enumerate() {
        let mut batch = BatchBuilder::new([5; 16], sequence as u64);
        for number in chunk {
            let page = format!("/{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            batch.push(&Event {
                site: "a.example".into(),
                page,
                received_ms: BEGIN_MS,
                visitor: number % 1_000 + 1,
                ..Event::default()
            });
        }
        batch.push(&Event {
            site: "b.example".into(),
            page: "/".into(),
            received_ms: BEGIN_MS,
            visitor: 1,
            ..Event::default()
        });
        let payload = batch_record(BEGIN_MS, &batch.finish());
        records.push(Record { stamp_ms: BEGIN_MS + sequence as i64, payload: payload.into() });
    }
    let batches = records.len() as u64;
    let end_ms = BEGIN_MS + 10 * MINUTE_MS;
    records.push(Record { stamp_ms: end_ms, payload: tick_record(end_ms).into() });
    let version = version(1_000, MINUTE_MS, 10_000);
    let to = version.width.window_of(BEGIN_MS + 5 * MINUTE_MS);
    let history = History { log: MemoryLog::new(vec![records], 11), effective_ms: vec![BEGIN_MS], version, to };
    let (found, snapshot) = rows(history.spec(history.first(), 2, 8 << 20), history.log.clone()).unwrap();

    let of =
        |site: &'static str| found.iter().filter(move |((_, at, dimension, ..), _)| at == site && dimension == "page");
    let pages: Vec<(&str, u64)> =
        of("a.example").map(|((.., value), (counts, _))| (value.as_str(), counts[0])).collect();
    assert_eq!(pages.len(), 1_001);
    assert!(pages.contains(&("(other)", EVENTS - 1_000)));
    let (_, visitors) = of("a.example").find(|((.., value), _)| value == "(other)").unwrap().1;
    assert_eq!(visitors.len(), 1_000);
    let quiet: Vec<u64> = of("b.example").map(|(_, (counts, _))| counts[0]).collect();
    assert_eq!(quiet, [batches]);
    assert!(snapshot.runs_spilled > 0, "all of it stayed in memory");
}
