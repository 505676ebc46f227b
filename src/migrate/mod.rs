//! `weir migrate`: a conversion to another schema version, beside everything else.
//!
//! ```text
//!  plan ──▶ start ──▶ (filled by runs of its own, see the supervisor) ──▶ verify ──▶ swap ⇄ revert ──▶ drop
//! ```
//!
//! Each verb looks, decides by what it has seen, and writes one record into the control topic; supervisors do the deeds
//! (`supervisor.rs`, `tables.rs`). So a verb that is cut has done all of it or nothing, and the same again goes on.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use weir_log::{Clock, ControlLog, Log, SystemClock};
use weir_schemas::{
    Number, SchemaVersion, World,
    control::{Action, CARRIED_RUN, Carried, ControlRecord, EVENTS_TOPIC, GAP_RUN, import_topic},
    progress::{RunProgress, group_of},
    run_of,
};
use weir_sink::{SinkError, Target, table::Windows};

use crate::{
    begin, config::Config, fault::Step, generation::Generation, give_way, judge::at, replay, report, run::RunOrder,
    serve, status, supervisor::desired, verbs::parse_reason,
};

mod pace;
mod plan;
mod rehearse;
pub(crate) mod swap;
mod verify;
mod weigh;

#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum MigrateCommand {
    /// A rehearsal: what differs, what must come out equal, how long it takes, what it needs. Writes nothing
    Plan {
        #[command(flatten)]
        to: To,
    },
    /// Begins to fill the new generation beside the one in use
    Start {
        #[command(flatten)]
        to: To,
        /// Why: it is kept for ever, with who and when
        #[arg(long, value_parser = parse_reason)]
        reason: String,
        /// What the log does not have any more, and cannot be carried over, may be missing in the new generation
        #[arg(long)]
        accept_loss: bool,
    },
    /// How far it is
    Status,
    /// Compares both generations in all that must be equal. Exit code 1 when something differs
    Verify,
    /// Says that a dimension need not be equal
    Accept {
        /// As a version's file names it, or `prop:NAME`
        dimension: String,
        /// Why: it is kept for ever, with who and when
        #[arg(long, value_parser = parse_reason)]
        reason: String,
    },
    /// Shows the new generation in place of the old one, at the next window boundary at which both are complete
    Swap {
        /// Why: it is kept for ever, with who and when
        #[arg(long, value_parser = parse_reason)]
        reason: String,
        /// Waits until everything is as it must be, instead of refusing
        #[arg(long)]
        when_ready: bool,
        /// How long the old generation is kept, still written, as in `24h`: the way back
        #[arg(long, default_value = "24h", value_name = "SPAN", value_parser = humantime::parse_duration)]
        hold: Duration,
        /// A command that is run before, and forbids it by another exit status than 0
        #[arg(long, value_name = "COMMAND")]
        veto: Option<String>,
    },
    /// Shows the old generation again: the same step back
    Revert {
        /// Why: it is kept for ever, with who and when
        #[arg(long, value_parser = parse_reason)]
        reason: String,
    },
    /// Takes away the generation that is not in use: that ends the conversion
    Drop {
        /// Why: it is kept for ever, with who and when
        #[arg(long, value_parser = parse_reason)]
        reason: String,
    },
}

/// Which version is converted to.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct To {
    /// A version that this weir carries
    #[arg(long, value_name = "N")]
    to: Option<u32>,
    /// A version's file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl To {
    /// The version, and its text, which is kept in the control topic: whoever runs its runs may not have the file.
    fn read(&self) -> anyhow::Result<(SchemaVersion, String)> {
        let (text, place) = match (&self.file, self.to) {
            (Some(file), _) => {
                let place = file.display().to_string();
                (std::fs::read_to_string(file).with_context(|| format!("{place} cannot be read"))?, place)
            }
            (None, number) => {
                let number = number.unwrap_or_default();
                let text = SchemaVersion::builtin_text(number)
                    .with_context(|| format!("this weir does not carry version {number} (--file names one)"))?;
                (text.to_owned(), format!("v{number}.toml"))
            }
        };
        Ok((SchemaVersion::parse(&text, &place)?, text))
    }
}

/// Exit code 1 when what was ordered has not come to be.
pub(crate) async fn main(config: &Config, command: &MigrateCommand) -> anyhow::Result<ExitCode> {
    let migrate = Migrate::open(config).await?;
    match command {
        MigrateCommand::Plan { to } => migrate.plan(to).await,
        MigrateCommand::Start { to, reason, accept_loss } => migrate.start(to, reason, *accept_loss).await,
        MigrateCommand::Status => migrate.status().await,
        MigrateCommand::Verify => migrate.verify().await,
        MigrateCommand::Accept { dimension, reason } => migrate.accept(dimension, reason).await,
        MigrateCommand::Swap { reason, when_ready, hold, veto } => {
            migrate.swap(reason, *when_ready, *hold, veto.as_deref()).await
        }
        MigrateCommand::Revert { reason } => migrate.revert(reason).await,
        MigrateCommand::Drop { reason } => migrate.drop(reason).await,
    }
}

struct Migrate {
    config: Config,
    log: Arc<dyn Log>,
    control: ControlLog,
    target: Target,
}

/// One run of a generation, and how far it is.
struct Part {
    order: RunOrder,
    told: Option<RunProgress>,
    through_ms: i64,
    /// Its next window was due some time ago.
    late: bool,
}

impl Part {
    fn is_done(&self) -> bool {
        self.order.to.is_some_and(|to| self.through_ms >= to.ms())
    }
}

impl Migrate {
    async fn open(config: &Config) -> anyhow::Result<Migrate> {
        let opened = config.log_config();
        let (log, control) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
            let log = weir_log::open(&opened, Arc::new(SystemClock)).context("the log cannot be opened")?;
            let control = ControlLog::open(log.clone())?;
            Ok((log, control))
        })
        .await??;
        Ok(Migrate { config: config.clone(), log, control, target: config.target()? })
    }

    async fn world(&self) -> anyhow::Result<World> {
        Ok(World::of(&replay::records(&self.control).await?))
    }

    async fn say(&self, reason: &str, action: Action) -> anyhow::Result<()> {
        let record =
            ControlRecord { at_ms: SystemClock.now_ms(), who: serve::who(), reason: reason.to_owned(), action };
        self.control.append(&record).await?;
        Ok(())
    }

    async fn plan(&self, to: &To) -> anyhow::Result<ExitCode> {
        let (version, _) = to.read()?;
        let facts = self.facts(&self.world().await?, version).await?;
        println!("{}", plan::text(&facts));
        let refusals = plan::refusals(&facts, false);
        for refusal in &refusals {
            println!("NOT SO: {refusal}");
        }
        Ok(if refusals.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn start(&self, to: &To, reason: &str, accept_loss: bool) -> anyhow::Result<ExitCode> {
        let (version, text) = to.read()?;
        let (number, world) = (version.number, self.world().await?);
        ensure!(
            world.generations.first.is_some() || world.generations.in_use().is_some(),
            "it is not recorded yet of which version the first generation is (an older weir has made it: start `weir serve` or \
             `weir pipeline` once)"
        );
        let facts = self.facts(&world, version).await?;
        let refusals = plan::refusals(&facts, accept_loss);
        ensure!(refusals.is_empty(), "{}", refusals.join("\nweir: "));
        let id = SystemClock.now_ms();
        let (from_ms, old) = (facts.log_from_ms, &facts.old);
        let (width_ms, lateness_ms) = (old.width.ms(), old.lateness_ms);
        let carried = facts.carried_ms().map(|(from_ms, _)| Carried { from_ms, width_ms, lateness_ms });
        let action = Action::ConversionStarted { id, generation: number, version: text, from_ms, carried };
        self.say(reason, action).await?;
        Step::Started.done();
        // Of two that were started at the same time the first counts.
        let ours = self.world().await?.generations.under_way().is_some_and(|conversion| conversion.by.id == id);
        ensure!(ours, "somebody has started another one at the same time (`weir migrate status`)");
        println!("{}", plan::text(&facts));
        println!("started: generation {number} is filled beside the one in use (`weir migrate status`)");
        Ok(ExitCode::SUCCESS)
    }

    /// All there is to know before a conversion to `new` is begun.
    async fn facts(&self, world: &World, new: SchemaVersion) -> anyhow::Result<plan::Facts> {
        let old = Generation::in_use(&self.config, world)?;
        let in_use = weir_log::partitions_in_use(&world.control);
        let first_ms = in_use.iter().map(|partition| partition.effective_ms).min();
        let first_ms = first_ms.context("nothing has run on this log yet (start `weir serve`)")?;
        let (log, width, partitions) = (self.log.clone(), new.width, in_use.clone());
        let whole = tokio::task::spawn_blocking(move || {
            weir_pipeline::whole_from(log.as_ref(), EVENTS_TOPIC, &partitions, width, false, SystemClock.now_ms())
        });
        // What the log seems to have of windows that were given up, and before them, is not all.
        let runs = ["live", GAP_RUN].map(|kind| run_of(old.number, kind));
        let given_up_to_ms = runs.iter().filter_map(|run| world.recoveries(run).given_up_to_ms()).max();
        let after = |ms: i64| new.width.next(new.width.window_of(ms - 1)).ms();
        let whole_ms = whole.await??.ms().max(given_up_to_ms.map_or(i64::MIN, after));
        // What was carried over into the old table was counted by older rules, and may be of what was given up before it.
        let whole_ms = old.seam.as_ref().map_or(whole_ms, |seam| whole_ms.max(after(seam.at.ms())));
        let begin_ms = new.width.window_of(first_ms - new.lateness_ms).ms();
        let mut log_from_ms = whole_ms.max(begin_ms);
        let first = weir_sink::first_ms(&self.target, &old.version).await?;
        // A log that has all gives all, wherever either begins.
        let table_from_ms = first.filter(|from_ms| whole_ms > begin_ms && *from_ms < whole_ms);
        let mut given_up = Vec::new();
        if let Some(from_ms) = table_from_ms {
            // Retention goes on, by whole segments maybe: the log is kept for a while yet from where the new one begins.
            let (log, now_ms) = (self.log.clone(), SystemClock.now_ms());
            let retention = tokio::task::spawn_blocking(move || log.retention(EVENTS_TOPIC)).await??;
            let kept_from_ms = retention.map_or(i64::MIN, |retention| now_ms - retention.as_millis() as i64);
            log_from_ms = log_from_ms.max(kept_from_ms);
            log_from_ms = after(log_from_ms + plan::kept_ms(now_ms - log_from_ms));
            let at = |ms| old.version.width.window_of(ms);
            let windows = Windows { from: at(from_ms), to: at(log_from_ms) };
            let standing = weir_sink::standing(&self.target, &old.version, windows.from, windows).await?;
            given_up = standing.lost.iter().map(|lost| (lost.from.ms(), lost.to.ms())).collect();
        }
        let room = weir_sink::room(&self.target, &old.version, log_from_ms).await?;
        let imports = desired(&world.control).imports;
        let oldest_ms = imports.values().map(|(first_ms, _)| *first_ms).chain(table_from_ms).min();
        let oldest_ms = oldest_ms.map_or(log_from_ms, |ms| ms.min(log_from_ms));
        let origins: Vec<String> = imports.into_keys().collect();
        let events = |origin: &str| room.events.iter().find(|(of, _)| of == origin).map_or(0, |(_, events)| *events);
        let known = !room.events.is_empty();
        let (log, topics) = (self.log.clone(), origins.iter().map(|id| import_topic(id)).collect::<Vec<_>>());
        let weigh = move || -> weir_log::Result<_> {
            let weights = topics.iter().map(|topic| weigh::weigh(log.as_ref(), topic, 0));
            Ok((weigh::weigh(log.as_ref(), EVENTS_TOPIC, log_from_ms)?, weights.collect::<Result<Vec<_>, _>>()?))
        };
        let (bytes, weights) = tokio::task::spawn_blocking(weigh).await??;
        let made = world.generations.conversions.iter().map(|conversion| conversion.generation);
        let under_way = world.generations.under_way();
        let first = Generation::of(&self.config, world, None)?;
        let rehearsed = rehearse::rehearse(&self.config, self.log.clone(), &new, in_use, log_from_ms).await?;
        Ok(plan::Facts {
            used: [first.version.number].into_iter().chain(made).collect(),
            under_way: under_way.map(|of| (of.generation, of.by.who.clone(), of.by.at_ms)),
            split: split(&self.config, &new, oldest_ms),
            table_from_ms,
            log_from_ms,
            given_up,
            events: known.then(|| events("")),
            bytes,
            imports: origins.into_iter().zip(weights).map(|(id, bytes)| (id.clone(), events(&id), bytes)).collect(),
            old_bytes: room.bytes,
            old_rows: room.rows,
            bytes_free: room.bytes_free,
            rehearsed,
            old: old.version,
            new,
        })
    }

    /// The runs of a generation, live's first, then the one that carries rows over, and how far each is.
    async fn parts(&self, world: &World, number: Number) -> anyhow::Result<Vec<Part>> {
        let generation = Generation::of(&self.config, world, number)?;
        let imports = desired(&world.control).imports;
        let mut parts = Vec::new();
        for order in RunOrder::all(&self.config, &self.target, world, &generation, &imports) {
            let order = order?;
            let (log, group, topic) = (self.log.clone(), group_of(&order.run), order.topic.clone());
            let committed = tokio::task::spawn_blocking(move || log.committed(&group, &topic)).await??;
            let through_ms = match begin::checkpoint(&order, &generation.version).await {
                Ok(through) => through.ms(),
                Err(error @ SinkError::Unreachable { .. }) => return Err(error.into()),
                // Its tables may not be there yet.
                Err(_) => order.from.ms(),
            };
            let (log, now_ms) = (self.log.clone(), SystemClock.now_ms());
            let late_ms = give_way::due_ms(through_ms, &generation.version) + give_way::LATE_MS;
            let late = tokio::task::spawn_blocking(move || give_way::has_come(log.as_ref(), late_ms, now_ms)).await??;
            parts.push(Part { order, told: report::told(&committed), through_ms, late });
        }
        Ok(parts)
    }

    /// By the log alone: how far it is can be seen while ClickHouse is away.
    async fn status(&self) -> anyhow::Result<ExitCode> {
        let view = status::view(&self.config).await?;
        if let Some(why) = &view.snapshot.log_away {
            bail!("the log is away, and nothing is known without it: {why}");
        }
        let world = self.world().await?;
        let (Some(conversion), Some(text)) = (world.generations.under_way(), weir_console::render_beside(&view)) else {
            println!("no conversion is under way");
            return Ok(ExitCode::SUCCESS);
        };
        println!("{text}");
        let old = Generation::of(&self.config, &world, conversion.old)?;
        if let Some(carried) = conversion.carried {
            let (from, to) = (at(carried.from_ms), at(conversion.from_ms));
            let is_done = view.snapshot.runs.iter().all(|run| !run.run.ends_with(CARRIED_RUN));
            let done = if is_done { "done" } else { "not done yet" };
            println!("carried over: {from} to {to}, as generation {} counted them: {done}", old.version.number);
        }
        if let Some(verdict) = &conversion.verdict {
            let (compared, closed) = (at(verdict.at_ms), at(verdict.closed_ms));
            let agree = if verdict.differing == 0 { "agree" } else { "DIFFER" };
            let changed = swap::changed(&world.control[verdict.known..]);
            let since = changed.map_or(String::new(), |changed| format!("; since then {changed}"));
            println!("compared {compared}: the windows that were closed by {closed} {agree}{since}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Sites with a local midnight within a window of the version, with their time zone, and the offset that it has then.
fn split(config: &Config, version: &SchemaVersion, from_ms: i64) -> Vec<(String, String, String)> {
    let step_s = version.width.ms() / 1000;
    let mut all = Vec::new();
    for (site, zone) in config.timezones() {
        let Ok(found) = jiff::tz::TimeZone::get(&zone) else { continue };
        let Ok(from) = jiff::Timestamp::from_millisecond(from_ms) else { continue };
        let offsets = [found.to_offset(from)].into_iter();
        let offsets = offsets.chain(found.following(from).take(CHANGES_MAX).map(|change| change.offset()));
        if let Some(offset) = offsets.into_iter().find(|offset| i64::from(offset.seconds()) % step_s != 0) {
            all.push((site, zone, offset.to_string()));
        }
    }
    all
}

/// So many changes of a time zone are looked at: those of decades.
const CHANGES_MAX: usize = 100;
