//! The real pipeline and the real commit logic over a simulated log and a simulated table, everything drawn from a seed.
//!
//! ```text
//!  Plan ──appends──▶ SimLog ──▶ weir_pipeline::run ──Closed──▶ weir_sink::run_on ──statements──▶ Server (parts,
//!   │  (a spool's too)  ▲ ticks ──────┘   1-4 threads             one thread: live, gap ▲         emissions, owners)
//!   │                                     take_back_on, copy_on, restore_on ────────────┘          │
//!   └──faults──▶ kills, stops, pauses, crashes, late and doubled statements …                      │
//!                                                                oracle(SimLog) == table ◀─────────┘
//! ```
//!
//! A history is drawn whole before it begins ([`weir_oracle`]'s events, clocks, processes, faults), then lived through on
//! tokio's paused clock. The pipeline has its own threads, but is looked at only when it has nothing left to do, so that
//! what is seen of it follows from the log; all else is one thread. So a history is the same each time, statement by
//! statement, and a failure is repeated by its number.
//!
//! Each must have
//! - **conservation**: every acknowledged event in exactly one emission, once (again after a horizon without copies; what
//!   a spool drains, once)
//! - **equality**: the table is the oracle's, wherever batches were cut, also after a person has hurt it and ordered that it
//!   is asked for again
//! - **given up**: the windows that a person gave up are named as lost, no others are, and nothing of them is there
//! - **exactly once**: what is recorded as done is in the table exactly, at every moment but within a restore
//! - **order**: windows ascend and come once; complete-through never goes back; no record lies over another
//! - **no holes**: at rest nothing is without a record that has one after it
//! - **liveness**: after the faults stop, a fresh event comes through
//! - **memory**: open windows stay under their bounds
//!
//! [`Bug`]s are planted to see that it finds them. What may go wrong is `plan::What`; what it does to processes and
//! statements is `server`, and what the processes do is `process`: another deed of an operator is one more of each.
//!
//! Start at [`run()`]. Not here: ClickHouse itself (`sink/tests`), Kafka,
//! processes that are really killed.

mod bugs;
mod control;
mod log;
mod native;
mod plan;
mod process;
mod reading;
mod server;
mod shrink;
mod spool;
mod table;
mod world;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

pub use bugs::Bug;
use plan::Plan;
pub use shrink::shrink;
use world::Outcome;

/// The number of the `nth` history of a seed (SplitMix64).
pub fn history_of(seed: u64, nth: u64) -> u64 {
    let mut x = seed.wrapping_add((nth + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// One history: its number, and which of its appends and faults are left; `None`: all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    pub number: u64,
    pub appends: Option<Vec<usize>>,
    pub faults: Option<Vec<usize>>,
    pub bug: Option<Bug>,
}

/// What was wrong with a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub history: History,
    /// The property, and what was seen instead.
    pub wrong: String,
}

/// What histories came to, added up.
#[derive(Debug, Default)]
pub struct Summary {
    pub passed: u64,
    pub failures: Vec<Failure>,
    pub events: u64,
    pub late: u64,
    pub statements: u64,
    pub processes: u64,
    pub ticks: u64,
    /// What has happened how often: histories in which nothing does prove nothing.
    pub happened: BTreeMap<&'static str, u64>,
}

/// What `runs` histories of a seed are made of, in one line.
pub struct Drawn {
    seed: u64,
    runs: u64,
    partitions: usize,
    added: usize,
    appends: usize,
    faults: usize,
    leaps: usize,
    minutes: i64,
}

impl History {
    pub fn new(number: u64, bug: Option<Bug>) -> History {
        History { number, appends: None, faults: None, bug }
    }

    fn plan(&self) -> Plan {
        Plan::draw(self.number, self.bug).only(self.appends.as_deref(), self.faults.as_deref())
    }

    /// In words, what it is made of.
    pub fn describe(&self) -> String {
        self.plan().to_string()
    }

    /// Lives through it; what was wrong, and a number that is equal if the same things happened in the same order.
    pub fn live(&self) -> (Option<String>, u64) {
        let outcome = self.outcome(false);
        (outcome.wrong, outcome.trace)
    }

    /// Lives through it, and gives every statement, one a line.
    pub fn story(&self) -> String {
        self.outcome(true).story.unwrap_or_default()
    }

    fn outcome(&self, told: bool) -> Outcome {
        let _planted = weir_pipeline_planted::plant(self.bug.and_then(Bug::planted));
        world::live(&self.plan(), self.bug, told)
    }
}

impl Failure {
    /// Whether it is one of these properties that did not hold.
    pub fn breaks(&self, properties: &[&str]) -> bool {
        self.wrong.split_once(':').is_some_and(|(property, _)| properties.contains(&property))
    }
}

/// Lives through `runs` histories of `seed`, two at a time, to the first that fails as `until` says.
pub fn run(seed: u64, runs: u64, bug: Option<Bug>, until: impl Fn(&Failure) -> bool + Sync) -> Summary {
    let _planted = weir_pipeline_planted::plant(bug.and_then(Bug::planted));
    let (next, summary) = (AtomicU64::new(0), Mutex::new(Summary::default()));
    let threads = std::thread::available_parallelism().map_or(2, |threads| threads.get().min(8));
    let work = || {
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            if nth >= runs {
                return;
            }
            let history = History::new(history_of(seed, nth), bug);
            let outcome = world::live(&history.plan(), bug, false);
            let mut summary = summary.lock().expect("no holder panics");
            summary.add(history, outcome);
            if summary.failures.last().is_some_and(&until) {
                next.store(runs, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let mut summary = summary.into_inner().expect("no holder panics");
    summary.failures.sort_by_key(|failure| failure.history.number);
    summary
}

impl Summary {
    fn add(&mut self, history: History, outcome: Outcome) {
        self.events += outcome.events;
        self.late += outcome.late;
        self.statements += outcome.statements;
        self.processes += outcome.processes;
        for (what, times) in outcome.happened {
            *self.happened.entry(what).or_insert(0) += times;
        }
        self.ticks += outcome.ticks;
        match outcome.wrong {
            Some(wrong) => self.failures.push(Failure { history, wrong }),
            None => self.passed += 1,
        }
    }
}

impl Drawn {
    pub fn of(seed: u64, runs: u64, bug: Option<Bug>) -> Drawn {
        let mut drawn = Drawn { seed, runs, partitions: 0, added: 0, appends: 0, faults: 0, leaps: 0, minutes: 0 };
        for nth in 0..runs {
            let plan = Plan::draw(history_of(seed, nth), bug);
            drawn.partitions += plan.partitions.len();
            drawn.added += plan.partitions.iter().filter(|of| of.effective_ms > plan.begin_ms).count();
            drawn.appends += plan.appends.len();
            drawn.faults += plan.faults.len();
            let clocks = plan.partitions.iter().flat_map(|of| &of.clock);
            drawn.leaps += clocks.filter(|(_, off_ms)| *off_ms >= plan::MINUTE_MS).count();
            drawn.minutes += (plan.quiet_ms - plan.begin_ms) / plan::MINUTE_MS;
        }
        drawn
    }
}

impl fmt::Display for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Drawn { seed, runs, partitions, added, appends, faults, leaps, minutes } = self;
        write!(
            f,
            "seed {seed}: {runs} histories over {minutes} min with {partitions} partitions ({added} added on the way), \
             {appends} appends, {leaps} leaping clocks, {faults} faults"
        )
    }
}
