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
use weir_schemas::{WindowStart, WindowWidth};
use weir_sink::{
    Content, Extent, Owner,
    table::{Failure, Kind as Why, Mutations, Recorded, State as Recording},
};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    control::Control,
    native::Row,
    plan::{Fault, Hurt, Kind, MINUTE_MS, Phase, Plan, Role, What, When},
};

/// How long a client waits for an answer.
const CLIENT_WAITS: Duration = Duration::from_secs(30);

/// What is given up ends so long before the faults do: after them a fresh event must come through.
const GIVEN_UP_BEFORE_MS: i64 = 6 * MINUTE_MS;

/// Restores of a history: each brings the runs back by minutes.
const RESTORES_MAX: u64 = 2;

/// What a statement does.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Largest,
    Raise(Owner),
    KillQueries,
    Mutations,
    KillMutations,
    Recorded(u32, u32),
    Left,
    Ask(u32, u32),
    /// The body's rows, decoded when it is applied.
    Insert(Option<Owner>, Arc<Vec<Row>>),
    Delete(Option<Owner>, u32, u32),
    Record(Option<Owner>, Recorded),
    Forget(Option<Owner>, u32, u32, Vec<Recording>),
    Standing,
    CopyRecord(u128),
    CopyRows(u128),
    Close,
    TakeOver(u128),
    BringRecord(u128),
    BringRows(u128),
    Open(u128),
}

/// What a statement answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Nothing,
    Number(u64),
    Mutations(Mutations),
    Records(Vec<Recorded>),
    Content(Content),
    Standing(Option<String>),
}

impl Work {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Work::Largest => Kind::Largest,
            Work::Raise(_) => Kind::Raise,
            Work::KillQueries => Kind::KillQueries,
            Work::Mutations => Kind::Mutations,
            Work::KillMutations => Kind::KillMutations,
            Work::Recorded(..) => Kind::Recorded,
            Work::Left => Kind::Left,
            Work::Ask(..) => Kind::Ask,
            Work::Insert(..) => Kind::Insert,
            Work::Delete(..) => Kind::Delete,
            Work::Record(_, recorded) => match recorded.state {
                Recording::Done => Kind::Record,
                Recording::Left => Kind::Leave,
                Recording::Lost => Kind::Lose,
            },
            Work::Forget(..) => Kind::Forget,
            Work::Standing => Kind::Standing,
            Work::CopyRecord(_) => Kind::CopyRecord,
            Work::CopyRows(_) => Kind::CopyRows,
            Work::Close => Kind::Close,
            Work::TakeOver(_) => Kind::TakeOver,
            Work::BringRecord(_) => Kind::BringRecord,
            Work::BringRows(_) => Kind::BringRows,
            Work::Open(_) => Kind::Open,
        }
    }

    fn owner(&self) -> Option<Owner> {
        match self {
            Work::Insert(owner, _) | Work::Delete(owner, ..) | Work::Record(owner, _) | Work::Forget(owner, ..) => {
                *owner
            }
            _ => None,
        }
    }

    /// Whether a mutation does it.
    fn takes_out(&self) -> bool {
        matches!(self, Work::Delete(..) | Work::Forget(..))
    }

    /// The restore that it is a deed of.
    fn restore(&self) -> Option<u128> {
        match self {
            Work::BringRecord(id) | Work::BringRows(id) | Work::Open(id) => Some(*id),
            _ => None,
        }
    }

    /// Whether `KILL QUERY` finds it, by an id that begins with the run's prefix, or, for a restore, with anybody's.
    fn is_known(&self) -> bool {
        let read = matches!(
            self.kind(),
            Kind::Largest | Kind::KillQueries | Kind::Mutations | Kind::KillMutations | Kind::Recorded | Kind::Left
        );
        !read && !matches!(self.kind(), Kind::Ask | Kind::Standing | Kind::Close | Kind::TakeOver)
    }
}

/// Something that is to be done to processes; the world does it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed {
    Second(Role),
    Cut,
}

/// A copy of the tables, as far as it was taken.
#[derive(Default)]
struct Copied {
    record: Option<Record>,
    rows: Option<Vec<Vec<Row>>>,
    /// Rows that somebody had hurt are in it: nobody brings it back.
    hurt: bool,
}

/// What `emissions` holds, windows in s.
#[derive(Debug, Clone, Default)]
struct Record {
    /// By their numbers, which are never used again.
    entries: BTreeMap<u64, Recorded>,
}

/// What a person has ordered.
struct Order {
    extent: Extent,
    due_ms: i64,
    done: bool,
}

/// A restore that is not over.
struct Restore {
    /// Which copy is brought back.
    copy: u128,
    /// Who is at it: others' deeds fail.
    by: u128,
}

struct Query {
    role: Role,
    work: Work,
    /// Dropped, it ends.
    _end: oneshot::Sender<()>,
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
    record: Record,
    entries_made: u64,
    width: WindowWidth,
    /// The first window of all, s.
    first_s: u32,
    orders: Vec<Order>,
    /// What was taken out of the record, ever.
    forgotten: u64,
    /// How often the record has become a copy's.
    brought: u64,
    /// Mutations that have come to their end.
    mutated: u64,
    /// Windows that somebody has hurt, s, with what they must hold.
    hurt: BTreeMap<u32, Content>,
    /// Of each run the largest; `None`: there is no such table.
    owners: Option<BTreeMap<Role, Owner>>,
    /// How often `owners` was made.
    owners_made: u64,
    /// The queries that have started.
    running: BTreeMap<u64, Query>,
    mutations: BTreeMap<u64, Mutation>,
    statements: u64,
    crashes: u64,
    down_until: Instant,
    processes: Vec<(Arc<Control>, Role)>,
    copies: BTreeMap<u128, Copied>,
    /// The last copy that is whole.
    copy: Option<u128>,
    restore: Option<Restore>,
    pub(crate) restores: u64,
    /// Until when live is paused.
    pub(crate) paused_ms: i64,
    /// From where live was told to go on.
    pub(crate) live_first_ms: Option<i64>,
    pub(crate) deeds: Vec<Deed>,
    pub(crate) wrong: Option<String>,
    trace: Xxh3,
    /// What has happened how often: histories in which nothing does prove nothing.
    pub(crate) happened: BTreeMap<&'static str, u64>,
    /// The last statements, for who wants to know how it came.
    story: Option<String>,
}

impl Record {
    fn of(&self, state: Recording) -> impl Iterator<Item = &Recorded> {
        self.entries.values().filter(move |of| of.state == state)
    }

    /// The first instant from `from_s` on that nothing in these states covers.
    fn through_s(&self, from_s: u32, states: &[Recording]) -> u32 {
        let mut at = from_s;
        let covers = |at: u32| {
            let mut entries = self.entries.values().filter(|of| states.contains(&of.state));
            entries.find(|of| of.from_s <= at && at < of.to_s).map(|of| of.to_s)
        };
        while let Some(to_s) = covers(at) {
            at = to_s;
        }
        at
    }

    fn complete_from_s(&self, from_s: u32) -> u32 {
        self.through_s(from_s, &[Recording::Done, Recording::Lost])
    }
}

struct Mutation {
    role: Role,
    windows: (u32, u32),
    /// Parts, or entries of the record, by number.
    todo: Vec<u64>,
    of_record: bool,
    killed: bool,
    /// A part is being rewritten.
    working: bool,
}

/// Where a statement's answer goes; a copy's goes nowhere.
type Client = Option<oneshot::Sender<Result<Answer, Failure>>>;

impl Server {
    pub(crate) fn new(plan: &Plan, told: bool) -> Arc<Server> {
        let now = Instant::now();
        let first_s = (plan.first().ms() / 1_000) as u32;
        Arc::new(Server {
            state: Mutex::new(State {
                rng: StdRng::seed_from_u64(plan.seed ^ 0x5eed),
                begin: now,
                begin_ms: plan.begin_ms,
                quiet_ms: plan.quiet_ms,
                faults: plan.faults.clone(),
                seen: BTreeMap::new(),
                parts: BTreeMap::new(),
                parts_made: 0,
                held: BTreeMap::new(),
                record: Record::default(),
                entries_made: 0,
                width: plan.version.width,
                first_s,
                orders: Vec::new(),
                forgotten: 0,
                brought: 0,
                mutated: 0,
                hurt: BTreeMap::new(),
                owners: Some(BTreeMap::new()),
                owners_made: 1,
                running: BTreeMap::new(),
                mutations: BTreeMap::new(),
                statements: 0,
                crashes: 0,
                down_until: now,
                processes: Vec::new(),
                copies: BTreeMap::new(),
                copy: None,
                restore: None,
                restores: 0,
                paused_ms: i64::MIN,
                live_first_ms: None,
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
    pub(crate) async fn ask(self: &Arc<Server>, process: usize, role: Role, work: Work) -> Result<Answer, Failure> {
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
                    tokio::spawn(self.clone().serve(process, role, work.clone(), again, None));
                }
                Some(What::Lose) => client = None,
                _ => {}
            }
            if client.is_some() {
                tokio::spawn(self.clone().serve(process, role, work, delay, client));
            }
        }
        match tokio::time::timeout(CLIENT_WAITS, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(unclear("no answer in time")),
        }
    }

    /// One statement in the server.
    async fn serve(self: Arc<Server>, process: usize, role: Role, work: Work, delay: Duration, client: Client) {
        sleep(delay).await;
        let (kind, sent_to) = (work.kind(), self.state().crashes);
        let (id, mut ended, takes, mut fault, mutated) = {
            let mut state = self.state();
            if Instant::now() < state.down_until {
                drop(client.map(|client| client.send(Err(unclear("connection refused")))));
                return;
            }
            state.tell(process, "starts", &work);
            if let Some(refused) = state.refusal(role, &work) {
                drop(client.map(|client| client.send(refused)));
                return;
            }
            let fault = state.reach(process, kind, Phase::Started);
            state.statements += 1;
            let id = state.statements;
            let (end, ended) = oneshot::channel();
            state.running.insert(id, Query { role, work: work.clone(), _end: end });
            // What a process that is gone has left running, others meet.
            let left = !state.processes[process].0.is_up();
            let slow = state.rng.random_bool(if left { 0.6 } else { 0.05 });
            let most_ms = match kind {
                // All rows are read, or written.
                Kind::CopyRecord | Kind::CopyRows | Kind::BringRows => 25_000,
                _ if slow => 20_000,
                _ => 60,
            };
            let takes = Duration::from_millis(state.rng.random_range(1..most_ms));
            let mutation = match &work {
                Work::Delete(_, from_s, to_s) => Some((*from_s, *to_s, state.parts_with(*from_s, *to_s), false)),
                Work::Forget(_, from_s, to_s, states) => {
                    state.forgotten += 1;
                    Some((*from_s, *to_s, state.entries_with(*from_s, *to_s, states), true))
                }
                _ => None,
            };
            let mutated = mutation.map(|(from_s, to_s, todo, of_record)| {
                let mutation =
                    Mutation { role, windows: (from_s, to_s), todo, of_record, killed: false, working: false };
                state.mutations.insert(id, mutation);
                let (done, mutated) = oneshot::channel();
                tokio::spawn(self.clone().mutate(id, done));
                mutated
            });
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
                    Some(query) => {
                        let answer = state.apply(query.role, &work);
                        state.tell(process, "is done", &work);
                        fault = fault.or(state.reach(process, kind, Phase::Applied));
                        answer
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
                    let over = state.mutations.remove(&id).expect("it is there");
                    state.mutated += u64::from(!over.killed);
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
                    if state.mutations[&id].of_record {
                        state.record.entries.remove(&part);
                        state.happens("records forgotten");
                    } else {
                        state.rewrite(part, from_s, to_s);
                    }
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
        state.processes.iter().for_each(|(control, _)| control.wake());
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
    pub(crate) fn add_process(&mut self, control: Arc<Control>, role: Role) -> usize {
        self.processes.push((control, role));
        self.processes.len() - 1
    }

    /// A statement has come to a phase: faults that wait for it happen. Those of the statement itself are given back.
    pub(crate) fn reach(&mut self, process: usize, kind: Kind, phase: Phase) -> Option<What> {
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
            Some(process) => vec![self.processes[process].0.clone()],
            None => self.processes.iter().map(|(control, _)| control.clone()).collect(),
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
            What::Second => {
                self.deeds.push(Deed::Second(process.map_or(Role::Live, |process| self.processes[process].1)))
            }
            What::Cut => self.deeds.push(Deed::Cut),
            What::Crash(down_ms) => self.crash(Duration::from_millis(down_ms as u64)),
            What::Pause(for_ms) => {
                self.paused_ms = self.paused_ms.max(now_ms + for_ms);
                self.shut_down(Role::Live);
            }
            What::LiveFirst(ago_ms) => {
                self.live_first_ms = self.live_first_ms.max(Some(now_ms - ago_ms));
                // As the supervisor: it goes on with another order.
                self.shut_down(Role::Live);
            }
            What::Resume => {
                self.live_first_ms = None;
                self.shut_down(Role::Live);
            }
            What::AskAgain(ago_ms) => {
                let from = self.width.window_of(now_ms - ago_ms).max(self.window(self.first_s));
                self.order(Extent::From(from), now_ms);
            }
            What::GiveUp(ago_ms, for_ms) => self.give_up(now_ms - ago_ms, now_ms - ago_ms + for_ms, now_ms),
            What::Hurt(how) => self.hurt(how, now_ms),
            What::Copy => self.deeds.push(Deed::Second(Role::Copy)),
            What::Restore => {
                if let (Some(copy), true) = (self.copy, self.restores < RESTORES_MAX) {
                    self.restores += 1;
                    self.restore.get_or_insert(Restore { copy, by: 0 });
                }
            }
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

    fn shut_down(&self, role: Role) {
        self.processes.iter().filter(|(_, of)| *of == role).for_each(|(control, _)| control.shut_down());
    }

    fn window(&self, at_s: u32) -> WindowStart {
        self.width.window_of(i64::from(at_s) * 1_000)
    }

    fn give_up(&mut self, from_ms: i64, to_ms: i64, due_ms: i64) {
        let from = self.width.window_of(from_ms).max(self.window(self.first_s));
        let to = self.width.next(self.width.window_of(to_ms.min(self.quiet_ms - GIVEN_UP_BEFORE_MS)));
        if from < to {
            self.order(Extent::Lost { from, to }, due_ms);
        }
    }

    fn order(&mut self, extent: Extent, due_ms: i64) {
        self.note(|| format!("ordered {extent:?} {due_ms}"));
        self.orders.push(Order { extent, due_ms, done: false });
        // The supervisor starts live with the order, or a second one has it while the first is at work.
        if self.rng.random_bool(0.5) {
            self.shut_down(Role::Live);
        } else {
            self.deeds.push(Deed::Second(Role::Live));
        }
    }

    /// A row of a window that is done is not there any more, or twice; after a while somebody orders something that
    /// reaches into its batch.
    fn hurt(&mut self, how: Hurt, now_ms: i64) {
        if self.restore.is_some() {
            return;
        }
        let before_s = ((self.quiet_ms - GIVEN_UP_BEFORE_MS) / 1_000) as u32;
        let done: Vec<Recorded> = self.record.of(Recording::Done).copied().collect();
        let done: Vec<Recorded> = done.into_iter().filter(|of| of.content.rows > 0 && of.from_s < before_s).collect();
        let Some(of) = (!done.is_empty()).then(|| done[self.rng.random_range(0..done.len())]) else { return };
        let within = |row: &Row| (of.from_s..of.to_s).contains(&row.emitted_s());
        let all: Vec<(u64, usize)> = self
            .parts
            .iter()
            .flat_map(|(part, rows)| rows.iter().enumerate().map(move |(nth, row)| (*part, nth, row)))
            .filter(|(.., row)| within(row))
            .map(|(part, nth, _)| (part, nth))
            .collect();
        let Some((part, nth)) = (!all.is_empty()).then(|| all[self.rng.random_range(0..all.len())]) else { return };
        let rows = self.parts.get_mut(&part).expect("it is there");
        let window_s = rows[nth].emitted_s();
        self.hurt.entry(window_s).or_insert_with(|| self.held.get(&window_s).copied().unwrap_or_default());
        match how {
            Hurt::RowGone => drop(rows.remove(nth)),
            Hurt::RowTwice => rows.push(rows[nth].clone()),
        }
        self.note(|| format!("{now_ms} window {window_s} of {of:?} is hurt"));
        self.count_held();
        self.happens("windows hurt");
        let width_s = (self.width.ms() / 1_000) as u32;
        let windows = (of.to_s - of.from_s) / width_s;
        let from_s = of.from_s + width_s * self.rng.random_range(0..windows);
        let due_ms = now_ms + self.rng.random_range(0..2 * MINUTE_MS);
        if self.rng.random_bool(0.5) {
            self.order(Extent::From(self.window(from_s)), due_ms);
        } else {
            let to_s = from_s.min(before_s - 1) + width_s * self.rng.random_range(0..2 * windows);
            self.give_up(i64::from(from_s.min(before_s - 1)) * 1_000, i64::from(to_s) * 1_000, due_ms);
        }
    }

    /// What was ordered is done soon.
    pub(crate) fn hurry(&mut self) {
        let now_ms = self.now_ms();
        self.orders.iter_mut().for_each(|order| order.due_ms = order.due_ms.min(now_ms));
        if self.has_orders() {
            self.shut_down(Role::Live);
        }
    }

    pub(crate) fn has_orders(&self) -> bool {
        self.orders.iter().any(|order| !order.done)
    }

    /// The first window after `at_s` of which something is recorded as done or lost, s.
    pub(crate) fn recorded_after_s(&self, at_s: u32) -> Option<u32> {
        let complete = self.record.entries.values().filter(|of| of.state != Recording::Left && of.from_s > at_s);
        complete.map(|of| of.from_s).min()
    }

    /// What live does before anything else, oldest first, with their numbers.
    pub(crate) fn orders(&self) -> Vec<(usize, Extent)> {
        let now_ms = self.now_ms();
        let due = self.orders.iter().enumerate().filter(|(_, order)| !order.done && order.due_ms <= now_ms);
        due.map(|(number, order)| (number, order.extent)).collect()
    }

    pub(crate) fn ordered(&mut self, number: usize) {
        self.orders[number].done = true;
        self.happens(match self.orders[number].extent {
            Extent::From(_) | Extent::Again { .. } => "windows taken back",
            Extent::Lost { .. } => "windows given up",
        });
    }

    /// Why a statement does nothing, and what it answers: its fence, looked at when it starts.
    fn refusal(&mut self, role: Role, work: &Work) -> Option<Result<Answer, Failure>> {
        let refused = |said: &str| Some(Err(Failure { kind: Why::Refused, said: said.to_owned() }));
        if work.restore().is_some_and(|by| self.restore.as_ref().is_none_or(|restore| restore.by != by)) {
            self.happens("restores taken over");
            return refused("another restore has taken over");
        }
        let asks = matches!(work, Work::Raise(_) | Work::Largest) || work.owner().is_some();
        match &self.owners {
            None if asks => {
                self.happens("refusals without owners");
                refused("there is no table owners")
            }
            Some(owners) if work.owner().is_some() && owners.get(&role) != work.owner().as_ref() => {
                self.happens("refusals");
                if work.takes_out() { Some(Ok(Answer::Nothing)) } else { refused("another owns the run") }
            }
            _ => None,
        }
    }

    /// Those that run end: done or not done.
    fn end_queries(&mut self, which: impl Fn(&Query) -> bool) {
        let (ending, others) = std::mem::take(&mut self.running).into_iter().partition(|(_, query)| which(query));
        self.running = others;
        let ending: BTreeMap<u64, Query> = ending;
        for Query { role, work, .. } in ending.into_values() {
            let done = !work.takes_out() && self.rng.random_bool(0.5);
            if matches!(work, Work::Insert(..)) {
                self.happens(if done { "INSERTs killed, and done" } else { "INSERTs killed, not done" });
            }
            if done {
                // It is answered that it was killed.
                let _ = self.apply(role, &work);
            }
        }
    }

    fn apply(&mut self, role: Role, work: &Work) -> Result<Answer, Failure> {
        // A restore ends everybody's.
        let is_its = move |of: Role| role == Role::Restore || of == role;
        match work {
            Work::Largest => {
                let owner = self.owners.as_ref().and_then(|owners| owners.get(&role));
                return Ok(Answer::Number(owner.map_or(0, |owner| owner.number)));
            }
            // Without such a table it goes into the one that was dropped.
            Work::Raise(owner) => {
                if let Some(owners) = &mut self.owners {
                    let largest = owners.entry(role).or_insert(*owner);
                    *largest = (*largest).max(*owner);
                }
            }
            Work::KillQueries => self.end_queries(|query| query.work.is_known() && is_its(query.role)),
            Work::Mutations => {
                let all = self.mutations.values();
                let unfinished =
                    all.clone().filter(|mutation| !mutation.killed && is_its(mutation.role)).count() as u64;
                let rewriting = all.filter(|mutation| mutation.working).count() as u64;
                return Ok(Answer::Mutations(Mutations { unfinished, rewriting }));
            }
            Work::KillMutations => {
                self.happens("mutations killed");
                let its = self.mutations.values_mut().filter(|mutation| is_its(mutation.role));
                its.for_each(|mutation| mutation.killed = true);
            }
            Work::Recorded(from_s, to_s) => {
                let all = self.record.entries.values().filter(|of| of.to_s > *from_s && of.from_s < *to_s);
                return Ok(Answer::Records(all.copied().collect()));
            }
            Work::Left => return Ok(Answer::Records(self.record.of(Recording::Left).copied().collect())),
            Work::Ask(from_s, to_s) => return Ok(Answer::Content(self.content(*from_s, *to_s))),
            Work::Insert(_, rows) => {
                self.happens("chunks inserted");
                self.parts_made += 1;
                for row in rows.iter() {
                    *self.held.entry(row.emitted_s()).or_default() += row.content();
                }
                self.parts.insert(self.parts_made, rows.to_vec());
                self.hurt.retain(|window_s, content| self.held.get(window_s) != Some(content));
                self.check("after an INSERT");
            }
            Work::Delete(..) | Work::Forget(..) => {}
            Work::Record(_, of) => {
                // What remains of a batch is recorded before that goes.
                let rest = |whole: &Recorded| {
                    let within = whole.from_s <= of.from_s && of.to_s <= whole.to_s;
                    within && (whole.from_s == of.from_s || whole.to_s == of.to_s)
                };
                if of.state == Recording::Done {
                    let mut over = self.record.of(Recording::Done).filter(|b| b.from_s < of.to_s && of.from_s < b.to_s);
                    if let Some(over) = over.find(|over| !rest(over)) {
                        self.wrong.get_or_insert(format!("order: {of:?} is done, and {over:?} was before"));
                    }
                }
                self.entries_made += 1;
                self.record.entries.insert(self.entries_made, *of);
                self.happens(match of.state {
                    Recording::Done => "batches done",
                    Recording::Left => "ranges left",
                    Recording::Lost => "ranges lost",
                });
                self.check("after a batch was recorded");
            }
            Work::Standing => {
                let still = self.mutations.values().all(|mutation| mutation.killed);
                let stands = self.owners.is_some() && still && self.done_and_lost().is_none();
                return Ok(Answer::Standing(stands.then(|| format!("{} {}", self.owners_made, self.mutated))));
            }
            Work::CopyRecord(id) => {
                self.copies.entry(*id).or_default().record = Some(self.record.clone());
            }
            Work::CopyRows(id) => {
                let rows = self.parts.values().cloned().collect();
                let copied = self.copies.entry(*id).or_default();
                copied.rows = Some(rows);
                copied.hurt = !self.hurt.is_empty();
            }
            Work::Close => {
                self.owners = None;
                // A second restore closes again what the first has opened: that too is gone on with to its end.
                if let (None, Some(copy)) = (&self.restore, self.copy) {
                    self.restores += 1;
                    self.restore = Some(Restore { copy, by: 0 });
                }
            }
            Work::TakeOver(id) => {
                if let Some(restore) = &mut self.restore {
                    restore.by = *id;
                }
            }
            Work::BringRecord(id) => {
                let Record { entries } = self.copied(*id)?.record.clone().expect("a whole copy");
                let first = self.entries_made + 1;
                self.brought += 1;
                self.record = Record { entries: (first..).zip(entries.into_values()).collect() };
                self.entries_made += self.record.entries.len() as u64;
            }
            Work::BringRows(id) => {
                let rows = self.copied(*id)?.rows.clone().expect("a whole copy");
                self.hurt.clear();
                let covered = |row: &Row| {
                    self.record.of(Recording::Done).any(|of| (of.from_s..of.to_s).contains(&row.emitted_s()))
                };
                let parts = rows.into_iter().map(|part| part.into_iter().filter(covered).collect::<Vec<Row>>());
                let first = self.parts_made + 1;
                self.parts = (first..).zip(parts).collect();
                self.parts_made = first + self.parts.len() as u64;
                self.count_held();
            }
            Work::Open(id) => {
                self.copied(*id)?;
                self.owners = Some(BTreeMap::new());
                self.owners_made += 1;
                self.restore = None;
                self.happens("restored");
                self.check("after a restore");
            }
        }
        Ok(Answer::Nothing)
    }

    /// The copy that the restore brings back, if it is the one that is at it.
    fn copied(&self, by: u128) -> Result<&Copied, Failure> {
        let restore = self.restore.as_ref().filter(|restore| restore.by == by);
        let restore = restore.ok_or_else(|| unclear("another restore has taken over"))?;
        Ok(&self.copies[&restore.copy])
    }

    /// A copy is whole.
    pub(crate) fn copied_whole(&mut self, id: u128) {
        if !self.copies[&id].hurt {
            self.happens("whole copies");
            self.copy = Some(id);
        }
    }

    pub(crate) fn is_restoring(&self) -> bool {
        self.restore.is_some()
    }

    /// Whether something that was left is not done.
    pub(crate) fn has_gap(&self) -> bool {
        self.record.of(Recording::Left).any(|left| self.record.complete_from_s(left.from_s) < left.to_s)
    }

    fn entries_with(&self, from_s: u32, to_s: u32, states: &[Recording]) -> Vec<u64> {
        let reaches = |of: &Recorded| states.contains(&of.state) && of.from_s < to_s && from_s < of.to_s;
        self.record.entries.iter().filter(|(_, of)| reaches(of)).map(|(number, _)| *number).collect()
    }

    /// Takes the windows' rows out of a part.
    fn rewrite(&mut self, part: u64, from_s: u32, to_s: u32) {
        self.happens("parts rewritten");
        let Some(rows) = self.parts.get_mut(&part) else { return };
        rows.retain(|row| !(from_s..to_s).contains(&row.emitted_s()));
        self.hurt.retain(|window_s, _| !(from_s..to_s).contains(window_s));
        self.count_held();
        self.check("after a DELETE");
    }

    fn count_held(&mut self) {
        self.held.clear();
        for row in self.parts.values().flatten() {
            *self.held.entry(row.emitted_s()).or_default() += row.content();
        }
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

    /// What is recorded as done is in the table exactly, at every moment but within a restore.
    fn check(&mut self, when: &str) {
        if self.restore.is_some() {
            return;
        }
        let differs = self.record.of(Recording::Done).find(|of| self.unhurt(of.from_s, of.to_s) != of.content);
        if let Some(of) = differs {
            let held = self.unhurt(of.from_s, of.to_s);
            self.wrong.get_or_insert(format!("exactly once: {when} {of:?} is done and the table holds {held:?}"));
        }
    }

    /// What the windows would hold if nobody had hurt any.
    fn unhurt(&self, from_s: u32, to_s: u32) -> Content {
        let windows: BTreeSet<u32> = self
            .held
            .range(from_s..to_s)
            .map(|(at_s, _)| *at_s)
            .chain(self.hurt.range(from_s..to_s).map(|(at_s, _)| *at_s))
            .collect();
        windows.iter().fold(Content::default(), |mut sum, at_s| {
            sum += self.hurt.get(at_s).or(self.held.get(at_s)).copied().unwrap_or_default();
            sum
        })
    }

    /// Everything from `from_s` to here is done, or lost.
    pub(crate) fn complete_through_s(&self, from_s: u32) -> u32 {
        self.record.complete_from_s(from_s)
    }

    /// Everything from `from_s` to here is done, lost or left.
    pub(crate) fn covered_through_s(&self, from_s: u32) -> u32 {
        self.record.through_s(from_s, &[Recording::Done, Recording::Lost, Recording::Left])
    }

    /// How often something was taken out of the record, or the record was another.
    pub(crate) fn taken(&self) -> u64 {
        self.forgotten + self.brought
    }

    /// Windows that are lost, s.
    pub(crate) fn lost(&self) -> Vec<(u32, u32)> {
        self.record.of(Recording::Lost).map(|of| (of.from_s, of.to_s)).collect()
    }

    /// What is recorded as both: it is being given up.
    fn done_and_lost(&self) -> Option<Recorded> {
        let lost = self.lost();
        let both = |of: &&Recorded| lost.iter().any(|(from_s, to_s)| of.from_s < *to_s && *from_s < of.to_s);
        self.record.of(Recording::Done).find(both).copied()
    }

    /// What is recorded over something else, or is lost although nobody gave it up.
    pub(crate) fn misrecorded(&self) -> Option<String> {
        let mut done: Vec<Recorded> = self.record.of(Recording::Done).copied().collect();
        done.sort_unstable_by_key(|of| (of.from_s, of.to_s));
        done.dedup();
        let over = done.windows(2).find(|pair| pair[1].from_s < pair[0].to_s);
        if let Some(pair) = over {
            return Some(format!("order: {:?} and {:?} are done over each other", pair[0], pair[1]));
        }
        if let Some(of) = self.done_and_lost() {
            return Some(format!("given up: {of:?} is done and lost"));
        }
        let given_up = |at: WindowStart| {
            let within = |order: &Order| matches!(order.extent, Extent::Lost { from, to } if from <= at && at < to);
            self.orders.iter().any(within)
        };
        let width_s = (self.width.ms() / 1_000) as usize;
        let mut windows = self.lost().into_iter().flat_map(|(from_s, to_s)| (from_s..to_s).step_by(width_s));
        let strange = windows.find(|at_s| !given_up(self.window(*at_s)));
        strange.map(|at_s| format!("given up: window {at_s} s is lost, and nobody gave it up"))
    }

    /// Before here no run reads any more, also not after a restore.
    pub(crate) fn needed_from_s(&self, from_s: u32) -> u32 {
        let copied = self.copies.values().filter_map(|copied| copied.record.as_ref());
        let copied = copied.map(|record| record.complete_from_s(from_s));
        copied.fold(self.complete_through_s(from_s), u32::min)
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
