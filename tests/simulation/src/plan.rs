//! What a history is made of, drawn from a seed: the log's appends and clocks, the processes, and what goes wrong when.

use std::fmt;

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use weir_oracle::{event, pick};
use weir_schemas::{
    Event, SchemaVersion, WindowStart, WindowWidth,
    wire::{BatchBuilder, batch_record, tick_record},
};
use weir_sink::Limits;

use crate::{Bug, spool};

pub(crate) const SECOND_MS: i64 = 1_000;
pub(crate) const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// 2026-03-01, an hour before midnight: some histories cross into the next day's partition of the table.
const BEGIN_MS: i64 = 20_513 * 24 * HOUR_MS - HOUR_MS;

/// The property that names an event; equal for its copies.
pub(crate) const HIT: &str = "hit";
/// The site of the event that must come through after all faults.
pub(crate) const FRESH_SITE: &str = "fresh.example";

/// A history: all that is drawn before it begins. What is drawn on the way (how long a statement takes) follows from
/// `seed`, too.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) begin_ms: i64,
    pub(crate) version: SchemaVersion,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) appends: Vec<Append>,
    pub(crate) spooled: spool::Spooled,
    pub(crate) faults: Vec<Fault>,
    /// Used one after the other, and again from the first.
    pub(crate) processes: Vec<Process>,
    /// The world looks about this often.
    pub(crate) step_ms: i64,
    /// Nothing goes wrong from here on.
    pub(crate) quiet_ms: i64,
}

#[derive(Clone)]
pub(crate) struct Partition {
    /// When the control record was written that it comes into use.
    pub(crate) announced_ms: i64,
    pub(crate) effective_ms: i64,
    /// From when on its log's clock is how far off, ascending.
    pub(crate) clock: Vec<(i64, i64)>,
}

#[derive(Clone)]
pub(crate) struct Append {
    pub(crate) at_ms: i64,
    pub(crate) partition: usize,
    pub(crate) payload: Bytes,
}

/// A process of the run, from its start to its end.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) workers: usize,
    pub(crate) memory_bytes_max: usize,
    pub(crate) clock_off_ms: i64,
    /// How late it sees what is in a partition: its reading speed.
    pub(crate) behind_ms: Vec<i64>,
    pub(crate) tick_after_ms: i64,
    pub(crate) limits: Limits,
    /// Between windows that are handed to the sink.
    pub(crate) pace_ms: i64,
    pub(crate) starts_after_ms: i64,
}

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Live,
    /// Fills what live has left.
    Gap,
    Copy,
    Restore,
}

/// The statements of [`weir_sink::table::Table`] and [`weir_sink::Vault`], and the reading of the control topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Largest,
    Raise,
    KillQueries,
    Mutations,
    KillMutations,
    Recorded,
    Left,
    Ask,
    Insert,
    Delete,
    Record,
    Leave,
    Lose,
    Forget,
    Standing,
    CopyRecord,
    CopyRows,
    Close,
    TakeOver,
    BringRecord,
    BringRows,
    Open,
    /// Not a statement: a process has read the control topic to its end.
    Control,
}

/// How far a statement has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Sent,
    /// Its owner was found to be the largest.
    Started,
    /// It was done, and not yet answered.
    Applied,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum When {
    At(i64),
    /// At the phase of the statement of this kind that comes after so many others.
    On(Kind, Phase, u32),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    /// SIGKILL of the process that sent it, or of all; others are started.
    Kill,
    /// SIGSTOP, and SIGCONT after so long; another is started meanwhile.
    Stop(i64),
    /// Asked to end.
    Shutdown,
    /// A second process of the same run.
    Second,
    /// The server is killed, and back after so long.
    Crash(i64),
    /// The statement arrives so much later than its client waits.
    Late(i64),
    /// The statement never arrives.
    Lose,
    /// It arrives again after so long.
    Twice(i64),
    /// It is answered with an error, whatever was done.
    Error,
    /// It is not answered.
    Silence,
    /// Retention cuts what no run needs any more.
    Cut,
    /// Live ends at a batch boundary, and is started again after so long.
    Pause(i64),
    /// Live goes on with the window of so long ago, and leaves what is not done before it to the gap run.
    LiveFirst(i64),
    /// Live goes on from where it stopped, if it has not yet left anything.
    Resume,
    /// A person orders that live asks for everything again from the window of so long ago on.
    AskAgain(i64),
    /// A person gives up the windows that began so long ago, so many ms of them.
    GiveUp(i64, i64),
    /// Somebody takes a row out of what is done, or puts one in twice; then one of those two is ordered.
    Hurt(Hurt),
    /// A copy of the tables is taken.
    Copy,
    /// Back to the last copy, if there is one.
    Restore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hurt {
    RowGone,
    RowTwice,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) when: When,
    pub(crate) what: What,
}

const KINDS: [Kind; 14] = [
    Kind::Insert,
    Kind::Record,
    Kind::Ask,
    Kind::Delete,
    Kind::Raise,
    Kind::Largest,
    Kind::KillQueries,
    Kind::Mutations,
    Kind::KillMutations,
    Kind::Recorded,
    Kind::Leave,
    Kind::Lose,
    Kind::Forget,
    Kind::Control,
];

/// Those of who takes back.
const TAKING: [Kind; 5] = [Kind::Forget, Kind::Lose, Kind::Delete, Kind::Forget, Kind::Lose];

/// Those of a restore.
const RESTORING: [Kind; 7] =
    [Kind::Close, Kind::TakeOver, Kind::KillQueries, Kind::Mutations, Kind::BringRecord, Kind::BringRows, Kind::Open];

impl What {
    pub(crate) fn name(self) -> &'static str {
        match self {
            What::Kill => "kills",
            What::Stop(_) => "stops",
            What::Shutdown => "shutdowns",
            What::Second => "second processes",
            What::Crash(_) => "crashes of the server",
            What::Late(_) => "statements late",
            What::Lose => "statements lost",
            What::Twice(_) => "statements twice",
            What::Error => "errors after all",
            What::Silence => "answers lost",
            What::Cut => "cuts by retention",
            What::Pause(_) => "pauses",
            What::LiveFirst(_) => "live first",
            What::Resume => "live after all",
            What::AskAgain(_) => "orders to ask again",
            What::GiveUp(..) => "orders to give up",
            What::Hurt(Hurt::RowGone) => "rows taken out by hand",
            What::Hurt(Hurt::RowTwice) => "rows doubled by hand",
            What::Copy => "copies of the tables",
            What::Restore => "restores",
        }
    }
}

impl Plan {
    /// `bug`: what is to be found, so that what brings it out is drawn more often.
    pub(crate) fn draw(seed: u64, bug: Option<Bug>) -> Plan {
        let mut rng = StdRng::seed_from_u64(seed);
        let rng = &mut rng;
        let begin_ms = BEGIN_MS + rng.random_range(0..2 * HOUR_MS);
        let duration_ms = rng.random_range(5..50) * MINUTE_MS;
        let version = SchemaVersion {
            width: WindowWidth::new(pick(rng, &[10_000, MINUTE_MS, 5 * MINUTE_MS])).expect("divides a day"),
            lateness_ms: pick(rng, &[0, 10_000, 90_000]),
            values_max: pick(rng, &[2, 1_000, 1_000]),
            ..SchemaVersion::builtin(1).expect("version 1 is in the binary")
        };
        let partitions = partitions(rng, begin_ms, duration_ms, bug);
        let mut appends = Appends::draw(rng, begin_ms, duration_ms, &partitions, bug);
        let spooled = spool::draw(rng, begin_ms, duration_ms, &partitions, &mut appends, bug);
        let faults = faults(rng, begin_ms, duration_ms, bug);
        let count = partitions.len();
        let mut processes: Vec<Process> = (0..6).map(|nth| process(rng, nth, count)).collect();
        if bug.is_some_and(|bug| bug.is_about_gaps() || bug.is_in_taking_back()) {
            // Two at work where one should be, and not one after the other.
            processes.iter_mut().for_each(|process| process.starts_after_ms = 0);
        }
        let step_ms = rng.random_range(2..12) * SECOND_MS;
        let quiet_ms = begin_ms + duration_ms;
        Plan { seed, begin_ms, version, partitions, appends, spooled, faults, processes, step_ms, quiet_ms }
    }

    /// The same history with some of its appends and faults only.
    pub(crate) fn only(&self, appends: Option<&[usize]>, faults: Option<&[usize]>) -> Plan {
        let mut plan = self.clone();
        if let Some(kept) = appends {
            plan.appends = kept.iter().filter_map(|at| self.appends.get(*at).cloned()).collect();
        }
        if let Some(kept) = faults {
            plan.faults = kept.iter().filter_map(|at| self.faults.get(*at).copied()).collect();
        }
        plan
    }

    /// The first window of the first run.
    pub(crate) fn first(&self) -> WindowStart {
        let effective_ms = self.partitions.iter().map(|partition| partition.effective_ms).min();
        let first_ms = effective_ms.expect("there is a partition") - self.version.lateness_ms;
        self.version.width.window_of(first_ms)
    }

    /// Whether a person may ask for windows again that are done: the log must still have them then.
    pub(crate) fn asks_again(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.what, What::AskAgain(_) | What::GiveUp(..) | What::Hurt(_)))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} partitions, width {} s, lateness {} s, {} appends in {} min, {} faults",
            self.partitions.len(),
            self.version.width.ms() / SECOND_MS,
            self.version.lateness_ms / SECOND_MS,
            self.appends.len(),
            (self.quiet_ms - self.begin_ms) / MINUTE_MS,
            self.faults.len(),
        )
    }
}

fn partitions(rng: &mut StdRng, begin_ms: i64, duration_ms: i64, bug: Option<Bug>) -> Vec<Partition> {
    let count = rng.random_range(1..=4usize).max(if bug.is_some() { 2 } else { 1 });
    let added = if bug == Some(Bug::NewPartition) { 1.0 } else { 0.4 };
    (0..count)
        .map(|nth| {
            let (mut announced_ms, mut effective_ms) = (begin_ms, begin_ms);
            if nth > 0 && nth == count - 1 && rng.random_bool(added) {
                announced_ms += rng.random_range(0..duration_ms * 2 / 3);
                // Ahead of every clock that may be wrong: a leap counts as at most a minute.
                effective_ms = announced_ms + 90 * SECOND_MS + rng.random_range(0..2 * MINUTE_MS);
            }
            let mut clock = vec![(i64::MIN, pick(rng, &[0, 0, -2_000, 900]))];
            let mut at_ms = begin_ms;
            while rng.random_bool(0.6) {
                at_ms += rng.random_range(1..15) * MINUTE_MS;
                let steps_back = -rng.random_range(0..MINUTE_MS);
                let leaps = [MINUTE_MS, 24 * HOUR_MS, 70 * 365 * 24 * HOUR_MS];
                let off_ms = pick(rng, &[steps_back, 0, 1_000, leaps[0], leaps[1], leaps[2]]);
                clock.push((at_ms, off_ms));
                clock.push((at_ms + rng.random_range(1..4) * MINUTE_MS, 0));
                at_ms += 4 * MINUTE_MS;
            }
            clock.push((begin_ms + duration_ms, 0));
            clock.retain(|(at_ms, off_ms)| *at_ms < begin_ms + duration_ms || *off_ms == 0);
            clock.sort_by_key(|(at_ms, _)| *at_ms);
            Partition { announced_ms, effective_ms, clock }
        })
        .collect()
}

/// Collectors: what they append, and append again.
struct Appends<'a> {
    rng: &'a mut StdRng,
    late: f64,
    ids: Vec<String>,
    sequence: u64,
    all: Vec<Append>,
}

impl Appends<'_> {
    fn draw(
        rng: &mut StdRng,
        begin_ms: i64,
        duration_ms: i64,
        partitions: &[Partition],
        bug: Option<Bug>,
    ) -> Vec<Append> {
        let late = rng.random_range(0.0..0.3);
        let again = if bug.is_some_and(Bug::is_about_copies) { 0.7 } else { 0.25 };
        let silent = rng.random_bool(0.3).then(|| rng.random_range(0..partitions.len()));
        let mut appends = Appends { rng, late, ids: Vec::new(), sequence: 0, all: Vec::new() };
        // In half of the histories most comes in bursts.
        let burst = appends.rng.random_bool(0.5);
        let mut now_ms = begin_ms;
        for _ in 0..appends.rng.random_range(10..90) {
            if !burst || appends.rng.random_bool(0.2) {
                now_ms += appends.rng.random_range(0..duration_ms / 20);
            }
            now_ms += pick(appends.rng, &[0, 500, 7_000]);
            if now_ms >= begin_ms + duration_ms {
                break;
            }
            let partition = appends.rng.random_range(0..partitions.len());
            let unused = !partitions[partition].is_in_use(now_ms);
            if unused || silent == Some(partition) && appends.rng.random_bool(0.9) {
                continue;
            }
            match appends.rng.random_range(0..20) {
                0..2 => appends.push(now_ms, partition, tick_record),
                2 => appends.push(now_ms, partition, |_| b"not weir's".to_vec()),
                _ => appends.batch(now_ms, partition, begin_ms + duration_ms, again),
            }
        }
        let mut all = appends.all;
        all.sort_by_key(|append| append.at_ms);
        all
    }

    fn push(&mut self, at_ms: i64, partition: usize, payload: impl Fn(i64) -> Vec<u8>) {
        let off_ms = pick(self.rng, &[0, 0, 0, 0, -3_000, 2_000, -HOUR_MS]);
        self.all.push(Append { at_ms, partition, payload: payload(at_ms + off_ms).into() });
    }

    /// A batch, and the same again: an acknowledgement was lost, or a collector's spool held it.
    fn batch(&mut self, now_ms: i64, partition: usize, end_ms: i64, again: f64) {
        self.sequence += 1;
        let mut batch = BatchBuilder::new([3; 16], self.sequence);
        for nth in 0..pick(self.rng, &[1, 2, 4, 12]) {
            let hit = format!("{}.{nth}", self.sequence);
            let event = self.event(now_ms, hit);
            batch.push(&event);
        }
        let bytes = batch.finish();
        self.push(now_ms, partition, |sent_ms| batch_record(sent_ms, &bytes));
        let mut at_ms = now_ms;
        while self.rng.random_bool(again) {
            at_ms += pick(self.rng, &[300, 5_000, MINUTE_MS, 6 * MINUTE_MS, 8 * MINUTE_MS, 12 * MINUTE_MS]);
            if at_ms >= end_ms {
                break;
            }
            self.push(at_ms, partition, |sent_ms| batch_record(sent_ms, &bytes));
        }
    }

    fn event(&mut self, now_ms: i64, hit: String) -> Event {
        let mut event = event(self.rng, now_ms, &mut self.ids);
        if !self.rng.random_bool(self.late) && event.claimed_ms.is_none_or(|claimed_ms| claimed_ms < event.received_ms)
        {
            event.received_ms = now_ms - self.rng.random_range(0..1_000);
            event.claimed_ms = None;
        }
        let hit = if event.id.is_empty() { hit } else { format!("{}/{}", event.site, event.id) };
        event.props.push((HIT.into(), hit));
        event
    }
}

impl Partition {
    /// Whether collectors write to it.
    pub(crate) fn is_in_use(&self, now_ms: i64) -> bool {
        now_ms + 1_000 >= self.effective_ms
    }

    /// What its log's clock says.
    pub(crate) fn clock_ms(&self, now_ms: i64) -> i64 {
        let off = self.clock.iter().rev().find(|(from_ms, _)| *from_ms <= now_ms);
        now_ms + off.map_or(0, |(_, off_ms)| *off_ms)
    }
}

fn process(rng: &mut StdRng, nth: u64, partitions: usize) -> Process {
    let slow = rng.random_bool(0.3);
    Process {
        workers: rng.random_range(1..=4),
        memory_bytes_max: pick(rng, &[1 << 30, 1 << 30, 20_000]),
        clock_off_ms: pick(rng, &[0, 0, -2_000, 2_000]),
        behind_ms: (0..partitions).map(|_| if slow { rng.random_range(0..60) * SECOND_MS } else { 0 }).collect(),
        tick_after_ms: pick(rng, &[1, 5, 20]) * SECOND_MS,
        limits: Limits {
            batch_rows_max: pick(rng, &[1, 60, 500, 2_000_000]),
            batch_bytes_max: pick(rng, &[10_000, 256 << 20]),
            pending_bytes_max: pick(rng, &[1, 100_000, 512 << 20]),
            chunk_rows_max: pick(rng, &[10, 50, 500_000]),
            chunk_bytes_max: pick(rng, &[2_000, 64 << 20]),
            empty_every: std::time::Duration::from_secs(pick(rng, &[1, 5, 60])),
        },
        pace_ms: pick(rng, &[0, 0, 40, 2_000]),
        starts_after_ms: if nth == 0 { 0 } else { pick(rng, &[0, 1, 10, 90]) * SECOND_MS },
    }
}

fn faults(rng: &mut StdRng, begin_ms: i64, duration_ms: i64, bug: Option<Bug>) -> Vec<Fault> {
    let most = if bug.is_some() { 30 } else { 24 };
    let mut faults: Vec<Fault> = (0..rng.random_range(0..most)).map(|_| fault(rng, begin_ms, duration_ms)).collect();
    // A process that goes while its INSERT or DELETE runs, and leaves it to the next one.
    for _ in 0..rng.random_range(0..3) {
        let what = pick(rng, &[What::Kill, What::Stop(20_000), What::Kill]);
        let kind = pick(rng, &[Kind::Insert, Kind::Insert, Kind::Delete]);
        faults.push(Fault { when: When::On(kind, Phase::Started, rng.random_range(0..20)), what });
    }
    away(rng, begin_ms, duration_ms, bug, &mut faults);
    ordered(rng, begin_ms, duration_ms, bug, &mut faults);
    back(rng, begin_ms, duration_ms, bug, &mut faults);
    let slow = if bug.is_some_and(Bug::is_about_gaps) { 50 } else { 0 };
    for _ in 0..slow {
        // Live is still waiting for a deed on windows that are not its own any more.
        let what = What::Late(pick(rng, &[15_000, 28_000]));
        let kind = pick(rng, &[Kind::Insert, Kind::Record]);
        faults.push(Fault { when: When::On(kind, Phase::Sent, rng.random_range(0..60)), what });
    }
    let more = if bug.is_some_and(Bug::is_about_owners) { 12 } else { 0 };
    for _ in 0..more {
        // An INSERT that arrives when nobody waits for it any more, or twice.
        let late = What::Late(pick(rng, &[50, 300, 40_000]));
        let twice = What::Twice(pick(rng, &[1, 30, 300, 2_000]));
        let what = pick(rng, &[late, twice]);
        faults.push(Fault { when: When::On(Kind::Insert, Phase::Sent, rng.random_range(0..30)), what });
    }
    faults
}

/// Live is away for minutes, and then perhaps goes on with what is now, while another run fills the gap.
fn away(rng: &mut StdRng, begin_ms: i64, duration_ms: i64, bug: Option<Bug>, faults: &mut Vec<Fault>) {
    let (often, apart_ms) =
        if bug.is_some_and(Bug::is_about_gaps) { (1.0, duration_ms / 8) } else { (0.3, duration_ms / 2) };
    let (mut at_ms, mut times) = (begin_ms, 0);
    while rng.random_bool(often) {
        at_ms += rng.random_range(0..apart_ms);
        let for_ms = pick(rng, &[20_000, 3 * MINUTE_MS, 12 * MINUTE_MS]);
        if at_ms + for_ms >= begin_ms + duration_ms {
            break;
        }
        faults.push(Fault { when: When::At(at_ms), what: What::Pause(for_ms) });
        if rng.random_bool(often.max(0.7)) {
            // Today may begin a little after now: where clocks differ.
            let ago_ms = pick(rng, &[0, 0, 30_000, 2 * MINUTE_MS, -20_000]);
            faults.push(Fault { when: When::At(at_ms + for_ms), what: What::LiveFirst(ago_ms) });
            // What live was doing is cut; and what it does next is.
            let what = pick(rng, &[What::Kill, What::Silence, What::Error, What::Stop(20_000), What::Second]);
            let phase = pick(rng, &[Phase::Started, Phase::Applied]);
            faults.push(Fault { when: When::On(Kind::Leave, phase, rng.random_range(0..2)), what });
            if rng.random_bool(often) {
                // It comes late, when its process is gone and the operator has thought better of it.
                let nth = times;
                times += 1;
                for what in [What::Late(pick(rng, &[5_000, 20_000, 60_000])), What::Kill] {
                    faults.push(Fault { when: When::On(Kind::Leave, Phase::Sent, nth), what });
                }
                let after_ms = pick(rng, &[2_000, 4_000, 15_000]);
                faults.push(Fault { when: When::At(at_ms + for_ms + after_ms), what: What::Resume });
            }
        }
        at_ms += for_ms;
    }
}

/// A person orders that windows are asked for again, or given up, with or without a reason in the table, once or again;
/// what live was doing goes on meanwhile, and who does it is cut.
fn ordered(rng: &mut StdRng, begin_ms: i64, duration_ms: i64, bug: Option<Bug>, faults: &mut Vec<Fault>) {
    let about = bug.is_some_and(Bug::is_in_taking_back);
    if !rng.random_bool(if about { 1.0 } else { 0.35 }) {
        return;
    }
    let last_ms = begin_ms + duration_ms - 1;
    for _ in 0..rng.random_range(1..if about { 6 } else { 4 }) {
        let at_ms = rng.random_range(begin_ms..last_ms);
        let ago_ms = pick(rng, &[0, 20_000, MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS]);
        let for_ms = pick(rng, &[10_000, MINUTE_MS, 6 * MINUTE_MS, 20 * MINUTE_MS]);
        let hurt = pick(rng, &[What::Hurt(Hurt::RowGone), What::Hurt(Hurt::RowTwice)]);
        let whats = [What::AskAgain(ago_ms), What::GiveUp(ago_ms, for_ms), hurt];
        faults.push(Fault { when: When::At(at_ms), what: pick(rng, &whats) });
        if rng.random_bool(0.5) {
            // The same again, or a second thought.
            let again_ms = (at_ms + pick(rng, &[1_000, 8_000, 30_000])).min(last_ms);
            faults.push(Fault { when: When::At(again_ms), what: pick(rng, &whats) });
        }
    }
    for _ in 0..rng.random_range(0..if about { 16 } else { 4 }) {
        let (phase, what) = pick(
            rng,
            &[
                (Phase::Sent, What::Late(40_000)),
                (Phase::Sent, What::Lose),
                (Phase::Sent, What::Twice(5_000)),
                (Phase::Sent, What::Twice(20_000)),
                (Phase::Started, What::Kill),
                (Phase::Started, What::Second),
                (Phase::Started, What::Crash(5_000)),
                (Phase::Applied, What::Kill),
                (Phase::Applied, What::Stop(20_000)),
                (Phase::Applied, What::Silence),
            ],
        );
        faults.push(Fault { when: When::On(pick(rng, &TAKING), phase, rng.random_range(0..6)), what });
    }
    if about {
        // Everything that was given up is asked for again, and a deed of the first arrives once more then.
        for _ in 0..8 {
            let at_ms = rng.random_range(begin_ms + duration_ms / 4..last_ms);
            faults.push(Fault { when: When::At(at_ms), what: What::GiveUp(15 * MINUTE_MS, 14 * MINUTE_MS) });
            faults.push(Fault { when: When::At((at_ms + 4_000).min(last_ms)), what: What::AskAgain(20 * MINUTE_MS) });
        }
        for nth in 0..24 {
            let what = What::Twice(pick(rng, &[8_000, 20_000]));
            faults.push(Fault { when: When::On(pick(rng, &TAKING), Phase::Sent, nth), what });
        }
    }
    for _ in 0..rng.random_range(0..if about { 12 } else { 2 }) {
        // An INSERT runs whose process is gone when its windows are given up.
        let when = When::On(Kind::Insert, Phase::Started, rng.random_range(0..40));
        faults.push(Fault { when, what: What::Kill });
        faults.push(Fault { when, what: What::GiveUp(15 * MINUTE_MS, 20 * MINUTE_MS) });
    }
}

/// Copies are taken, and one is brought back; whoever does that is killed on the way.
fn back(rng: &mut StdRng, begin_ms: i64, duration_ms: i64, bug: Option<Bug>, faults: &mut Vec<Fault>) {
    if !rng.random_bool(if bug.is_some_and(Bug::is_about_restores) { 1.0 } else { 0.25 }) {
        return;
    }
    for _ in 0..rng.random_range(1..3) {
        let at_ms = begin_ms + rng.random_range(0..duration_ms * 2 / 3);
        faults.push(Fault { when: When::At(at_ms), what: What::Copy });
        let at_ms = rng.random_range(at_ms..begin_ms + duration_ms);
        faults.push(Fault { when: When::At(at_ms), what: What::Restore });
    }
    for _ in 0..rng.random_range(0..3) {
        let what = pick(rng, &[What::Kill, What::Error, What::Silence, What::Second, What::Crash(5_000)]);
        let phase = pick(rng, &[Phase::Sent, Phase::Started, Phase::Applied]);
        faults.push(Fault { when: When::On(pick(rng, &RESTORING), phase, rng.random_range(0..2)), what });
    }
}

fn fault(rng: &mut StdRng, begin_ms: i64, duration_ms: i64) -> Fault {
    let anywhere =
        [What::Kill, What::Stop(pick(rng, &[500, 20_000, 200_000])), What::Shutdown, What::Second, What::Cut];
    let crash = What::Crash(pick(rng, &[300, 5_000, 60_000]));
    if rng.random_bool(0.3) {
        let what = if rng.random_bool(0.2) { crash } else { pick(rng, &anywhere) };
        return Fault { when: When::At(begin_ms + rng.random_range(0..duration_ms)), what };
    }
    // Deeds more often than the rest.
    let kind = KINDS[if rng.random_bool(0.6) { rng.random_range(0..4) } else { rng.random_range(0..KINDS.len()) }];
    let phase = pick(rng, &[Phase::Sent, Phase::Started, Phase::Applied]);
    let phase = if kind == Kind::Control { Phase::Applied } else { phase };
    let statement = match phase {
        Phase::Sent => {
            [What::Late(pick(rng, &[500, 40_000, 200_000])), What::Lose, What::Twice(pick(rng, &[1, 50, 3_000]))]
        }
        Phase::Started | Phase::Applied => [What::Error, What::Silence, What::Error],
    };
    let what = match rng.random_range(0..10) {
        0..5 => pick(rng, &statement),
        5..9 => pick(rng, &anywhere[..4]),
        _ => crash,
    };
    let nth = pick(rng, &[0, 1, 2, 3, 5, 8, 13, 21, 34]);
    Fault { when: When::On(kind, phase, nth), what }
}
