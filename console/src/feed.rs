//! Maintenances and incidents as an Atom feed: an entry each, which changes with every step.

use maud::{Markup, PreEscaped, html};

use crate::{About, View, words};

struct Entry {
    id: String,
    title: String,
    began_ms: i64,
    /// (when, what), oldest first; never empty.
    steps: Vec<(i64, String)>,
}

/// The feed; it was last changed when the newest of its entries was.
pub(crate) fn feed(view: &View, about: &About) -> String {
    let mut entries = entries(view);
    let changed_ms = |entry: &Entry| entry.steps.iter().map(|(at_ms, _)| *at_ms).max().unwrap_or(entry.began_ms);
    entries.sort_by_key(|entry| std::cmp::Reverse(changed_ms(entry)));
    let updated_ms = entries.first().map_or(view.snapshot.began_ms.unwrap_or(0), changed_ms);
    let urn = |id: &str| format!("urn:weir:{}:{id}", urlencoded(&about.name));
    let markup = html! {
        (PreEscaped("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n"))
        feed xmlns="http://www.w3.org/2005/Atom" {
            id { (urn("feed")) }
            title { (words::of_xml(&about.name)) ": maintenances and incidents" }
            author { name { (words::of_xml(&about.name)) } }
            updated { (words::machine(updated_ms)) }
            @if !about.url.is_empty() { link href=(about.url) {} }
            @for entry in &entries { (of(entry, urn(&entry.id), changed_ms(entry))) }
        }
    };
    markup.into_string()
}

fn of(entry: &Entry, id: String, changed_ms: i64) -> Markup {
    html! {
        entry {
            id { (id) }
            title { (words::of_xml(&entry.title)) }
            published { (words::machine(entry.began_ms)) }
            updated { (words::machine(changed_ms)) }
            content type="text" {
                @for (at_ms, text) in &entry.steps { (words::time(*at_ms, 0)) " " (words::of_xml(text)) "\n" }
            }
        }
    }
}

fn entries(view: &View) -> Vec<Entry> {
    let maintenances = view.snapshot.maintenances.iter().map(|one| Entry {
        id: one.public_id(),
        title: one.title(),
        began_ms: one.announced_ms,
        steps: one.history().into_iter().map(|step| (step.at_ms, step.text)).collect(),
    });
    let incidents = view.incidents.iter().map(|one| Entry {
        id: one.id.clone(),
        title: one.name.clone(),
        began_ms: one.began_ms,
        steps: one.updates.iter().map(|update| (update.at_ms, update.text.clone())).collect(),
    });
    let conversions = view.snapshot.conversions.iter().map(|one| Entry {
        id: one.public_id(),
        title: one.title(),
        began_ms: one.began_ms,
        steps: one.steps.iter().map(|step| (step.at_ms, step.text.clone())).collect(),
    });
    maintenances.chain(conversions).chain(incidents).collect()
}

/// Letters and digits stay, all else becomes `%XX`.
fn urlencoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
