//! A server that behaves as ClickHouse was seen to: statements take their time, arrive late or twice or never, are
//! answered with errors after they were done, and are cut by kills and crashes at any point.
//!
//! A statement is a task of its own: what becomes of the process that sent it does not stop it. Its fence is looked at
//! once, when it starts. A DELETE works part by part on the parts that were there when it began; its query may end and
//! its mutation go on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    hash::Hasher,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};
use weir_sink::{
    Content, Owner,
    table::{Failure, Kind as Why, Mutations},
};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    control::Control,
    native::Row,
    plan::{Fault, Kind, Phase, What, When},
};

/// How long a client waits for an answer.
const CLIENT_WAITS: Duration = Duration::from_secs(30);

/// What a statement does.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Largest,
    Raise(Owner),
    KillQueries,
    Mutations,
    KillMutations,
    Covered(u32),
    Ask(u32, u32),
    /// The body's rows, decoded when it is applied.
    Insert(Option<Owner>, Arc<Vec<Row>>),
    Delete(Option<Owner>, u32, u32),
    Record(Option<Owner>, Batch),
}

/// What a statement answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Nothing,
    Number(u64),
    Mutations(Mutations),
    Intervals(Vec<(u32, u32)>),
    Content(Content),
}

/// A batch that is recorded as done, windows in s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) from_s: u32,
    pub(crate) to_s: u32,
    pub(crate) content: Content,
}

impl Work {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Work::Largest => Kind::Largest,
            Work::Raise(_) => Kind::Raise,
            Work::KillQueries => Kind::KillQueries,
            Work::Mutations => Kind::Mutations,
            Work::KillMutations => Kind::KillMutations,
            Work::Covered(_) => Kind::Covered,
            Work::Ask(..) => Kind::Ask,
            Work::Insert(..) => Kind::Insert,
            Work::Delete(..) => Kind::Delete,
            Work::Record(..) => Kind::Record,
        }
    }

    fn owner(&self) -> Option<Owner> {
        match self {
            Work::Insert(owner, _) | Work::Delete(owner, ..) | Work::Record(owner, _) => *owner,
            _ => None,
        }
    }
}

/// Something that is to be done to processes; the world does it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed {
    Second,
    Cut,
}

pub(crate) struct Server {
    state: Mutex<State>,
}

pub(crate) struct State {
    rng: StdRng,
    begin: Instant,
    begin_ms: i64,
    quiet_ms: i64,
    faults: Vec<Fault>,
    /// How many statements of a kind have come to a phase.
    seen: BTreeMap<(Kind, Phase), u32>,
    /// By part.
    parts: BTreeMap<u64, Vec<Row>>,
    parts_made: u64,
    /// What the parts hold, by window.
    held: BTreeMap<u32, Content>,
    emissions: Vec<Batch>,
    largest: Option<Owner>,
    /// The queries of the run that have started: dropping the sender ends one.
    running: BTreeMap<u64, (Work, oneshot::Sender<()>)>,
    mutations: BTreeMap<u64, Mutation>,
    statements: u64,
    crashes: u64,
    down_until: Instant,
    processes: Vec<Arc<Control>>,
    pub(crate) deeds: Vec<Deed>,
    pub(crate) wrong: Option<String>,
    trace: Xxh3,
    /// What has happened how often: histories in which nothing does prove nothing.
    pub(crate) happened: BTreeMap<&'static str, u64>,
    /// The last statements, for who wants to know how it came.
    story: Option<String>,
}

struct Mutation {
    windows: (u32, u32),
    todo: Vec<u64>,
    killed: bool,
    /// A part is being rewritten.
    working: bool,
}

/// Where a statement's answer goes; a copy's goes nowhere.
type Client = Option<oneshot::Sender<Result<Answer, Failure>>>;

impl Server {
    pub(crate) fn new(seed: u64, begin_ms: i64, quiet_ms: i64, faults: Vec<Fault>, told: bool) -> Arc<Server> {
        let now = Instant::now();
        Arc::new(Server {
            state: Mutex::new(State {
                rng: StdRng::seed_from_u64(seed ^ 0x5eed),
                begin: now,
                begin_ms,
                quiet_ms,
                faults,
                seen: BTreeMap::new(),
                parts: BTreeMap::new(),
                parts_made: 0,
                held: BTreeMap::new(),
                emissions: Vec::new(),
                largest: None,
                running: BTreeMap::new(),
                mutations: BTreeMap::new(),
                statements: 0,
                crashes: 0,
                down_until: now,
                processes: Vec::new(),
                deeds: Vec::new(),
                wrong: None,
                trace: Xxh3::new(),
                happened: BTreeMap::new(),
                story: told.then(String::new),
            }),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Sends a statement for `process`, and waits for the answer as a client does.
    pub(crate) async fn ask(self: &Arc<Server>, process: usize, work: Work) -> Result<Answer, Failure> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.state();
            let kind = work.kind();
            let fault = state.reach(process, kind, Phase::Sent);
            let mut delay = Duration::from_millis(state.rng.random_range(0..20));
            let mut client = Some(answer);
            match fault {
                Some(What::Late(late_ms)) => delay += Duration::from_millis(late_ms as u64),
                Some(What::Twice(after_ms)) => {
                    let again = delay + Duration::from_millis(after_ms as u64);
                    tokio::spawn(self.clone().serve(process, work.clone(), again, None));
                }
                Some(What::Lose) => client = None,
                _ => {}
            }
            if client.is_some() {
                tokio::spawn(self.clone().serve(process, work, delay, client));
            }
        }
        match tokio::time::timeout(CLIENT_WAITS, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(unclear("no answer in time")),
        }
    }

    /// One statement in the server.
    async fn serve(self: Arc<Server>, process: usize, work: Work, delay: Duration, client: Client) {
        sleep(delay).await;
        let (kind, sent_to) = (work.kind(), self.state().crashes);
        let (id, mut ended, takes, mut fault, mutated) = {
            let mut state = self.state();
            if Instant::now() < state.down_until {
                drop(client.map(|client| client.send(Err(unclear("connection refused")))));
                return;
            }
            state.tell(process, "starts", &work);
            if let (Kind::Insert | Kind::Delete | Kind::Record, Some(owner)) = (kind, work.owner())
                && state.largest != Some(owner)
            {
                state.happens("refusals");
                let refused = Failure { kind: Why::Refused, said: "another owns the run".to_owned() };
                let answer = if kind == Kind::Delete { Ok(Answer::Nothing) } else { Err(refused) };
                drop(client.map(|client| client.send(answer)));
                return;
            }
            let fault = state.reach(process, kind, Phase::Started);
            state.statements += 1;
            let id = state.statements;
            let (end, ended) = oneshot::channel();
            state.running.insert(id, (work.clone(), end));
            // What a process that is gone has left running, others meet.
            let left = !state.processes[process].is_up();
            let slow = state.rng.random_bool(if left { 0.6 } else { 0.05 });
            let takes = Duration::from_millis(state.rng.random_range(1..if slow { 20_000 } else { 60 }));
            let mutated = if let Work::Delete(_, from_s, to_s) = work {
                let todo = state.parts_with(from_s, to_s);
                let mutation = Mutation { windows: (from_s, to_s), todo, killed: false, working: false };
                state.mutations.insert(id, mutation);
                let (done, mutated) = oneshot::channel();
                tokio::spawn(self.clone().mutate(id, done));
                Some(mutated)
            } else {
                None
            };
            (id, ended, takes, fault, mutated)
        };
        let applied = async {
            match mutated {
                Some(mutated) => drop(mutated.await),
                None => sleep(takes).await,
            }
        };
        let answer = tokio::select! {
            biased;
            _ = &mut ended => Err(unclear("killed")),
            () = applied => {
                let mut state = self.state();
                match state.running.remove(&id) {
                    None => Err(unclear("killed")),
                    Some(_) => {
                        let answer = state.apply(&work);
                        state.tell(process, "is done", &work);
                        fault = fault.or(state.reach(process, kind, Phase::Applied));
                        Ok(answer)
                    }
                }
            }
        };
        let delay = Duration::from_millis(self.state().rng.random_range(0..20));
        sleep(delay).await;
        let crashed = self.state().crashes != sent_to;
        let answer = match fault {
            Some(What::Silence) => return sleep(2 * CLIENT_WAITS).await,
            Some(What::Error) => Err(unclear("an error, whatever was done")),
            _ if crashed => Err(unclear("connection reset")),
            _ => answer,
        };
        drop(client.map(|client| client.send(answer)));
    }

    /// A DELETE's mutation: part by part.
    async fn mutate(self: Arc<Server>, id: u64, done: oneshot::Sender<()>) {
        loop {
            let (part, takes, crashes) = {
                let mut state = self.state();
                let slow = state.rng.random_bool(0.2);
                let takes = Duration::from_millis(state.rng.random_range(1..if slow { 20_000 } else { 400 }));
                let crashes = state.crashes;
                let mutation = state.mutations.get_mut(&id).expect("it takes itself out");
                if mutation.killed || mutation.todo.is_empty() {
                    state.mutations.remove(&id);
                    // Whoever waited may have gone.
                    let _ = done.send(());
                    return;
                }
                mutation.working = true;
                (mutation.todo[0], takes, crashes)
            };
            sleep(takes).await;
            let up = {
                let mut state = self.state();
                let up = state.down_until;
                let lost = state.crashes != crashes;
                let killed = state.mutations[&id].killed;
                // A killed mutation goes on with the part at hand, or does not.
                let given_up = lost || killed && state.rng.random_bool(0.5);
                if !given_up {
                    let (from_s, to_s) = state.mutations[&id].windows;
                    state.rewrite(part, from_s, to_s);
                    state.mutations.get_mut(&id).expect("it takes itself out").todo.remove(0);
                }
                state.mutations.get_mut(&id).expect("it takes itself out").working = false;
                up
            };
            sleep_until(up).await;
        }
    }

    /// Everything from here on goes well, and what was stopped goes on.
    pub(crate) fn calm(&self) {
        let state = self.state();
        state.processes.iter().for_each(|control| control.wake());
    }
}

fn unclear(said: &str) -> Failure {
    Failure { kind: Why::Unclear, said: said.to_owned() }
}

impl State {
    pub(crate) fn now_ms(&self) -> i64 {
        self.begin_ms + self.begin.elapsed().as_millis() as i64
    }

    /// A process that may send statements; its number.
    pub(crate) fn add_process(&mut self, control: Arc<Control>) -> usize {
        self.processes.push(control);
        self.processes.len() - 1
    }

    /// A statement has come to a phase: faults that wait for it happen. Those of the statement itself are given back.
    fn reach(&mut self, process: usize, kind: Kind, phase: Phase) -> Option<What> {
        let seen = self.seen.entry((kind, phase)).or_insert(0);
        let nth = *seen;
        *seen += 1;
        if self.now_ms() >= self.quiet_ms {
            return None;
        }
        let due = |when: When| matches!(when, When::On(k, p, n) if (k, p, n) == (kind, phase, nth));
        let due: Vec<What> = self.faults.iter().filter(|fault| due(fault.when)).map(|fault| fault.what).collect();
        let mut own = None;
        for what in due {
            self.happens(what.name());
            match what {
                What::Late(_) | What::Lose | What::Twice(_) | What::Error | What::Silence => own = Some(what),
                _ => self.fault(Some(process), what),
            }
        }
        own
    }

    /// Something goes wrong, to the process named or to all.
    pub(crate) fn fault(&mut self, process: Option<usize>, what: What) {
        let now_ms = self.now_ms();
        self.note(|| format!("{now_ms} {process:?} {what:?}"));
        let targets: Vec<Arc<Control>> = match process {
            Some(process) => vec![self.processes[process].clone()],
            None => self.processes.clone(),
        };
        match what {
            What::Kill => targets.iter().for_each(|control| control.kill()),
            What::Shutdown => targets.iter().for_each(|control| control.shut_down()),
            What::Stop(for_ms) => {
                for control in targets.into_iter().filter(|control| control.is_up()) {
                    control.stop();
                    tokio::spawn(async move {
                        sleep(Duration::from_millis(for_ms as u64)).await;
                        control.wake();
                    });
                }
            }
            What::Second => self.deeds.push(Deed::Second),
            What::Cut => self.deeds.push(Deed::Cut),
            What::Crash(down_ms) => self.crash(Duration::from_millis(down_ms as u64)),
            What::Late(_) | What::Lose | What::Twice(_) | What::Error | What::Silence => {
                unreachable!("faults of a statement")
            }
        }
    }

    /// SIGKILL: what ran is there or not; mutations go on afterwards.
    fn crash(&mut self, down: Duration) {
        self.crashes += 1;
        self.down_until = Instant::now() + down;
        self.end_queries(|_| true);
    }

    /// Those that run end: done or not done.
    fn end_queries(&mut self, which: fn(&Work) -> bool) {
        let (ending, others) = std::mem::take(&mut self.running).into_iter().partition(|(_, (work, _))| which(work));
        self.running = others;
        let ending: BTreeMap<u64, (Work, oneshot::Sender<()>)> = ending;
        for (work, _end) in ending.into_values() {
            let done = !matches!(work, Work::Delete(..)) && self.rng.random_bool(0.5);
            if matches!(work, Work::Insert(..)) {
                self.happens(if done { "INSERTs killed, and done" } else { "INSERTs killed, not done" });
            }
            if done {
                self.apply(&work);
            }
        }
    }

    fn apply(&mut self, work: &Work) -> Answer {
        match work {
            Work::Largest => return Answer::Number(self.largest.map_or(0, |owner| owner.number)),
            Work::Raise(owner) => self.largest = self.largest.max(Some(*owner)),
            // Those that have an id by which they are known as the run's.
            Work::KillQueries => self.end_queries(|work| {
                matches!(work, Work::Raise(_) | Work::Insert(..) | Work::Delete(..) | Work::Record(..))
            }),
            Work::Mutations => {
                let all = self.mutations.values();
                let unfinished = all.clone().filter(|mutation| !mutation.killed).count() as u64;
                let rewriting = all.filter(|mutation| mutation.working).count() as u64;
                return Answer::Mutations(Mutations { unfinished, rewriting });
            }
            Work::KillMutations => {
                self.happens("mutations killed");
                self.mutations.values_mut().for_each(|mutation| mutation.killed = true);
            }
            Work::Covered(from_s) => {
                let beyond = self.emissions.iter().filter(|batch| batch.to_s > *from_s);
                return Answer::Intervals(beyond.map(|batch| (batch.from_s, batch.to_s)).collect());
            }
            Work::Ask(from_s, to_s) => return Answer::Content(self.content(*from_s, *to_s)),
            Work::Insert(_, rows) => {
                self.happens("chunks inserted");
                self.parts_made += 1;
                for row in rows.iter() {
                    *self.held.entry(row.emitted_s()).or_default() += row.content();
                }
                self.parts.insert(self.parts_made, rows.to_vec());
                self.check("after an INSERT");
            }
            Work::Delete(..) => {}
            Work::Record(_, batch) => {
                if !self.emissions.contains(batch) {
                    let over = self.emissions.iter().find(|b| b.from_s < batch.to_s && batch.from_s < b.to_s);
                    if let Some(over) = over {
                        self.wrong.get_or_insert(format!("order: {batch:?} is done, and {over:?} was before"));
                    }
                    self.emissions.push(*batch);
                    self.happens("batches done");
                }
                self.check("after a batch was recorded");
            }
        }
        Answer::Nothing
    }

    /// Takes the windows' rows out of a part.
    fn rewrite(&mut self, part: u64, from_s: u32, to_s: u32) {
        self.happens("parts rewritten");
        let Some(rows) = self.parts.get_mut(&part) else { return };
        rows.retain(|row| !(from_s..to_s).contains(&row.emitted_s()));
        self.held.clear();
        for row in self.parts.values().flatten() {
            *self.held.entry(row.emitted_s()).or_default() += row.content();
        }
        self.check("after a DELETE");
    }

    fn parts_with(&self, from_s: u32, to_s: u32) -> Vec<u64> {
        let within = |rows: &&Vec<Row>| rows.iter().any(|row| (from_s..to_s).contains(&row.emitted_s()));
        self.parts.iter().filter(|(_, rows)| within(rows)).map(|(part, _)| *part).collect()
    }

    fn content(&self, from_s: u32, to_s: u32) -> Content {
        self.held.range(from_s..to_s).fold(Content::default(), |mut sum, (_, content)| {
            sum += *content;
            sum
        })
    }

    /// What is recorded as done is in the table exactly, at every moment.
    fn check(&mut self, when: &str) {
        let differs = self.emissions.iter().find(|batch| self.content(batch.from_s, batch.to_s) != batch.content);
        if let Some(batch) = differs {
            let held = self.content(batch.from_s, batch.to_s);
            self.wrong.get_or_insert(format!("exactly once: {when} {batch:?} is done and the table holds {held:?}"));
        }
    }

    /// Everything from `from_s` to here is done.
    pub(crate) fn complete_through_s(&self, from_s: u32) -> u32 {
        let mut at = from_s;
        while let Some(batch) = self.emissions.iter().find(|batch| batch.from_s <= at && at < batch.to_s) {
            at = batch.to_s;
        }
        at
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.parts.values().flatten()
    }

    pub(crate) fn statements(&self) -> u64 {
        self.statements
    }

    /// Equal for equal histories.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub(crate) fn story(&self) -> Option<&str> {
        self.story.as_deref()
    }

    pub(crate) fn uuid(&mut self) -> u128 {
        self.rng.random()
    }

    /// Counts it.
    pub(crate) fn happens(&mut self, what: &'static str) {
        *self.happened.entry(what).or_insert(0) += 1;
    }

    fn tell(&mut self, process: usize, what: &str, work: &Work) {
        let now_ms = self.now_ms();
        let work = match work {
            Work::Insert(owner, rows) => {
                let windows: BTreeSet<u32> = rows.iter().map(Row::emitted_s).collect();
                format!("Insert({:?}, {} rows of {windows:?})", owner.map(|owner| owner.number), rows.len())
            }
            other => format!("{other:?}"),
        };
        self.note(|| format!("{now_ms} {process} {work} {what}"));
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let line = line();
        self.trace.write(line.as_bytes());
        if let Some(story) = &mut self.story {
            let _ = writeln!(story, "{line}");
        }
    }
}
