//! A log that is written once, with all that makes a replay hard: late events, copies, clocks that step back, a silent
//! partition.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use weir_generate::{Hit, Spec, Traffic};
use weir_log::{Log, TopicKind};
use weir_schemas::{DEDUP_HORIZON_MS, Event, Kind, SchemaVersion, wire};

/// The first event's time; a full minute, of a day that ends within the log.
pub(crate) const BEGIN_MS: i64 = 1_700_000_040_000;

/// Events of a record.
const BATCH: usize = 500;
/// Of a hundred events, those that happened longer ago than a window waits, also by a clock that has stepped back.
const LATE_PERCENT: u32 = 10;
const LATE_MS: std::ops::Range<i64> = 90_000..1_200_000;
/// For a hundred events, those that come again within [`COPY_WITHIN_MS`]: well within the time in which a copy is known.
const COPY_PERCENT: u32 = 2;
const COPY_WITHIN_MS: i64 = 4 * 60_000;
const _: () = assert!(COPY_WITHIN_MS + 2 * STEP_BACK_MS_MAX < DEDUP_HORIZON_MS);
/// Of a hundred records, those that are appended again: an acknowledgement was lost.
const TWICE_PERCENT: u32 = 2;
/// Of a hundred records, those that are stamped up to so much too early: a partition of eight has a record in 48 s.
const STEP_BACK_PERCENT: u32 = 20;
const STEP_BACK_MS_MAX: i64 = 59_000;
const _: () = assert!(STEP_BACK_MS_MAX < weir_schemas::STEP_BACK_MAX_MS);
/// The last partition is silent for this part of the log, in events of a hundred.
const SILENT: std::ops::Range<u64> = 40..50;
const APPENDS_MAX: usize = 256;
const SITES: usize = 40;
const BOTS: f64 = 0.1;

/// What was written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Written {
    /// Without copies.
    pub(crate) events: u64,
    pub(crate) late: u64,
    /// Events that are there once more, with the same id or in a record that is there twice.
    pub(crate) copies: u64,
    pub(crate) records: u64,
    pub(crate) page_views: u64,
    /// Of the ticks behind the last event.
    pub(crate) end_ms: i64,
}

/// Makes `topic` and fills it with `events` events over so many windows of `version`; the same ones for the same seed.
///
/// The topic is stamped by its writer, so that hours of traffic are there in seconds; a run reads it as live traffic.
pub(crate) fn write(
    log: &dyn Log,
    topic: &str,
    (events, partitions, windows): (u64, u32, u64),
    version: &SchemaVersion,
    seed: u64,
) -> anyhow::Result<Written> {
    log.create_topic(topic, &TopicKind::Import { partitions })?;
    let span_ms = windows as i64 * version.width.ms();
    let spec = Spec { rate: 1.0, duration: Duration::ZERO, sites: SITES, seed, bots: BOTS, late: 0.0 };
    let mut traffic = Traffic::new(&spec);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut written = Written::default();
    let mut recent: VecDeque<Event> = VecDeque::new();
    let mut under_way = VecDeque::new();
    let mut append = |partition, record: Vec<u8>, stamp_ms| -> anyhow::Result<()> {
        under_way.push_back(log.append(topic, partition, record.into(), Some(stamp_ms)));
        if under_way.len() == APPENDS_MAX {
            futures::executor::block_on(under_way.pop_front().expect("it is full"))?;
        }
        Ok(())
    };
    let mut now_ms = BEGIN_MS;
    let mut sequence = 0;
    while written.events < events {
        let mut builder = wire::BatchBuilder::new([1; 16], sequence);
        while builder.len() < BATCH && written.events < events {
            now_ms = BEGIN_MS + (i128::from(written.events) * i128::from(span_ms) / i128::from(events)) as i64;
            if rng.random_range(0..100) < COPY_PERCENT && !recent.is_empty() {
                let copy = recent[rng.random_range(0..recent.len())].clone();
                builder.push(&Event { received_ms: now_ms, ..copy });
                written.copies += 1;
                continue;
            }
            let hit = traffic.next().expect("traffic has no end");
            let late = rng.random_range(0..100) < LATE_PERCENT;
            let claimed_ms = late.then(|| now_ms - rng.random_range(LATE_MS));
            let event = event(&hit, now_ms, claimed_ms);
            written.events += 1;
            written.late += u64::from(late);
            written.page_views += u64::from(event.kind == Kind::PageView && !hit.bot);
            builder.push(&event);
            recent.push_back(event);
            while recent.front().is_some_and(|oldest| oldest.received_ms < now_ms - COPY_WITHIN_MS) {
                recent.pop_front();
            }
        }
        let silent = SILENT.contains(&(100 * written.events / events));
        let partition = (sequence % u64::from(if silent { partitions - 1 } else { partitions })) as u32;
        let step_back_ms =
            if rng.random_range(0..100) < STEP_BACK_PERCENT { rng.random_range(0..STEP_BACK_MS_MAX) } else { 0 };
        let in_record = builder.len() as u64;
        let record = wire::batch_record(now_ms, &builder.finish());
        if rng.random_range(0..100) < TWICE_PERCENT {
            append(partition, record.clone(), now_ms)?;
            written.copies += in_record;
            written.records += 1;
        }
        append(partition, record, now_ms - step_back_ms)?;
        written.records += 1;
        sequence += 1;
    }
    written.end_ms = now_ms + 2 * version.width.ms() + version.lateness_ms;
    for partition in 0..partitions {
        append(partition, wire::tick_record(written.end_ms), written.end_ms)?;
    }
    for append in under_way {
        futures::executor::block_on(append)?;
    }
    Ok(written)
}

/// What a collector would have made of the hit.
fn event(hit: &Hit, received_ms: i64, claimed_ms: Option<i64>) -> Event {
    let mut visitor = DefaultHasher::new();
    (hit.ip, hit.user_agent, &hit.site).hash(&mut visitor);
    let path = hit.url.find("://").and_then(|scheme| Some(scheme + 3 + hit.url[scheme + 3..].find('/')?));
    let (page, query) = match path.map_or("/", |path| &hit.url[path..]).split_once('?') {
        Some((page, query)) => (page.to_owned(), query.to_owned()),
        None => (path.map_or("/", |path| &hit.url[path..]).to_owned(), String::new()),
    };
    Event {
        site: hit.site.clone(),
        kind: hit.kind,
        received_ms,
        claimed_ms,
        visitor: visitor.finish(),
        id: format!("e{}", hit.number),
        host: hit.site.clone(),
        page,
        query,
        referrer: hit.referrer.clone(),
        user_agent: hit.user_agent.to_owned(),
        country: String::new(),
        name: hit.name.to_owned(),
        target: hit.target.clone(),
        title: hit.title.clone(),
        screen: hit.screen.to_owned(),
        language: hit.language.to_owned(),
        props: hit.props.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_log::{LogConfig, SystemClock};

    use super::*;
    use crate::compare::records;

    #[test]
    fn the_log_holds_what_is_said_of_it_and_the_same_each_time() {
        const PARTITIONS: u32 = 4;
        let version = SchemaVersion::builtin(1).expect("this binary carries version 1");
        let made = || {
            let dir = tempfile::tempdir().expect("a folder");
            let config = LogConfig::Embedded { path: dir.path().to_owned() };
            let log = weir_log::open(&config, Arc::new(SystemClock)).expect("a log");
            let written = write(log.as_ref(), "drill", (20_000, PARTITIONS, 5), &version, 7).expect("a filled log");
            let read = |partition| records(log.as_ref(), "drill", partition).expect("records");
            (written, (0..PARTITIONS).map(read).collect::<Vec<_>>())
        };
        let (written, records) = made();
        assert_eq!(made().1, records);
        assert_eq!(written.events, 20_000);
        assert!((1_900..2_100).contains(&written.late), "{written:?}");
        assert!(written.copies > 400 && written.records > 40, "{written:?}");
        let stamps =
            |records: &Vec<weir_oracle::Record>| records.iter().map(|record| record.stamp_ms).collect::<Vec<_>>();
        assert!(!records.iter().all(|partition| stamps(partition).is_sorted()), "stamps step back");

        let table = weir_oracle::table(&records, &[BEGIN_MS; PARTITIONS as usize], &version);
        let sites = table.iter().filter(|((_, _, dimension, _, _), _)| dimension == "site");
        let (mut views, mut late_views) = (0, 0);
        for ((emitted_in, _, _, window, _), (counts, _)) in sites {
            views += counts[0];
            late_views += if emitted_in == window { 0 } else { counts[0] };
        }
        assert_eq!(views, written.page_views, "every copy counts once");
        assert!((views / 11..views / 9).contains(&late_views), "{late_views} of {views} are late");
        let emitted: std::collections::BTreeSet<i64> = table.keys().map(|key| key.0).collect();
        assert!((5..=6).contains(&emitted.len()), "{} windows", emitted.len());
    }
}
