//! The world of one history: time goes on, collectors append, processes are started, things go wrong; then all is well,
//! and what is in the table is compared with what the log says.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use tokio::time::{Instant, sleep_until};
use weir_oracle::{Table, conserved};
use weir_schemas::{
    Event,
    wire::{BatchBuilder, batch_record},
};

use crate::log::SimLog;
use crate::{
    Bug,
    bugs::PlantedTable,
    plan::{FRESH_SITE, HIT, MINUTE_MS, Plan, Role, SECOND_MS, What, When},
    process::{Running, Shared, Tables},
    server::{Deed, Server},
    spool::PREFIX,
    table::{SimTable, SimVault},
};

/// After the faults stop, the fresh event must be in the table within this: a partition that leapt a minute ahead, the
/// longest lateness and width, silence until a tick, and a start with its backoff are a quarter of it.
const FRESH_WITHIN_MS: i64 = 60 * MINUTE_MS;

/// What came of a history.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// What must never be, and was.
    pub(crate) wrong: Option<String>,
    pub(crate) events: u64,
    pub(crate) late: u64,
    pub(crate) statements: u64,
    pub(crate) processes: u64,
    pub(crate) ticks: u64,
    /// What has happened how often.
    pub(crate) happened: BTreeMap<&'static str, u64>,
    /// Equal if the same things happened in the same order.
    pub(crate) trace: u64,
    pub(crate) story: Option<String>,
}

/// Lives through a history on a clock of its own.
pub(crate) fn live(plan: &Plan, bug: Option<Bug>, told: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime.expect("a runtime without I/O can be made"), async {
        let plan = plan.clone();
        let server = Server::new(&plan, told);
        let log = SimLog::new(plan.partitions.clone());
        let shared = Arc::new(Shared { plan, log, server, bug });
        let mut world = World { shared, running: Vec::new(), posts: BTreeMap::new(), started: 0, appended: 0 };
        let wrong = world.live().await.err();
        world.outcome(wrong)
    })
}

struct World {
    shared: Arc<Shared>,
    running: Vec<Arc<Running>>,
    posts: BTreeMap<Role, Post>,
    started: usize,
    appended: usize,
}

/// What is known of who does a thing.
#[derive(Default)]
struct Post {
    /// The process that is believed to be at it.
    current: Option<Arc<Running>>,
    /// When the next one is started, if there is none.
    start_ms: Option<i64>,
}

impl World {
    async fn live(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        let shared = self.shared.clone();
        let plan = &shared.plan;
        let mut timed: Vec<(i64, What)> = plan
            .faults
            .iter()
            .filter_map(|fault| if let When::At(at_ms) = fault.when { Some((at_ms, fault.what)) } else { None })
            .collect();
        timed.sort_by_key(|(at_ms, _)| *at_ms);
        let mut timed = timed.into_iter().peekable();
        let mut now_ms = plan.begin_ms;
        let mut fresh = None;
        loop {
            while let Some(append) = plan.appends.get(self.appended).filter(|append| append.at_ms <= now_ms) {
                shared.log.append(append.at_ms, append.partition, append.payload.clone());
                self.appended += 1;
            }
            while let Some((_, what)) = timed.next_if(|(at_ms, _)| *at_ms <= now_ms) {
                if matches!(what, What::Late(_) | What::Lose | What::Twice(_) | What::Error | What::Silence) {
                    continue;
                }
                let mut state = shared.server.state();
                state.happens(what.name());
                state.fault(None, what);
            }
            let deeds = std::mem::take(&mut shared.server.state().deeds);
            for deed in deeds {
                match deed {
                    Deed::Second(role) => self.start(role),
                    Deed::Cut => self.cut(),
                }
            }
            self.running.retain(|running| !running.control.is_killed());
            for role in [Role::Live, Role::Gap, Role::Restore] {
                self.supervise(now_ms, role);
            }
            for running in &self.running {
                running.go_on(now_ms, &shared)?;
            }
            if let Some(wrong) = shared.server.state().wrong.clone() {
                return Err(wrong);
            }
            if now_ms >= plan.quiet_ms {
                let appended_ms = match fresh {
                    Some(appended_ms) => appended_ms,
                    None => {
                        shared.server.calm();
                        shared.server.state().hurry();
                        self.append_fresh(now_ms);
                        *fresh.insert(now_ms)
                    }
                };
                let over = {
                    let state = shared.server.state();
                    !state.is_restoring() && !state.has_orders()
                };
                if over && self.fresh_is_in() {
                    break;
                }
                if now_ms - appended_ms > FRESH_WITHIN_MS {
                    let state = shared.server.state();
                    let through_s = state.complete_through_s(self.first_s());
                    if let Some(after_s) = state.recorded_after_s(through_s) {
                        return Err(format!(
                            "no holes: window {through_s} s has no record, and {after_s} s has one, at rest"
                        ));
                    }
                    let late_s = now_ms / 1_000 - i64::from(through_s);
                    return Err(format!(
                        "liveness: a fresh event is not in the table, complete through {late_s} s ago"
                    ));
                }
            }
            let append_ms = plan.appends.get(self.appended).map(|append| append.at_ms);
            let fault_ms = timed.peek().map(|(at_ms, _)| *at_ms);
            let step_ms = now_ms + plan.step_ms;
            now_ms = [append_ms, fault_ms].into_iter().flatten().fold(step_ms, i64::min).max(now_ms + 1);
            sleep_until(begin + Duration::from_millis((now_ms - plan.begin_ms) as u64)).await;
        }
        // What is still under way may do its worst now.
        self.running.iter().for_each(|running| running.control.kill());
        tokio::time::sleep(Duration::from_millis((5 * MINUTE_MS) as u64)).await;
        if let Some(wrong) = shared.server.state().wrong.clone() {
            return Err(wrong);
        }
        self.compare()
    }

    /// As the supervisor, and for a restore the person who began it: one process at a time, as far as is known; another
    /// when that has ended, or does not answer.
    fn supervise(&mut self, now_ms: i64, role: Role) {
        let calm = now_ms >= self.shared.plan.quiet_ms;
        let wanted = {
            let state = self.shared.server.state();
            match role {
                Role::Live => calm || now_ms >= state.paused_ms,
                Role::Gap => state.has_gap(),
                Role::Restore => state.is_restoring(),
                Role::Copy => false,
            }
        };
        let post = self.posts.entry(role).or_default();
        if !wanted || post.current.as_ref().is_some_and(|running| running.control.is_up()) {
            post.start_ms = None;
            return;
        }
        let processes = &self.shared.plan.processes;
        let after_ms = if calm { SECOND_MS } else { processes[self.started % processes.len()].starts_after_ms };
        let after_ms = if self.started == 0 { 0 } else { after_ms };
        if now_ms >= *post.start_ms.get_or_insert(now_ms + after_ms) {
            self.start(role);
        }
    }

    fn start(&mut self, role: Role) {
        let running = Arc::new(Running::new(role));
        let nth = self.started;
        self.started += 1;
        let number = self.shared.server.state().add_process(running.control.clone(), role);
        let (shared, life) = (self.shared.clone(), running.clone());
        self.running.push(running.clone());
        self.posts.entry(role).or_default().current = Some(running);
        tokio::task::spawn_local(async move {
            let planted = |role, bug| SimTable { server: shared.server.clone(), process: number, role, bug };
            let taking = shared.bug.filter(|bug| bug.is_in_taking_back());
            let writing = shared.bug.filter(|bug| !bug.is_in_taking_back());
            let table = planted(role, writing);
            let lived = async {
                if matches!(role, Role::Copy | Role::Restore) {
                    let id = shared.server.state().uuid();
                    life.serve(&shared, SimVault { table, id, bug: shared.bug }).await;
                    return Ok(());
                }
                let tables = Tables {
                    own: PlantedTable::new(table, writing),
                    taking: PlantedTable::new(planted(role, taking), taking),
                    taking_gap: PlantedTable::new(planted(Role::Gap, taking), taking),
                };
                life.live(&shared, nth, number, tables).await
            };
            let wrong = match AssertUnwindSafe(lived).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(wrong)) => wrong,
                Err(panic) => {
                    life.control.kill();
                    let plain = panic.downcast_ref::<&str>().copied();
                    let said = panic.downcast_ref::<String>().map(String::as_str).or(plain);
                    format!("a process panicked: {}", said.unwrap_or("without a word"))
                }
            };
            shared.server.state().wrong.get_or_insert(wrong);
        });
    }

    fn first_s(&self) -> u32 {
        (self.shared.plan.first().ms() / 1_000) as u32
    }

    fn cut(&self) {
        if self.shared.plan.asks_again() {
            return;
        }
        let needed_s = self.shared.server.state().needed_from_s(self.first_s());
        let cut = self.shared.log.cut(i64::from(needed_s) * 1_000);
        *self.shared.server.state().happened.entry("records cut").or_insert(0) += cut;
    }

    fn append_fresh(&self, now_ms: i64) {
        let mut batch = BatchBuilder::new([4; 16], 0);
        batch.push(&Event {
            site: FRESH_SITE.into(),
            received_ms: now_ms,
            visitor: 1,
            page: "/".into(),
            ..Event::default()
        });
        let in_use = |of: &crate::plan::Partition| of.effective_ms <= now_ms;
        let last = self.shared.plan.partitions.iter().rposition(in_use).expect("the first partition is in use");
        self.shared.log.append(now_ms, last, batch_record(now_ms, &batch.finish()).into());
    }

    fn fresh_is_in(&self) -> bool {
        let state = self.shared.server.state();
        let complete_s = state.complete_through_s(self.first_s());
        state.rows().any(|row| row.key.1 == FRESH_SITE && row.emitted_s() < complete_s)
    }

    /// Equality, and conservation; of what was given up nothing is there.
    fn compare(&self) -> Result<(), String> {
        let (shared, state) = (&self.shared, self.shared.server.state());
        if let Some(wrong) = state.misrecorded() {
            return Err(wrong);
        }
        let effective_ms: Vec<i64> = shared.plan.partitions.iter().map(|partition| partition.effective_ms).collect();
        let log = shared.log.all();
        let complete_ms = i64::from(state.complete_through_s(self.first_s())) * 1_000;
        let mut wanted = weir_oracle::table(&log, &effective_ms, &shared.plan.version);
        if let Some(early) = wanted.keys().find(|key| key.0 < shared.plan.first().ms()) {
            return Err(format!("equality: {early:?} closes before the first window"));
        }
        let lost = state.lost();
        let is_lost = |key: &weir_oracle::Key| {
            lost.iter().any(|(from_s, to_s)| (*from_s..*to_s).contains(&((key.0 / 1_000) as u32)))
        };
        let is_here = |key: &weir_oracle::Key| key.0 < complete_ms && !is_lost(key);
        let elsewhere: Table =
            wanted.iter().filter(|(key, _)| !is_here(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        wanted.retain(|key, _| is_here(key));
        if let Some(row) = state.rows().find(|row| is_lost(&row.key)) {
            return Err(format!("given up: {:?} is in the table, and its window is lost", row.key));
        }
        let mut found = Table::new();
        for row in state.rows().filter(|row| row.key.0 < complete_ms) {
            if found.insert(row.key.clone(), (row.counts.clone(), row.visitors.clone())).is_some() {
                return Err(format!("equality: {:?} is in the table twice", row.key));
            }
        }
        if let Some((key, row)) = wanted.iter().find(|(key, row)| found.get(*key) != Some(row)) {
            return Err(format!("equality: {key:?} is {:?} in the table, and {row:?} by the log", found.get(key)));
        }
        if let Some((key, row)) = found.iter().find(|(key, _)| !wanted.contains_key(*key)) {
            return Err(format!("equality: {key:?} is {row:?} in the table, and nothing by the log"));
        }
        let times = conserved(&log, &effective_ms, HIT);
        if let Some((hit, times)) = times.iter().find(|(hit, times)| hit.starts_with(PREFIX) && **times != 1) {
            return Err(format!("conservation: by the log {hit:?}, which a spool has drained, counts {times} times"));
        }
        // What is still open counts where it will be, and what is lost where it would.
        let counted = hits(found.iter().chain(&elsewhere), shared.plan.version.values_max);
        match counted {
            Some(counted) if counted != times => {
                let hit = times.iter().find(|(hit, times)| counted.get(*hit) != Some(times));
                Err(format!("conservation: {hit:?} was counted {:?} times", hit.map(|(hit, _)| counted.get(hit))))
            }
            _ => Ok(()),
        }
    }

    fn outcome(&self, wrong: Option<String>) -> Outcome {
        let (log, state) = (self.shared.log.all(), self.shared.server.state());
        let effective_ms: Vec<i64> = self.shared.plan.partitions.iter().map(|of| of.effective_ms).collect();
        let stamps: String = log.iter().flatten().map(|record| format!("{},", record.stamp_ms)).collect();
        let appended = log.iter().map(Vec::len).sum::<usize>() as u64;
        let mut happened = state.happened.clone();
        let spooled = &self.shared.plan.spooled;
        for (what, times) in [
            ("batches spooled", spooled.batches),
            ("batches drained again", spooled.again),
            ("batches looked up", spooled.looked_up),
            ("acknowledgements lost", spooled.acknowledgements_lost),
            ("collectors killed", spooled.kills),
        ] {
            *happened.entry(what).or_insert(0) += times;
        }
        happened.retain(|_, times| *times > 0);
        Outcome {
            wrong,
            events: conserved(&log, &effective_ms, HIT).len() as u64,
            late: state
                .rows()
                .filter(|row| row.key.2 == "site" && row.key.0 != row.key.3)
                .map(|row| row.counts.iter().sum::<u64>())
                .sum(),
            statements: state.statements(),
            processes: self.started as u64,
            happened,
            ticks: appended - self.appended as u64,
            trace: state.trace() ^ xxhash_rust::xxh3::xxh3_64(stamps.as_bytes()),
            story: state.story().map(str::to_owned),
        }
    }
}

/// How often each hit was counted; `None` where the limit on values may have put some of them into `(other)`.
fn hits<'a>(
    rows: impl Iterator<Item = (&'a weir_oracle::Key, &'a (Vec<u64>, BTreeSet<u64>))>,
    values_max: usize,
) -> Option<BTreeMap<String, u64>> {
    if values_max < 1_000 {
        return None;
    }
    let dimension = format!("prop:{HIT}");
    let mut counted = BTreeMap::new();
    for ((_, _, of, _, hit), (counts, _)) in rows.filter(|(key, _)| key.2 == dimension) {
        debug_assert_eq!(*of, dimension);
        *counted.entry(hit.clone()).or_insert(0) += counts.iter().sum::<u64>();
    }
    Some(counted)
}
