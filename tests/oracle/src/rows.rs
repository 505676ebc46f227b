//! An event's rows, and the limit on how many leave.

use std::collections::{BTreeMap, BTreeSet};

use weir_schemas::{Dimension, Kind, SchemaVersion, rules::Rules};

use crate::{Table, decode::Event};

/// Adds an event that counts to each of its rows.
pub(crate) fn count(event: &Event, emitted_in: i64, counts_for: i64, version: &SchemaVersion, table: &mut Table) {
    let rules = Rules::version(version.rules).expect("the version's rules are in this binary");
    let kind = Kind::from_wire(event.kind).expect("decoded");
    let agent = rules.agent(&event.user_agent);
    let source = rules.source(&event.host, &event.query, &event.referrer);
    let (view, entry) = (kind == Kind::PageView, kind == Kind::PageView && source.external);
    let only = |condition: bool, value: &str| if condition { value.to_owned() } else { String::new() };
    let known = |value: &str| if value.is_empty() { "(unknown)".to_owned() } else { value.to_owned() };
    let mut rows: Vec<(String, String)> = Vec::new();
    for dimension in &version.dimensions {
        let value = match dimension {
            Dimension::Site => {
                rows.push(("site".into(), String::new()));
                continue;
            }
            Dimension::Props => {
                let mut names = BTreeSet::new();
                for (name, value) in &event.props {
                    if !value.is_empty() && names.insert(name) {
                        rows.push((format!("prop:{name}"), value.clone()));
                    }
                }
                continue;
            }
            Dimension::Page => only(view, &event.page),
            Dimension::EntryPage => only(entry, &event.page),
            Dimension::Source => only(entry, &source.source),
            Dimension::Channel => only(entry, &source.channel),
            Dimension::Referrer => only(entry, &source.referrer),
            Dimension::SearchTerm => only(entry, &source.search_term),
            Dimension::Country => known(&event.country),
            Dimension::Browser => known(&agent.browser),
            Dimension::Os => known(&agent.os),
            Dimension::Device => known(&agent.device),
            Dimension::Outbound => only(kind == Kind::Outbound, &event.target),
            Dimension::Download => only(kind == Kind::Download, &event.target),
            Dimension::UtmSource => only(entry, &source.utm_source),
            Dimension::UtmMedium => only(entry, &source.utm_medium),
            Dimension::UtmCampaign => only(entry, &source.utm_campaign),
            Dimension::UtmTerm => only(entry, &source.utm_term),
            Dimension::UtmContent => only(entry, &source.utm_content),
        };
        if !value.is_empty() {
            rows.push((version.names.of(*dimension).to_owned(), value));
        }
    }
    for (dimension, value) in rows {
        let key = (emitted_in, event.site.clone(), dimension, counts_for, value);
        let (counts, visitors) = table.entry(key).or_insert_with(|| (vec![0; version.measures.len()], BTreeSet::new()));
        for (count, measure) in counts.iter_mut().zip(&version.measures) {
            *count += u64::from(measure.counts(kind, agent.bot));
        }
        if !agent.bot && event.visitor != 0 {
            visitors.insert(event.visitor);
        }
    }
}

/// Of each site, dimension and window the largest values, ties by value; the rest as `(other)`.
pub(crate) fn limit(table: Table, version: &SchemaVersion) -> Table {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for ((emitted, site, dimension, start, value), row) in table {
        groups.entry((emitted, site, dimension, start)).or_default().push((value, row));
    }
    let mut limited = Table::new();
    for ((emitted, site, dimension, start), mut values) in groups {
        values.sort_by_key(|(value, (counts, _))| (std::cmp::Reverse(counts.iter().sum::<u64>()), value.clone()));
        for (place, (value, (counts, visitors))) in values.into_iter().enumerate() {
            let value = if place < version.values_max { value } else { "(other)".to_owned() };
            let key = (emitted, site.clone(), dimension.clone(), start, value);
            let (all, united) = limited.entry(key).or_insert_with(|| (vec![0; counts.len()], BTreeSet::new()));
            all.iter_mut().zip(&counts).for_each(|(count, add)| *count += add);
            united.extend(visitors);
        }
    }
    limited
}
