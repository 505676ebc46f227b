use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_log::{Log, LogError};
use weir_schemas::{
    DEDUP_HORIZON_MS, Hold, Missing, Recoveries, STEP_BACK_MAX_MS,
    control::{Action, ControlRecord, EVENTS_TOPIC, import_run, import_topic},
    progress::{Metadata, RunProgress, group_of},
};

/// Everything there is to say at one instant. Times are ms since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub at_ms: i64,
    /// How long live events stay in the log, seconds; `None`: for ever.
    pub retention_s: Option<u64>,
    /// The live run first, then what fills a gap that it has left, then those of imports.
    pub runs: Vec<RunStatus>,
    pub imports: Vec<ImportStatus>,
    /// Why the log could not be looked at; then nothing is known of runs and imports.
    #[serde(default)]
    pub log_away: Option<String>,
    /// The spool of the collector on this machine; `None`: there is none here.
    #[serde(default)]
    pub spool: Option<SpoolStatus>,
    /// The disk under `data_dir` on this machine; `None`: it could not be looked at.
    #[serde(default)]
    pub disk: Option<DiskStatus>,
}

/// What is left of the disk that the embedded log, the spool, ClickHouse's files and spilled windows are on, where they
/// are weir's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    pub path: String,
    pub free_bytes: u64,
}

/// What waits on a collector's disk for the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStatus {
    pub bytes: u64,
    pub bytes_max: u64,
    pub batches: u64,
    /// When the oldest batch was made; `None`: nothing waits.
    pub oldest_ms: Option<i64>,
    /// How long that is ago; 0: nothing waits.
    pub age_ms: i64,
}

impl Snapshot {
    /// What there is to say when the log cannot be looked at.
    pub fn without_log(at_ms: i64, reason: String) -> Self {
        let (runs, imports) = (Vec::new(), Vec::new());
        Self { at_ms, retention_s: None, runs, imports, log_away: Some(reason), spool: None, disk: None }
    }
}

/// One run, as its progress in the log shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStatus {
    pub run: String,
    pub topic: String,
    /// What the run said last; `None` if it has never said anything.
    pub progress: Option<RunProgress>,
    /// Sum over the partitions.
    pub lag_records: i64,
    /// The largest of the partitions.
    pub lag_ms: i64,
    pub partitions: Vec<PartitionStatus>,
    /// How long the log still keeps everything that the run needs, ms; negative: some of it may be gone. `None`: for ever,
    /// or not known.
    pub retention_headroom_ms: Option<i64>,
    /// Windows that somebody has given up, ascending: they are not in the table, and will not be.
    #[serde(default)]
    pub missing: Vec<Missing>,
    /// The topic was there, and is not any more.
    #[serde(default)]
    pub topic_gone: bool,
    /// It is paused; `None`: it is not.
    #[serde(default)]
    pub paused: Option<PausedStatus>,
}

/// By whom, why and until when a run is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedStatus {
    pub since_ms: i64,
    pub who: String,
    pub reason: String,
    /// It is resumed by itself then; `None`: by nobody but a person, or before the log would lose what it needs.
    pub until_ms: Option<i64>,
    /// Everything before is in the table; `None`: it has not stopped yet.
    pub through_ms: Option<i64>,
}

/// What one partition still has for a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartitionStatus {
    pub partition: u32,
    /// The next offset that the run reads; `None` before it has said so.
    pub offset: Option<i64>,
    /// The offset that the next record gets.
    pub end: i64,
    /// Log time of the newest record read, or when the partition came into use.
    pub arrival_ms: Option<i64>,
    pub lag_records: i64,
    /// Log time between the newest record read and now, 0 when all is read.
    pub lag_ms: i64,
}

/// One import that has not been taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportStatus {
    pub id: String,
    pub site: String,
    pub state: ImportState,
    pub events: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportState {
    /// Its file is being read; nothing of it is counted.
    Writing,
    /// Its run computes it.
    Counting,
    /// All of it is in the table.
    Done,
    /// It is being taken back.
    Undoing,
}

/// Runs of imports that had ended when they were last looked at, and when: there may be hundreds, and each is several
/// questions to a broker.
#[derive(Debug, Default)]
pub struct Ended(BTreeMap<String, (i64, RunStatus)>);

/// How long an import that had ended is not looked at again.
const ENDED_MS: i64 = 60_000;

/// Looks at the log. `control` is the control topic from its start, in order; `ended` is kept from look to look.
pub fn observe(log: &dyn Log, control: &[ControlRecord], now_ms: i64, ended: &mut Ended) -> Result<Snapshot, LogError> {
    let mut runs = Vec::new();
    let mut retention_s = None;
    match observe_run(log, control, "live", EVENTS_TOPIC, now_ms) {
        Ok(mut run) => {
            retention_s = log.retention(EVENTS_TOPIC)?.map(|kept| kept.as_secs());
            let through_ms = run.progress.as_ref().and_then(|progress| progress.complete_through_ms);
            run.retention_headroom_ms = retention_headroom_ms(through_ms, retention_s, now_ms);
            runs.push(run);
        }
        Err(LogError::UnknownTopic(_)) if weir_log::topic_is(EVENTS_TOPIC, control).is_some() => {
            runs.push(RunStatus { topic_gone: true, ..RunStatus::unknown("live", EVENTS_TOPIC, control) })
        }
        // Nothing has run on this log yet.
        Err(LogError::UnknownTopic(_)) => {}
        Err(error) => return Err(error),
    }
    let left = |record: &ControlRecord| matches!(record.action, Action::Resume { left_to_ms: Some(_), .. });
    if !runs.is_empty() && control.iter().any(left) {
        let mut run = observe_run(log, control, "gap", EVENTS_TOPIC, now_ms)?;
        let unfinished = run.progress.as_ref().filter(|progress| !progress.ended);
        let through_ms = unfinished.and_then(|progress| progress.complete_through_ms);
        run.retention_headroom_ms = retention_headroom_ms(through_ms, retention_s, now_ms);
        if run.progress.as_ref().is_some_and(|progress| progress.ended) {
            // What the log holds after the gap is not for this run.
            (run.lag_records, run.lag_ms) = (0, 0);
            run.partitions.clear();
        }
        runs.push(run);
    }
    let mut imports = fold_imports(control);
    for import in &mut imports {
        if !matches!(import.state, ImportState::Counting) {
            continue;
        }
        if let Some((_, run)) = ended.0.get(&import.id).filter(|(seen_ms, _)| now_ms - seen_ms < ENDED_MS) {
            import.state = ImportState::Done;
            runs.push(run.clone());
            continue;
        }
        match observe_run(log, control, &import_run(&import.id), &import_topic(&import.id), now_ms) {
            Ok(run) => {
                if run.progress.as_ref().is_some_and(|progress| progress.ended) {
                    import.state = ImportState::Done;
                    ended.0.insert(import.id.clone(), (now_ms, run.clone()));
                } else {
                    ended.0.remove(&import.id);
                }
                runs.push(run);
            }
            // Its topic went between the control record and this look.
            Err(LogError::UnknownTopic(_)) => import.state = ImportState::Undoing,
            Err(error) => return Err(error),
        }
    }
    Ok(Snapshot { at_ms: now_ms, retention_s, runs, imports, log_away: None, spool: None, disk: None })
}

/// A run that begins again at its checkpoint reads from a horizon and a clock's step before it.
fn retention_headroom_ms(through_ms: Option<i64>, retention_s: Option<u64>, now_ms: i64) -> Option<i64> {
    let needed_ms = through_ms? - DEDUP_HORIZON_MS - STEP_BACK_MAX_MS;
    Some(needed_ms + retention_s? as i64 * 1000 - now_ms)
}

/// The imports that the control records name, without those that were taken back.
pub(crate) fn fold_imports(control: &[ControlRecord]) -> Vec<ImportStatus> {
    let mut imports: Vec<ImportStatus> = Vec::new();
    for record in control {
        match &record.action {
            Action::ImportBegun { import } => imports.push(ImportStatus {
                id: import.id.clone(),
                site: import.site.clone(),
                state: ImportState::Writing,
                events: 0,
            }),
            Action::ImportWritten { id, events, .. } => {
                let writing = |import: &&mut ImportStatus| import.id == *id && import.state == ImportState::Writing;
                for import in imports.iter_mut().filter(writing) {
                    import.state = ImportState::Counting;
                    import.events = *events;
                }
            }
            Action::ImportUndo { id } => {
                for import in imports.iter_mut().filter(|import| import.id == *id) {
                    import.state = ImportState::Undoing;
                }
            }
            Action::ImportUndone { id } => imports.retain(|import| import.id != *id),
            _ => {}
        }
    }
    imports
}

impl RunStatus {
    /// A run of which the log says nothing.
    pub(crate) fn unknown(run: &str, topic: &str, control: &[ControlRecord]) -> Self {
        Self {
            run: run.to_owned(),
            topic: topic.to_owned(),
            progress: None,
            lag_records: 0,
            lag_ms: 0,
            partitions: Vec::new(),
            retention_headroom_ms: None,
            missing: Recoveries::of(run, control).missing,
            topic_gone: false,
            paused: Hold::of(run, control).paused().map(|pause| PausedStatus {
                since_ms: pause.by.at_ms,
                who: pause.by.who.clone(),
                reason: pause.by.reason.clone(),
                until_ms: pause.until_ms,
                through_ms: pause.paused_ms,
            }),
        }
    }
}

pub(crate) fn observe_run(
    log: &dyn Log,
    control: &[ControlRecord],
    run: &str,
    topic: &str,
    now_ms: i64,
) -> Result<RunStatus, LogError> {
    let committed = log.committed(&group_of(run), topic)?;
    // A partition's time begins when it comes into use, heard of or not.
    let in_use = if topic == EVENTS_TOPIC { weir_log::partitions_in_use(control) } else { Vec::new() };
    let mut progress = None;
    let mut partitions = Vec::new();
    for partition in 0..log.partitions(topic)? {
        let bounds = log.bounds(topic, partition)?;
        let mine = committed.iter().find(|committed| committed.partition == partition);
        // Metadata that somebody else wrote says nothing; the offset is still there to be shown.
        let metadata: Metadata = mine.and_then(|mine| serde_json::from_str(&mine.metadata).ok()).unwrap_or_default();
        progress = progress.or(metadata.run);
        let offset = mine.map(|mine| mine.offset);
        let lag_records = (bounds.end - offset.unwrap_or(bounds.start).max(bounds.start)).max(0);
        let effective_ms = in_use.iter().find(|in_use| in_use.partition == partition).map(|in_use| in_use.effective_ms);
        let arrival_ms = metadata.partition.arrival_ms.or(effective_ms);
        let lag_ms = match arrival_ms {
            Some(arrival_ms) if lag_records > 0 => (now_ms - arrival_ms).max(0),
            _ => 0,
        };
        partitions.push(PartitionStatus { partition, offset, end: bounds.end, arrival_ms, lag_records, lag_ms });
    }
    Ok(RunStatus {
        progress,
        lag_records: partitions.iter().map(|partition| partition.lag_records).sum(),
        lag_ms: partitions.iter().map(|partition| partition.lag_ms).max().unwrap_or(0),
        partitions,
        ..RunStatus::unknown(run, topic, control)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_schemas::control::Import;

    fn record(action: Action) -> ControlRecord {
        ControlRecord { at_ms: 0, who: "test".into(), reason: String::new(), action }
    }

    fn begun(id: &str) -> ControlRecord {
        record(Action::ImportBegun { import: Import { id: id.into(), site: "s".into(), files: Vec::new() } })
    }

    fn written(id: &str) -> ControlRecord {
        record(Action::ImportWritten { id: id.into(), events: 7, partitions: 1, first_ms: 0, last_ms: 9 })
    }

    #[test]
    fn the_headroom_is_what_retention_leaves_before_the_run_would_miss_a_record() {
        let slack_ms = DEDUP_HORIZON_MS + STEP_BACK_MAX_MS;
        assert_eq!(retention_headroom_ms(Some(slack_ms), Some(60), 10_000), Some(50_000));
        assert_eq!(retention_headroom_ms(Some(slack_ms), Some(60), 70_000), Some(-10_000));
        assert_eq!(retention_headroom_ms(Some(0), None, 0), None);
        assert_eq!(retention_headroom_ms(None, Some(60), 0), None);
    }

    #[test]
    fn an_import_is_writing_until_all_of_it_is_written_and_gone_after_it_was_undone() {
        let control = [
            begun("a"),
            begun("b"),
            begun("c"),
            written("b"),
            written("c"),
            record(Action::ImportUndo { id: "c".into() }),
            written("c"),
            begun("d"),
            record(Action::ImportUndone { id: "d".into() }),
        ];
        let states: Vec<_> = fold_imports(&control).into_iter().map(|import| (import.id, import.state)).collect();
        assert_eq!(
            states,
            [
                ("a".to_owned(), ImportState::Writing),
                ("b".to_owned(), ImportState::Counting),
                ("c".to_owned(), ImportState::Undoing),
            ]
        );
    }
}
