//! Whether a run may go on: facts in, decision out. What it may not go on over is a [`Fault`], and stops it, and only it.
//!
//! ```text
//!  log (which topic, partitions, ends) ─┐
//!  group's copy (what was reported)    ─┼─▶ Facts ──▶ fault() ──▶ None: goes on · Some: stops, until `weir recover`
//!  control (which topic, recoveries)   ─┤
//!  emissions (checkpoint)              ─┘
//! ```

pub(crate) use weir_schemas::instant as at;
use weir_schemas::{Fault, Repair};

/// What is known when a run begins, and again while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub run: String,
    pub topic: String,
    /// The schema version whose table the run fills.
    pub generation: u32,
    /// What has been ordered since the run has reported.
    pub ordered: Vec<Repair>,
    /// What the run has reported last; `None`: nothing, or another tool has written over it.
    pub reported: Option<Reported>,
    /// The run's first window.
    pub first_ms: i64,
    /// The first window that is not in the table.
    pub checkpoint_ms: i64,
    /// What lies before it and is not in the table cannot be computed: somebody has given up windows that end here.
    pub given_up_to_ms: Option<i64>,
    /// Which topic it was when it was first used, and which one it is; `None`: not known.
    pub topic_was: Option<String>,
    pub topic_is: Option<String>,
    /// All partitions of the topic.
    pub partitions: Vec<PartitionFacts>,
}

/// Of the run's progress, what binds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reported {
    pub generation: u32,
    pub through_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionFacts {
    pub partition: u32,
    pub in_use: bool,
    /// The next offset that the run would read, by this process or the one before; `None`: not known.
    pub read: Option<i64>,
    /// Where the log ends.
    pub end: i64,
}

/// What the run may not go on over; the first of the list in [`Fault`]'s order of harm.
///
/// A repair that was ordered since the run has reported is a person's word for what that repair brings about, and for
/// nothing else: windows that are asked for again, or given up, are behind what was reported; a log whose end was given up is
/// shorter than what was read.
pub(crate) fn fault(facts: &Facts) -> Option<Fault> {
    let topic = || facts.topic.clone();
    let from_ms = facts.checkpoint_ms;
    if let (Some(was), Some(is)) = (&facts.topic_was, &facts.topic_is)
        && was != is
    {
        return Some(Fault::TopicReplaced { topic: topic(), recorded: was.clone(), found: is.clone(), from_ms });
    }
    if let Some(stray) = facts.partitions.iter().find(|partition| !partition.in_use && partition.end > 0) {
        return Some(Fault::StrayRecords { topic: topic(), partition: stray.partition, records: stray.end });
    }
    if let Some(reported_ms) = facts.given_up_to_ms.filter(|given_up_to_ms| from_ms < *given_up_to_ms) {
        // The log, or the topic, of what was given up may look whole and is not: its windows would come out empty.
        return Some(Fault::TableLost { reported_ms, from_ms });
    }
    let reported = facts.reported.as_ref()?;
    let gives_up = facts.ordered.iter().any(|repair| matches!(repair, Repair::GiveUp { .. }));
    let asks_again = facts.ordered.iter().any(|repair| matches!(repair, Repair::AskAgain { .. }));
    let shrunk = |partition: &&PartitionFacts| partition.read.is_some_and(|read| read > partition.end);
    if let Some(PartitionFacts { partition, read, end, .. }) = facts.partitions.iter().copied().find(|p| shrunk(&p))
        && !gives_up
    {
        return Some(Fault::LogShrunk { topic: topic(), partition, read: read.unwrap_or(end), end, from_ms });
    }
    if reported.generation != facts.generation {
        return None;
    }
    let reported_ms = reported.through_ms;
    if facts.first_ms > reported_ms && !gives_up {
        return Some(Fault::ControlLost { reported_ms, from_ms: facts.first_ms });
    }
    (facts.checkpoint_ms < reported_ms && !gives_up && !asks_again).then_some(Fault::TableLost { reported_ms, from_ms })
}

/// The fault as `weir status` says it: what happened, to what, and the command that mends it.
pub(crate) fn say(fault: &Fault, run: &str) -> String {
    let recover = format!("`weir recover {run}`");
    match fault {
        Fault::TableLost { reported_ms, from_ms } => format!(
            "ClickHouse says that windows are done through {}, and the run has reported {}: `emissions` was emptied, or \
             this is another ClickHouse (give it the right one with clickhouse.url, or bring its copy back; {recover} asks for \
             every window from {} on again, and computes what the log still has)",
            at(*from_ms),
            at(*reported_ms),
            at(*from_ms),
        ),
        Fault::ControlLost { reported_ms, from_ms } => format!(
            "the run would begin at {}, and it has reported windows done through {}: the control topic is not the one that \
             it began with (bring weir.control back; or {recover} with --accept-loss gives up what lies between)",
            at(*from_ms),
            at(*reported_ms),
        ),
        Fault::LogCut { topic, partition, start, from_ms } => format!(
            "topic {topic} partition {partition} begins at offset {start}: retention has taken what the windows from {} on \
             need ({recover} with --accept-loss gives up those that are not whole, and goes on after them)",
            at(*from_ms)
        ),
        Fault::LogShrunk { topic, partition, read, end, from_ms } => format!(
            "topic {topic} partition {partition} ends at offset {end}, and was read up to {read}: the log has lost records \
             that were acknowledged ({recover} with --accept-loss gives up the windows from {} until now)",
            at(*from_ms)
        ),
        Fault::TopicReplaced { topic, recorded, found, from_ms } => format!(
            "topic {topic} is another one than it was (id {found}, and {recorded} before): somebody has deleted it and made \
             it anew ({recover} with --accept-loss gives up the windows from {} that the first one held, and goes on with \
             the new one)",
            at(*from_ms)
        ),
        Fault::StrayRecords { topic, partition, records } => format!(
            "topic {topic} partition {partition} is not in use, and {records} records are in it, which nobody counts (stop \
             who writes there, or {recover} takes the partition into use, with all that is in it)"
        ),
        Fault::TableAltered { table, differs, mends: true } => {
            format!("table {table} is not as weir makes it: {differs} ({recover} makes it so again)")
        }
        Fault::TableAltered { table, differs, mends: false } => format!(
            "table {table} is not as weir makes it: {differs}, which cannot be changed in place (move the table away with \
             RENAME TABLE; {recover} then looks again, and says what can be computed into a new one)"
        ),
        Fault::OwnersGone { table } => format!(
            "table {table} is not there, and no copy is being brought back: somebody has dropped it, and nobody may write \
             without it ({recover} makes it anew)"
        ),
        Fault::TableDiffers { ranges, found, findings } => format!(
            "the table is not what was recorded, in {findings} place{}: {found} ({recover} computes the windows from {} on \
             again, and writes those that differ)",
            if *findings == 1 { "" } else { "s" },
            at(ranges.first().map_or(0, |(from_ms, _)| *from_ms)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(partition: u32, in_use: bool, read: Option<i64>, end: i64) -> PartitionFacts {
        PartitionFacts { partition, in_use, read, end }
    }

    /// A run in the middle of its life, all well.
    fn well() -> Facts {
        Facts {
            run: "live".into(),
            topic: "weir.events".into(),
            generation: 1,
            ordered: Vec::new(),
            reported: Some(Reported { generation: 1, through_ms: 5_000 }),
            first_ms: 1_000,
            checkpoint_ms: 5_000,
            given_up_to_ms: None,
            topic_was: Some("a".into()),
            topic_is: Some("a".into()),
            partitions: vec![partition(0, true, Some(7), 7), partition(1, true, None, 0)],
        }
    }

    fn kind(facts: &Facts) -> Option<&'static str> {
        fault(facts).map(|fault| match fault {
            Fault::TableLost { .. } => "table lost",
            Fault::ControlLost { .. } => "control lost",
            Fault::LogCut { .. } => "log cut",
            Fault::LogShrunk { .. } => "log shrunk",
            Fault::TopicReplaced { .. } => "topic replaced",
            Fault::StrayRecords { .. } => "stray records",
            Fault::TableAltered { .. } => "table altered",
            Fault::OwnersGone { .. } => "owners gone",
            Fault::TableDiffers { .. } => "table differs",
        })
    }

    #[test]
    fn each_fact_alone_stops_the_run_by_its_own_fault() {
        assert_eq!(kind(&well()), None);
        let with = |change: fn(&mut Facts)| {
            let mut facts = well();
            change(&mut facts);
            kind(&facts)
        };
        assert_eq!(with(|facts| facts.checkpoint_ms = 4_000), Some("table lost"));
        assert_eq!(with(|facts| facts.checkpoint_ms = facts.first_ms), Some("table lost"), "emissions is empty");
        assert_eq!(with(|facts| facts.checkpoint_ms = 6_000), None, "a report that was not sent any more");
        assert_eq!(with(|facts| facts.first_ms = 5_001), Some("control lost"));
        assert_eq!(with(|facts| facts.given_up_to_ms = Some(5_000)), None, "behind it");
        assert_eq!(with(|facts| facts.given_up_to_ms = Some(5_001)), Some("table lost"), "a hole before it");
        assert_eq!(with(|facts| facts.topic_is = Some("b".into())), Some("topic replaced"));
        assert_eq!(with(|facts| facts.topic_is = None), None, "a log that cannot tell");
        assert_eq!(with(|facts| facts.partitions[0].end = 6), Some("log shrunk"));
        assert_eq!(with(|facts| facts.partitions[1] = partition(1, false, None, 0)), None, "an empty one");
        assert_eq!(with(|facts| facts.partitions[1] = partition(1, false, None, 3)), Some("stray records"));
        assert_eq!(with(|facts| facts.reported = None), None, "a run that has never reported");
    }

    const AGAIN: Repair = Repair::AskAgain { from_ms: 3_000 };
    const GIVE_UP: Repair = Repair::GiveUp { from_ms: 3_000, to_ms: 6_000 };

    /// Every combination of facts: what is decided is what the list of rules says, in its order.
    #[test]
    fn over_all_facts_the_first_of_the_rules_decides() {
        use Repair::{GoOn, Mend};
        let no_or = [false, true];
        let mut faults = 0;
        for (replaced, stray, shrunk, later, behind) in itertools(no_or) {
            for reported in [None, Some(1), Some(2)] {
                for ordered in [&[][..], &[GoOn], &[Mend], &[AGAIN], &[GIVE_UP], &[GoOn, AGAIN], &[AGAIN, GoOn]] {
                    let mut facts = well();
                    facts.topic_is = Some(if replaced { "b" } else { "a" }.into());
                    facts.partitions.push(partition(2, false, None, i64::from(stray)));
                    facts.partitions[0].read = Some(if shrunk { 8 } else { 7 });
                    facts.first_ms = if later { 5_001 } else { 1_000 };
                    facts.checkpoint_ms = if behind { 4_000 } else { 5_000 };
                    facts.ordered = ordered.to_vec();
                    let through_ms = 5_000;
                    facts.reported = reported.map(|generation| Reported { generation, through_ms });
                    let (told, same) = (reported.is_some(), reported == Some(1));
                    let (gives_up, again) = (ordered.contains(&GIVE_UP), ordered.contains(&AGAIN));
                    let wanted = match () {
                        () if replaced => Some("topic replaced"),
                        () if stray => Some("stray records"),
                        () if shrunk && told && !gives_up => Some("log shrunk"),
                        () if later && same && !gives_up => Some("control lost"),
                        () if behind && same && !gives_up && !again => Some("table lost"),
                        () => None,
                    };
                    assert_eq!(kind(&facts), wanted, "{facts:?}");
                    faults += usize::from(wanted.is_some());
                }
            }
        }
        assert!(faults > 300);
    }

    fn itertools(each: [bool; 2]) -> impl Iterator<Item = (bool, bool, bool, bool, bool)> {
        (0..32_u32).map(move |bits| {
            let bit = |place: u32| each[(bits >> place & 1) as usize];
            (bit(0), bit(1), bit(2), bit(3), bit(4))
        })
    }

    #[test]
    fn every_fault_names_the_thing_the_value_and_the_way_out() {
        let topic = || "weir.events".to_owned();
        let faults = [
            Fault::TableLost { reported_ms: 120_000, from_ms: 60_000 },
            Fault::ControlLost { reported_ms: 60_000, from_ms: 120_000 },
            Fault::LogCut { topic: topic(), partition: 3, start: 50, from_ms: 60_000 },
            Fault::LogShrunk { topic: topic(), partition: 3, read: 9, end: 4, from_ms: 60_000 },
            Fault::TopicReplaced { topic: topic(), recorded: "a".into(), found: "b".into(), from_ms: 60_000 },
            Fault::StrayRecords { topic: topic(), partition: 4, records: 2 },
            Fault::TableAltered {
                table: "weir.stats_v1".into(),
                differs: "it has no column value".into(),
                mends: true,
            },
            Fault::TableAltered { table: "weir.stats_v1".into(), differs: "its engine is Log".into(), mends: false },
            Fault::OwnersGone { table: "weir.owners".into() },
            Fault::TableDiffers {
                ranges: vec![(60_000, 120_000)],
                found: "live: a window has too many".into(),
                findings: 2,
            },
        ];
        for fault in faults {
            let said = say(&fault, "live");
            assert!(said.contains("`weir recover live`") && said.ends_with(')'), "{said}");
            assert!(said.len() < 600, "{} B: {said}", said.len());
        }
    }
}
