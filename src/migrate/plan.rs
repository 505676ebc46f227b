//! What a conversion would take, and what speaks against it: facts in, sentences out.

use std::time::Duration;

use weir_console::size;
use weir_schemas::{Agreement, Comparable, Dimension, Measure, SchemaVersion};

use crate::{digest::date, judge::at};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Of the disk that the new table is thought to need so much must be free: merges need room, and the estimate is one.
const DISK_PERCENT: u64 = 150;
/// The share of the time that the new generation's runs work, before anybody says another.
const SHARE: f64 = 0.5;

/// What is known when a conversion is planned.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub old: SchemaVersion,
    pub new: SchemaVersion,
    /// Numbers of all generations that there ever were.
    pub used: Vec<u32>,
    /// Who has begun the one that is under way, when, and to which generation.
    pub under_way: Option<(u32, String, i64)>,
    /// Sites whose local midnight lies within a window of the new version: the site, its time zone, and when.
    pub split: Vec<(String, String, String)>,
    /// The first window that the old table has, if the log does not have all that it was made of, and the first that the new one
    /// is computed from the log for; ms since the Unix epoch.
    pub table_from_ms: Option<i64>,
    pub log_from_ms: i64,
    /// Windows before that which were given up in the old table, `[from, to)`, ms since the Unix epoch, ascending.
    pub given_up: Vec<(i64, i64)>,
    pub events: Option<u64>,
    /// Of the log that is to be read for them.
    pub bytes: u64,
    /// Id, events and bytes of each import.
    pub imports: Vec<(String, u64, u64)>,
    pub old_bytes: u64,
    pub old_rows: u64,
    pub bytes_free: u64,
    pub rehearsed: Option<Rehearsed>,
}

/// What the first part of the log came to, without a table to write to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rehearsed {
    pub events: u64,
    pub rows: u64,
    pub took: Duration,
}

impl Facts {
    /// Days that are in the old table and not in the log any more.
    fn older_ms(&self) -> Option<(i64, i64)> {
        let from_ms = self.table_from_ms.filter(|from_ms| *from_ms < self.log_from_ms)?;
        Some((from_ms, self.log_from_ms))
    }

    /// Those of them that are carried over from the old table: all, where the versions allow it.
    pub(super) fn carried_ms(&self) -> Option<(i64, i64)> {
        self.older_ms().filter(|_| obstacle(&self.old, &self.new).is_none())
    }

    /// Days that will not be in the new table.
    pub(super) fn lost_ms(&self) -> Option<(i64, i64)> {
        self.older_ms().filter(|_| obstacle(&self.old, &self.new).is_some())
    }

    fn events(&self) -> Option<u64> {
        Some(self.events? + self.imports.iter().map(|(_, events, _)| events).sum::<u64>())
    }

    /// What the new table needs on disk: as the old one a row, and as many rows an event as the rehearsal gave, or as the old one
    /// has, if those are more: the first part of a log may be a sparse one. `None`: the old one is empty.
    fn bytes_needed(&self) -> Option<u64> {
        let per_event = self.rehearsed.filter(|rehearsed| rehearsed.events > 0);
        let per_event = per_event.map(|rehearsed| rehearsed.rows as f64 / rehearsed.events as f64);
        let rehearsed = self.events().zip(per_event).map(|(events, per_event)| events as f64 * per_event);
        let rows = rehearsed.unwrap_or_default().max(self.old_rows as f64);
        (self.old_rows > 0).then(|| (rows * self.old_bytes as f64 / self.old_rows as f64) as u64)
    }

    fn takes(&self) -> Option<Duration> {
        let (events, rehearsed) = (self.events()?, self.rehearsed.filter(|rehearsed| rehearsed.events > 0)?);
        let per_s = rehearsed.events as f64 / rehearsed.took.as_secs_f64().max(1e-3);
        Some(Duration::from_secs_f64((events as f64 / per_s / SHARE).ceil()))
    }
}

/// The most that is left to the old table although the log has it, ms: time for a run to read beyond it before retention does, and
/// for a pause, which ends an hour before that.
const KEPT_MAX_MS: i64 = 2 * 60 * 60 * 1000;

/// How much of the `reach_ms` that a log which retention cuts reaches back is left to the old table.
pub(super) fn kept_ms(reach_ms: i64) -> i64 {
    (reach_ms / 8).clamp(0, KEPT_MAX_MS)
}

/// Why rows of the old version's table cannot be rows of the new one's; `None`: they can.
pub(super) fn obstacle(old: &SchemaVersion, new: &SchemaVersion) -> Option<String> {
    let (from, to) = (old.number, new.number);
    if new.width.ms() % old.width.ms() != 0 {
        let (old, new) = (span(old.width.ms()), span(new.width.ms()));
        return Some(format!("rows of windows of {old} cannot be made ones of {new}"));
    }
    if let Some(measure) = new.measures.iter().find(|measure| !old.measures.contains(measure)) {
        return Some(format!("version {from} has no {}, and version {to} has", measure.name()));
    }
    let dimension = new.dimensions.iter().find(|dimension| !old.dimensions.contains(dimension))?;
    Some(format!("version {from} has no {}, and version {to} has", dimension.name()))
}

/// Why it cannot be begun so, each with the way out; empty: it can.
pub(super) fn refusals(facts: &Facts, accept_loss: bool) -> Vec<String> {
    let (old, new) = (&facts.old, &facts.new);
    let mut all = Vec::new();
    if let Some((generation, who, at_ms)) = &facts.under_way {
        all.push(format!(
            "a conversion to generation {generation} is under way since {} by {who}: one at a time (`weir migrate status`)",
            at(*at_ms)
        ));
    }
    if facts.used.contains(&new.number) {
        all.push(format!(
            "there is, or was, a generation {}: a version that was in use stays as it is (give the new one the number {})",
            new.number,
            facts.used.iter().max().map_or(1, |max| max + 1)
        ));
    }
    let missing = old.measures.iter().filter(|measure| !new.measures.contains(measure)).map(|measure| measure.name());
    let others = |version: &SchemaVersion| -> Vec<(Measure, String)> {
        version.names.measures().map(|(measure, other)| (measure, other.to_owned())).collect()
    };
    let (named, kept) = (others(old), others(new));
    let unnamed = named.iter().filter(|named| !kept.contains(named)).map(|(_, other)| other.as_str());
    for measure in missing.chain(unnamed) {
        all.push(format!(
            "version {} has no {measure}, which the public views name: queries of it would fail",
            new.number
        ));
    }
    if !new.dimensions.contains(&Dimension::Site) {
        all.push(format!(
            "version {} has no site, of which the totals are: the view sites would be empty, and nothing could prove that no event \
             is lost",
            new.number
        ));
    }
    for (site, zone, offset) in &facts.split {
        all.push(format!(
            "a window of {} holds the midnight of {site} ({zone}, {offset} from UTC): its days could not be told apart (a \
             smaller width)",
            span(new.width.ms())
        ));
    }
    if let (Some((from_ms, to_ms)), Some(obstacle)) = (facts.lost_ms(), obstacle(old, new))
        && !accept_loss
    {
        let days = match (date(from_ms.div_euclid(DAY_MS)), date((to_ms - 1).div_euclid(DAY_MS))) {
            (first, last) if first == last => format!("day {first}"),
            (first, last) => format!("days {first} to {last}"),
        };
        all.push(format!(
            "the log does not reach back to all of the old table, and what it does not have cannot be carried over, for \
             {obstacle}: {days} would not be in the new one (say --accept-loss if that may be so)"
        ));
    }
    if let Some(needed) = facts.bytes_needed().filter(|needed| facts.bytes_free < needed * DISK_PERCENT / 100) {
        all.push(format!(
            "the new table needs about {}, and {} are free: {}.{} times as much must be (free some, or add a disk)",
            size(needed),
            size(facts.bytes_free),
            DISK_PERCENT / 100,
            DISK_PERCENT % 100 / 10
        ));
    }
    all
}

/// All of it, for a person.
pub(super) fn text(facts: &Facts) -> String {
    let Facts { old, new, .. } = facts;
    let comparable = Comparable::of(old, new);
    let mut lines = vec![format!("from generation {} to {}", old.number, new.number)];
    let mut changed = Vec::new();
    let mut change = |what: &str, old: String, new: String| {
        if old != new {
            changed.push(format!("{what} {old} becomes {new}"));
        }
    };
    change("width", span(old.width.ms()), span(new.width.ms()));
    change("lateness", span(old.lateness_ms), span(new.lateness_ms));
    change("rules", old.rules.to_string(), new.rules.to_string());
    change("values_max", old.values_max.to_string(), new.values_max.to_string());
    let names = |all: Vec<&'static str>| all.join(", ");
    let only = |a: &SchemaVersion, b: &SchemaVersion| -> Vec<&'static str> {
        let dimensions = a.dimensions.iter().filter(|of| !b.dimensions.contains(of)).map(|of| of.name());
        dimensions.chain(a.measures.iter().filter(|of| !b.measures.contains(of)).map(|of| of.name())).collect()
    };
    let (gone, come) = (only(old, new), only(new, old));
    for dimension in new.dimensions.iter().filter(|of| old.dimensions.contains(of)) {
        change("dimension", old.names.of(*dimension).to_owned(), new.names.of(*dimension).to_owned());
    }
    changed.extend(new.names.measures().map(|(measure, other)| format!("{} is also {other}", measure.name())));
    changed.extend((!gone.is_empty()).then(|| format!("without {}", names(gone))));
    changed.extend((!come.is_empty()).then(|| format!("new: {}", names(come))));
    lines.push(if changed.is_empty() { "nothing differs".to_owned() } else { changed.join("; ") });
    let of = |agreement| -> Vec<&'static str> {
        let all = comparable.dimensions.iter().filter(|(_, is)| *is == agreement);
        all.map(|(dimension, _)| dimension.name()).collect()
    };
    lines.push("must come out equal, by site and day:".to_owned());
    let mut sums: Vec<String> = comparable.sums.iter().map(|sum| say_sum(sum.name, &sum.measures)).collect();
    sums.extend(comparable.visitors.then(|| "visitors".to_owned()));
    sums.extend(comparable.visitor_check.then(|| "each row's visitors, one by one".to_owned()));
    if sums.is_empty() {
        sums.push("nothing: the filter of bots differs, and not all measures are in both versions".to_owned());
    }
    lines.push(format!("  {}", sums.join(", ")));
    let values = of(Agreement::Values);
    lines.push(format!("  value by value of {}", if values.is_empty() { "nothing".to_owned() } else { names(values) }));
    let totals = of(Agreement::Totals);
    lines.extend((!totals.is_empty()).then(|| format!("  over all values of {}", names(totals))));
    let mut differ = of(Agreement::Nothing);
    differ.extend((!comparable.visitors).then_some("visitors, and which events are a bot's"));
    lines.extend((!differ.is_empty()).then(|| format!("may differ: {}", names(differ))));
    lines.push(match facts.events {
        Some(events) => format!(
            "to replay: {} of the log, about {}, from {} on",
            count(events, "event"),
            size(facts.bytes),
            at(facts.log_from_ms)
        ),
        None => format!(
            "to replay: about {} of the log, from {} on (how many events is not known)",
            size(facts.bytes),
            at(facts.log_from_ms)
        ),
    });
    for (id, events, bytes) in &facts.imports {
        lines.push(format!("  and import {id}, {}, about {}", count(*events, "event"), size(*bytes)));
    }
    match (facts.rehearsed, facts.takes()) {
        (Some(rehearsed), Some(takes)) => lines.push(format!(
            "takes about {}: a rehearsal read {:.0} events/s while live went on, and it works half of the time at most",
            span(takes.as_millis() as i64),
            rehearsed.events as f64 / rehearsed.took.as_secs_f64().max(1e-3)
        )),
        _ => lines.push("how long it takes is not known: there is nothing yet to rehearse with".to_owned()),
    }
    lines.push(match facts.bytes_needed() {
        Some(needed) => format!("disk: about {} needed, {} free", size(needed), size(facts.bytes_free)),
        None => format!("disk: what is needed is not known, {} free", size(facts.bytes_free)),
    });
    match (facts.carried_ms(), facts.lost_ms()) {
        (Some((from_ms, to_ms)), _) => {
            lines.push(format!(
                "carried over: {} to {}, which the log does not have any more, as version {} counted them",
                at(from_ms),
                at(to_ms),
                old.number
            ));
            let lost = facts.given_up.iter().map(|(from_ms, to_ms)| {
                format!("  but for {} to {}, which were given up there", at(*from_ms), at(*to_ms))
            });
            lines.extend(lost);
        }
        (None, Some((from_ms, to_ms))) => {
            lines.push(format!("LOST: {} to {}, which the log does not have any more", at(from_ms), at(to_ms)));
        }
        (None, None) => lines.push("the log reaches back to all that the old table has of live".to_owned()),
    }
    lines.join("\n")
}

fn say_sum(name: &str, measures: &[Measure]) -> String {
    match measures {
        [_] => name.to_owned(),
        all => format!("{name} ({})", all.iter().map(|measure| measure.name()).collect::<Vec<_>>().join(" + ")),
    }
}

fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn span(ms: i64) -> String {
    let whole = humantime::format_duration(Duration::from_millis(ms.max(0) as u64)).to_string();
    whole.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weir_schemas::WindowWidth;

    use super::*;

    fn version(number: u32) -> SchemaVersion {
        SchemaVersion { number, ..SchemaVersion::builtin(number.min(2)).unwrap() }
    }

    fn facts() -> Facts {
        Facts {
            old: version(1),
            new: version(2),
            used: vec![1],
            under_way: None,
            split: Vec::new(),
            table_from_ms: Some(DAY_MS),
            log_from_ms: DAY_MS,
            given_up: Vec::new(),
            events: Some(9_000_000),
            bytes: 700 << 20,
            imports: vec![("i1".into(), 1_000_000, 80 << 20)],
            old_bytes: 1 << 30,
            old_rows: 4_000_000,
            bytes_free: 100 << 30,
            rehearsed: Some(Rehearsed { events: 1_000_000, rows: 500_000, took: Duration::from_secs(2) }),
        }
    }

    #[test]
    fn a_plan_says_what_differs_what_must_be_equal_how_long_it_takes_and_what_it_needs() {
        assert_eq!(refusals(&facts(), false), [""; 0]);
        expect![[r#"
            from generation 1 to 2
            lateness 10s becomes 30s; rules 1 becomes 2
            must come out equal, by site and day:
              events (page_views + outbound_clicks + ad_clicks + downloads + custom_events + bot_events)
              value by value of site, page, entry_page, referrer, country, browser, os, device, outbound, download, utm_source, utm_medium, utm_campaign, utm_term, utm_content, prop:*
              over all values of source, channel
            may differ: search_term, visitors, and which events are a bot's
            to replay: 9000000 events of the log, about 700 MiB, from 1970-01-02 00:00:00 UTC on
              and import i1, 1000000 events, about 80 MiB
            takes about 40s: a rehearsal read 500000 events/s while live went on, and it works half of the time at most
            disk: about 1.2 GiB needed, 100.0 GiB free
            the log reaches back to all that the old table has of live"#]]
        .assert_eq(&text(&facts()));
        let alike = Facts { new: SchemaVersion { number: 2, ..version(1) }, ..facts() };
        let said = text(&alike);
        assert!(said.contains("\nnothing differs\n") && said.contains("each row's visitors, one by one"), "{said}");
        assert!(!said.contains("may differ"), "{said}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_way_out() {
        let refused = |facts: Facts, accept_loss| {
            let all = refusals(&facts, accept_loss);
            assert!(all.len() <= 1, "{all:?}");
            all.into_iter().next().unwrap_or_default()
        };
        let under_way = Some((2, "ops@host".to_owned(), 0));
        let second = Facts { under_way, new: version(3), used: vec![1, 2], ..facts() };
        assert!(refused(second, false).contains("one at a time"));
        let used = refused(Facts { used: vec![1, 2, 4], ..facts() }, false);
        assert!(used.contains("a generation 2") && used.ends_with("(give the new one the number 5)"), "{used}");
        let mut fewer = version(2);
        fewer.measures.retain(|measure| *measure != Measure::AdClicks);
        let fewer = refused(Facts { new: fewer, ..facts() }, false);
        assert!(fewer.contains("no ad_clicks, which the public views name"), "{fewer}");
        let mut named = version(1);
        named.names.call("ad_clicks", "sponsored_clicks").unwrap();
        let unnamed = refused(Facts { old: named.clone(), ..facts() }, false);
        assert!(unnamed.contains("no sponsored_clicks, which the public views name"), "{unnamed}");
        let kept = SchemaVersion { number: 2, ..named.clone() };
        assert_eq!(refused(Facts { old: named, new: kept, ..facts() }, false), "");
        let mut without = version(2);
        without.dimensions.retain(|dimension| *dimension != Dimension::Os);
        assert_eq!(refused(Facts { new: without, ..facts() }, false), "", "a view of no rows is a view");
        let mut totals = version(2);
        totals.dimensions.retain(|dimension| *dimension != Dimension::Site);
        let totals = refused(Facts { new: totals, ..facts() }, false);
        assert!(totals.contains("no site, of which the totals are"), "{totals}");
        let wide = SchemaVersion { width: WindowWidth::new(3_600_000).unwrap(), ..version(2) };
        let split = vec![("kolkata.example".to_owned(), "Asia/Kolkata".to_owned(), "+05:30".to_owned())];
        let split = refused(Facts { new: wide, split, ..facts() }, false);
        assert!(
            split.contains("a window of 1h holds the midnight of kolkata.example (Asia/Kolkata, +05:30"),
            "{split}"
        );
        let unknown = refused(Facts { bytes_free: 1 << 30, rehearsed: None, ..facts() }, false);
        assert!(unknown.contains("needs about 1.0 GiB, and 1.0 GiB are free"), "as much as the old one: {unknown}");
        let full = refused(Facts { bytes_free: 1 << 30, ..facts() }, false);
        assert!(full.contains("needs about 1.2 GiB, and 1.0 GiB are free: 1.5 times as much must be"), "{full}");
    }

    #[test]
    fn what_the_log_does_not_have_is_carried_over_and_where_that_cannot_be_the_days_are_named_and_it_is_refused() {
        let cut = || Facts { log_from_ms: 3 * DAY_MS + 60_000, ..facts() };
        assert_eq!(refusals(&cut(), false), [""; 0]);
        let holes = Facts { given_up: vec![(2 * DAY_MS, 2 * DAY_MS + 60_000)], ..cut() };
        expect![[r#"
            carried over: 1970-01-02 00:00:00 UTC to 1970-01-04 00:01:00 UTC, which the log does not have any more, as version 1 counted them
              but for 1970-01-03 00:00:00 UTC to 1970-01-03 00:01:00 UTC, which were given up there"#]]
        .assert_eq(&text(&holes).lines().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n"));
        let wider = SchemaVersion { width: WindowWidth::new(300_000).unwrap(), ..version(2) };
        assert_eq!(refusals(&Facts { new: wider.clone(), ..cut() }, false), [""; 0]);

        let narrower = Facts { old: SchemaVersion { number: 1, ..wider }, new: version(2), ..cut() };
        let mut old = version(1);
        old.dimensions.retain(|dimension| *dimension != Dimension::Os);
        let dimension = Facts { old, ..cut() };
        let mut old = version(1);
        old.measures.retain(|measure| *measure != Measure::BotEvents);
        let measure = Facts { old, ..cut() };
        let all = [narrower, dimension, measure];
        let refused: Vec<String> = all.iter().flat_map(|facts| refusals(facts, false)).collect();
        expect![[r#"
            the log does not reach back to all of the old table, and what it does not have cannot be carried over, for rows of windows of 5m cannot be made ones of 1m: days 1970-01-02 to 1970-01-04 would not be in the new one (say --accept-loss if that may be so)
            the log does not reach back to all of the old table, and what it does not have cannot be carried over, for version 1 has no os, and version 2 has: days 1970-01-02 to 1970-01-04 would not be in the new one (say --accept-loss if that may be so)
            the log does not reach back to all of the old table, and what it does not have cannot be carried over, for version 1 has no bot_events, and version 2 has: days 1970-01-02 to 1970-01-04 would not be in the new one (say --accept-loss if that may be so)"#]]
        .assert_eq(&refused.join("\n"));
        for facts in all {
            assert_eq!(refusals(&facts, true), [""; 0]);
            assert_eq!(facts.carried_ms(), None);
            assert!(text(&facts).ends_with(
                "LOST: 1970-01-02 00:00:00 UTC to 1970-01-04 00:01:00 UTC, which the log does not have any more"
            ));
            let reaches = Facts { log_from_ms: DAY_MS, ..facts };
            assert_eq!((refusals(&reaches, false).len(), reaches.lost_ms()), (0, None), "nothing is missing");
        }
    }
}
