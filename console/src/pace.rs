use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_schemas::control::EtaKept;

/// How fast a run, or one of its partitions, reads, and how fast more comes; records a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    pub drain_per_s: f64,
    pub arrival_per_s: f64,
}

/// When a run will have done what it has to do. Times are ms since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Eta {
    Between {
        earliest_ms: i64,
        latest_ms: i64,
    },
    /// More comes than it reads.
    NotConverging,
    /// It was not looked at for long enough to tell.
    Unknown,
}

/// What a look sees of a run's work.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Work {
    /// (partition, next offset that is read, offset that the next record gets).
    pub partitions: Vec<(u32, i64, i64)>,
    /// Log time: the table has all before the first, and will have all before the second when nothing is left. The second
    /// grows with the clock, where the run has no end.
    pub through_ms: Option<(i64, i64)>,
    /// There is more to do than what is always on its way.
    pub is_behind: bool,
    /// Somebody has paused it: it is not at work, and when it would be done at this pace says nothing.
    pub is_paused: bool,
}

/// What is remembered of the runs from look to look: how fast they were, and what was said of when they would be done.
#[derive(Debug, Default)]
pub(crate) struct Paces(BTreeMap<String, Pace>);

/// What is told of a run after a look.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Told {
    pub rates: Option<Rates>,
    pub of_partitions: BTreeMap<u32, Rates>,
    /// `None`: it is not behind, or is paused.
    pub eta: Option<Eta>,
    /// What was said at half of the newest backlog that is done, and when it was done.
    pub kept: Option<EtaKept>,
}

impl Paces {
    /// Looks at a run: `at_ms` never goes back.
    pub(crate) fn see(&mut self, run: &str, at_ms: i64, work: &Work) -> Told {
        self.0.retain(|_, pace| pace.looks.last().is_none_or(|look| at_ms - look.at_ms < FORGOTTEN_MS));
        self.0.entry(run.to_owned()).or_default().see(at_ms, work)
    }

    /// See [`Told::kept`]; only of a backlog that was half done at `since_ms` or later, and as if it were done at `came_ms`.
    pub(crate) fn kept(&self, run: &str, since_ms: i64, came_ms: i64) -> Option<EtaKept> {
        let pace = self.0.get(run)?;
        let said = pace.backlog.and_then(|backlog| backlog.half).or(pace.kept.map(|kept| (kept.half_ms, kept.said_ms)));
        let (half_ms, said_ms) = said.filter(|(half_ms, _)| *half_ms >= since_ms)?;
        Some(EtaKept { half_ms, said_ms, came_ms })
    }
}

/// Seconds of log in a second, of a run that was complete through `paused_ms`, went on at `resumed_ms` and had caught up at
/// `caught_up_ms`. `None`: it had caught up at once.
pub(crate) fn log_pace(paused_ms: i64, resumed_ms: i64, caught_up_ms: i64) -> Option<f64> {
    let (covered_ms, took_ms) = (caught_up_ms - paused_ms, caught_up_ms - resumed_ms);
    (took_ms > 0).then(|| covered_ms as f64 / took_ms as f64)
}

/// How long it takes at this pace until nothing is left of so much log, while more comes; `None`: it never does.
pub(crate) fn catch_up_ms(log_pace: f64, behind_ms: i64) -> Option<i64> {
    (log_pace > 1.0).then(|| (behind_ms as f64 / (log_pace - 1.0)).min(AFTER_MAX_MS) as i64)
}

/// The longest span over which a rate is taken.
const SPAN_MAX_MS: i64 = 300_000;
/// Rates are taken over each, as far as looks reach back: how much they differ is how sure one can be.
const SPANS_MS: [i64; 3] = [15_000, 60_000, SPAN_MAX_MS];
/// What a partition's rates are taken over.
const PARTITION_SPAN_MS: i64 = 60_000;
/// Over less nothing is said: a run reports twice a second.
const SPAN_MIN_MS: i64 = 1_500;
/// How much the two ends of a span may be off: a run's last report is up to half a second old at each.
const ENDS_OFF_MS: i64 = 1_000;
/// Who has not moved for so long was held, or stands: that is no pace to reckon with.
const STILL_MS: i64 = 30_000;
/// The same by log time: far behind, one batch may take that long.
const STILL_TABLE_MS: i64 = 150_000;
/// Looks closer together than this are one: 300 of them are kept a run.
const APART_MS: i64 = 1_000;
/// A run that nobody has seen for so long is forgotten.
const FORGOTTEN_MS: i64 = 3_600_000;

#[derive(Debug, Default)]
struct Pace {
    looks: Vec<Look>,
    backlog: Option<Backlog>,
    kept: Option<EtaKept>,
}

#[derive(Debug)]
struct Look {
    at_ms: i64,
    work: Work,
}

/// One backlog, from when it was seen to when it is done.
#[derive(Debug, Clone, Copy)]
struct Backlog {
    most: i64,
    /// When half of it was done, and what was said then: the middle of the range.
    half: Option<(i64, i64)>,
}

impl Pace {
    fn see(&mut self, at_ms: i64, work: &Work) -> Told {
        let went_back = |before: &Work| total(work, |partition| partition.1) < total(before, |partition| partition.1);
        let goes_on = |before: &Work| before.is_paused && !work.is_paused;
        if self.looks.last().is_some_and(|last| went_back(&last.work) || goes_on(&last.work)) {
            self.looks.clear();
        }
        // The newest look is always the one that is told of.
        if self.looks.len() > 1 && at_ms - self.looks[self.looks.len() - 2].at_ms < APART_MS {
            self.looks.pop();
        }
        self.looks.push(Look { at_ms, work: work.clone() });
        self.looks.retain(|look| at_ms - look.at_ms <= SPAN_MAX_MS + STILL_TABLE_MS);

        let eta = (work.is_behind && !work.is_paused).then(|| self.eta(at_ms));
        self.remember(at_ms, work, eta);
        let records = self.marks(|work| Some((read(work), end(work))));
        Told {
            rates: speed(&records, PARTITION_SPAN_MS, STILL_MS).map(Speed::rates),
            of_partitions: work.partitions.iter().filter_map(|(partition, ..)| self.of_partition(*partition)).collect(),
            eta,
            kept: self.kept,
        }
    }

    fn of_partition(&self, partition: u32) -> Option<(u32, Rates)> {
        let mine = self.marks(|work| {
            let (_, read, end) = work.partitions.iter().find(|(of, ..)| *of == partition)?;
            Some((*read, *end))
        });
        Some((partition, speed(&mine, PARTITION_SPAN_MS, STILL_MS)?.rates()))
    }

    fn marks(&self, of: impl Fn(&Work) -> Option<(i64, i64)>) -> Vec<Mark> {
        let mark = |look: &Look| {
            let (drained, arrived) = of(&look.work)?;
            Some(Mark { at_ms: look.at_ms, drained, arrived })
        };
        self.looks.iter().filter_map(mark).collect()
    }

    /// By the records over several spans, and by log time: a night's records are fewer than a day's, and what was read is not
    /// in the table yet. As long as nobody has seen how fast that goes, nothing is said.
    fn eta(&self, at_ms: i64) -> Eta {
        let records = self.marks(|work| Some((read(work), end(work))));
        let times = self.marks(|work| work.through_ms);
        let has_records = records.last().is_some_and(|mark| mark.left() > 0);
        let by_records = SPANS_MS.map(|span_ms| eta_of(&records, span_ms, STILL_MS, at_ms));
        let by_time = eta_of(&times, SPAN_MAX_MS, STILL_TABLE_MS, at_ms);
        let decides = if has_records { by_records[SPANS_MS.len() - 1] } else { by_time };
        let Eta::Between { .. } = decides else { return decides };
        if !times.is_empty() && !matches!(by_time, Eta::Between { .. }) {
            return Eta::Unknown;
        }
        let mut both: Option<(i64, i64)> = None;
        let of_records = if has_records { &by_records[..] } else { &[] };
        for eta in of_records.iter().chain([&by_time]) {
            if let Eta::Between { earliest_ms, latest_ms } = *eta {
                let (from, to) = both.unwrap_or((earliest_ms, latest_ms));
                both = Some((from.min(earliest_ms), to.max(latest_ms)));
            }
        }
        both.map_or(Eta::Unknown, |(earliest_ms, latest_ms)| Eta::Between { earliest_ms, latest_ms })
    }

    fn remember(&mut self, at_ms: i64, work: &Work, eta: Option<Eta>) {
        if !work.is_behind {
            if let Some((half_ms, said_ms)) = self.backlog.take().and_then(|backlog| backlog.half) {
                self.kept = Some(EtaKept { half_ms, said_ms, came_ms: at_ms });
            }
            return;
        }
        let left = end(work) - read(work);
        let backlog = self.backlog.get_or_insert(Backlog { most: left, half: None });
        if left > backlog.most {
            *backlog = Backlog { most: left, half: None };
        }
        if let Some(Eta::Between { earliest_ms, latest_ms }) = eta
            && left <= backlog.most / 2
        {
            backlog.half.get_or_insert((at_ms, earliest_ms.midpoint(latest_ms)));
        }
    }
}

fn total(work: &Work, of: impl Fn(&(u32, i64, i64)) -> i64) -> i64 {
    work.partitions.iter().map(of).sum()
}

fn read(work: &Work) -> i64 {
    total(work, |partition| partition.1)
}

fn end(work: &Work) -> i64 {
    total(work, |partition| partition.2)
}

/// How much was done, and how much there was to do, since whenever.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at_ms: i64,
    drained: i64,
    arrived: i64,
}

impl Mark {
    fn left(&self) -> i64 {
        self.arrived - self.drained
    }
}

/// Units a millisecond, taken over `span_ms`.
#[derive(Debug, Clone, Copy)]
struct Speed {
    drain: f64,
    arrival: f64,
    span_ms: i64,
}

impl Speed {
    fn rates(self) -> Rates {
        Rates { drain_per_s: self.drain * 1000.0, arrival_per_s: self.arrival * 1000.0 }
    }
}

/// The speed of at most the last `span_ms`, from one step forward to another, so that the size of steps does not matter;
/// `None`: too little was seen. What lies before somebody stood still is left out.
fn speed(marks: &[Mark], span_ms: i64, still_ms: i64) -> Option<Speed> {
    let (begin, now) = (marks.first()?, marks.last()?);
    let steps = marks.windows(2).filter(|pair| pair[0].drained != pair[1].drained).map(|pair| pair[1]);
    let recent: Vec<Mark> = steps.filter(|step| now.at_ms - step.at_ms <= span_ms).collect();
    let newest = recent.last().copied().unwrap_or(*begin);
    let mut oldest = newest;
    for step in recent.iter().rev() {
        if oldest.at_ms - step.at_ms > still_ms {
            break;
        }
        oldest = *step;
    }
    let last = if now.at_ms - newest.at_ms > still_ms { *now } else { newest };
    let taken_ms = last.at_ms - oldest.at_ms;
    let per_ms = |from: i64, to: i64| (to - from) as f64 / taken_ms as f64;
    (taken_ms >= SPAN_MIN_MS).then(|| Speed {
        drain: per_ms(oldest.drained, last.drained),
        arrival: per_ms(oldest.arrived, last.arrived),
        span_ms: taken_ms,
    })
}

/// What is left ÷ (drain − arrival), for the drain as small and as large as it may be.
fn eta_of(marks: &[Mark], span_ms: i64, still_ms: i64, now_ms: i64) -> Eta {
    let (Some(speed), Some(now)) = (speed(marks, span_ms, still_ms), marks.last()) else { return Eta::Unknown };
    if speed.drain == 0.0 && speed.arrival == 0.0 {
        // It stands, and nothing comes: it falls behind no further.
        return Eta::Unknown;
    }
    let off = ENDS_OFF_MS as f64 / (speed.span_ms + ENDS_OFF_MS) as f64;
    let (least, most) = (speed.drain * (1.0 - off) - speed.arrival, speed.drain * (1.0 + off) - speed.arrival);
    if most <= 0.0 {
        return Eta::NotConverging;
    }
    if least <= 0.0 {
        return if speed.drain <= speed.arrival { Eta::NotConverging } else { Eta::Unknown };
    }
    let after = |net: f64| now_ms.saturating_add((now.left().max(0) as f64 / net).min(AFTER_MAX_MS) as i64);
    Eta::Between { earliest_ms: after(most), latest_ms: after(least) }
}

/// Ten years: what takes longer is not said more exactly.
const AFTER_MAX_MS: f64 = 3.2e11;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A run that has `left` records to read and reads `drain` of them a second while `arrival` come, reporting twice a
    /// second; looked at once a second until it is not behind, or `looks` times. What was told each time.
    fn watch(left: f64, drain: f64, arrival: f64, looks: usize) -> Vec<(i64, Told)> {
        let mut paces = Paces::default();
        let mut told = Vec::new();
        for look in 0..looks {
            let at_ms = look as i64 * 1_000;
            // Its report is some time old, another one at each look.
            let reported_s = (at_ms as f64 / 1000.0 - (look % 5) as f64 / 10.0).max(0.0);
            let end = left + arrival * at_ms as f64 / 1000.0;
            let read = (drain * reported_s).min(end);
            let is_behind = end - read > arrival * 2.0 + drain * 0.5;
            let work =
                Work { partitions: vec![(0, read as i64, end as i64)], through_ms: None, is_behind, is_paused: false };
            told.push((at_ms, paces.see("live", at_ms, &work)));
            if !is_behind {
                break;
            }
        }
        told
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn at_steady_rates_a_backlog_is_done_within_what_was_said(
            seconds in 60.0..1_500.0f64, arrival in 0.0..2_000.0f64, faster in 1.3..20.0f64,
        ) {
            let drain = arrival * faster + 50.0;
            let told = watch(seconds * (drain - arrival), drain, arrival, 2_000);
            let (came_ms, last) = told.last().unwrap();
            prop_assert_eq!(last.eta, None);
            // What is always on its way counts as left, and is not waited for.
            let on_its_way_ms = ((arrival * 2.0 + drain) / (drain - arrival) * 1000.0) as i64 + 1_000;
            for (at_ms, told) in &told[20..told.len() - 3] {
                let Some(Eta::Between { earliest_ms, latest_ms }) = told.eta else {
                    return Err(TestCaseError::fail(format!("at {at_ms}: {:?}", told.eta)));
                };
                let early_ms = earliest_ms - on_its_way_ms;
                prop_assert!(early_ms <= *came_ms, "at {}: {} is after {}", at_ms, early_ms, came_ms);
                prop_assert!(*came_ms <= latest_ms + 1_000, "at {}: {} is before {}", at_ms, latest_ms, came_ms);
            }
            let kept = last.kept.unwrap();
            prop_assert_eq!(kept.came_ms, *came_ms);
            let off_ms = (kept.said_ms - kept.came_ms).abs();
            prop_assert!(off_ms < on_its_way_ms + (kept.came_ms - kept.half_ms) / 10, "{:?}", kept);
        }

        #[test]
        fn a_run_that_reads_less_than_comes_never_gets_an_eta(
            left in 10_000.0..1e6f64, arrival in 10.0..2_000.0f64, slower in 0.0..0.9f64,
        ) {
            let told = watch(left, arrival * slower, arrival, 120);
            let never = told.iter().all(|(_, told)| matches!(told.eta, Some(Eta::Unknown | Eta::NotConverging)));
            prop_assert!(never);
            prop_assert_eq!(told.last().unwrap().1.eta, Some(Eta::NotConverging));
        }

        #[test]
        fn rates_are_those_that_were_drawn(drain in 10.0..5_000.0f64, arrival in 0.0..2_000.0f64) {
            let told = watch(1e9, drain, arrival, 90);
            let rates = told.last().unwrap().1.rates.unwrap();
            prop_assert!((rates.drain_per_s - drain).abs() < drain / 30.0 + 1.0, "{:?}", rates);
            prop_assert!((rates.arrival_per_s - arrival).abs() < arrival / 30.0 + 1.0, "{:?}", rates);
            prop_assert_eq!(told.last().unwrap().1.of_partitions[&0], rates);
        }
    }

    #[test]
    fn a_catch_up_takes_what_is_behind_divided_by_what_is_gained() {
        // An hour and six minutes of log in six minutes: eleven seconds in one, of which one comes meanwhile.
        assert_eq!(log_pace(0, 3_600_000, 3_960_000), Some(11.0));
        assert_eq!(catch_up_ms(11.0, 3_600_000), Some(360_000));
        assert_eq!(log_pace(0, 5, 5), None);
        assert_eq!((catch_up_ms(1.0, 1_000), catch_up_ms(0.5, 1_000)), (None, None));
    }

    #[test]
    fn one_look_says_that_it_cannot_tell_and_no_backlog_says_nothing() {
        let behind = Work { partitions: vec![(0, 0, 1_000)], through_ms: None, is_behind: true, ..Work::default() };
        assert_eq!(Paces::default().see("live", 0, &behind).eta, Some(Eta::Unknown));
        let nothing = Work { partitions: vec![(0, 990, 1_000)], through_ms: None, is_behind: false, ..Work::default() };
        assert_eq!(Paces::default().see("live", 0, &nothing), Told::default());
    }

    #[test]
    fn what_lay_before_a_pause_does_not_count() {
        let mut paces = Paces::default();
        let mut told = Told::default();
        let (mut read, mut end) = (0, 1_000_000);
        for second in 0..200 {
            read += match second {
                0..50 => 10,
                50..150 => 0,
                _ => 1_000,
            };
            end += 100;
            let work = Work { partitions: vec![(0, read, end)], through_ms: None, is_behind: true, ..Work::default() };
            told = paces.see("live", second * 1_000, &work);
            if second == 140 {
                assert_eq!(told.eta, Some(Eta::NotConverging), "it stands");
            }
        }
        let rates = told.rates.unwrap();
        assert_eq!((rates.drain_per_s.round(), rates.arrival_per_s.round()), (1_000.0, 100.0));
    }

    #[test]
    fn a_run_that_is_paused_gets_no_eta_and_when_it_goes_on_only_what_comes_then_counts() {
        let mut paces = Paces::default();
        let mut see = |second: i64, read: i64, is_paused| {
            let partitions = vec![(0, read, 1_000_000 + 100 * second)];
            paces.see("live", second * 1_000, &Work { partitions, is_behind: true, is_paused, ..Work::default() })
        };
        for second in 0..50 {
            see(second, second * 1_000, false);
        }
        for second in 50..250 {
            assert_eq!(see(second, 50_000, true).eta, None, "at {second}");
        }
        assert_eq!(see(250, 50_000, false).eta, Some(Eta::Unknown), "nobody has seen yet how fast it goes on");
        for second in 251..260 {
            let told = see(second, 50_000 + (second - 250) * 1_000, false);
            assert_ne!(told.eta, Some(Eta::NotConverging), "at {second}");
        }
        assert!(matches!(see(260, 60_000, false).eta, Some(Eta::Between { .. })));
    }

    #[test]
    fn of_a_run_that_stands_while_nothing_comes_it_is_not_said_that_more_comes_than_it_reads() {
        let mut paces = Paces::default();
        for second in 0..200 {
            let partitions = vec![(0, 10, 1_000)];
            let work = Work { partitions, through_ms: Some((0, 600_000)), is_behind: true, ..Work::default() };
            assert_eq!(paces.see("gap", second * 1_000, &work).eta, Some(Eta::Unknown), "at {second}");
        }
    }

    #[test]
    fn where_all_is_read_log_time_says_when_the_table_has_it() {
        let mut paces = Paces::default();
        let mut told = Told::default();
        for second in 0..120 {
            // Batches of a minute of log time, ten times as fast as the clock.
            let through_ms = second / 6 * 60_000;
            let to_ms = 3_600_000 + second * 1_000;
            let work = Work {
                partitions: vec![(0, 9, 9)],
                through_ms: Some((through_ms, to_ms)),
                is_behind: true,
                ..Work::default()
            };
            told = paces.see("live", second * 1_000, &work);
        }
        // 2,579 s are left, and it gains nine a second.
        let Some(Eta::Between { earliest_ms, latest_ms }) = told.eta else { panic!("{:?}", told.eta) };
        assert!(earliest_ms < 119_000 + 286_555 && 119_000 + 286_555 < latest_ms, "{earliest_ms} {latest_ms}");
        assert!(latest_ms - earliest_ms < 20_000, "{earliest_ms} {latest_ms}");
    }

    #[test]
    fn what_is_read_and_not_in_the_table_yet_is_not_said_to_be_ready() {
        let mut paces = Paces::default();
        let mut see = |second: i64, through_s: i64| {
            let partitions = vec![(0, second * 1_000, 100_000)];
            let through_ms = Some((through_s * 1_000, 3_600_000 + second * 1_000));
            paces.see("live", second * 1_000, &Work { partitions, through_ms, is_behind: true, ..Work::default() }).eta
        };
        for second in 0..10 {
            assert_eq!(see(second, 0), Some(Eta::Unknown), "nothing came into the table");
        }
        see(10, 60);
        // A minute of log time in two seconds: about 3,500 s ÷ 29.
        let Some(Eta::Between { earliest_ms, latest_ms }) = see(12, 120) else { panic!("two steps were seen") };
        assert!(earliest_ms <= 102_000 && latest_ms >= 12_000 + 120_000, "{earliest_ms} {latest_ms}");
    }

    #[test]
    fn a_run_that_begins_again_further_back_is_looked_at_anew() {
        let mut paces = Paces::default();
        let work =
            |read| Work { partitions: vec![(0, read, 10_000)], through_ms: None, is_behind: true, ..Work::default() };
        for second in 0..60 {
            paces.see("live", second * 1_000, &work(second * 100));
        }
        assert_eq!(paces.see("live", 60_000, &work(0)).eta, Some(Eta::Unknown));
    }
}
