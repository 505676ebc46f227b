//! `weir replay`: windows are computed a second time beside the table, compared with it, and, when asked, whole finished
//! days of it are replaced, while everything goes on.
//!
//! ```text
//!  refusal()? ──▶ <database>_replay ◀── weir run (recompute.rs) ──▶ compare, by day and site ──▶ said
//!                                                                        │ --apply
//!       control topic: Replace ──▶ rows of each day, its record ──▶ Replaced
//! ```
//!
//! Cut anywhere, the same command again goes on, or ends what was begun.

use std::{
    collections::BTreeSet,
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufRead, BufReader},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, anyhow, bail, ensure};
use jiff::Timestamp;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
pub(crate) use weir_console::days_in_words;
use weir_log::{Clock, ControlLog, Log, PartitionInUse, SystemClock};
use weir_schemas::{
    BESIDE_PERMILLE, Recoveries, Replacement, Replacements, SchemaVersion, UNHINDERED_PERMILLE, WindowStart,
    WindowWidth, World,
    control::{Action, ControlRecord, EVENTS_TOPIC, GAP_RUN, REPLAY_RUN},
    days_of,
};
use weir_sink::{Compared, Differs, Held, Replacer, Scratch, Standing, Target, audit::Audit, table::Windows};

use crate::{
    config::Config,
    digest::{date, grouped, instant},
    generation::Generation,
    judge::at,
    recompute::Recompute,
    run::RunOrder,
    serve,
    verbs::parse_reason,
};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReplayArgs {
    /// The first window, a day (UTC) or an instant, as in 2026-03-01 or 2026-03-01T12:00:00Z
    #[arg(long, value_parser = instant, value_name = "TIME", required_unless_present = "give_up")]
    from: Option<Timestamp>,
    /// The first window that is left out
    #[arg(long, value_parser = instant, value_name = "TIME", required_unless_present = "give_up")]
    to: Option<Timestamp>,
    /// Replaces the days that differ; whole days (UTC) only, which no run writes any more
    #[arg(long, requires = "reason", group = "deed")]
    apply: bool,
    /// Ends a replacement that was cut short and cannot be gone on with: its days stay as they are
    #[arg(long, requires = "reason", group = "deed", conflicts_with_all = ["from", "to", "share", "json"])]
    give_up: bool,
    /// Why: it is kept for ever, with who and when
    #[arg(long, requires = "deed", value_parser = parse_reason)]
    reason: Option<String>,
    /// The share of the time that it works at most, above 0 and at most 1 (unhindered); without it half
    #[arg(long, value_parser = permille)]
    share: Option<u16>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

fn permille(text: &str) -> Result<u16, String> {
    let share: f64 = text.parse().map_err(|_| "a number like 0.25 is needed".to_owned())?;
    let permille = (share * f64::from(UNHINDERED_PERMILLE)).round();
    let fits = (1.0..=f64::from(UNHINDERED_PERMILLE)).contains(&permille);
    if fits { Ok(permille as u16) } else { Err("a share is above 0 and at most 1".to_owned()) }
}

/// Exit code 1 when the table is not what the log gives, and stays so.
pub(crate) async fn main(config: &Config, args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        done = replay(config, args) => done,
        _ = interrupt.recv() => bail!("interrupted (the same command again goes on where this one was)"),
        _ = terminate.recv() => bail!("ended (the same command again goes on where this one was)"),
    }
}

async fn replay(config: &Config, args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let _alone = alone(config)?;
    let opened = config.log_config();
    let opened = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let log = weir_log::open(&opened, Arc::new(SystemClock)).context("the log cannot be opened")?;
        let control = ControlLog::open(log.clone())?;
        let build = build_of(&std::env::current_exe()?).context("weir's own program cannot be read")?;
        Ok((log, control, build))
    });
    let (log, control, build) = opened.await??;
    let world = World::of(&records(&control).await?);
    let (target, version) = (config.target()?, Generation::in_use(config, &world)?.version);
    let scratch = Scratch::of(&target, REPLAY_RUN, &version);
    let (Some(from), Some(to)) = (args.from, args.to) else {
        return give_up(&control, &target, &version, &scratch, args.reason.as_deref().unwrap_or_default()).await;
    };
    let asked = asked(from, to, version.width)?;
    let replay = Replay { config, log, control, target, version, scratch, build, asked, apply: args.apply };
    let known = replay.know().await?;
    if let Some(refusal) = refusal(&known) {
        bail!("{refusal}");
    }
    let Some(compared) = replay.compute(&known, args.share.unwrap_or(BESIDE_PERMILLE)).await? else {
        bail!(
            "the tables that the replay has filled are not what it wrote: somebody else writes there (begin it again)"
        );
    };
    let replaced = match &args.reason {
        Some(reason) => replay.apply(&compared, reason).await?,
        None => Vec::new(),
    };
    // What was replaced is looked at as it is now.
    let left = if replaced.is_empty() { compared.clone() } else { replay.compare().await? };
    let equal = left.differing.is_empty() && left.misrecorded.is_empty();
    if equal {
        replay.scratch.drop().await?;
    }
    let told = Told { asked, generation: replay.version.number, compared: &compared, left: &left, replaced: &replaced };
    println!("{}", if args.json { told.json() } else { told.text(&replay.scratch.target().database) });
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Held while this process lives: two would write to the same tables.
fn alone(config: &Config) -> anyhow::Result<File> {
    let path = config.data_dir.join("replay.lock");
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("data_dir={} cannot be made", config.data_dir.display()))?;
    let file = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!("another `weir replay` is at work here (wait until it is over, or end it)")
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}

/// The windows that were asked for: whole ones.
fn asked(from: Timestamp, to: Timestamp, width: WindowWidth) -> anyhow::Result<Windows> {
    ensure!(from < to, "--from {from} is not before --to {to}");
    let (from, last) = (width.window_of(from.as_millisecond()), width.window_of(to.as_millisecond()));
    let to = if last.ms() < to.as_millisecond() { width.next(last) } else { last };
    Ok(Windows { from, to })
}

/// Ends, as not done, every replacement that is not over, of any generation. What may be half replaced is not sorted out
/// here: the audit compares every row (supervisor.rs), and believes what it finds of these days again.
async fn give_up(
    control: &ControlLog,
    target: &Target,
    version: &SchemaVersion,
    scratch: &Scratch,
    reason: &str,
) -> anyhow::Result<ExitCode> {
    let open: Vec<Replacement> = Replacements::of(&records(control).await?).open().cloned().collect();
    ensure!(!open.is_empty(), "no days are being replaced: there is nothing to give up");
    // One that is at work on another machine does nothing any more, and one that begins now has nothing to take days from.
    for one in &open {
        weir_sink::end_replay(target, &SchemaVersion { number: one.generation, ..version.clone() }).await?;
    }
    scratch.drop().await?;
    for Replacement { by, generation, days, .. } in &open {
        say(control, reason, Action::Replaced { id: by.id, done: false }).await?;
        println!(
            "given up: {} of generation {generation}, ordered {} by {}, may be replaced in part",
            days_in_words(days),
            at(by.at_ms),
            by.who
        );
    }
    println!(
        "every row is compared now: if live stops over some of them, `weir recover live` computes their windows again, or \
         says what the log does not have any more (a copy of ClickHouse may)"
    );
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn records(control: &ControlLog) -> anyhow::Result<Vec<ControlRecord>> {
    let control = control.clone();
    let all = tokio::task::spawn_blocking(move || control.read_all()).await??;
    Ok(all.records.into_iter().map(|(_, record)| record).collect())
}

async fn say(control: &ControlLog, reason: &str, action: Action) -> anyhow::Result<()> {
    let record = ControlRecord { at_ms: SystemClock.now_ms(), who: serve::who(), reason: reason.to_owned(), action };
    control.append(&record).await?;
    Ok(())
}

/// What is decided on.
#[derive(Debug, Clone)]
struct Known {
    asked: Windows,
    apply: bool,
    /// Live's first window, ever.
    first: WindowStart,
    /// The windows before that one were carried over from another generation's table.
    carried: bool,
    /// The first window that the log has all of.
    whole: WindowStart,
    /// The end of what was ever given up: what lies before cannot be computed.
    given_up_to_ms: Option<i64>,
    /// A recovery was ordered, and is not done.
    recovering: bool,
    standing: Standing,
    /// What the scratch database must say of itself.
    contents: String,
    /// It has them all, computed from what the log had once.
    computed: bool,
    /// Replacements that are not over.
    open: Vec<Replacement>,
}

/// Why nothing is done, and what to wait for.
fn refusal(known: &Known) -> Option<String> {
    let Known { asked: Windows { from, to }, apply, first, whole, standing, .. } = known;
    let checkpoint = standing.checkpoint;
    let is_midnight = |at: &WindowStart| at.ms() % DAY_MS == 0;
    if *apply && let Some(within) = [from, to].into_iter().find(|at| !is_midnight(at)) {
        return Some(format!("--apply replaces whole days (UTC), and {} is within one", at(within.ms())));
    }
    if known.carried && from < first {
        return Some(format!(
            "the windows before {} were carried over from the table of another schema version, as that counted them: they \
             are not computed (begin there or later)",
            at(first.ms())
        ));
    }
    if to <= first {
        return Some(format!("live began at {}: there is nothing before", at(first.ms())));
    }
    let other = |one: &&Replacement| one.days.iter().any(|day| !days_of(from.ms(), to.ms()).contains(day));
    if *apply && let Some(one) = known.open.iter().find(other) {
        let (first, last) = (one.days.first().copied().unwrap_or(0), one.days.last().copied().unwrap_or(0));
        return Some(format!(
            "{} being replaced since {} by {}: if that was cut short, `weir replay --from {} --to {} --apply \
             --reason …` ends it, then others can be replaced (`weir replay --give-up` if it says that it cannot)",
            days_are(&one.days),
            at(one.by.at_ms),
            one.by.who,
            date(first),
            date(last + 1)
        ));
    }
    if known.recovering {
        return Some(
            "a recovery was ordered, and is not done yet: it takes windows back (wait until `weir status` shows that the \
             run goes on)"
                .to_owned(),
        );
    }
    // A run looks one window back: it must stand beyond.
    if checkpoint < *to || (*apply && checkpoint == *to) {
        let day = |at: i64| date(at.div_euclid(DAY_MS));
        let finished_ms = (checkpoint.ms().min(to.ms()) - 1).div_euclid(DAY_MS) * DAY_MS;
        let (what, until_ms, until) = match apply {
            true => (format!("{} is not finished", day(to.ms() - 1)), finished_ms, day(finished_ms)),
            false => {
                let until = Timestamp::from_millisecond(checkpoint.ms()).map(|until| until.to_string());
                (format!("the windows up to {} are not done", at(to.ms())), checkpoint.ms(), until.unwrap_or_default())
            }
        };
        // Of nothing there is no less.
        let less = if until_ms > from.ms() { format!("; or take less: --to {until}") } else { String::new() };
        return Some(format!(
            "{what}: live is complete through {} (wait until that is past {}, `weir status` says when{less})",
            at(checkpoint.ms()),
            at(to.ms()),
        ));
    }
    let range = |of: &Windows| format!("{} to {}", at(of.from.ms()), at(of.to.ms()));
    if let Some(undone) = standing.undone.iter().find(|undone| undone.to > *first) {
        return Some(format!(
            "the windows {} are not done: the run gap fills what live has left (wait until `weir status` shows no range \
             that is being computed)",
            range(undone)
        ));
    }
    if let Some(lost) = standing.lost.first() {
        return Some(format!(
            "the windows {} were given up, and are named as missing: they are not computed (leave them out)",
            range(lost)
        ));
    }
    let begins = from.max(first);
    if let Some(to_ms) = known.given_up_to_ms.filter(|to_ms| begins.ms() < *to_ms) {
        return Some(format!(
            "windows that end at {} were given up: what lies before, whatever the log seems to hold of it, is not all \
             (begin there or later)",
            at(to_ms)
        ));
    }
    if begins < whole && !known.computed {
        return Some(format!(
            "the log does not have all that the windows from {} on need: retention has deleted it (begin at {} or later)",
            at(begins.ms()),
            at(whole.ms())
        ));
    }
    None
}

/// Why no day is taken from what was computed.
fn refusal_to_take(known: &Known) -> Option<String> {
    let gone = "what was computed is not there any more, or is not what would be computed now (begin it again)";
    refusal(known).or_else(|| (!known.computed).then(|| gone.to_owned()))
}

struct Replay<'a> {
    config: &'a Config,
    log: Arc<dyn Log>,
    control: ControlLog,
    target: Target,
    version: SchemaVersion,
    scratch: Scratch,
    build: u64,
    asked: Windows,
    apply: bool,
}

/// Which build of weir a program is: its bytes, hashed.
fn build_of(program: &Path) -> std::io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    let mut program = BufReader::with_capacity(1 << 20, File::open(program)?);
    loop {
        let some = program.fill_buf()?;
        if some.is_empty() {
            return Ok(hasher.finish());
        }
        hasher.write(some);
        let read = some.len();
        program.consume(read);
    }
}

/// What the scratch database is of, in a few words: the same by the same build alone, which may compute otherwise than another.
fn contents(build: u64, version: &SchemaVersion, windows: Windows, records: &[ControlRecord]) -> String {
    let mut hasher = DefaultHasher::new();
    build.hash(&mut hasher);
    format!("{version:?}").hash(&mut hasher);
    for in_use in weir_log::partitions_in_use(records) {
        (in_use.partition, in_use.effective_ms).hash(&mut hasher);
    }
    weir_log::topic_is(EVENTS_TOPIC, records).hash(&mut hasher);
    format!(
        "{} {}: generation {}, windows {} to {} ms, {:016x}",
        Scratch::OURS,
        env!("CARGO_PKG_VERSION"),
        version.number,
        windows.from.ms(),
        windows.to.ms(),
        hasher.finish()
    )
}

impl Replay<'_> {
    fn open(&self, all: &Replacements) -> Vec<Replacement> {
        all.open().filter(|one| one.generation == self.version.number).cloned().collect()
    }

    async fn know(&self) -> anyhow::Result<Known> {
        let world = World::of(&records(&self.control).await?);
        let in_use = Generation::in_use(self.config, &world)?;
        let live = RunOrder::live(self.config, &self.target, &world, &in_use)?;
        let records = world.control.as_slice();
        let recoveries = ["live", GAP_RUN].map(|run| Recoveries::of(run, records));
        let given_up_to_ms = recoveries.iter().filter_map(Recoveries::given_up_to_ms).max();
        let partitions: Vec<PartitionInUse> = weir_log::partitions_in_use(records);
        let (log, width) = (self.log.clone(), self.version.width);
        // Of a topic that has had a predecessor something was given up: that is refused by itself.
        let whole = tokio::task::spawn_blocking(move || {
            weir_pipeline::whole_from(log.as_ref(), EVENTS_TOPIC, &partitions, width, false, SystemClock.now_ms())
        });
        let whole = whole.await??;
        let windows = self.windows(live.from);
        let contents = contents(self.build, &self.version, windows, records);
        Ok(Known {
            asked: self.asked,
            apply: self.apply,
            first: live.from,
            carried: in_use.seam.is_some(),
            whole,
            given_up_to_ms,
            recovering: recoveries.iter().any(|of| !of.pending.is_empty()),
            computed: self.scratch.holds(&contents, windows).await?,
            contents,
            standing: weir_sink::standing(&self.target, &self.version, live.from, self.asked).await?,
            open: self.open(&world.replacements),
        })
    }

    /// What is computed: live began at `first`.
    fn windows(&self, first: WindowStart) -> Windows {
        Windows { from: self.asked.from.max(first), to: self.asked.to }
    }

    /// Computes what is not there yet, and compares; `None`: what is there is not what was computed.
    async fn compute(&self, known: &Known, permille: u16) -> anyhow::Result<Option<Compared>> {
        let windows = self.windows(known.first);
        self.scratch.prepare(&known.contents).await?;
        // Somebody may have dropped it since.
        if !self.scratch.holds(&known.contents, windows).await? {
            let (config, log, control) = (self.config, &self.log, &self.control);
            let recompute = Recompute { config, log, control, scratch: self.scratch.target(), windows, permille };
            recompute.run().await?;
        }
        if !Audit::new(&self.scratch.target(), &self.version).full().await?.is_empty() {
            self.scratch.drop().await?;
            return Ok(None);
        }
        Ok(Some(self.compare().await?))
    }

    async fn compare(&self) -> anyhow::Result<Compared> {
        self.scratch.give_back().await?;
        Ok(self.scratch.compare(self.asked).await?)
    }

    /// Replaces the days that differ, and ends what a command before this one has begun; the days. All together: a batch
    /// may have rows on two of them.
    async fn apply(&self, compared: &Compared, reason: &str) -> anyhow::Result<Vec<i64>> {
        // Computing may have taken hours.
        if let Some(refusal) = refusal(&self.know().await?) {
            bail!("{refusal}");
        }
        let open = self.open(&Replacements::of(&records(&self.control).await?));
        let mut days: BTreeSet<i64> = open.iter().flat_map(|one| one.days.iter().copied()).collect();
        let mut ids: Vec<i64> = open.iter().map(|one| one.by.id).collect();
        let differing = compared.differing.iter().map(|of| of.day).chain(compared.misrecorded.iter().copied());
        let more: BTreeSet<i64> = differing.filter(|day| !days.contains(day)).collect();
        if !more.is_empty() {
            let (id, generation) = (SystemClock.now_ms(), self.version.number);
            say(&self.control, reason, Action::Replace { id, generation, days: more.iter().copied().collect() })
                .await?;
            ids.push(id);
        }
        days.extend(&more);
        let days: Vec<i64> = days.into_iter().collect();
        if days.is_empty() {
            return Ok(days);
        }
        let table = weir_sink::replacing_of(&self.target, REPLAY_RUN, &self.version);
        let replacer = Replacer::begin(table, self.version.width).await?;
        // Who takes windows back says so, and then ends who replaces: what was ordered before this one began is seen now,
        // what is ordered later ends it. Days are taken only from what was computed, not from what somebody has made anew.
        let known = self.know().await?;
        let may = match refusal_to_take(&known) {
            Some(refusal) => Err(anyhow!("{refusal}")),
            None => self.still_open(&days).await,
        };
        if let (Err(_), Some(id), false) = (&may, ids.last(), more.is_empty()) {
            say(&self.control, "nothing was replaced", Action::Replaced { id: *id, done: false }).await?;
        }
        may?;
        replacer.replace(&days).await.with_context(|| {
            format!("{} may be replaced in part (the same command again does the rest)", days_in_words(&days))
        })?;
        self.still_open(&days).await?;
        for id in ids {
            say(&self.control, "", Action::Replaced { id, done: true }).await?;
        }
        Ok(days)
    }

    /// Nothing else was decided about these days, which are being replaced.
    async fn still_open(&self, days: &[i64]) -> anyhow::Result<()> {
        let open = self.open(&Replacements::of(&records(&self.control).await?));
        ensure!(
            days.iter().all(|day| open.iter().any(|one| one.days.contains(day))),
            "a copy was brought back, a recovery ordered, or the replacement given up, while {} were replaced: that stands \
             (see `weir log`)",
            days_in_words(days)
        );
        Ok(())
    }
}

/// What came of it.
struct Told<'a> {
    asked: Windows,
    generation: u32,
    compared: &'a Compared,
    /// The same after `replaced`.
    left: &'a Compared,
    replaced: &'a [i64],
}

impl Told<'_> {
    fn text(&self, scratch: &str) -> String {
        let mut lines: Vec<String> = self.compared.differing.iter().map(line).collect();
        lines.extend(
            self.compared
                .misrecorded
                .iter()
                .map(|day| format!("{}  is what the log gives, and something else is recorded of it", date(*day))),
        );
        let all = |compared: &Compared| {
            let days = compared.differing.iter().map(|of| of.day).chain(compared.misrecorded.iter().copied());
            let mut days: Vec<i64> = days.collect();
            days.sort_unstable();
            days.dedup();
            days
        };
        let left = all(self.left);
        let equal = format!(
            "the table is what the log gives from {} to {}: {} rows, every digest alike",
            at(self.asked.from.ms()),
            at(self.asked.to.ms()),
            self.left.rows
        );
        lines.push(match (left.is_empty(), self.replaced) {
            (true, []) => equal,
            (true, replaced) => format!("{} replaced; {equal}", were(replaced)),
            (false, []) => format!(
                "{} not what the log gives: what was computed stays in the database {scratch} until the next replay (the \
                 same with --apply, of whole days, puts it in its place)",
                days_are(&left)
            ),
            (false, replaced) => format!(
                "{} replaced, and {} not what the log gives: somebody else writes there (system.query_log says who)",
                were(replaced),
                days_are(&left)
            ),
        });
        lines.join("\n")
    }

    fn json(&self) -> String {
        let held =
            |of: &Held| json!({"rows": of.rows, "page_views": of.page_views, "digest": format!("{:016x}", of.digest)});
        let differs = |of: &Differs| json!({"day": date(of.day), "site": of.site, "table": held(&of.table), "replay": held(&of.replay)});
        let dates = |days: &[i64]| days.iter().map(|day| date(*day)).collect::<Vec<_>>();
        json!({
            "generation": self.generation,
            "from_ms": self.asked.from.ms(),
            "to_ms": self.asked.to.ms(),
            "days": self.compared.days,
            "rows": self.compared.rows,
            "differing": self.compared.differing.iter().map(differs).collect::<Vec<_>>(),
            "misrecorded": dates(&self.compared.misrecorded),
            "replaced": dates(self.replaced),
            "equal": self.left.differing.is_empty() && self.left.misrecorded.is_empty(),
        })
        .to_string()
    }
}

fn were(days: &[i64]) -> String {
    format!("{} {}", days_in_words(days), if days.len() == 1 { "was" } else { "were" })
}

fn line(of: &Differs) -> String {
    let Differs { day, site, table, replay } = of;
    let held = |held: &Held| format!("{} rows, {} page views, {}", held.rows, held.page_views, grouped(held.digest));
    format!("{}  {site}  the table has {}; the log gives {}", date(*day), held(table), held(replay))
}

/// The same with its verb.
pub(crate) fn days_are(days: &[i64]) -> String {
    format!("{} {}", days_in_words(days), if days.len() == 1 { "is" } else { "are" })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weir_schemas::Decision;

    use super::*;

    fn width() -> WindowWidth {
        WindowWidth::new(60_000).expect("divides a day")
    }

    fn window(ms: i64) -> WindowStart {
        width().window_of(ms)
    }

    fn days(from: i64, to: i64) -> Windows {
        Windows { from: window(from * DAY_MS), to: window(to * DAY_MS) }
    }

    /// The days 10 to 11 of a log that is whole, and live long past them.
    fn known(apply: bool) -> Known {
        let standing = Standing { checkpoint: window(20 * DAY_MS), undone: Vec::new(), lost: Vec::new() };
        let (first, whole) = (window(5 * DAY_MS + 3_600_000), window(0));
        let (given_up_to_ms, recovering) = (None, false);
        let (contents, computed, open) = (String::new(), false, Vec::new());
        Known {
            asked: days(10, 12),
            apply,
            first,
            carried: false,
            whole,
            given_up_to_ms,
            recovering,
            standing,
            contents,
            computed,
            open,
        }
    }

    fn replacement(days: &[i64]) -> Replacement {
        let by = Decision { id: 7, at_ms: 0, who: "ops@host".into(), reason: "r".into() };
        Replacement { by, generation: 1, days: days.to_vec(), over: None, done_ms: None }
    }

    #[test]
    fn what_is_done_and_whole_in_the_log_is_replayed() {
        assert_eq!(refusal(&known(false)), None);
        assert_eq!(refusal(&known(true)), None);
        // The day in which live began, in part.
        let undone = vec![Windows { from: window(5 * DAY_MS), to: known(true).first }];
        let standing = Standing { undone, ..known(true).standing };
        assert_eq!(refusal(&Known { asked: days(5, 6), standing, ..known(true) }), None);
        // Up to where live is, unless it is to be replaced.
        let standing = |at_ms| Standing { checkpoint: window(at_ms), ..known(true).standing };
        assert_eq!(refusal(&Known { standing: standing(12 * DAY_MS), ..known(false) }), None);
        assert!(refusal(&Known { standing: standing(12 * DAY_MS), ..known(true) }).is_some());
        assert_eq!(refusal(&Known { standing: standing(12 * DAY_MS + 60_000), ..known(true) }), None);
        // What was computed from a log that had all is not computed again.
        assert_eq!(refusal(&Known { whole: window(11 * DAY_MS), computed: true, ..known(true) }), None);
        // What was begun is gone on with.
        assert_eq!(refusal(&Known { open: vec![replacement(&[11])], ..known(true) }), None);
        assert_eq!(refusal(&Known { open: vec![replacement(&[13])], ..known(false) }), None);
    }

    #[test]
    fn what_is_refused_says_why_and_what_to_wait_for() {
        let (apply, only) = (known(true), known(false));
        let at_ms = |ms| Standing { checkpoint: window(ms), ..known(true).standing };
        let hour = 3_600_000;
        let part = Windows { from: window(10 * DAY_MS + hour), to: window(12 * DAY_MS) };
        let some = vec![Windows { from: window(11 * DAY_MS), to: window(11 * DAY_MS + hour) }];
        let all = [
            Known { asked: part, ..apply.clone() },
            Known { asked: days(3, 5), ..only.clone() },
            Known { asked: days(5, 12), carried: true, ..apply.clone() },
            Known { open: vec![replacement(&[11, 12])], ..apply.clone() },
            Known { recovering: true, ..only.clone() },
            Known { standing: at_ms(11 * DAY_MS + hour), ..apply.clone() },
            Known { standing: at_ms(11 * DAY_MS + hour), ..only.clone() },
            Known { asked: days(11, 12), standing: at_ms(11 * DAY_MS + hour), ..apply.clone() },
            Known { asked: days(11, 12), standing: at_ms(11 * DAY_MS), ..only.clone() },
            Known { standing: Standing { undone: some.clone(), ..apply.standing.clone() }, ..apply.clone() },
            Known { standing: Standing { lost: some, ..apply.standing.clone() }, ..apply.clone() },
            Known { given_up_to_ms: Some(10 * DAY_MS + hour), ..only.clone() },
            Known { whole: window(10 * DAY_MS + hour), ..only },
        ];
        let said: Vec<String> = all.iter().map(|known| refusal(known).expect("a refusal")).collect();
        expect![[r#"
            --apply replaces whole days (UTC), and 1970-01-11 01:00:00 UTC is within one
            live began at 1970-01-06 01:00:00 UTC: there is nothing before
            the windows before 1970-01-06 01:00:00 UTC were carried over from the table of another schema version, as that counted them: they are not computed (begin there or later)
            1970-01-12 to 1970-01-13 are being replaced since 1970-01-01 00:00:00 UTC by ops@host: if that was cut short, `weir replay --from 1970-01-12 --to 1970-01-14 --apply --reason …` ends it, then others can be replaced (`weir replay --give-up` if it says that it cannot)
            a recovery was ordered, and is not done yet: it takes windows back (wait until `weir status` shows that the run goes on)
            1970-01-12 is not finished: live is complete through 1970-01-12 01:00:00 UTC (wait until that is past 1970-01-13 00:00:00 UTC, `weir status` says when; or take less: --to 1970-01-12)
            the windows up to 1970-01-13 00:00:00 UTC are not done: live is complete through 1970-01-12 01:00:00 UTC (wait until that is past 1970-01-13 00:00:00 UTC, `weir status` says when; or take less: --to 1970-01-12T01:00:00Z)
            1970-01-12 is not finished: live is complete through 1970-01-12 01:00:00 UTC (wait until that is past 1970-01-13 00:00:00 UTC, `weir status` says when)
            the windows up to 1970-01-13 00:00:00 UTC are not done: live is complete through 1970-01-12 00:00:00 UTC (wait until that is past 1970-01-13 00:00:00 UTC, `weir status` says when)
            the windows 1970-01-12 00:00:00 UTC to 1970-01-12 01:00:00 UTC are not done: the run gap fills what live has left (wait until `weir status` shows no range that is being computed)
            the windows 1970-01-12 00:00:00 UTC to 1970-01-12 01:00:00 UTC were given up, and are named as missing: they are not computed (leave them out)
            windows that end at 1970-01-11 01:00:00 UTC were given up: what lies before, whatever the log seems to hold of it, is not all (begin there or later)
            the log does not have all that the windows from 1970-01-11 00:00:00 UTC on need: retention has deleted it (begin at 1970-01-11 01:00:00 UTC or later)"#]]
        .assert_eq(&said.join("\n"));
    }

    #[test]
    fn days_are_taken_only_from_what_was_computed() {
        assert_eq!(refusal_to_take(&Known { computed: true, ..known(true) }), None);
        let gone = refusal_to_take(&known(true)).expect("a refusal");
        assert!(gone.contains("is not there any more"), "{gone}");
        let recovering = refusal_to_take(&Known { computed: true, recovering: true, ..known(true) });
        assert!(recovering.is_some_and(|said| said.contains("a recovery was ordered")));
    }

    fn compared(differing: Vec<Differs>) -> Compared {
        Compared { rows: 40, days: 2, differing, misrecorded: Vec::new() }
    }

    #[test]
    fn what_differs_is_told_by_day_and_site_and_the_last_line_says_what_came_of_it() {
        let held = |rows, digest| Held { rows, page_views: rows / 2, digest };
        let differs = Differs { day: 10, site: "one.example".into(), table: held(8, 1), replay: held(10, u64::MAX) };
        let (differing, equal) = (compared(vec![differs]), compared(Vec::new()));
        let told = |compared, left, replaced| Told { asked: days(10, 12), generation: 1, compared, left, replaced };
        let text = |told: Told<'_>| told.text("weir_replay");
        let all = [
            text(told(&equal, &equal, &[])),
            text(told(&differing, &differing, &[])),
            text(told(&differing, &equal, &[10])),
        ];
        expect![[r#"
            the table is what the log gives from 1970-01-11 00:00:00 UTC to 1970-01-13 00:00:00 UTC: 40 rows, every digest alike

            1970-01-11  one.example  the table has 8 rows, 4 page views, 0000 0000 0000 0001; the log gives 10 rows, 5 page views, ffff ffff ffff ffff
            1970-01-11 is not what the log gives: what was computed stays in the database weir_replay until the next replay (the same with --apply, of whole days, puts it in its place)

            1970-01-11  one.example  the table has 8 rows, 4 page views, 0000 0000 0000 0001; the log gives 10 rows, 5 page views, ffff ffff ffff ffff
            1970-01-11 was replaced; the table is what the log gives from 1970-01-11 00:00:00 UTC to 1970-01-13 00:00:00 UTC: 40 rows, every digest alike"#]]
        .assert_eq(&all.join("\n\n"));
        let json: serde_json::Value = serde_json::from_str(&told(&differing, &equal, &[10]).json()).unwrap();
        assert_eq!(json["differing"][0]["table"]["digest"], "0000000000000001");
        assert_eq!((&json["equal"], &json["replaced"]), (&json!(true), &json!(["1970-01-11"])));
    }

    #[test]
    fn what_another_build_has_computed_is_not_the_same_nor_are_other_windows_or_another_schema() {
        let dir = tempfile::tempdir().unwrap();
        let build = |name: &str, bytes: &[u8]| {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            build_of(&dir.path().join(name)).unwrap()
        };
        let mut program = vec![7; 3 << 20];
        let one = build("one", &program);
        assert_eq!(one, build("copy", &program));
        program[2 << 20] = 8;
        let other = build("other", &program);
        let version = SchemaVersion::builtin(1).expect("it is built in");
        let of = |build, windows| contents(build, &version, windows, &[]);
        assert_eq!(of(one, days(1, 2)), of(one, days(1, 2)));
        let later = SchemaVersion { lateness_ms: version.lateness_ms + 1, ..version.clone() };
        for not in [of(other, days(1, 2)), of(one, days(1, 3)), contents(one, &later, days(1, 2), &[])] {
            assert!(not.starts_with(Scratch::OURS) && not != of(one, days(1, 2)), "{not}");
        }
    }

    #[test]
    fn a_share_is_a_part_of_the_time() {
        assert_eq!([permille("1"), permille("0.25")], [Ok(1000), Ok(250)]);
        for wrong in ["0", "1.1", "-1", "half", "NaN"] {
            assert!(permille(wrong).is_err(), "{wrong}");
        }
    }
}
