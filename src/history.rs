//! `weir log`: who ordered what, when and why: the control topic for a person.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use weir_log::{ControlLog, ControlRecords, SystemClock};
use weir_schemas::{
    Number, Repair, SchemaVersion,
    control::{Action, ControlRecord, TopicId},
};

use crate::{config::Config, digest::date, judge::at};

#[derive(Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(config: &Config, args: &LogArgs) -> anyhow::Result<ExitCode> {
    let log = weir_log::open_existing(&config.log_config(), Arc::new(SystemClock));
    let control = ControlLog::look(log.context("the log cannot be opened")?)?;
    let all = control.context("nothing has run on this log yet (start `weir serve`)")?.read_all()?;
    if args.json {
        let records: Vec<&ControlRecord> = all.records.iter().map(|(_, record)| record).collect();
        println!("{}", serde_json::json!({ "records": records, "unreadable": all.unreadable }));
    } else {
        println!("{}", render(&all));
    }
    Ok(ExitCode::SUCCESS)
}

/// A line a record, newest last.
fn render(all: &ControlRecords) -> String {
    let rows = all.records.iter().map(|(_, record)| (record, words(&record.action)));
    let rows: Vec<_> = rows.collect();
    let widest = |of: &dyn Fn(&(&ControlRecord, String)) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let who = widest(&|(record, _)| record.who.chars().count());
    let what = widest(&|(_, words)| words.chars().count());
    let line = |(record, words): &(&ControlRecord, String)| {
        let line = format!("{}  {:who$}  {words:what$}  {}", at(record.at_ms), record.who, record.reason);
        line.trim_end().to_owned()
    };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    if all.unreadable > 0 {
        lines.push(format!(
            "{} set aside: not weir's, or of a newer weir (weir's own log names each by its offset)",
            match all.unreadable {
                1 => "1 record was".to_owned(),
                many => format!("{many} records were"),
            }
        ));
    }
    lines.join("\n")
}

fn words(action: &Action) -> String {
    match action {
        Action::PartitionsInUse { partitions, effective_ms } => {
            format!("{partitions} partitions are in use from {}", at(*effective_ms))
        }
        Action::ImportBegun { import } => format!("import {} of {} begins", import.id, import.site),
        Action::ImportWritten { id, events, .. } => format!("import {id} is written, {events} events"),
        Action::ImportUndo { id } => format!("import {id} is to be taken back"),
        Action::ImportUndone { id } => format!("import {id} was taken back"),
        Action::TopicIs(TopicId { topic, id }) => format!("topic {topic} is the one with id {id}"),
        Action::Recover { run, repair, .. } => match repair {
            Repair::GoOn => format!("recover {run}: goes on"),
            Repair::Mend => format!("recover {run}: the table is mended"),
            Repair::AskAgain { from_ms } => format!("recover {run}: everything from {} on again", at(*from_ms)),
            Repair::GiveUp { from_ms, to_ms } => format!("recover {run}: gives up {} to {}", at(*from_ms), at(*to_ms)),
        },
        Action::Recovered { run, .. } => format!("{run} was recovered"),
        Action::Pause { run, until_ms, allow_loss, .. } => {
            let until = until_ms.map_or(String::new(), |until_ms| format!(" until {}", at(until_ms)));
            let loss = if *allow_loss { ", loss allowed" } else { "" };
            format!("pause {run}{until}{loss}")
        }
        Action::Paused { run, through_ms, .. } => format!("{run} is paused, complete through {}", at(*through_ms)),
        Action::Resume { run, left_to_ms, .. } => match left_to_ms {
            Some(left_to_ms) => format!("resume {run} at {}, the rest later", at(*left_to_ms)),
            None => format!("resume {run}"),
        },
        Action::Resumed { run, through_ms, .. } => format!("{run} goes on from {}", at(*through_ms)),
        Action::CaughtUp { run, .. } => format!("{run} has caught up"),
        Action::Throttle { run, permille, .. } => format!("throttle {run} to {} %", f64::from(*permille) / 10.0),
        Action::BackupMade(backup) => format!("copy {} was made", backup.name),
        Action::BackupRestored { name, .. } => format!("copy {name} was brought back"),
        Action::Replace { days, .. } => format!("replace {}", crate::replay::days_in_words(days)),
        Action::Replaced { done: true, .. } => "the days were replaced".to_owned(),
        Action::Replaced { done: false, .. } => "the days are not replaced any more".to_owned(),
        Action::Audited { .. } => "every row was compared, since days were given up: all is right".to_owned(),
        Action::MaintenancePlanned { begins_ms, ends_ms, .. } => {
            format!("maintenance planned, {} to {}", at(*begins_ms), at(*ends_ms))
        }
        Action::MaintenanceCancelled { .. } => "maintenance cancelled".to_owned(),
        Action::FirstGeneration { version } => match SchemaVersion::parse(version, "the first generation's version") {
            Ok(version) => format!("the first generation is of version {}", version.number),
            Err(_) => "the first generation is of a version that this weir does not carry".to_owned(),
        },
        Action::ConversionStarted { generation, from_ms, carried, .. } => {
            let carried =
                carried.map(|carried| format!(", what is older carried over from {} on", at(carried.from_ms)));
            let carried = carried.unwrap_or_default();
            format!("generation {generation} is filled beside the one in use, from {} on{carried}", at(*from_ms))
        }
        Action::Verified { differing: 0, closed_ms, .. } => {
            format!("both generations agree on the windows that were closed by {}", at(*closed_ms))
        }
        Action::Verified { differing, closed_ms, .. } => {
            format!(
                "both generations differ in {differing} sums or values of windows that were closed by {}",
                at(*closed_ms)
            )
        }
        Action::Agrees { origin, before_day, .. } => {
            let of = if origin.is_empty() { "live".to_owned() } else { format!("import {origin}") };
            match before_day {
                Some(day) => format!("of {of} all before {} agrees so far", date(*day)),
                None => format!("of {of} all agrees"),
            }
        }
        Action::DifferenceAccepted { dimension, .. } => format!("{dimension} need not agree"),
        Action::Show { generation, at_ms, .. } => {
            format!("{} is to be shown as soon as both are complete through {}", which(*generation), at(*at_ms))
        }
        Action::Shown { .. } => "it is shown".to_owned(),
        Action::NotShown { .. } => "it is not shown: all stays as it was".to_owned(),
        Action::Drop { generation, .. } => format!("{} is to be dropped", which(*generation)),
        Action::Dropped { generation } => format!("{} was dropped", which(*generation)),
    }
}

fn which(generation: Number) -> String {
    match generation {
        None => "the first generation".to_owned(),
        Some(number) => format!("generation {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_in_their_order_and_those_that_cannot_be_read_are_counted() {
        let record = |at_ms, who: &str, reason: &str, action| {
            (at_ms, ControlRecord { at_ms, who: who.into(), reason: reason.into(), action })
        };
        let run = || "live".to_owned();
        let pause = Action::Pause { run: run(), id: 1, until_ms: Some(7_200_000), allow_loss: false };
        let records = vec![
            record(0, "night@anna", "a disk", pause),
            record(9_000, "supervisor", "", Action::Paused { run: run(), id: 1, through_ms: 0 }),
            record(60_000, "night@anna", "done", Action::Resume { run: run(), id: 2, left_to_ms: None }),
        ];
        expect_test::expect![[r#"
            1970-01-01 00:00:00 UTC  night@anna  pause live until 1970-01-01 02:00:00 UTC                  a disk
            1970-01-01 00:00:09 UTC  supervisor  live is paused, complete through 1970-01-01 00:00:00 UTC
            1970-01-01 00:01:00 UTC  night@anna  resume live                                               done
            1 record was set aside: not weir's, or of a newer weir (weir's own log names each by its offset)"#]]
        .assert_eq(&render(&ControlRecords { records, unreadable: 1, end: 4 }));
    }
}
