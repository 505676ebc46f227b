use jiff::Timestamp;

use crate::{ImportState, RunStatus, Snapshot};

/// The snapshot as a person reads it in a terminal: one paragraph a run, the reason for waiting always named.
pub fn render(snapshot: &Snapshot) -> String {
    let mut lines = Vec::new();
    for run in &snapshot.runs {
        render_run(run, snapshot.at_ms, &mut lines);
    }
    if snapshot.runs.is_empty() {
        lines.push("nothing has run on this log yet (start `weir serve`)".to_owned());
    }
    for import in &snapshot.imports {
        let state = match import.state {
            ImportState::Writing => "its file is being read; nothing of it is counted yet".to_owned(),
            ImportState::Counting => format!("{} events are being counted", import.events),
            ImportState::Done => format!("{} events, all in the table", import.events),
            ImportState::Undoing => "is being taken back".to_owned(),
        };
        lines.push(format!("import {} of {}: {state}", import.id, import.site));
    }
    lines.join("\n")
}

fn render_run(run: &RunStatus, now_ms: i64, lines: &mut Vec<String>) {
    let Some(progress) = &run.progress else {
        lines.push(format!("{}: has not reported yet · {} records wait", run.run, run.lag_records));
        return;
    };
    if let Some(reason) = &progress.stopped {
        lines.push(format!("{}: STOPPED · {reason}", run.run));
    } else if progress.ended {
        lines.push(format!("{}: done", run.run));
    } else {
        lines.push(format!(
            "{}: complete through {} · {} behind · {} open",
            run.run,
            instant(progress.complete_through_ms),
            count(run.lag_records, "record"),
            count(progress.windows_open as i64, "window"),
        ));
    }
    let mut watermark = format!("  watermark {}", instant(progress.watermark_ms));
    if let Some(partition) = progress.held_by {
        watermark.push_str(&format!(" (partition {partition} holds it back)"));
    }
    lines.push(format!(
        "{watermark} · {} read · {} late · {} rows · heard {} ago",
        count(progress.events_read as i64, "event"),
        progress.events_late,
        progress.rows_done,
        span(now_ms - progress.at_ms),
    ));
    if progress.records_unreadable > 0 {
        let records = count(progress.records_unreadable as i64, "record");
        lines.push(format!("  {records} set aside: not Weir's, or damaged (weir's own log names each by its offset)"));
    }
    for partition in run.partitions.iter().filter(|partition| partition.lag_records > 0) {
        lines.push(format!(
            "  partition {}: {} to go, {}",
            partition.partition,
            count(partition.lag_records, "record"),
            span(partition.lag_ms),
        ));
    }
}

fn count(number: i64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn instant(at_ms: Option<i64>) -> String {
    match at_ms.map(Timestamp::from_millisecond) {
        Some(Ok(at)) => at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        _ => "unknown yet".to_owned(),
    }
}

fn span(ms: i64) -> String {
    let seconds = std::time::Duration::from_secs(ms.max(0) as u64 / 1000);
    humantime::format_duration(seconds).to_string()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weir_schemas::progress::RunProgress;

    use super::*;
    use crate::{ImportStatus, PartitionStatus};

    fn run(progress: Option<RunProgress>) -> RunStatus {
        RunStatus {
            run: "live".into(),
            topic: "weir.events".into(),
            progress,
            lag_records: 12,
            lag_ms: 3_000,
            partitions: vec![
                PartitionStatus { partition: 0, offset: Some(5), end: 5, lag_records: 0, lag_ms: 0 },
                PartitionStatus { partition: 1, offset: Some(8), end: 20, lag_records: 12, lag_ms: 3_000 },
            ],
        }
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
            retention_s: None,
            runs: vec![run(Some(progress)), run(None)],
            imports: vec![import],
        };
        expect![[r#"
            live: complete through 2023-11-14 22:14:00 UTC · 12 records behind · 1 window open
              watermark 2023-11-14 22:14:10 UTC (partition 1 holds it back) · 1234 events read · 5 late · 99 rows · heard 1s ago
              1 record set aside: not Weir's, or damaged (weir's own log names each by its offset)
              partition 1: 12 records to go, 3s
            live: has not reported yet · 12 records wait
            import i1 of blog: 7 events are being counted"#]]
        .assert_eq(&render(&snapshot));
    }

    #[test]
    fn a_stopped_run_says_so_first_and_why() {
        let progress = RunProgress { stopped: Some("the table was altered".into()), ..RunProgress::default() };
        let mut lines = Vec::new();
        render_run(&run(Some(progress)), 0, &mut lines);
        assert_eq!(lines[0], "live: STOPPED · the table was altered");
    }
}
