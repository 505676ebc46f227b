//! The operators' API: a verb becomes a record of the control topic, or is refused with the way out.
//!
//! ```text
//!  POST /api/runs/RUN/pause|resume|throttle   Command ──▶ Reply   (the same id again: the same Reply, with what came of it)
//!  POST /api/maintenances   Announcement ──▶ Reply      POST /api/maintenances/ID/cancel   Announcement ──▶ Reply
//!  GET  /api/clock   an id for the next command      GET /api/log   who did what, when and why
//! ```
//!
//! Invariants
//! - nothing is written without a token of the role, in a header; one in a URL is refused
//! - a command is answered after its record is durable, and is the one that counts
//! - times are by the clock of the console
//! - a log that does not answer keeps from nobody what can be said without it

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicI64, Ordering},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequestParts, Path, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{info, warn};
use weir_log::{Clock, ControlLog, Log, LogError};
use weir_schemas::{
    Hold, Recoveries, SHADOW, SchemaVersion, World,
    control::{Action, ControlRecord, EVENTS_TOPIC, GAP_RUN, import_run, import_topic},
    kind_of,
    progress::RunProgress,
};

use crate::{
    Announcement, announce, guard,
    maintenance::maintenances,
    snapshot::{ImportState, LIVE, RunStatus, fold_imports, gaps, observe_run, spans},
    token::{self, Role, Token},
    verbs::{self, Command, Known, Planned, Refusal, Verb},
};

/// A command is some hundred bytes.
const BODY_BYTES_MAX: usize = 16 << 10;
/// A client may send a command again for so long, and have the same answer.
const ID_AGE_MAX_MS: i64 = 24 * 60 * 60 * 1000;
/// Another console's clock may be ahead by so much.
const ID_AHEAD_MAX_MS: i64 = 60 * 1000;
/// Over so long it is counted how many records come in.
const ARRIVAL_OVER_MS: i64 = 10 * 60 * 1000;

/// Where operators' commands are taken.
pub struct Desk {
    tokens: Vec<Token>,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    version: SchemaVersion,
    /// The newest id that was given.
    newest_id: AtomicI64,
    /// One command at a time, as long as the log takes: held by threads that may block.
    turn: Mutex<()>,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    pub id: i64,
    /// When it was decided, ms since the Unix epoch.
    pub at_ms: i64,
    pub who: String,
    pub action: Action,
    /// It took effect: everything before is in the table.
    pub through_ms: Option<i64>,
    /// So long a pause loses nothing; `None`: for ever, or not known.
    pub safe_until_ms: Option<i64>,
    /// What it means, a sentence each; of a command that comes again, when it came.
    pub said: Vec<String>,
    /// When the run was last heard of.
    pub heard_ms: Option<i64>,
    /// Why it has stopped, if it has: it goes on only when a person has said so.
    #[serde(default)]
    pub stopped: Option<String>,
    /// Of a throttle: thousandths of the time that the run works at most, since it has heard of it.
    #[serde(default)]
    pub works_permille: Option<u16>,
    /// Of a throttle that has nothing to take effect on: why, and when it counts.
    #[serde(default)]
    pub later: Option<String>,
    /// Who has ordered the contrary since, if anybody has.
    #[serde(default)]
    pub ended: Option<Ended>,
}

impl Reply {
    /// Of which nothing has come yet.
    fn new(id: i64, at_ms: i64, who: String, action: Action) -> Reply {
        let (through_ms, safe_until_ms, said, heard_ms, stopped) = (None, None, Vec::new(), None, None);
        let (works_permille, later, ended) = (None, None, None);
        Reply {
            id,
            at_ms,
            who,
            action,
            through_ms,
            safe_until_ms,
            said,
            heard_ms,
            stopped,
            works_permille,
            later,
            ended,
        }
    }
}

/// What ended a pause, paused again, or gave another share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When it was ordered, ms since the Unix epoch.
    pub at_ms: i64,
    pub who: String,
    pub reason: String,
}

/// The answer of `/api/clock`, and the body of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleClock {
    pub at_ms: i64,
}

impl Desk {
    pub fn new(tokens: Vec<Token>, log: Arc<dyn Log>, clock: Arc<dyn Clock>, version: SchemaVersion) -> Desk {
        Desk { tokens, log, clock, version, newest_id: AtomicI64::new(0), turn: Mutex::new(()) }
    }

    /// An id that was not given before; waits for nobody.
    fn next_id(&self) -> i64 {
        let now_ms = self.clock.now_ms();
        let after = |newest: i64| (newest + 1).max(now_ms);
        let before = self.newest_id.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |newest| Some(after(newest)));
        after(before.expect("there is always one"))
    }

    fn control(&self) -> Result<ControlLog, Failure> {
        let control = ControlLog::look(self.log.clone())?;
        control
            .ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "nothing has run on this log yet (start `weir serve`)"))
    }

    fn read(&self) -> Result<(ControlLog, World), Failure> {
        let control = self.control()?;
        let world = World::of(control.read_all()?.records.iter().map(|(_, record)| record));
        Ok((control, world))
    }

    /// Blocks the thread.
    fn command(&self, run: &str, verb: Verb, command: &Command, token: &Token) -> Result<Reply, Failure> {
        // What writes nothing waits for nobody.
        let _turn = (!command.dry_run).then(|| self.turn.lock().unwrap_or_else(PoisonError::into_inner));
        let (control, world) = self.read()?;
        let own = kind_of(run).0.is_some().then(|| world.roles.role(run));
        let run = own.as_deref().unwrap_or(run);
        let now_ms = self.clock.now_ms();
        if let Some(id) = command.id {
            if let Some(record) = world.control.iter().find(|record| id_of(record) == Some(id)) {
                return self.answer_again(run, verb, id, record, &world);
            }
            check_id(id, now_ms)?;
        }
        let id = command.id.unwrap_or_else(|| self.next_id());
        let mut known = self.know(run, verb == Verb::Pause, &world, now_ms)?;
        if run == LIVE && command.live_first && !command.dry_run && known.hold.paused().is_some() {
            // Where the present begins is for the log's clock to say, which stamps what is appended to it.
            let tick = weir_schemas::wire::tick_record(now_ms).into();
            known.log_now_ms = futures::executor::block_on(self.log.append(EVENTS_TOPIC, 0, tick, None))?.stamp_ms;
        }
        let planned = verbs::decide(&known, verb, command, id)?;
        let who = who(token, &command.user);
        let reason = command.reason.trim().to_owned();
        let action = of_run(&planned.action, world.roles.run(run).unwrap_or_default());
        let record = ControlRecord { at_ms: now_ms, who, reason, action };
        let heard_ms = known.progress.as_ref().map(|progress| progress.at_ms);
        let stopped = why_stopped(&known);
        if !command.dry_run {
            futures::executor::block_on(control.append(&record))?;
            info!(run, ?verb, who = record.who, reason = record.reason, "ordered");
            let world = World::of(control.read_all()?.records.iter().map(|(_, record)| record));
            let hold = Hold::of(run, &world.control);
            if !counts(&hold, &planned.action) {
                // Another console was quicker: this is refused for what that one has done.
                let known = Known { hold, ..known };
                verbs::decide(&known, verb, command, id)?;
                return Err(Failure::new(
                    StatusCode::CONFLICT,
                    "somebody has ordered something else meanwhile (see `weir log`)",
                ));
            }
        }
        let Planned { action, safe_until_ms, said } = planned;
        let later = verbs::later(&known, verb);
        Ok(Reply { safe_until_ms, said, heard_ms, stopped, later, ..Reply::new(id, now_ms, record.who, action) })
    }

    /// Announces a maintenance, or withdraws the one of the id `withdraws`. The same again, by its id, is answered as the
    /// first time. Blocks the thread.
    fn announce(&self, withdraws: Option<i64>, announcement: &Announcement, token: &Token) -> Result<Reply, Failure> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (control, World { control: records, .. }) = self.read()?;
        let now_ms = self.clock.now_ms();
        let id = announcement.id.unwrap_or_else(|| self.next_id());
        let (record, said) = match records.iter().find(|record| id_of(record) == Some(id)) {
            Some(record) => match (&record.action, withdraws) {
                (Action::MaintenancePlanned { .. }, None) => (record.clone(), format!("maintenance {id} is announced")),
                (Action::MaintenanceCancelled { id: of, .. }, Some(withdrawn)) if *of == withdrawn => {
                    (record.clone(), format!("maintenance {of} is withdrawn"))
                }
                _ => return Err(of_another(id)),
            },
            None => {
                check_id(id, now_ms)?;
                let (action, said) = match withdraws {
                    None => announce::plan(announcement, id, now_ms)?,
                    Some(of) => announce::cancel(&maintenances(&records, now_ms), of, id)?,
                };
                let who = who(token, &announcement.user);
                let reason = announcement.reason.trim().to_owned();
                let record = ControlRecord { at_ms: now_ms, who, reason, action };
                if !announcement.dry_run {
                    futures::executor::block_on(control.append(&record))?;
                    info!(said, who = record.who, reason = record.reason, "announced");
                }
                (record, said)
            }
        };
        let ControlRecord { at_ms, who, action, .. } = record;
        Ok(Reply { said: vec![said], ..Reply::new(id, at_ms, who, action) })
    }

    fn answer_again(
        &self,
        run: &str,
        verb: Verb,
        id: i64,
        record: &ControlRecord,
        world: &World,
    ) -> Result<Reply, Failure> {
        let is_it = match (&record.action, verb) {
            (Action::Pause { run: of, .. }, Verb::Pause)
            | (Action::Resume { run: of, .. }, Verb::Resume)
            | (Action::Throttle { run: of, .. }, Verb::Throttle) => of == run,
            _ => false,
        };
        if !is_it {
            return Err(of_another(id));
        }
        let known = self.know(run, false, world, self.clock.now_ms())?;
        Ok(Reply {
            through_ms: verbs::effect(&known.hold, id),
            works_permille: verbs::works_permille(&known, record),
            later: verbs::later(&known, verb),
            ended: verbs::ended(&known.hold, verb, id),
            safe_until_ms: known.kept.and_then(|kept| kept.safe_until_ms()),
            said: vec![format!("ordered at {}", crate::text::instant(Some(record.at_ms)))],
            // What it had said before may have been seen to since.
            stopped: why_stopped(&known)
                .filter(|_| known.progress.as_ref().is_some_and(|progress| progress.at_ms >= record.at_ms)),
            heard_ms: known.progress.map(|progress| progress.at_ms),
            ..Reply::new(id, record.at_ms, record.who.clone(), record.action.clone())
        })
    }

    /// `arrival`: also how many records come in, which takes several questions.
    fn know(&self, run: &str, arrival: bool, world: &World, now_ms: i64) -> Result<Known, LogError> {
        let control = world.control.as_slice();
        let mut runs = runs(control);
        runs.extend(world.roles.run(SHADOW).map(|_| SHADOW.to_owned()));
        let topic = run.strip_prefix("import-").map_or_else(|| EVENTS_TOPIC.to_owned(), import_topic);
        let spans = (run == GAP_RUN).then(|| spans(&gaps(&maintenances(control, now_ms))));
        // With no gap nothing bounds what it might read.
        let spans = spans.as_deref().filter(|spans| !spans.is_empty());
        let status = match observe_run(self.log.as_ref(), world, run, &topic, spans, now_ms) {
            Err(LogError::UnknownTopic(_)) => RunStatus::unknown(run, &topic, control),
            status => status?,
        };
        let hold = Hold::of(run, control);
        let paused_ms = hold.paused().and_then(|pause| pause.paused_ms);
        let through_ms = status.progress.as_ref().and_then(|progress| progress.complete_through_ms);
        let kept = match paused_ms.or(through_ms) {
            Some(through_ms) => Some(guard::kept(self.log.as_ref(), &topic, through_ms, now_ms)?),
            None => None,
        };
        let told = |of: fn(&RunProgress) -> bool| status.progress.as_ref().is_some_and(of);
        let stopped = told(|progress| progress.stopped.is_some()) && Recoveries::of(run, control).pending.is_empty();
        // What the gap run has said may be of another gap than the one that live has left last.
        let live = Hold::of(LIVE, control);
        let left = live.catching_up().and_then(|pause| pause.resume.as_ref()?.left_to_ms).is_some();
        let ended = told(|progress| progress.ended) && !(run == GAP_RUN && left);
        let known = world.roles.run(run).and_then(|run| world.generations.version(kind_of(&run).0));
        let version = known.as_ref().unwrap_or(&self.version);
        Ok(Known {
            run: run.to_owned(),
            runs,
            hold,
            stopped,
            ended,
            progress: status.progress,
            lag_records: status.lag_records,
            arrival_per_s: if arrival && topic == EVENTS_TOPIC { self.arrival_per_s(control, now_ms)? } else { 0.0 },
            kept,
            width: version.width,
            lateness_ms: version.lateness_ms,
            now_ms,
            log_now_ms: now_ms + kept.map_or(0, |kept| kept.ahead_ms),
        })
    }

    /// Records that were appended in a second, lately.
    fn arrival_per_s(&self, control: &[ControlRecord], now_ms: i64) -> Result<f64, LogError> {
        let (mut records, mut over_ms) = (0, 0);
        for in_use in weir_log::partitions_in_use(control) {
            let since_ms = in_use.effective_ms.max(now_ms - ARRIVAL_OVER_MS);
            let end = match self.log.bounds(EVENTS_TOPIC, in_use.partition) {
                Err(LogError::UnknownTopic(_)) => return Ok(0.0),
                bounds => bounds?.end,
            };
            records += end - self.log.offset_at(EVENTS_TOPIC, in_use.partition, since_ms)?.unwrap_or(end);
            over_ms = over_ms.max(now_ms - since_ms);
        }
        Ok(records as f64 * 1000.0 / over_ms.max(1000) as f64)
    }
}

fn why_stopped(known: &Known) -> Option<String> {
    known.progress.as_ref()?.stopped.clone().filter(|_| known.stopped)
}

fn who(token: &Token, user: &str) -> String {
    if user.is_empty() { token.name.clone() } else { format!("{}@{user}", token.name) }
}

/// The runs that a verb may be about.
fn runs(control: &[ControlRecord]) -> Vec<String> {
    let left = |record: &ControlRecord| matches!(record.action, Action::Resume { left_to_ms: Some(_), .. });
    let gap = control.iter().any(left).then(|| GAP_RUN.to_owned());
    let imports = fold_imports(control).into_iter().filter(|import| import.state == ImportState::Counting);
    let imports = imports.map(|import| import_run(&import.id));
    [LIVE.to_owned()].into_iter().chain(gap).chain(imports).collect()
}

/// The same, said of this run.
fn of_run(action: &Action, of: String) -> Action {
    let mut action = action.clone();
    if let Action::Pause { run, .. } | Action::Resume { run, .. } | Action::Throttle { run, .. } = &mut action {
        *run = of;
    }
    action
}

fn id_of(record: &ControlRecord) -> Option<i64> {
    match record.action {
        Action::Pause { id, .. }
        | Action::Resume { id, .. }
        | Action::Throttle { id, .. }
        | Action::MaintenancePlanned { id, .. } => Some(id),
        Action::MaintenanceCancelled { order, .. } => order,
        _ => None,
    }
}

/// One that nobody has used may name a command that is sent now.
fn check_id(id: i64, now_ms: i64) -> Result<(), Failure> {
    if (now_ms - ID_AGE_MAX_MS..=now_ms + ID_AHEAD_MAX_MS).contains(&id) {
        return Ok(());
    }
    let what = format!("id {id} is no time of this console's clock (GET /api/clock gives one, or leave it out)");
    Err(Failure::new(StatusCode::BAD_REQUEST, what))
}

fn of_another(id: i64) -> Failure {
    let what = format!("id {id} is that of another command (send it with a new id, GET /api/clock gives one)");
    Failure::new(StatusCode::CONFLICT, what)
}

/// Whether the decision is the one that counts.
fn counts(hold: &Hold, action: &Action) -> bool {
    match action {
        Action::Pause { id, .. } => hold.pauses.iter().any(|pause| pause.by.id == *id),
        Action::Resume { id, .. } => {
            hold.pauses.iter().any(|pause| pause.resume.as_ref().is_some_and(|resume| resume.by.id == *id))
        }
        _ => true,
    }
}

pub(crate) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/api/runs/{run}/{verb}", post(command))
        .route("/api/maintenances", post(plan))
        .route("/api/maintenances/{id}/cancel", post(cancel))
        .route("/api/clock", get(clock))
        .route("/api/log", get(records))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(desk)
}

/// Who asks, by the token of the request.
struct Caller(Token);

impl FromRequestParts<Arc<Desk>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, desk: &Arc<Desk>) -> Result<Self, Failure> {
        if parts.uri.query().is_some() {
            return Err(Failure::new(
                StatusCode::BAD_REQUEST,
                "nothing is asked in the URL here: a token in it would stay in histories and logs (send it in the header \
                 `Authorization: Bearer …`; one that was sent so counts as seen: take it out of console.tokens, and make a \
                 new one with `weir token`)",
            ));
        }
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let secret =
            header.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, secret)) = secret else {
            return Err(Failure::new(
                StatusCode::UNAUTHORIZED,
                "a token is needed (header `Authorization: Bearer …`, for weir's own commands WEIR_TOKEN or --token-file; \
                 `weir token` makes one, and data_dir/operator-token holds one on the machine of `weir serve`)",
            ));
        };
        let token = token::find(&desk.tokens, secret.trim()).cloned();
        token.map(Caller).ok_or_else(|| {
            warn!("a command came with a token that nobody has");
            Failure::new(
                StatusCode::UNAUTHORIZED,
                "the token is none of this console's (console.tokens in its configuration, and data_dir/operator-token on \
                 its machine, are; `weir token` makes a new one)",
            )
        })
    }
}

impl Caller {
    fn must_be(&self, role: Role) -> Result<(), Failure> {
        if self.0.role >= role {
            return Ok(());
        }
        let Token { name, role: has, .. } = &self.0;
        let what = format!(
            "token {name} has the role {has}, this takes {role} (`weir token --name … --role {role}` makes one)"
        );
        Err(Failure::new(StatusCode::FORBIDDEN, what))
    }
}

async fn command(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path((run, verb)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Reply>, Failure> {
    let wrong = |what: String| Failure::new(StatusCode::BAD_REQUEST, what);
    let verb: Verb = serde_json::from_value(json!(verb))
        .map_err(|_| wrong(format!("there is no verb {verb} (pause, resume, throttle)")))?;
    let command: Command =
        serde_json::from_slice(&body).map_err(|error| wrong(format!("the body is no command: {error}")))?;
    caller.must_be(if command.dry_run { Role::Viewer } else { Role::Operator })?;
    on_a_thread(move || desk.command(&run, verb, &command, &caller.0)).await
}

async fn plan(State(desk): State<Arc<Desk>>, caller: Caller, body: Bytes) -> Result<Json<Reply>, Failure> {
    announce(desk, caller, body, None).await
}

async fn cancel(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(of): Path<i64>,
    body: Bytes,
) -> Result<Json<Reply>, Failure> {
    announce(desk, caller, body, Some(of)).await
}

async fn announce(
    desk: Arc<Desk>,
    caller: Caller,
    body: Bytes,
    withdraws: Option<i64>,
) -> Result<Json<Reply>, Failure> {
    let wrong = |error| Failure::new(StatusCode::BAD_REQUEST, format!("the body is no announcement: {error}"));
    let announcement: Announcement = serde_json::from_slice(&body).map_err(wrong)?;
    caller.must_be(if announcement.dry_run { Role::Viewer } else { Role::Operator })?;
    if !announcement.dry_run || !announcement.reason.is_empty() {
        verbs::check_words(&announcement.user, &announcement.reason)?;
    }
    on_a_thread(move || desk.announce(withdraws, &announcement, &caller.0)).await
}

async fn clock(State(desk): State<Arc<Desk>>, _caller: Caller) -> Json<ConsoleClock> {
    Json(ConsoleClock { at_ms: desk.next_id() })
}

async fn records(State(desk): State<Arc<Desk>>, _caller: Caller) -> Result<Json<serde_json::Value>, Failure> {
    on_a_thread(move || {
        let all = desk.control()?.read_all()?;
        let records: Vec<ControlRecord> = all.records.into_iter().map(|(_, record)| record).collect();
        Ok(json!({ "records": records, "unreadable": all.unreadable }))
    })
    .await
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<Json<T>, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the command failed"))).map(Json)
}

/// Why a command was refused, for a person.
struct Failure {
    status: StatusCode,
    said: String,
}

impl Failure {
    fn new(status: StatusCode, said: impl Into<String>) -> Failure {
        Failure { status, said: said.into() }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        match refusal {
            Refusal::Wrong(said) => Failure::new(StatusCode::BAD_REQUEST, said),
            Refusal::UnknownRun(said) => Failure::new(StatusCode::NOT_FOUND, said),
            Refusal::NotNow(said) => Failure::new(StatusCode::CONFLICT, said),
        }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Failure {
        let said = format!("the log is away: {error} (send it again, with the same id if it had one)");
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, said)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.said }));
        match self.status {
            StatusCode::UNAUTHORIZED => (self.status, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response(),
            StatusCode::SERVICE_UNAVAILABLE => (self.status, [(header::RETRY_AFTER, "5")], body).into_response(),
            status => (status, body).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use weir_log::{Committed, EmbeddedLog, TopicKind};
    use weir_schemas::{
        CLOCK_BOUND_MS,
        progress::{Metadata, PartitionProgress, group_of},
    };

    use super::*;

    const NOW_MS: i64 = 1_795_780_800_000;
    const MINUTE_MS: i64 = 60_000;
    const HOUR_MS: i64 = 60 * MINUTE_MS;

    /// A clock that stands.
    struct At(i64);

    impl Clock for At {
        fn now_ms(&self) -> i64 {
            self.0
        }
    }

    /// A desk, and a log of which the clock is so much ahead of the desk's: a hit came just now, and live is complete.
    fn desk(ahead_ms: i64) -> (Desk, Arc<dyn Log>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let log_now_ms = NOW_MS + ahead_ms;
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(dir.path(), Arc::new(At(log_now_ms))).unwrap());
        let retention = Duration::from_secs(12 * 60 * 60);
        log.create_topic(EVENTS_TOPIC, &TopicKind::Events { partitions: 1, retention }).unwrap();
        ControlLog::open(log.clone()).unwrap();
        futures::executor::block_on(log.append(EVENTS_TOPIC, 0, b"a hit".as_slice().into(), None)).unwrap();
        let run = RunProgress { complete_through_ms: Some(log_now_ms), ..RunProgress::default() };
        let partition = PartitionProgress { arrival_ms: Some(log_now_ms), offset: Some(1) };
        let metadata = serde_json::to_string(&Metadata { partition, run: Some(run) }).unwrap();
        log.commit(&group_of(LIVE), EVENTS_TOPIC, &[Committed { partition: 0, offset: 1, metadata }]).unwrap();
        let version = SchemaVersion::builtin(1).unwrap();
        (Desk::new(Vec::new(), log.clone(), Arc::new(At(NOW_MS)), version), log, dir)
    }

    fn order(desk: &Desk, verb: Verb, live_first: bool, dry_run: bool) -> Reply {
        let command = Command { reason: "a disk".into(), live_first, dry_run, ..Command::default() };
        let reply = desk.command(LIVE, verb, &command, &Token::new("night", Role::Operator, "weir_t"));
        reply.unwrap_or_else(|failure| panic!("{}", failure.said))
    }

    #[test]
    fn a_log_whose_clock_is_another_one_is_told_of_and_deletes_and_begins_the_present_by_its_own() {
        let right_ms = order(&desk(0).0, Verb::Pause, false, true).safe_until_ms.unwrap();
        for (ahead_ms, words) in [(0, None), (2 * HOUR_MS, Some("2h ahead of")), (-2 * HOUR_MS, Some("2h behind"))] {
            let (desk, log, _dir) = desk(ahead_ms);
            // The run is complete through now by the log's clock, by which its records go: as late as if there were one clock.
            // That a clock is behind does not show before something is appended; a pause is then over sooner than need be.
            let pause = order(&desk, Verb::Pause, false, false);
            assert_eq!(pause.safe_until_ms, Some(right_ms + ahead_ms.min(0)));
            let end = log.bounds(EVENTS_TOPIC, 0).unwrap().end;
            order(&desk, Verb::Resume, true, true);
            assert_eq!(log.bounds(EVENTS_TOPIC, 0).unwrap().end, end, "who only asks writes nothing");
            let first = order(&desk, Verb::Resume, true, false);
            let version = SchemaVersion::builtin(1).unwrap();
            // A stamp counts as at most the clock bound after the sending: no window closes by a later one.
            let arrival_ms = NOW_MS + ahead_ms.min(CLOCK_BOUND_MS);
            let present = version.width.window_of(arrival_ms - version.lateness_ms).ms();
            assert!(
                matches!(first.action, Action::Resume { left_to_ms: Some(left_to_ms), .. } if left_to_ms == present),
                "{first:?}"
            );
            let clocks: Vec<_> = first.said.iter().filter(|said| said.starts_with("CLOCKS: ")).collect();
            match words {
                None => assert!(clocks.is_empty(), "{clocks:?}"),
                Some(words) => assert!(clocks[0].contains(words), "{clocks:?}"),
            }
        }
    }

    /// Says that live is at work with this share, since it has heard of this throttle, or has stopped.
    fn say(log: &dyn Log, (permille, throttle): (Option<u16>, Option<i64>), stopped: Option<&str>) {
        let (stopped, complete_through_ms) = (stopped.map(str::to_owned), Some(NOW_MS));
        let run = RunProgress { complete_through_ms, permille, throttle, stopped, ..RunProgress::default() };
        let partition = PartitionProgress { arrival_ms: Some(NOW_MS), offset: Some(1) };
        let metadata = serde_json::to_string(&Metadata { partition, run: Some(run) }).unwrap();
        log.commit(&group_of(LIVE), EVENTS_TOPIC, &[Committed { partition: 0, offset: 1, metadata }]).unwrap();
    }

    #[test]
    fn a_throttle_has_taken_effect_when_the_run_says_so_and_waits_for_no_run_that_stands() {
        let (desk, log, _dir) = desk(0);
        let throttle = |share, id| {
            let command = Command { id, reason: "a disk".into(), share: Some(share), ..Command::default() };
            let reply = desk.command(LIVE, Verb::Throttle, &command, &Token::new("night", Role::Operator, "weir_t"));
            reply.unwrap_or_else(|failure| panic!("{}", failure.said))
        };
        say(log.as_ref(), (Some(250), None), None);
        let quarter = throttle(0.25, None);
        let again = || throttle(0.25, Some(quarter.id));
        assert_eq!((again().works_permille, again().later), (None, None), "it has not heard of it");
        // A gap's run that gives way works for less than it may.
        say(log.as_ref(), (Some(25), Some(quarter.id)), None);
        assert_eq!((again().works_permille, again().ended), (Some(25), None));

        let half = throttle(0.5, None);
        let ended = again().ended.expect("another share was given");
        assert_eq!((ended.who.as_str(), again().works_permille), ("night", Some(25)));
        assert_eq!(throttle(0.5, Some(half.id)).works_permille, None, "it has heard of the one before");
        say(log.as_ref(), (None, Some(half.id)), Some("a table"));
        let stopped = throttle(0.5, Some(half.id));
        assert!(stopped.later.unwrap().starts_with("live has STOPPED: "));
        order(&desk, Verb::Pause, false, false);
        let paused = throttle(0.125, None);
        assert_eq!(paused.later.as_deref(), Some("live is paused: it works with that share from its resume on"));
        assert_eq!(paused.said.last(), paused.later.as_ref());
    }

    #[test]
    fn who_asks_again_after_a_contrary_order_is_told_of_it() {
        let (desk, _log, _dir) = desk(0);
        let pause = order(&desk, Verb::Pause, false, false);
        let again = |verb, id| {
            let command = Command { id: Some(id), ..Command::default() };
            let reply = desk.command(LIVE, verb, &command, &Token::new("day", Role::Operator, "weir_d"));
            reply.unwrap_or_else(|failure| panic!("{}", failure.said)).ended
        };
        assert_eq!(again(Verb::Pause, pause.id), None);
        let resume = order(&desk, Verb::Resume, false, false);
        let by = Ended { at_ms: NOW_MS, who: "night".into(), reason: "a disk".into() };
        assert_eq!((again(Verb::Pause, pause.id), again(Verb::Resume, resume.id)), (Some(by.clone()), None));
        order(&desk, Verb::Pause, false, false);
        assert_eq!(again(Verb::Resume, resume.id), Some(by));
    }

    #[test]
    fn what_waits_for_a_gap_run_that_has_said_nothing_is_what_came_in_the_gap() {
        for (left_to_ms, waits) in [(NOW_MS - MINUTE_MS, 0), (NOW_MS + MINUTE_MS, 1)] {
            let (desk, log, _dir) = desk(0);
            let pause = order(&desk, Verb::Pause, false, false);
            let paused = Action::Paused { run: LIVE.into(), id: pause.id, through_ms: NOW_MS - 2 * MINUTE_MS };
            let resume = Action::Resume { run: LIVE.into(), id: NOW_MS + 1, left_to_ms: Some(left_to_ms) };
            for action in [paused, resume] {
                let record = ControlRecord { at_ms: NOW_MS + 1, who: "night".into(), reason: "a disk".into(), action };
                futures::executor::block_on(ControlLog::open(log.clone()).unwrap().append(&record)).unwrap();
            }
            // The one hit came at NOW_MS.
            let known = desk
                .know(GAP_RUN, false, &desk.read().unwrap_or_else(|failure| panic!("{}", failure.said)).1, NOW_MS)
                .unwrap();
            assert_eq!(known.lag_records, waits, "left until {left_to_ms}");
        }
    }

    #[test]
    fn the_gap_run_is_done_only_while_live_has_left_nothing() {
        let (desk, log, _dir) = desk(0);
        let run = RunProgress { ended: true, ..RunProgress::default() };
        let partition = PartitionProgress { arrival_ms: None, offset: Some(1) };
        let metadata = serde_json::to_string(&Metadata { partition, run: Some(run) }).unwrap();
        log.commit(&group_of(GAP_RUN), EVENTS_TOPIC, &[Committed { partition: 0, offset: 1, metadata }]).unwrap();
        let command = Command { dry_run: true, ..Command::default() };
        let token = Token::new("night", Role::Operator, "weir_t");
        let pause = || desk.command(GAP_RUN, Verb::Pause, &command, &token).map_err(|failure| failure.said);
        assert!(pause().unwrap_err().contains("there is no run gap"));
        order(&desk, Verb::Pause, false, false);
        let id = order(&desk, Verb::Resume, true, false).id;
        assert!(pause().is_ok(), "{:?}", pause());
        let caught_up = Action::CaughtUp { run: LIVE.into(), id, eta: None };
        let record =
            ControlRecord { at_ms: NOW_MS, who: "supervisor".into(), reason: String::new(), action: caught_up };
        futures::executor::block_on(ControlLog::open(log).unwrap().append(&record)).unwrap();
        assert!(pause().unwrap_err().contains("gap is done: there is nothing to pause"));
    }
}
