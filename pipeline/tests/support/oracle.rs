//! The plainest recomputation of what a log holds: from the whole log, by the definitions, without watermark or windows.

use std::collections::{BTreeMap, BTreeSet};

use weir_schemas::{
    CLAIM_AGE_MAX_MS, CLOCK_BOUND_MS, DEDUP_HORIZON_MS, Dimension, Kind, SchemaVersion,
    rules::Rules,
    wire::{Content, NO_CLAIM, decode},
};

use super::memory_log::Stored;

/// (emitted in, site, dimension, counts for, value) → (counts, visitors).
pub(crate) type Table = BTreeMap<(i64, String, String, i64, String), (Vec<u64>, BTreeSet<u64>)>;

/// One event in the log, with the place that decides among copies.
struct Copy {
    position: (i64, u32, usize, usize),
    batch_counts: bool,
    key: Option<(String, String)>,
    claimed_ms: Option<i64>,
    received_ms: i64,
    event: BTreeMap<&'static str, String>,
    kind: Kind,
    visitor: u64,
    props: Vec<(String, String)>,
}

pub(crate) fn table(partitions: &[Vec<Stored>], effective_ms: &[i64], version: &SchemaVersion) -> Table {
    let mut copies = Vec::new();
    for (partition, records) in partitions.iter().enumerate() {
        let mut arrival_ms = effective_ms[partition];
        let mut batches: Vec<(([u8; 16], u64), i64)> = Vec::new();
        for (offset, record) in records.iter().enumerate() {
            let Ok(view) = decode(&record.payload) else { continue };
            arrival_ms = arrival_ms.max(record.stamp_ms.min(view.sent_ms + CLOCK_BOUND_MS));
            let Content::Batch(batch) = view.content else { continue };
            let name = (batch.collector, batch.sequence);
            let batch_counts = !batches.iter().any(|(other, at)| *other == name && arrival_ms - at <= DEDUP_HORIZON_MS);
            batches.push((name, arrival_ms));
            let mut prop = 0;
            for index in 0..batch.events {
                let text = |column: &[u32]| batch.strings[column.get(index).map_or(0, |at| *at as usize)].to_owned();
                let props = batch.props.get(index).map_or(0, |props| *props as usize);
                let id = text(&batch.id);
                copies.push(Copy {
                    position: (arrival_ms, partition as u32, offset, index),
                    batch_counts,
                    key: (!id.is_empty()).then(|| (text(&batch.site), id)),
                    claimed_ms: batch.claimed_ms.get(index).copied().filter(|claimed| *claimed != NO_CLAIM),
                    received_ms: batch.received_ms[index],
                    event: BTreeMap::from([
                        ("site", text(&batch.site)),
                        ("page", text(&batch.page)),
                        ("host", text(&batch.host)),
                        ("query", text(&batch.query)),
                        ("referrer", text(&batch.referrer)),
                        ("user_agent", text(&batch.user_agent)),
                        ("country", text(&batch.country)),
                        ("target", text(&batch.target)),
                    ]),
                    kind: Kind::from_wire(batch.kind.get(index).copied().unwrap_or(0)).unwrap(),
                    visitor: batch.visitor.get(index).copied().unwrap_or(0),
                    props: (prop..prop + props)
                        .map(|at| {
                            let string = |column: &[u32]| batch.strings[column[at] as usize].to_owned();
                            (string(&batch.prop_names), string(&batch.prop_values))
                        })
                        .collect(),
                });
                prop += props;
            }
        }
    }
    copies.sort_by_key(|copy| copy.position);
    let mut ids: BTreeMap<(String, String), Vec<i64>> = BTreeMap::new();
    let mut table = Table::new();
    for copy in copies {
        let arrival_ms = copy.position.0;
        let mut counts = copy.batch_counts;
        if let Some(key) = &copy.key {
            let seen = ids.entry(key.clone()).or_default();
            counts &= !seen.iter().any(|at| arrival_ms - at <= DEDUP_HORIZON_MS);
            seen.push(arrival_ms);
        }
        if counts {
            count(&copy, arrival_ms, version, &mut table);
        }
    }
    limit(table, version)
}

fn count(copy: &Copy, arrival_ms: i64, version: &SchemaVersion, table: &mut Table) {
    let mut time_ms = copy.claimed_ms.unwrap_or(copy.received_ms).min(arrival_ms);
    if arrival_ms - time_ms > CLAIM_AGE_MAX_MS {
        time_ms = arrival_ms;
    }
    let width_ms = version.width.ms();
    let window = |at_ms: i64| at_ms - at_ms.rem_euclid(width_ms);
    let emitted_in = window(if arrival_ms - time_ms <= version.lateness_ms { time_ms } else { arrival_ms });
    let rules = Rules::version(version.rules).unwrap();
    let text = |name: &str| copy.event[name].clone();
    let agent = rules.agent(&text("user_agent"));
    let source = rules.source(&text("host"), &text("query"), &text("referrer"));
    let (view, entry) = (copy.kind == Kind::PageView, copy.kind == Kind::PageView && source.external);
    let only = |condition: bool, value: String| if condition { value } else { String::new() };
    let known = |value: String| if value.is_empty() { "(unknown)".to_owned() } else { value };
    let mut rows: Vec<(String, String)> = Vec::new();
    for dimension in &version.dimensions {
        let value = match dimension {
            Dimension::Site => {
                rows.push(("site".into(), String::new()));
                continue;
            }
            Dimension::Props => {
                let mut names = BTreeSet::new();
                for (name, value) in &copy.props {
                    if !value.is_empty() && names.insert(name) {
                        rows.push((format!("prop:{name}"), value.clone()));
                    }
                }
                continue;
            }
            Dimension::Page => only(view, text("page")),
            Dimension::EntryPage => only(entry, text("page")),
            Dimension::Source => only(entry, source.source.clone()),
            Dimension::Channel => only(entry, source.channel.clone()),
            Dimension::Referrer => only(entry, source.referrer.clone()),
            Dimension::SearchTerm => only(entry, source.search_term.clone()),
            Dimension::Country => known(text("country")),
            Dimension::Browser => known(agent.browser.clone()),
            Dimension::Os => known(agent.os.clone()),
            Dimension::Device => known(agent.device.clone()),
            Dimension::Outbound => only(copy.kind == Kind::Outbound, text("target")),
            Dimension::Download => only(copy.kind == Kind::Download, text("target")),
            Dimension::UtmSource => only(entry, source.utm_source.clone()),
            Dimension::UtmMedium => only(entry, source.utm_medium.clone()),
            Dimension::UtmCampaign => only(entry, source.utm_campaign.clone()),
            Dimension::UtmTerm => only(entry, source.utm_term.clone()),
            Dimension::UtmContent => only(entry, source.utm_content.clone()),
        };
        if !value.is_empty() {
            rows.push((dimension.name().to_owned(), value));
        }
    }
    for (dimension, value) in rows {
        let key = (emitted_in, text("site"), dimension, window(time_ms), value);
        let (counts, visitors) = table.entry(key).or_insert_with(|| (vec![0; version.measures.len()], BTreeSet::new()));
        for (count, measure) in counts.iter_mut().zip(&version.measures) {
            *count += u64::from(measure.counts(copy.kind, agent.bot));
        }
        if !agent.bot && copy.visitor != 0 {
            visitors.insert(copy.visitor);
        }
    }
}

fn limit(table: Table, version: &SchemaVersion) -> Table {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for ((emitted, site, dimension, start, value), row) in table {
        groups.entry((emitted, site, dimension, start)).or_default().push((value, row));
    }
    let mut limited = Table::new();
    for ((emitted, site, dimension, start), mut values) in groups {
        values.sort_by_key(|(value, (counts, _))| (std::cmp::Reverse(counts.iter().sum::<u64>()), value.clone()));
        for (place, (value, (counts, visitors))) in values.into_iter().enumerate() {
            let value = if place < version.values_max { value } else { weir_pipeline::OTHER.to_owned() };
            let key = (emitted, site.clone(), dimension.clone(), start, value);
            let (all, united) = limited.entry(key).or_insert_with(|| (vec![0; counts.len()], BTreeSet::new()));
            all.iter_mut().zip(&counts).for_each(|(count, add)| *count += add);
            united.extend(visitors);
        }
    }
    limited
}
