//! `weir recover`: a person's decision about a run that has stopped, written into the control topic.
//!
//! ```text
//!  status of the run (Fault) ─┐
//!  log (what is left of it)  ─┼─▶ Known ──▶ plan() ──▶ Plan: records · or a refusal that says what it would cost
//!  --accept-loss             ─┘
//! ```
//!
//! The supervisor starts the run again when it sees the record; the run does the repair before anything else.

use std::{
    collections::BTreeSet,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use weir_log::{Clock, ControlLog, Log, PartitionInUse, SystemClock};
use weir_schemas::{
    DEDUP_HORIZON_MS, Fault, Repair, Replacement, Replacements, WindowWidth, World,
    control::{Action, CARRIED_RUN, ControlRecord, EVENTS_TOPIC, GAP_RUN, TopicId, import_topic},
    days_of, kind_of,
    progress::{RunProgress, group_of},
};

use crate::{config::Config, generation::Generation, judge::at, report, serve, verbs::parse_reason};

/// How long a recovery is waited for; it is done in any case, when somebody runs the runs.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How far ahead a partition with stray records comes into use: as for one that is added.
const INTO_USE_AHEAD_MS: i64 = 20_000;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RecoverArgs {
    /// The run, as `weir status` names it: `live`, `gap`, `import-…`, `shadow-carried`
    run: String,
    /// Why: it is kept for ever, with who and when
    #[arg(long, required_unless_present = "dry_run", value_parser = parse_reason)]
    reason: Option<String>,
    /// What the log does not have any more may be missing in the statistics
    #[arg(long)]
    accept_loss: bool,
    /// Says what would be done
    #[arg(long)]
    dry_run: bool,
}

/// What is decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    /// Whether the run has stopped, and by what.
    stopped: bool,
    fault: Option<Fault>,
    accept_loss: bool,
    /// The first window that can be computed from what the log has, after all that was ever given up; and the one after now.
    whole_ms: i64,
    next_ms: i64,
    /// The latest effective time of a partition in use.
    effective_ms: i64,
    /// How many partitions the topic has.
    partitions: u32,
    width: WindowWidth,
    /// Of the run that carries rows over, while the table that has them is there: its first window. It may be asked to look at
    /// all of them again although it has not stopped, since they may have changed there.
    carries_from_ms: Option<i64>,
    /// Days (UTC, since the Unix epoch) that were replaced by what the log gives since the run has stopped.
    replaced: BTreeSet<i64>,
}

/// What is written: the repairs last, since they set the run going; the first of them with `topic_is`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    into_use: Option<u32>,
    topic_is: Option<TopicId>,
    repairs: Vec<Repair>,
}

impl Plan {
    fn of(repairs: Vec<Repair>) -> Plan {
        Plan { into_use: None, topic_is: None, repairs }
    }

    fn only(repair: Repair) -> Plan {
        Plan::of(vec![repair])
    }
}

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    NotStopped,
    /// It would lose these windows, `[from, to)`, and nobody has said that they may be lost.
    Loss(Vec<(i64, i64)>),
}

/// The least that lets the run go on, so that its table is right again: from the log where that reaches, and where it does
/// not only with the operator's word.
fn plan(known: &Known) -> Result<Plan, Refusal> {
    let give_up = |from_ms: i64, to_ms: i64| lose(known, &[(from_ms, to_ms)]);
    let after = |ms: i64| known.width.next(known.width.window_of(ms)).ms();
    match &known.fault {
        _ if !known.stopped => match known.carries_from_ms {
            Some(from_ms) => Ok(Plan::only(Repair::AskAgain { from_ms })),
            None => Err(Refusal::NotStopped),
        },
        None => Ok(Plan::only(Repair::GoOn)),
        // What was done after the record was lost lies behind a hole: it is asked for again too.
        Some(Fault::TableLost { from_ms, .. }) if known.whole_ms > *from_ms => {
            let mut plan = give_up(*from_ms, known.whole_ms)?;
            plan.repairs.push(Repair::AskAgain { from_ms: known.whole_ms });
            Ok(plan)
        }
        Some(Fault::TableLost { from_ms, .. }) => Ok(Plan::only(Repair::AskAgain { from_ms: *from_ms })),
        Some(Fault::LogCut { from_ms, .. }) if known.whole_ms > *from_ms => give_up(*from_ms, known.whole_ms),
        Some(Fault::LogCut { .. }) => Ok(Plan::only(Repair::GoOn)),
        Some(Fault::ControlLost { reported_ms, .. }) => {
            // What was read before would be counted again, were it read again: the run begins where its partitions did.
            give_up(*reported_ms, known.whole_ms.max(after(known.effective_ms + DEDUP_HORIZON_MS)))
        }
        Some(Fault::LogShrunk { from_ms, .. }) => give_up(*from_ms, known.next_ms.max(known.whole_ms)),
        Some(Fault::TopicReplaced { topic, found, from_ms, .. }) => {
            let plan = give_up(*from_ms, known.whole_ms.max(after(*from_ms)))?;
            Ok(Plan { topic_is: Some(TopicId { topic: topic.clone(), id: found.clone() }), ..plan })
        }
        Some(Fault::StrayRecords { .. }) => Ok(Plan { into_use: Some(known.partitions), ..Plan::only(Repair::GoOn) }),
        Some(Fault::TableAltered { .. } | Fault::OwnersGone { .. }) => Ok(Plan::only(Repair::Mend)),
        Some(Fault::TableDiffers { ranges, .. }) => {
            let is_replaced =
                |(from_ms, to_ms): &(i64, i64)| days_of(*from_ms, *to_ms).all(|day| known.replaced.contains(&day));
            let ranges: Vec<_> = ranges.iter().filter(|range| !is_replaced(range)).copied().collect();
            if ranges.is_empty() {
                return Ok(Plan::only(Repair::GoOn));
            }
            // What the log has is computed again, from the first place that differs there; each place before is by itself.
            let again = ranges.iter().find(|(_, to_ms)| *to_ms > known.whole_ms);
            let again = again.map(|(from_ms, _)| Repair::AskAgain { from_ms: (*from_ms).max(known.whole_ms) });
            let before = ranges.iter().filter(|(from_ms, _)| *from_ms < known.whole_ms);
            let lost: Vec<_> = before.map(|(from_ms, to_ms)| (*from_ms, (*to_ms).min(known.whole_ms))).collect();
            let mut plan = lose(known, &lost)?;
            plan.repairs.extend(again);
            Ok(plan)
        }
    }
}

/// Gives up these windows, if they may be.
fn lose(known: &Known, ranges: &[(i64, i64)]) -> Result<Plan, Refusal> {
    if !ranges.is_empty() && !known.accept_loss {
        return Err(Refusal::Loss(ranges.to_vec()));
    }
    Ok(Plan::of(ranges.iter().map(|&(from_ms, to_ms)| Repair::GiveUp { from_ms, to_ms }).collect()))
}

/// What the plan does, as a person reads it.
fn words(plan: &Plan, run: &str) -> String {
    let mut words = Vec::new();
    if let Some(partitions) = plan.into_use {
        words.push(format!("the partitions 0 to {} come into use, with all that is in them", partitions - 1));
    }
    if let Some(TopicId { topic, id }) = &plan.topic_is {
        words.push(format!("topic {topic} is from now on the one with id {id}"));
    }
    words.extend(plan.repairs.iter().map(|repair| match *repair {
        Repair::GoOn => format!("{run} goes on from the first window that is not in the table"),
        Repair::AskAgain { from_ms } if run.ends_with(CARRIED_RUN) => {
            format!(
                "{run} compares all windows from {} on with the old table again, and writes those that differ",
                at(from_ms)
            )
        }
        Repair::AskAgain { from_ms } => {
            format!("{run} computes all windows from {} on again, and writes those that differ", at(from_ms))
        }
        Repair::GiveUp { from_ms, to_ms } => format!(
            "the windows from {} to {} are taken out of the table, and are named as missing; {run} goes on after them",
            at(from_ms),
            at(to_ms)
        ),
        Repair::Mend => "the tables are made what they must be, and every row is compared".to_owned(),
    }));
    words.join("; ")
}

/// Exit code 1 when nothing is done, or the run has stopped again.
pub(crate) async fn main(config: &Config, args: &RecoverArgs) -> anyhow::Result<ExitCode> {
    let (config, args) = (config.clone(), args.clone());
    tokio::task::spawn_blocking(move || recover(&config, &args)).await?
}

fn recover(config: &Config, args: &RecoverArgs) -> anyhow::Result<ExitCode> {
    let log = weir_log::open(&config.log_config(), Arc::new(SystemClock)).context("the log cannot be opened")?;
    let control = ControlLog::open(log.clone())?;
    let world = World::of(control.read_all()?.records.iter().map(|(_, record)| record));
    let no_run = || format!("there is no run {} (`weir status` names them)", args.run);
    let run = world.roles.run(&args.run).with_context(no_run)?;
    let (run, role) = (run.as_str(), world.roles.role(&run));
    let topic = match kind_of(run).1 {
        "live" | GAP_RUN | CARRIED_RUN => EVENTS_TOPIC.to_owned(),
        kind => import_topic(kind.strip_prefix("import-").with_context(no_run)?),
    };
    let told = progress(log.as_ref(), run, &topic)?.with_context(|| {
        format!(
            "run {role} has not reported, or somebody has moved its group's offsets (`weir status` names the runs; a \
                 restart of `weir serve` or `weir pipeline` looks again at what is wrong)"
        )
    })?;
    let known = know(config, &log, &control, (run, &topic), &told, args.accept_loss)?;
    let plan = match plan(&known) {
        Ok(plan) => plan,
        Err(Refusal::NotStopped) => {
            let waits = told.waiting.map_or(String::new(), |waiting| format!("; it waits: {}", waiting.reason));
            anyhow::bail!("run {role} has not stopped, there is nothing to recover{waits}");
        }
        Err(Refusal::Loss(ranges)) => {
            let ranges: Vec<_> =
                ranges.iter().map(|(from_ms, to_ms)| format!("from {} to {}", at(*from_ms), at(*to_ms))).collect();
            anyhow::bail!(
                "the log does not have what the windows {} need: going on gives them up (say --accept-loss if they may be \
                 lost; a copy of ClickHouse, brought back first, may have them)",
                ranges.join(", ")
            )
        }
    };
    if args.dry_run {
        println!("would do: {}", words(&plan, &role));
        return Ok(ExitCode::SUCCESS);
    }
    let id = write(&control, &plan, run, args.reason.as_deref().unwrap_or_default())?;
    println!("ordered: {}", words(&plan, &role));
    let world = World::of(control.read_all()?.records.iter().map(|(_, record)| record));
    if let Some(pause) = world.hold(run).paused() {
        println!(
            "{role} is paused since {} by {}, \"{}\": it is done when the run goes on (`weir resume {role}`)",
            at(pause.by.at_ms),
            pause.by.who,
            pause.by.reason
        );
        return Ok(ExitCode::SUCCESS);
    }
    wait(log.as_ref(), (run, &role), &topic, id)
}

fn progress(log: &dyn Log, run: &str, topic: &str) -> anyhow::Result<Option<RunProgress>> {
    Ok(report::told(&log.committed(&group_of(run), topic)?))
}

fn know(
    config: &Config,
    log: &Arc<dyn Log>,
    control: &ControlLog,
    (run, topic): (&str, &str),
    told: &RunProgress,
    accept_loss: bool,
) -> anyhow::Result<Known> {
    let world = World::of(control.read_all()?.records.iter().map(|(_, record)| record));
    let generation = Generation::of(config, &world, kind_of(run).0)?;
    let (version, carried) =
        (&generation.version, generation.carried.as_ref().filter(|_| kind_of(run).1 == CARRIED_RUN));
    let carried = carried.map(|of| (of.from_ms, world.generations.alive().contains(&of.old)));
    let width = version.width;
    let now_ms = SystemClock.now_ms();
    let partitions = log.partitions(topic)?;
    let in_use: Vec<PartitionInUse> = match topic {
        EVENTS_TOPIC => weir_log::partitions_in_use(&world.control),
        _ => (0..partitions).map(|partition| PartitionInUse { partition, effective_ms: i64::MIN }).collect(),
    };
    // A partition in use that the topic does not have, as after it was made anew, has no beginning to look at.
    let there: Vec<_> = in_use.iter().copied().filter(|in_use| in_use.partition < partitions).collect();
    let renewed = matches!(told.fault, Some(Fault::TopicReplaced { .. }));
    let whole = weir_pipeline::whole_from(log.as_ref(), topic, &there, width, renewed, now_ms)?;
    let given_up = world.recoveries(run).given_up_to_ms();
    // What is carried over is all in the old table, or nowhere.
    let whole_ms = match (carried, generation.from_ms) {
        (Some((from_ms, true)), _) | (Some(_), Some(from_ms)) => from_ms,
        _ => given_up.map_or(whole, |given_up_ms| whole.max(width.window_of(given_up_ms))).ms(),
    };
    let replaced = match kind_of(run).1 {
        "live" => replaced_since(&world.replacements, version.number, told.at_ms),
        _ => BTreeSet::new(),
    };
    Ok(Known {
        stopped: told.stopped.is_some(),
        fault: told.fault.clone(),
        accept_loss,
        whole_ms,
        carries_from_ms: carried.filter(|(_, is_there)| *is_there).map(|(from_ms, _)| from_ms),
        next_ms: width.next(width.window_of(now_ms)).ms(),
        effective_ms: in_use.iter().map(|in_use| in_use.effective_ms).max().unwrap_or(now_ms).max(0),
        partitions,
        width,
        replaced,
    })
}

/// The days of a generation's table that were replaced after `since_ms`, to the end.
fn replaced_since(all: &Replacements, generation: u32, since_ms: i64) -> BTreeSet<i64> {
    let done = |one: &&Replacement| one.done_ms.is_some_and(|done_ms| done_ms > since_ms);
    let done = all.all.iter().filter(done).filter(|one| one.generation == generation);
    done.flat_map(|one| one.days.iter().copied()).collect()
}

/// Writes the plan's records; the newest recovery's id.
fn write(control: &ControlLog, plan: &Plan, run: &str, reason: &str) -> anyhow::Result<i64> {
    let id = SystemClock.now_ms();
    let say = |action| {
        let record = ControlRecord { at_ms: id, who: serve::who(), reason: reason.to_owned(), action };
        futures::executor::block_on(control.append(&record))
    };
    if let Some(partitions) = plan.into_use {
        say(Action::PartitionsInUse { partitions, effective_ms: id + INTO_USE_AHEAD_MS })?;
    }
    let mut topic_is = plan.topic_is.clone();
    let ids = id..;
    for (id, repair) in ids.zip(&plan.repairs) {
        say(Action::Recover { run: run.to_owned(), id, repair: repair.clone(), topic_is: topic_is.take() })?;
    }
    Ok(id + plan.repairs.len() as i64 - 1)
}

/// Waits until the run has heard of it, and says what came of it.
fn wait(log: &dyn Log, (run, role): (&str, &str), topic: &str, id: i64) -> anyhow::Result<ExitCode> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        std::thread::sleep(LOOK_EVERY);
        let Some(told) = progress(log, run, topic)? else { continue };
        if told.at_ms < id {
            continue;
        }
        if let Some(stopped) = told.stopped {
            println!("{role} has stopped again: {stopped}");
            return Ok(ExitCode::FAILURE);
        }
        if told.recovery == Some(id) {
            println!("{role} goes on from {}", at(told.complete_through_ms.unwrap_or_default()));
            return Ok(ExitCode::SUCCESS);
        }
    }
    println!(
        "nobody has done it yet; it will be done first when {role} begins (is `weir serve` or `weir pipeline` running?)"
    );
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: i64 = 600_000;

    fn known(fault: Option<Fault>, whole_ms: i64, accept_loss: bool) -> Known {
        Known {
            stopped: true,
            fault,
            accept_loss,
            whole_ms,
            next_ms: 1_200_000,
            effective_ms: 0,
            carries_from_ms: None,
            partitions: 5,
            width: WindowWidth::new(60_000).expect("divides a day"),
            replaced: BTreeSet::new(),
        }
    }

    fn faults() -> [Fault; 10] {
        let topic = || "t".to_owned();
        [
            Fault::TableLost { reported_ms: 900_000, from_ms: FROM },
            Fault::ControlLost { reported_ms: FROM, from_ms: 900_000 },
            Fault::LogCut { topic: topic(), partition: 0, start: 9, from_ms: FROM },
            Fault::LogShrunk { topic: topic(), partition: 0, read: 9, end: 3, from_ms: FROM },
            Fault::TopicReplaced { topic: topic(), recorded: "a".into(), found: "b".into(), from_ms: FROM },
            Fault::StrayRecords { topic: topic(), partition: 4, records: 2 },
            Fault::TableAltered { table: "t".into(), differs: "d".into(), mends: true },
            Fault::OwnersGone { table: "owners".into() },
            Fault::TableDiffers { ranges: vec![(FROM, 720_000)], found: "f".into(), findings: 1 },
            Fault::TableAltered { table: "t".into(), differs: "d".into(), mends: false },
        ]
    }

    #[test]
    fn a_run_that_has_not_stopped_is_left_alone() {
        for fault in faults() {
            let known = Known { stopped: false, ..known(Some(fault), 0, true) };
            assert_eq!(plan(&known), Err(Refusal::NotStopped));
            let again = Plan::only(Repair::AskAgain { from_ms: 9 });
            assert_eq!(plan(&Known { carries_from_ms: Some(9), ..known }), Ok(again), "the old table may have changed");
        }
    }

    #[test]
    fn nothing_is_given_up_that_the_log_has_and_nothing_without_the_operators_word() {
        // (the log has all of it, the log does not) by fault.
        let lost = |to_ms| vec![Repair::GiveUp { from_ms: FROM, to_ms }];
        let again = |from_ms| Repair::AskAgain { from_ms };
        let late = 840_000;
        let wanted = [
            (vec![again(FROM)], [lost(late), vec![again(late)]].concat()),
            (lost(660_000), lost(late)),
            (vec![Repair::GoOn], lost(late)),
            (lost(1_200_000), lost(1_200_000)),
            (lost(660_000), lost(late)),
            (vec![Repair::GoOn], vec![Repair::GoOn]),
            (vec![Repair::Mend], vec![Repair::Mend]),
            (vec![Repair::Mend], vec![Repair::Mend]),
            (vec![again(FROM)], lost(720_000)),
            (vec![Repair::Mend], vec![Repair::Mend]),
        ];
        for (fault, (reaches, does_not)) in faults().into_iter().zip(wanted) {
            for (whole_ms, repairs) in [(0, reaches), (late, does_not)] {
                let accepted = plan(&known(Some(fault.clone()), whole_ms, true)).expect("a plan");
                assert_eq!(accepted.repairs, repairs, "{fault:?} {whole_ms}");
                let refused = plan(&known(Some(fault.clone()), whole_ms, false));
                match repairs[0] {
                    Repair::GiveUp { from_ms, to_ms } => {
                        assert_eq!(refused, Err(Refusal::Loss(vec![(from_ms, to_ms)])))
                    }
                    _ => assert_eq!(refused, Ok(accepted), "the word changes nothing where nothing is lost"),
                }
            }
        }
        assert_eq!(plan(&known(None, late, false)), Ok(Plan::only(Repair::GoOn)), "what was seen to by hand");
    }

    #[test]
    fn a_new_topic_is_named_and_stray_partitions_come_into_use() {
        let of = |fault: &Fault| plan(&known(Some(fault.clone()), 0, true)).expect("a plan");
        assert_eq!(of(&faults()[4]).topic_is, Some(TopicId { topic: "t".into(), id: "b".into() }));
        assert_eq!(of(&faults()[5]).into_use, Some(5));
        let all = faults();
        for fault in [0, 1, 2, 3, 6, 7, 8, 9].map(|at| &all[at]) {
            assert_eq!((of(fault).topic_is, of(fault).into_use), (None, None), "{fault:?}");
        }
    }

    #[test]
    fn each_place_that_differs_is_given_up_by_itself_and_what_the_log_has_is_computed_again() {
        let fault =
            |ranges: &[(i64, i64)]| Fault::TableDiffers { ranges: ranges.to_vec(), found: "f".into(), findings: 3 };
        let lost = |from_ms, to_ms| Repair::GiveUp { from_ms, to_ms };
        let again = |from_ms| Repair::AskAgain { from_ms };
        let whole_ms = 840_000;
        for (ranges, wanted) in [
            (&[(600_000, 660_000), (720_000, 780_000)][..], vec![lost(600_000, 660_000), lost(720_000, 780_000)]),
            (&[(600_000, 660_000), (900_000, 960_000)], vec![lost(600_000, 660_000), again(900_000)]),
            // A batch of which the log has the later part.
            (&[(780_000, 900_000)], vec![lost(780_000, 840_000), again(840_000)]),
            (&[(840_000, 900_000), (960_000, 1_020_000)], vec![again(840_000)]),
        ] {
            let plan = plan(&known(Some(fault(ranges)), whole_ms, true)).expect("a plan");
            assert_eq!(plan.repairs, wanted, "{ranges:?}");
        }
    }

    #[test]
    fn a_place_whose_days_were_replaced_since_is_right_again() {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        let ranges = vec![(FROM, 720_000), (DAY_MS - 60_000, DAY_MS + 60_000), (2 * DAY_MS, 3 * DAY_MS)];
        let fault = Fault::TableDiffers { ranges, found: "f".into(), findings: 3 };
        let of = |replaced: &[i64]| {
            let replaced = replaced.iter().copied().collect();
            plan(&Known { replaced, ..known(Some(fault.clone()), 0, false) }).expect("a plan").repairs
        };
        let again = |from_ms| vec![Repair::AskAgain { from_ms }];
        assert_eq!(of(&[]), again(FROM));
        assert_eq!(of(&[0]), again(DAY_MS - 60_000), "half of it is not all");
        assert_eq!(of(&[0, 1]), again(2 * DAY_MS));
        assert_eq!(of(&[0, 1, 2]), [Repair::GoOn]);
    }

    #[test]
    fn only_what_was_replaced_to_the_end_in_this_generation_since_the_run_has_stopped_counts_as_replaced() {
        let record = |(at_ms, action): (usize, Action)| {
            let (who, reason) = ("ops".to_owned(), String::new());
            ControlRecord { at_ms: at_ms as i64, who, reason, action }
        };
        let replace = |id: i64, generation| Action::Replace { id, generation, days: vec![id] };
        let replaced = |id, done| Action::Replaced { id, done };
        let said = [replace(1, 1), replaced(1, true), replace(2, 1), replaced(2, false), replace(3, 2), replace(4, 1)];
        let said =
            said.into_iter().chain([replaced(4, true), replaced(3, true), replace(5, 1)]).enumerate().map(record);
        let all = Replacements::of(&said.collect::<Vec<_>>());
        assert_eq!(replaced_since(&all, 1, 1), BTreeSet::from([4]));
        assert_eq!(replaced_since(&all, 1, 0), BTreeSet::from([1, 4]));
        assert_eq!(replaced_since(&all, 2, 0), BTreeSet::from([3]));
    }
}
