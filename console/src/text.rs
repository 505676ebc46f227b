use jiff::Timestamp;
use weir_schemas::{SHADOW, control::EtaKept, progress::RunProgress};

use crate::{
    Colour, ConversionState, ConversionStatus, DiskStatus, Eta, ImportState, Maintenance, MaintenanceState,
    PartitionStatus, PausedStatus, Rates, Replacing, RunStatus, Snapshot, SpoolStatus, ThrottledStatus, View,
    light::RETENTION_USED_PERMILLE, words::span,
};

/// Everything as a person reads it in a terminal: the light, then one paragraph a run, the reason for waiting always named.
pub fn render(view: &View) -> String {
    let mut lines = vec![format!("{}: {}", word(view.status), view.sentence)];
    lines.extend(
        view.troubles.iter().skip(1).map(|trouble| format!("  {}: {}", word(trouble.kind.colour()), trouble.sentence)),
    );
    lines.extend(view.snapshot.conversion.iter().map(|one| format!("  {}", one.sentence)));
    lines.push(render_snapshot(&view.snapshot));
    lines.join("\n")
}

/// The conversion that is not over, and the runs that are the shadow's; `None`: there is none.
pub fn render_beside(view: &View) -> Option<String> {
    let snapshot = &view.snapshot;
    let mut lines = render_conversion(snapshot.conversion.as_ref()?, snapshot.at_ms);
    let beside = snapshot.runs.iter().filter(|run| RunStatus::is_role_beside(&run.run));
    beside.for_each(|run| render_run(run, snapshot, &mut lines));
    Some(lines.join("\n"))
}

fn word(colour: Colour) -> &'static str {
    match colour {
        Colour::Green => "GREEN",
        Colour::Yellow => "YELLOW",
        Colour::Red => "RED",
    }
}

fn render_snapshot(snapshot: &Snapshot) -> String {
    let mut lines = Vec::new();
    for run in &snapshot.runs {
        render_run(run, snapshot, &mut lines);
    }
    if let Some(reason) = &snapshot.log_away {
        lines.push(format!("LOG AWAY: nothing is known of the runs · {reason}"));
    } else if snapshot.runs.is_empty() {
        lines.push("nothing has run on this log yet (start `weir serve`)".to_owned());
    }
    if snapshot.log_is_behind {
        lines.push(
            "CLOCKS: by the log's clock live is on time, by this machine's it is late (see to the clocks of brokers and of \
             this machine)"
                .to_owned(),
        );
    }
    lines.extend(snapshot.conversion.iter().flat_map(|one| render_conversion(one, snapshot.at_ms)));
    for import in &snapshot.imports {
        let state = match import.state {
            ImportState::Writing => "its file is being read; nothing of it is counted yet".to_owned(),
            ImportState::Counting => format!("{} events are being counted", import.events),
            ImportState::Done => format!("{} events, all in the table", import.events),
            ImportState::Undoing => "is being taken back".to_owned(),
        };
        lines.push(format!("import {} of {}: {state}", import.id, import.site));
    }
    lines.extend(snapshot.maintenances.iter().filter_map(|one| render_maintenance(one, snapshot.at_ms)));
    lines.extend(snapshot.replacing.iter().map(|one| render_replacing(one, snapshot.at_ms)));
    if snapshot.control_unreadable > 0 {
        let records = count(snapshot.control_unreadable as i64, "record");
        lines.push(format!(
            "control topic: {records} SET ASIDE: not weir's, or of a newer weir, and what it orders is not done here (`weir log` \
             shows what was read; where a part runs a newer weir, bring all to its version)"
        ));
    }
    lines.extend(snapshot.spool.as_ref().map(render_spool));
    lines.extend(snapshot.spool_unreadable.as_ref().map(|reason| format!("spool: UNREADABLE · {reason}")));
    lines.extend(snapshot.disk.as_ref().and_then(render_disk));
    lines.join("\n")
}

/// The order in which an operator asks: what it is, how far, how fast it may be, what it waits for, what to do next.
fn render_conversion(one: &ConversionStatus, now_ms: i64) -> Vec<String> {
    let at = |ms| instant(Some(ms));
    let (state, next) = match one.state {
        ConversionState::Filling => ("is being filled".to_owned(), None),
        ConversionState::CaughtUp => ("is filled and up to date".to_owned(), Some("weir migrate verify")),
        ConversionState::Verified { at_ms } => {
            (format!("is filled, and agreed at {}", at(at_ms)), Some("weir migrate swap"))
        }
        ConversionState::Differs { at_ms, differing } => {
            let values = count(differing as i64, "sum or value").replace("sum or values", "sums or values");
            (format!("DIFFERS in {values}, at {}", at(at_ms)), Some("weir migrate verify"))
        }
        ConversionState::AboutToBeShown { at_ms, back } => {
            let which = if back { "is in use, and the one before" } else { "is filled, and" };
            (format!("{which} is shown as soon as both are complete through {}", at(at_ms)), None)
        }
        ConversionState::Held { since_ms, until_ms } => (
            format!("is in use since {}, the one before is held until {}", at(since_ms), at(until_ms)),
            Some(if now_ms < until_ms { "weir migrate revert" } else { "weir migrate drop" }),
        ),
        ConversionState::Dropping { swapped: true } => ("is in use, the one before is taken away".to_owned(), None),
        ConversionState::Dropping { swapped: false } => ("is taken away".to_owned(), None),
    };
    let old = one.old.map(|old| format!(", after generation {old}")).unwrap_or_default();
    let next = next.map(|next| format!(" (`{next}`)")).unwrap_or_default();
    let ConversionStatus { generation, who, reason, .. } = one;
    let mut lines = vec![format!(
        "conversion: generation {generation}{old}: {state}{next} · started {} by {who} \"{reason}\"",
        at(one.since_ms)
    )];
    if let Some(done) = one.done {
        let log = format!("{} of {} of the log", span(done.log_done_ms), span(done.log_ms));
        let imports = match done.import_records {
            0 => String::new(),
            all => format!(", {} of {} of imports", done.import_records_done, count(all, "record")),
        };
        lines.push(format!("  {} % done: {log}{imports}, from {} on", done.permille / 10, at(one.from_ms)));
    }
    let percent = f64::from(one.share_permille) / 10.0;
    let by = match &one.share_by {
        Some(by) => format!("since {} by {} \"{}\"", at(by.since_ms), by.who, by.reason),
        None => "as all that runs beside live (`weir throttle shadow` sets it)".to_owned(),
    };
    lines.push(format!("  works {percent} % of the time at most, {by}"));
    let has_imports = one.done.is_some_and(|done| done.import_records > 0);
    if let Some(Eta::Between { earliest_ms, latest_ms }) = one.eta.filter(|_| has_imports) {
        let (from, to) = (span(earliest_ms - now_ms), span(latest_ms - now_ms));
        lines.push(format!("  all of it caught up in {from} to {to}"));
    }
    lines.extend(one.gives_way.as_ref().map(|reason| format!("  GIVES WAY: {reason}")));
    lines.extend(one.waits_for.as_ref().map(|reason| format!("  WAITING for {reason}")));
    lines.extend(one.stopped.as_ref().map(|reason| format!("  STOPPED · {reason} (the statistics in use go on)")));
    lines
}

/// One that is not over.
fn render_maintenance(one: &Maintenance, now_ms: i64) -> Option<String> {
    let by =
        format!("by {}{}", one.who, if one.reason.is_empty() { String::new() } else { format!(": {}", one.reason) });
    let run = one.run.as_deref().unwrap_or("nothing");
    let until = one.ends_ms.map(|ends_ms| format!(" until {}", instant(Some(ends_ms)))).unwrap_or_default();
    Some(match one.state {
        MaintenanceState::Planned => {
            format!("maintenance {}: in {}{until}, {by}", one.id, span(one.begins_ms - now_ms))
        }
        MaintenanceState::UnderWay => {
            format!("maintenance {}: {run} is paused since {}{until}, {by}", one.id, instant(Some(one.begins_ms)))
        }
        MaintenanceState::CatchingUp => {
            let since = instant(one.resumed_ms);
            format!("maintenance {}: {run} catches up since {since}, {by}", one.id)
        }
        MaintenanceState::Over | MaintenanceState::Withdrawn => return None,
    })
}

fn render_replacing(one: &Replacing, now_ms: i64) -> String {
    let day = |day: i64| instant(Some(day * 24 * 60 * 60 * 1000)).chars().take("2026-03-01".len()).collect::<String>();
    let days = match one.days.as_slice() {
        [first] => day(*first),
        [first, .., last] => format!("{} days from {} to {}", one.days.len(), day(*first), day(*last)),
        [] => "nothing".to_owned(),
    };
    format!(
        "replay: REPLACES {days} for {} by {} \"{}\" (if it was cut short, the same `weir replay` again ends it, or `weir replay --give-up`)",
        span(now_ms - one.since_ms),
        one.who,
        one.reason
    )
}

/// Under this a disk is said to be nearly full: ClickHouse's merges need room for the parts that they make anew.
const DISK_FREE_MIN_BYTES: u64 = 1 << 30;

fn render_disk(disk: &DiskStatus) -> Option<String> {
    (disk.free_bytes < DISK_FREE_MIN_BYTES).then(|| {
        format!(
            "disk: NEARLY FULL, {} free at {} (free some space; when it is full hits are answered 503 and batches wait, \
             nothing that was acknowledged is lost)",
            size(disk.free_bytes),
            disk.path
        )
    })
}

/// Four fifths full is near full: at a steady rate a quarter of the time since it began is left.
fn render_spool(spool: &SpoolStatus) -> String {
    let SpoolStatus { bytes, bytes_max, batches, age_ms, .. } = *spool;
    let room = format!("{} of {}", size(bytes), size(bytes_max));
    match batches {
        0 => format!("spool: empty, {room}"),
        _ if bytes > bytes_max / 5 * 4 => format!(
            "spool: NEARLY FULL, {room} · {} to go into the log, the oldest {} old (bring the log back, or raise ingest.spool.bytes_max)",
            count(batches as i64, "batch"),
            span(age_ms),
        ),
        _ => format!(
            "spool: {} to go into the log, the oldest {} old · {room}",
            count(batches as i64, "batch"),
            span(age_ms),
        ),
    }
}

/// So many bytes, for a person.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

fn render_run(run: &RunStatus, snapshot: &Snapshot, lines: &mut Vec<String>) {
    let now_ms = snapshot.at_ms;
    if run.topic_gone {
        lines.push(format!(
            "{}: STOPPED · topic {} is gone: somebody has deleted it, and what it held (`weir doctor --fix` makes a new one)",
            run.run, run.topic
        ));
        render_missing(run, lines);
        return;
    }
    let Some(progress) = &run.progress else {
        let waiting = count(run.lag_records, "record");
        lines.push(format!(
            "{}: has not reported yet · {waiting} to go (is `weir serve` or `weir pipeline` running?)",
            run.run
        ));
        return;
    };
    let heard_ms = now_ms - progress.at_ms;
    if let Some(reason) = &progress.stopped {
        lines.push(format!("{}: STOPPED · {reason}", run.run));
    } else if progress.ended {
        lines.push(format!("{}: done", run.run));
    } else if let Some(paused) = &run.paused {
        lines.push(render_paused(run, paused, now_ms));
    } else if heard_ms > SILENT_MS {
        let through = instant(progress.complete_through_ms);
        lines.push(format!(
            "{}: SILENT for {} · complete through {through} · {} to go (is `weir serve` or `weir pipeline` running?)",
            run.run,
            span(heard_ms),
            count(run.lag_records, "record"),
        ));
    } else {
        lines.push(format!(
            "{}: complete through {}, {} ago · {} open · {} to go",
            run.run,
            instant(progress.complete_through_ms),
            span(now_ms - progress.complete_through_ms.unwrap_or(now_ms)),
            count(progress.windows_open as i64, "window"),
            count(run.lag_records, "record"),
        ));
    }
    lines.extend(run.throttled.as_ref().filter(|_| !progress.ended).map(render_throttled));
    if let (Some(why), Some(permille)) = (&progress.gives_way, progress.permille) {
        lines.push(format!("  GIVES WAY: works at most {} % of the time for now, {why}", f64::from(permille) / 10.0));
    }
    render_troubles(progress, now_ms, lines);
    render_missing(run, lines);
    let mut watermark = format!("  watermark {}", instant(progress.watermark_ms));
    let held_by = run.partitions.iter().find(|partition| Some(partition.partition) == progress.held_by);
    if let Some(partition) = held_by {
        watermark.push_str(&format!(
            " (partition {} holds it back, {})",
            partition.partition,
            waits_for(partition, now_ms)
        ));
    }
    // Nothing is waited for by one that is done.
    lines.extend((!progress.ended).then_some(watermark));
    lines.push(format!(
        "  {} read, {} of them late · {} written",
        count(progress.events_read as i64, "event"),
        progress.events_late,
        count(progress.rows_done as i64, "row"),
    ));
    if progress.stamps_bounded > 0 {
        let records = count(progress.stamps_bounded as i64, "record");
        lines.push(format!(
            "  CLOCKS: the log stamped {records} over a minute after they were sent; their time was cut to that (see to the clocks of brokers and collectors)"
        ));
    }
    if progress.records_unreadable > 0 {
        let records = count(progress.records_unreadable as i64, "record");
        lines.push(format!("  {records} set aside: not Weir's, or damaged (weir's own log names each by its offset)"));
    }
    for partition in run.partitions.iter().filter(|partition| partition.lag_records > 0) {
        let records = count(partition.lag_records, "record");
        let pace = partition.rates.map(|rates| format!(" · {}", render_rates(rates))).unwrap_or_default();
        let (partition, behind) = (partition.partition, span(partition.lag_ms));
        lines.push(format!("  partition {partition}: {records} to go, {behind} behind{pace}"));
    }
    lines.extend(run.eta.map(|eta| render_eta(eta, run, now_ms)));
    let is_low = run.retention_used_permille > Some(RETENTION_USED_PERMILLE.begin);
    lines.extend(run.retention_headroom_ms.map(|headroom_ms| match is_low {
        true => format!(
            "  RETENTION: the log deletes what this run still needs {} (raise the retention of {})",
            if headroom_ms > 0 { format!("in {}", span(headroom_ms)) } else { "now".to_owned() },
            run.topic,
        ),
        false => format!("  the log keeps what this run still needs for another {}", span(headroom_ms)),
    }));
}

fn render_paused(run: &RunStatus, paused: &PausedStatus, now_ms: i64) -> String {
    let stands = match paused.through_ms {
        Some(through_ms) => format!("PAUSED · complete through {}", instant(Some(through_ms))),
        None => "PAUSING · it stops at its next batch boundary".to_owned(),
    };
    let until = match paused.until_ms {
        Some(until_ms) => format!("until {}", instant(Some(until_ms))),
        None => {
            let held = if RunStatus::is_role_beside(&run.run) { SHADOW } else { &run.run };
            format!("until `weir resume {held}`")
        }
    };
    format!(
        "{}: {stands} · for {} by {} {until} \"{}\" · {} to go",
        run.run,
        span(now_ms - paused.since_ms),
        paused.who,
        paused.reason,
        count(run.lag_records, "record"),
    )
}

fn render_throttled(throttled: &ThrottledStatus) -> String {
    let ThrottledStatus { since_ms, who, reason, permille } = throttled;
    let percent = f64::from(*permille) / 10.0;
    format!("  THROTTLED to {percent} % of the time since {} by {who} \"{reason}\"", instant(Some(*since_ms)))
}

/// When the run will have caught up, and how much to make of that.
fn render_eta(eta: Eta, run: &RunStatus, now_ms: i64) -> String {
    let said = match eta {
        Eta::Between { earliest_ms, latest_ms } => format!(
            "caught up in {} to {}, between {} and {}",
            span(earliest_ms - now_ms),
            span(latest_ms - now_ms),
            instant(Some(earliest_ms)),
            instant(Some(latest_ms)),
        ),
        Eta::NotConverging => "NOT CONVERGING: as much comes as is read, or more".to_owned(),
        Eta::Unknown => "too little was seen yet to say when it will have caught up".to_owned(),
    };
    let pace = run.rates.map(|rates| format!(" · {}", render_rates(rates))).unwrap_or_default();
    let kept = run.eta_kept.map(|kept| format!(" · the last one {}", render_kept(kept))).unwrap_or_default();
    format!("  {said}{pace}{kept}")
}

fn render_rates(rates: Rates) -> String {
    format!("{:.0} records/s read, {:.0}/s come", rates.drain_per_s, rates.arrival_per_s)
}

/// How far off what was said at half of a backlog was.
pub(crate) fn render_kept(kept: EtaKept) -> String {
    let EtaKept { half_ms, said_ms, came_ms } = kept;
    let off_ms = (came_ms - said_ms).abs();
    let how = if came_ms < said_ms { "earlier" } else { "later" };
    match off_ms < 1_000 {
        true => format!("came when it was said at its half, {} before", span(came_ms - half_ms)),
        false => format!("came {} {how} than was said at its half, {} before", span(off_ms), span(came_ms - half_ms)),
    }
}

/// What goes on by itself, and what somebody else has done.
fn render_troubles(progress: &RunProgress, now_ms: i64, lines: &mut Vec<String>) {
    if let Some(waiting) = progress.waiting.as_ref().filter(|_| progress.stopped.is_none()) {
        lines.push(format!("  WAITING for {} · {} · tried again", span(now_ms - waiting.since_ms), waiting.reason));
    }
    if let Some(moved) = progress.moved.as_ref().filter(|moved| now_ms - moved.at_ms < MOVED_SHOWN_MS) {
        let what = match moved.found {
            Some(offset) => format!("were moved with other tools (partition {} to {offset})", moved.partition),
            None => "were gone, expired or deleted".to_owned(),
        };
        let ago = span(now_ms - moved.at_ms);
        lines.push(format!(
            "  the group's offsets {what}, {ago} ago: nothing reads them, the run has put them back (`weir replay` computes \
             windows again)"
        ));
    }
}

fn render_missing(run: &RunStatus, lines: &mut Vec<String>) {
    lines.extend(run.missing.iter().map(|missing| {
        format!(
            "  MISSING: {} to {}, given up by {} at {}: {}",
            instant(Some(missing.from_ms)),
            instant(Some(missing.to_ms)),
            missing.who,
            instant(Some(missing.at_ms)),
            missing.reason
        )
    }));
}

/// For a day it is said that somebody has moved a group's offsets: so long an operator may look for why nothing came of it.
const MOVED_SHOWN_MS: i64 = 24 * 60 * 60 * 1000;

/// A run that has said nothing for so long, of twice a second, is taken for one that does not run.
pub(crate) const SILENT_MS: i64 = 10_000;

/// Why a partition's time stands where it does.
fn waits_for(partition: &PartitionStatus, now_ms: i64) -> String {
    match partition.arrival_ms {
        _ if partition.lag_records > 0 => format!("with {} to go", count(partition.lag_records, "record")),
        Some(arrival_ms) => format!("silent for {}", span(now_ms - arrival_ms)),
        None => "nothing of it was read yet".to_owned(),
    }
}

fn count(number: i64, what: &str) -> String {
    let plural = if what.ends_with("ch") { "es" } else { "s" };
    format!("{number} {what}{}", if number == 1 { "" } else { plural })
}

pub(crate) fn instant(at_ms: Option<i64>) -> String {
    match at_ms.map(Timestamp::from_millisecond) {
        Some(Ok(at)) => at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        _ => "unknown yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weir_schemas::{
        Missing,
        progress::{Moved, Waiting},
    };

    use super::*;
    use crate::ImportStatus;

    fn run(progress: Option<RunProgress>) -> RunStatus {
        RunStatus {
            run: "live".into(),
            topic: "weir.events".into(),
            progress,
            lag_records: 12,
            lag_ms: 3_000,
            partitions: vec![
                PartitionStatus {
                    partition: 0,
                    offset: Some(5),
                    end: 5,
                    arrival_ms: Some(1_700_000_060_000),
                    lag_records: 0,
                    lag_ms: 0,
                    rates: None,
                },
                PartitionStatus {
                    partition: 1,
                    offset: Some(8),
                    end: 20,
                    arrival_ms: Some(1_700_000_058_000),
                    lag_records: 12,
                    lag_ms: 3_000,
                    rates: None,
                },
            ],
            retention_headroom_ms: Some(90_061_000),
            ..RunStatus::default()
        }
    }

    #[test]
    fn who_slows_a_run_down_is_said_as_long_as_it_has_something_to_do() {
        let shown = |permille, ended| {
            let throttled = ThrottledStatus {
                since_ms: 1_700_000_040_000,
                who: "ops@db1".into(),
                reason: "a day".into(),
                permille,
            };
            let progress = RunProgress { at_ms: 1_700_000_060_000, ended, ..RunProgress::default() };
            let run = RunStatus { throttled: Some(throttled), ..run(Some(progress)) };
            let snapshot = Snapshot { at_ms: 1_700_000_061_000, runs: vec![run], ..Snapshot::default() };
            render_snapshot(&snapshot).lines().filter(|line| line.contains("THROTTLED")).collect::<String>()
        };
        expect![[r#"  THROTTLED to 2.5 % of the time since 2023-11-14 22:14:00 UTC by ops@db1 "a day""#]]
            .assert_eq(&shown(25, false));
        assert_eq!(shown(25, true), "");
    }

    #[test]
    fn a_run_that_is_done_has_nothing_that_is_unknown_yet() {
        let shown = |ended| {
            let run =
                RunStatus { partitions: Vec::new(), ..run(Some(RunProgress { ended, ..RunProgress::default() })) };
            render_snapshot(&Snapshot { runs: vec![run], ..Snapshot::default() })
        };
        let done = shown(true);
        assert!(done.starts_with("live: done") && !done.contains("watermark") && !done.contains("unknown"), "{done}");
        assert!(shown(false).contains("watermark unknown yet"));
    }

    #[test]
    fn a_run_says_how_complete_it_is_and_what_holds_it_back() {
        let progress = RunProgress {
            at_ms: 1_700_000_060_000,
            complete_through_ms: Some(1_700_000_040_000),
            watermark_ms: Some(1_700_000_050_000),
            held_by: Some(1),
            windows_open: 1,
            events_read: 1234,
            events_late: 5,
            rows_done: 99,
            records_unreadable: 1,
            ..RunProgress::default()
        };
        let import = ImportStatus { id: "i1".into(), site: "blog".into(), state: ImportState::Counting, events: 7 };
        let snapshot = Snapshot {
            at_ms: 1_700_000_061_000,
            retention_s: Some(100_000),
            runs: vec![run(Some(progress)), run(None)],
            imports: vec![import],
            ..Snapshot::default()
        };
        expect![[r#"
            live: complete through 2023-11-14 22:14:00 UTC, 21s ago · 1 window open · 12 records to go
              watermark 2023-11-14 22:14:10 UTC (partition 1 holds it back, with 12 records to go)
              1234 events read, 5 of them late · 99 rows written
              1 record set aside: not Weir's, or damaged (weir's own log names each by its offset)
              partition 1: 12 records to go, 3s behind
              the log keeps what this run still needs for another 1day 1h
            live: has not reported yet · 12 records to go (is `weir serve` or `weir pipeline` running?)
            import i1 of blog: 7 events are being counted"#]]
        .assert_eq(&render_snapshot(&snapshot));
    }

    fn shown(progress: RunProgress, headroom_ms: Option<i64>) -> String {
        // Of a retention of 100 s.
        let retention_used_permille = headroom_ms.map(|headroom_ms| 1_000 - headroom_ms / 100);
        let run = RunStatus { retention_headroom_ms: headroom_ms, retention_used_permille, ..run(Some(progress)) };
        let at_ms = 1_700_000_061_000;
        render_snapshot(&Snapshot { at_ms, runs: vec![run], ..Snapshot::default() })
    }

    #[test]
    fn the_spool_says_how_full_and_how_old_it_is_also_while_the_log_is_away() {
        let shown = |batches, bytes, age_ms| {
            let oldest_ms = (batches > 0).then_some(0);
            let mut snapshot = Snapshot::without_log(age_ms, "no answer within 2 s".into());
            snapshot.spool = Some(SpoolStatus { bytes, bytes_max: 4 << 30, batches, oldest_ms, age_ms });
            render_snapshot(&snapshot)
        };
        expect![[r#"
            LOG AWAY: nothing is known of the runs · no answer within 2 s
            spool: 1 batch to go into the log, the oldest 1m 5s old · 4 KiB of 4.0 GiB"#]]
        .assert_eq(&shown(1, 4_500, 65_000));
        assert!(shown(0, 0, 0).ends_with("\nspool: empty, 0 KiB of 4.0 GiB"));
        assert!(shown(9, 7 << 29, 0).contains("\nspool: NEARLY FULL, 3.5 GiB of 4.0 GiB · 9 batches to go"));
    }

    #[test]
    fn a_replacement_says_which_days_since_when_by_whom_and_what_ends_it() {
        let of = |days: &[i64]| Replacing {
            since_ms: 1_700_000_001_000,
            who: "ops@host".into(),
            reason: "rows deleted by hand".into(),
            days: days.to_vec(),
        };
        let mut snapshot = Snapshot::without_log(1_700_000_061_000, "no answer within 2 s".into());
        snapshot.replacing = vec![of(&[19_670]), of(&[19_670, 19_673])];
        expect![[r#"
            LOG AWAY: nothing is known of the runs · no answer within 2 s
            replay: REPLACES 2023-11-09 for 1m by ops@host "rows deleted by hand" (if it was cut short, the same `weir replay` again ends it, or `weir replay --give-up`)
            replay: REPLACES 2 days from 2023-11-09 to 2023-11-12 for 1m by ops@host "rows deleted by hand" (if it was cut short, the same `weir replay` again ends it, or `weir replay --give-up`)"#]]
        .assert_eq(&render_snapshot(&snapshot));
    }

    #[test]
    fn a_stopped_run_says_so_first_and_why() {
        let progress = RunProgress { stopped: Some("the table was altered".into()), ..RunProgress::default() };
        assert!(shown(progress, None).starts_with("live: STOPPED · the table was altered"));
    }

    #[test]
    fn what_a_run_waits_for_what_is_missing_and_who_moved_its_offsets_is_said() {
        let waiting = Waiting { since_ms: 1_700_000_001_000, reason: "clickhouse at u does not answer".into() };
        let moved = Moved { at_ms: 1_700_000_058_000, partition: 3, found: Some(0) };
        let progress = RunProgress {
            at_ms: 1_700_000_061_000,
            complete_through_ms: Some(1_700_000_040_000),
            permille: Some(50),
            gives_way: Some("live is late".into()),
            waiting: Some(waiting),
            moved: Some(moved),
            ..RunProgress::default()
        };
        let missing = Missing {
            from_ms: 1_700_000_000_000,
            to_ms: 1_700_000_020_000,
            at_ms: 1_700_000_030_000,
            who: "ops@host".into(),
            reason: "a disk was lost".into(),
        };
        let run = RunStatus { missing: vec![missing], ..run(Some(progress)) };
        let mut snapshot = Snapshot::without_log(1_700_000_061_000, String::new());
        (snapshot.log_away, snapshot.runs) = (None, vec![run]);
        snapshot.disk = Some(DiskStatus { path: "/data".into(), free_bytes: 300 << 20 });
        let lines = render_snapshot(&snapshot);
        let lines: Vec<_> =
            lines.lines().filter(|line| !line.contains("partition 1") && !line.contains("watermark")).collect();
        expect![[r#"
            live: complete through 2023-11-14 22:14:00 UTC, 21s ago · 0 windows open · 12 records to go
              GIVES WAY: works at most 5 % of the time for now, live is late
              WAITING for 1m · clickhouse at u does not answer · tried again
              the group's offsets were moved with other tools (partition 3 to 0), 3s ago: nothing reads them, the run has put them back (`weir replay` computes windows again)
              MISSING: 2023-11-14 22:13:20 UTC to 2023-11-14 22:13:40 UTC, given up by ops@host at 2023-11-14 22:13:50 UTC: a disk was lost
              0 events read, 0 of them late · 0 rows written
              the log keeps what this run still needs for another 1day 1h
            disk: NEARLY FULL, 300 MiB free at /data (free some space; when it is full hits are answered 503 and batches wait, nothing that was acknowledged is lost)"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn a_run_that_is_behind_says_when_it_will_have_caught_up_and_how_right_that_was_the_last_time() {
        let progress = RunProgress { at_ms: 1_700_000_061_000, ..RunProgress::default() };
        let rates = Some(Rates { drain_per_s: 4_321.4, arrival_per_s: 100.0 });
        let mut behind = RunStatus { rates, ..run(Some(progress)) };
        behind.partitions[1].rates = rates;
        let mut shown = |eta, eta_kept| {
            (behind.eta, behind.eta_kept) = (Some(eta), eta_kept);
            let runs = vec![behind.clone()];
            let text = render_snapshot(&Snapshot { at_ms: 1_700_000_061_000, runs, ..Snapshot::default() });
            text.lines().skip(3).take(2).map(str::trim_start).collect::<Vec<_>>().join("\n")
        };
        let eta = Eta::Between { earliest_ms: 1_700_001_561_000, latest_ms: 1_700_001_921_000 };
        let kept = EtaKept { half_ms: 1_000, said_ms: 600_000, came_ms: 661_000 };
        expect![[r#"
              partition 1: 12 records to go, 3s behind · 4321 records/s read, 100/s come
              caught up in 25m to 31m, between 2023-11-14 22:39:21 UTC and 2023-11-14 22:45:21 UTC · 4321 records/s read, 100/s come · the last one came 1m 1s later than was said at its half, 11m before"#]]
        .assert_eq(&shown(eta, Some(kept)));
        assert!(shown(Eta::NotConverging, None).contains("NOT CONVERGING"));
        assert!(shown(Eta::Unknown, None).contains("too little was seen yet"));
    }

    #[test]
    fn a_topic_that_is_gone_is_said_and_not_taken_for_a_log_on_which_nothing_has_run() {
        let mut snapshot = Snapshot::without_log(0, String::new());
        (snapshot.log_away, snapshot.runs) = (None, vec![RunStatus { topic_gone: true, ..run(None) }]);
        assert!(render_snapshot(&snapshot).starts_with("live: STOPPED · topic weir.events is gone"));
    }

    #[test]
    fn a_run_that_is_paused_is_said_to_be_and_not_to_be_silent() {
        let progress = RunProgress { at_ms: 1_700_000_000_000, ..RunProgress::default() };
        let paused = PausedStatus {
            since_ms: 1_699_999_999_000,
            who: "night@ops".into(),
            reason: "a disk".into(),
            until_ms: Some(1_700_003_600_000),
            through_ms: Some(1_699_999_980_000),
        };
        let shown = |paused| {
            let mut snapshot = Snapshot::without_log(1_700_000_061_000, String::new());
            (snapshot.log_away, snapshot.runs) = (None, vec![RunStatus { paused, ..run(Some(progress.clone())) }]);
            render_snapshot(&snapshot).lines().next().unwrap().to_owned()
        };
        expect![[r#"live: PAUSED · complete through 2023-11-14 22:13:00 UTC · for 1m 2s by night@ops until 2023-11-14 23:13:20 UTC "a disk" · 12 records to go"#]]
        .assert_eq(&shown(Some(paused.clone())));
        let pausing = shown(Some(PausedStatus { until_ms: None, through_ms: None, ..paused }));
        assert!(pausing.starts_with("live: PAUSING · ") && pausing.contains("until `weir resume live`"), "{pausing}");
    }

    #[test]
    fn a_run_that_nobody_hears_of_is_said_to_be_silent() {
        let progress = RunProgress { at_ms: 1_700_000_000_000, ..RunProgress::default() };
        assert!(shown(progress, None).starts_with("live: SILENT for 1m 1s · "));
    }

    #[test]
    fn little_retention_is_said_loudly() {
        let progress = || RunProgress { at_ms: 1_700_000_061_000, ..RunProgress::default() };
        assert!(
            shown(progress(), Some(19_000)).contains("RETENTION: the log deletes what this run still needs in 19s")
        );
        assert!(shown(progress(), Some(-1)).contains("RETENTION: the log deletes what this run still needs now"));
        assert!(!shown(progress(), Some(21_000)).contains("RETENTION"));
    }
}
