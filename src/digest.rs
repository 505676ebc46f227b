//! `weir digest`: what a generation's table holds, in few enough digits that two people can compare them by eye.

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context, ensure};
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use serde_json::json;
use weir_log::{ControlLog, SystemClock};
use weir_schemas::{Generations, SchemaVersion, World};
use weir_sink::{Between, Content, SinkError};

use crate::{config::Config, generation::Generation, replay};

#[derive(Debug, clap::Args)]
pub(crate) struct DigestArgs {
    /// The first window, a day (UTC) or an instant, as in 2026-03-01 or 2026-03-01T12:00:00Z; without it the oldest
    #[arg(long, value_parser = instant, value_name = "TIME")]
    from: Option<Timestamp>,
    /// The first window that is left out; without it none is
    #[arg(long, value_parser = instant, value_name = "TIME")]
    to: Option<Timestamp>,
    /// The table `stats_vN`; without it the one that the public views show
    #[arg(long, value_name = "N")]
    generation: Option<u32>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Prints rows and digest of the windows, by day and of all.
pub(crate) async fn main(config: &Config, args: &DigestArgs) -> anyhow::Result<ExitCode> {
    if let (Some(from), Some(to)) = (args.from, args.to) {
        ensure!(from < to, "--from {from} is not before --to {to}");
    }
    let version = version(config, args.generation).await?;
    let ms = |at: Option<Timestamp>| at.map(Timestamp::as_millisecond);
    let between = Between { from_ms: ms(args.from), to_ms: ms(args.to) };
    let days = match weir_sink::contents(&config.target()?, &version, between).await {
        Ok(days) => days,
        // A table that is not there, or something else that ClickHouse refuses for ever.
        Err(error @ SinkError::Stopped { .. }) => {
            let dropped = was_dropped(config, version.number).await.unwrap_or(false);
            ensure!(!dropped, "generation {} was dropped, its table is not there any more", version.number);
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    println!("{}", if args.json { as_json(&version, args, &days) } else { as_text(&version, args, &days) });
    Ok(ExitCode::SUCCESS)
}

/// That of a generation which there is, or was; `None`: of the one in use. Without the log it is the configured one's.
async fn version(config: &Config, wanted: Option<u32>) -> anyhow::Result<SchemaVersion> {
    let configured = || config.schema_version().ok().filter(|version| wanted == Some(version.number));
    let of = |world: World| -> anyhow::Result<SchemaVersion> {
        let first = Generation::of(config, &world, None)?.version;
        match wanted {
            Some(number) if number == first.number => Ok(first),
            Some(number) => Ok(Generation::of(config, &world, Some(number))?.version),
            None => Ok(Generation::in_use(config, &world)?.version),
        }
    };
    match world(config).await {
        Ok(world) => of(world),
        Err(error) => configured().ok_or(error),
    }
}

async fn world(config: &Config) -> anyhow::Result<World> {
    let opened = config.log_config();
    let control = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let log =
            weir_log::open_existing(&opened, Arc::new(SystemClock)).context("the log, which knows the generations")?;
        Ok(ControlLog::open(log)?)
    });
    Ok(World::of(&replay::records(&control.await??).await?))
}

/// Errors: the log, which knows it, is away.
async fn was_dropped(config: &Config, wanted: u32) -> anyhow::Result<bool> {
    let world = world(config).await?;
    let first = Generation::of(config, &world, None)?.version.number;
    Ok(is_dropped(&world.generations, first, wanted))
}

/// Whether the table `stats_vN` has been taken away; `first`: the N of the first.
fn is_dropped(generations: &Generations, first: u32, wanted: u32) -> bool {
    let number = (wanted != first).then_some(wanted);
    generations.drops.iter().any(|(dropped, _, done)| *dropped == number && *done)
}

/// An instant, or midnight (UTC) of a day.
pub(crate) fn instant(text: &str) -> Result<Timestamp, String> {
    let day = |text: &str| TimeZone::UTC.to_timestamp(text.parse::<Date>().ok()?.at(0, 0, 0, 0)).ok();
    let plain_day = text.len() <= "2026-03-01".len();
    let at = if plain_day { day(text) } else { text.parse().ok() };
    at.ok_or_else(|| "a day like 2026-03-01, or an instant like 2026-03-01T12:00:00Z, is needed".to_owned())
}

fn as_text(version: &SchemaVersion, args: &DigestArgs, days: &[(i64, Content)]) -> String {
    let bound = |at: Option<Timestamp>, open: &str| at.map_or_else(|| open.to_owned(), |at| at.to_string());
    let (from, to) = (bound(args.from, "the first"), bound(args.to, "the last"));
    let mut text = format!("generation {}, windows from {from} to {to}\n", version.number);
    let all = ("all".to_owned(), sum(days));
    for (name, content) in days.iter().map(|(day, content)| (date(*day), *content)).chain([all]) {
        text += &format!("{name:<10} {:>15} rows  {}\n", content.rows, grouped(content.digest));
    }
    text.trim_end().to_owned()
}

fn as_json(version: &SchemaVersion, args: &DigestArgs, days: &[(i64, Content)]) -> String {
    let digits = |content: Content| format!("{:016x}", content.digest);
    let of_day =
        |(day, content): &(i64, Content)| json!({"day": date(*day), "rows": content.rows, "digest": digits(*content)});
    let all = sum(days);
    let at = |at: Option<Timestamp>| at.map(|at| at.to_string());
    json!({
        "generation": version.number, "from": at(args.from), "to": at(args.to),
        "rows": all.rows, "digest": digits(all), "days": days.iter().map(of_day).collect::<Vec<_>>(),
    })
    .to_string()
}

fn sum(days: &[(i64, Content)]) -> Content {
    let mut sum = Content::default();
    days.iter().for_each(|(_, content)| sum += *content);
    sum
}

pub(crate) fn date(day: i64) -> String {
    (Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * day)).strftime("%Y-%m-%d").to_string()
}

/// 16 hexadecimal digits in groups of four.
pub(crate) fn grouped(digest: u64) -> String {
    let digits = format!("{digest:016x}");
    [&digits[..4], &digits[4..8], &digits[8..12], &digits[12..]].join(" ")
}

#[cfg(test)]
mod tests {
    use weir_schemas::control::{Action, ControlRecord};

    use super::*;

    #[test]
    fn a_generation_is_dropped_when_its_table_was_taken_away() {
        let started =
            Action::ConversionStarted { id: 1, generation: 2, version: String::new(), from_ms: 0, carried: None };
        let show = Action::Show { id: 2, generation: Some(2), at_ms: 0, hold_ms: 0 };
        let drop = [Action::Drop { id: 3, generation: None }, Action::Dropped { generation: None }];
        let said = [&[started, show, Action::Shown { id: 2 }], drop.as_slice()].concat();
        let record = |action| ControlRecord { at_ms: 0, who: "ops".into(), reason: String::new(), action };
        let said: Vec<_> = said.into_iter().map(record).collect();
        let dropped =
            |records: usize| [1, 2, 3].map(|wanted| is_dropped(&Generations::of(&said[..records]), 1, wanted));
        assert_eq!([dropped(3), dropped(4), dropped(5)], [[false; 3], [false; 3], [true, false, false]]);
    }

    fn args(from: Option<&str>) -> DigestArgs {
        DigestArgs { from: from.map(|text| instant(text).unwrap()), to: None, generation: None, json: false }
    }

    fn days() -> Vec<(i64, Content)> {
        vec![
            (20_513, Content { rows: 12, digest: 0xffff_0000_0000_0001 }),
            (20_514, Content { rows: 3, digest: 1 << 60 }),
        ]
    }

    #[test]
    fn what_is_compared_by_eye_has_a_line_a_day_and_one_of_all() {
        let text = as_text(&SchemaVersion::builtin(1).unwrap(), &args(Some("2026-03-01")), &days());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "generation 1, windows from 2026-03-01T00:00:00Z to the last",
                "2026-03-01              12 rows  ffff 0000 0000 0001",
                "2026-03-02               3 rows  1000 0000 0000 0000",
                "all                     15 rows  0fff 0000 0000 0001",
            ]
        );
    }

    #[test]
    fn a_program_gets_the_same_as_json() {
        let json: serde_json::Value =
            serde_json::from_str(&as_json(&SchemaVersion::builtin(1).unwrap(), &args(None), &days())).unwrap();
        assert_eq!(json["rows"], 15);
        assert_eq!(json["digest"], "0fff000000000001");
        assert_eq!(json["days"][1], json!({"day": "2026-03-02", "rows": 3, "digest": "1000000000000000"}));
        assert!(json["from"].is_null());
    }

    #[test]
    fn a_bound_is_a_day_or_an_instant() {
        assert_eq!(instant("2026-03-01").unwrap(), instant("2026-03-01T00:00:00Z").unwrap());
        assert_eq!(instant("2026-03-01T01:00:00+01:00").unwrap(), instant("2026-03-01").unwrap());
        for wrong in ["", "today", "2026-02-30", "12:00", "2026-03-01T12:00"] {
            assert!(instant(wrong).is_err(), "{wrong}");
        }
    }
}
