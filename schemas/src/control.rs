//! What operators and parts tell each other through the control topic: one JSON record each, kept for ever, folded at
//! start and followed by every process.

use serde::{Deserialize, Serialize};

use crate::{Repair, WindowStart};

/// One record of the control topic: who, when, why, what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlRecord {
    /// Writer's clock, ms since the Unix epoch.
    pub at_ms: i64,
    /// `user@host` of a person, or the part that wrote it.
    pub who: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    pub action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// From `effective_ms` on the events topic has the partitions `0..partitions`: collectors write to these only, runs
    /// wait for all of these.
    PartitionsInUse {
        partitions: u32,
        effective_ms: i64,
    },
    /// An import writes its topic. It is not counted before [`Action::ImportWritten`].
    ImportBegun {
        import: Import,
    },
    /// All events and end records of the import are in its topic: its run may start.
    ImportWritten {
        id: String,
        events: u64,
        partitions: u32,
        first_ms: i64,
        last_ms: i64,
    },
    /// The import is to be taken back as a whole: its run stops, its rows and its topic go.
    ImportUndo {
        id: String,
    },
    /// [`Action::ImportUndo`] was done.
    ImportUndone {
        id: String,
    },
    /// The topic of this name is the one with this id: a topic of the same name with another one has been made since, and
    /// what was in the first is gone.
    TopicIs(TopicId),
    /// A run that has stopped is to go on, after `repair`, and with `topic_is` as with [`Action::TopicIs`]: one record, so
    /// that the new topic is not believed before what the first one held is given up. `id` names this decision: the
    /// writer's clock, ms.
    Recover {
        run: String,
        id: i64,
        repair: Repair,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic_is: Option<TopicId>,
    },
    /// The repair of [`Action::Recover`] was done.
    Recovered {
        run: String,
        id: i64,
    },
    /// The run stops at its next batch boundary and stays stopped until [`Action::Resume`]. `until_ms`: it is resumed by
    /// itself then; `allow_loss`: also if the log will not keep so long what it needs. `id` names this decision: the
    /// writer's clock, ms.
    Pause {
        run: String,
        id: i64,
        until_ms: Option<i64>,
        allow_loss: bool,
    },
    /// [`Action::Pause`] took effect: everything before `through_ms` is in the table, and nothing of the run is at work.
    Paused {
        run: String,
        id: i64,
        through_ms: i64,
    },
    /// The run goes on. With `left_to_ms` it goes on there, and what lies before and is not in the table is left to the gap
    /// run.
    Resume {
        run: String,
        id: i64,
        left_to_ms: Option<i64>,
    },
    /// [`Action::Resume`] took effect: the run has begun at `through_ms`.
    Resumed {
        run: String,
        id: i64,
        through_ms: i64,
    },
    /// The run has caught up after [`Action::Resume`] `id`, and no gap is left: this ends that maintenance, and those of the
    /// run before it.
    CaughtUp {
        run: String,
        id: i64,
        eta: Option<EtaKept>,
    },
    /// The run works for `permille` thousandths of the time at most; 1000: unhindered.
    Throttle {
        run: String,
        id: i64,
        permille: u16,
    },
    /// A copy of the table was made.
    BackupMade(Backup),
    /// The table is the one of the copy of this name: its runs go on from there. `gaps`: as of [`Backup::gaps`].
    BackupRestored {
        name: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        gaps: Vec<(i64, i64)>,
    },
    /// The live rows of these days (UTC, days since the Unix epoch, ascending) are being replaced by what a replay has
    /// computed, and what is recorded of them with them. `id` names this decision: the writer's clock, ms.
    Replace {
        id: i64,
        generation: u32,
        days: Vec<i64>,
    },
    /// [`Action::Replace`] is over: it was `done`, or it was not, and nobody goes on with it.
    Replaced {
        id: i64,
        /// A record from before there was this field says that it was done.
        #[serde(default = "yes")]
        done: bool,
    },
    /// Every row of this generation was compared with what is recorded of it, after so many of its replacements were over
    /// and not done ([`crate::Replacements::undone`]), and all was found right.
    Audited {
        generation: u32,
        undone: usize,
    },
    /// A maintenance is announced, or the one of this `id` is withdrawn. `order` names the latter; `None`: an earlier version
    /// has written it.
    MaintenancePlanned {
        id: i64,
        begins_ms: i64,
        ends_ms: i64,
    },
    MaintenanceCancelled {
        id: i64,
        order: Option<i64>,
    },
    /// The first generation is of this version, a file's text: as it was configured where its runs were started first. The first
    /// such record counts, for ever.
    FirstGeneration {
        version: String,
    },
    /// A table of another version is filled beside the one in use, from the log, from the window at `from_ms` on. `id` names
    /// the conversion: the writer's clock, ms. `version` is the text of the version's file.
    ConversionStarted {
        id: i64,
        generation: u32,
        version: String,
        from_ms: i64,
        /// What of the old table is carried over, because the log does not have it any more; `None`: nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        carried: Option<Carried>,
    },
    /// Both tables of conversion `id` were compared; `attempt` names the comparison: the writer's clock, ms. `closed_ms`: rows
    /// that had left before were. `differing`: so many sums and values that must agree do not.
    Verified {
        id: i64,
        attempt: i64,
        closed_ms: i64,
        differing: u64,
        /// Control records that were there when it began; what has changed a table and comes after makes it stale.
        known: usize,
    },
    /// Of comparison `attempt` of conversion `id`, of rows that had left before `closed_ms`: of `origin` all days (UTC) before
    /// `before_day` agree, days since the Unix epoch; `None`: all of it does. One that was cut goes on from there.
    Agrees {
        id: i64,
        attempt: i64,
        closed_ms: i64,
        origin: String,
        before_day: Option<i64>,
        known: usize,
    },
    /// What differs in a dimension is as it is to be, in conversion `id`.
    DifferenceAccepted {
        id: i64,
        dimension: String,
    },
    /// The public views are to show a generation (`None`: the first one) as soon as it, and the one that they show now, are
    /// complete through `at_ms`. The latter may be dropped `hold_ms` after that. `id` names this decision: the writer's clock,
    /// ms.
    Show {
        id: i64,
        generation: Option<u32>,
        at_ms: i64,
        hold_ms: i64,
    },
    /// [`Action::Show`] took effect: from now on that generation is the one in use.
    Shown {
        id: i64,
    },
    /// [`Action::Show`] is withdrawn: it did not take effect.
    NotShown {
        id: i64,
    },
    /// A generation is to be taken away: its runs end, its table goes.
    Drop {
        id: i64,
        generation: Option<u32>,
    },
    /// [`Action::Drop`] was done.
    Dropped {
        generation: Option<u32>,
    },
}

/// The rows that left an old table in the windows from `from_ms` to the new one's first window, and how that table's rows are
/// cut: an event is carried over if and only if the old rule closed it before that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    pub from_ms: i64,
    pub width_ms: i64,
    pub lateness_ms: i64,
}

fn yes() -> bool {
    true
}

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Its folder where the server keeps copies.
    pub name: String,
    /// The copy that it needs: what that holds is not in it again.
    pub base: Option<String>,
    /// Those whose tables are in it; none: an earlier version has made it, of the only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generations: Vec<u32>,
    /// By run: everything before this time is in it.
    pub points: Vec<(String, i64)>,
    /// Live windows before its point that are not in it, because live had left them to the gap run, `[from, to)`, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<(i64, i64)>,
    /// What had been recorded before this time (ClickHouse's clock, ms since the Unix epoch) is in `days`.
    pub before_ms: i64,
    pub days: Vec<RecordedDay>,
}

/// What is recorded of a day (UTC, days since the Unix epoch): the batches that begin in it, of all origins, their rows, and
/// the wrapping sum of their digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedDay {
    pub generation: u32,
    pub day: i64,
    pub batches: u64,
    pub rows: u64,
    pub digest: u64,
}

/// What was said at half of a backlog of when it would be done, beside when it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtaKept {
    pub half_ms: i64,
    pub said_ms: i64,
    pub came_ms: i64,
}

/// Which topic of a name it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicId {
    pub topic: String,
    pub id: String,
}

/// What an import was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Names its topic `weir.import.<id>`, its run `import-<id>`, and the `origin` of its rows.
    pub id: String,
    pub site: String,
    pub files: Vec<ImportedFile>,
}

/// The part of a file that an import has read: from `began_at` to `bytes`, both counted from its (uncompressed)
/// beginning, and the BLAKE3 hash of everything up to `bytes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedFile {
    pub name: String,
    /// What lies before came with earlier imports.
    #[serde(default)]
    pub began_at: u64,
    pub bytes: u64,
    pub blake3: String,
}

/// Name of the topic that holds live events.
pub const EVENTS_TOPIC: &str = "weir.events";
/// Name of the control topic.
pub const CONTROL_TOPIC: &str = "weir.control";
/// Name of the topic of the days' salts.
pub const SALTS_TOPIC: &str = "weir.salts";

/// Name of the topic of an import.
pub fn import_topic(id: &str) -> String {
    format!("weir.import.{id}")
}

/// Name of the run that fills what live has left.
pub const GAP_RUN: &str = "gap";

/// Name of the run that carries over what the log does not have any more ([`Carried`]).
pub const CARRIED_RUN: &str = "carried";

/// Name of the run that computes windows again beside the table ([`Action::Replace`]).
pub const REPLAY_RUN: &str = "replay";

/// Name of the run of an import.
pub fn import_run(id: &str) -> String {
    format!("import-{id}")
}

/// A range of windows, `[from, to)`; `to` is `None` while it has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowRange {
    pub from: WindowStart,
    pub to: Option<WindowStart>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversion_that_an_older_weir_has_started_carries_nothing_over() {
        let older = r#"{"at_ms":1,"who":"ops","action":{"do":"conversion_started","id":7,"generation":2,"version":"v","from_ms":0}}"#;
        let read = serde_json::from_str::<ControlRecord>(older).unwrap();
        let Action::ConversionStarted { carried, .. } = &read.action else { panic!("{read:?}") };
        assert_eq!(*carried, None);
        assert_eq!(serde_json::to_string(&read).unwrap(), older, "nor does it write another record");
    }

    #[test]
    fn what_an_older_weir_has_recorded_as_replaced_was_done() {
        let read = |text: &str| serde_json::from_str::<ControlRecord>(text).map(|record| record.action).unwrap();
        let older = r#"{"at_ms":1,"who":"ops","action":{"do":"replaced","id":7}}"#;
        assert_eq!(read(older), Action::Replaced { id: 7, done: true });
        let newer = r#"{"at_ms":1,"who":"ops","action":{"do":"replaced","id":7,"done":false}}"#;
        assert_eq!(read(newer), Action::Replaced { id: 7, done: false });
    }
}
