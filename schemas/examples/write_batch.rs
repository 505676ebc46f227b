//! Prints a record of the log in hex, and what it holds in JSON: for tests in other languages.

use serde_json::json;
use weir_schemas::{
    Event, Kind,
    wire::{BatchBuilder, batch_record},
};

fn main() {
    let view = Event {
        site: "blog.example".into(),
        received_ms: 1_700_000_000_000,
        visitor: u64::MAX - 1,
        host: "blog.example".into(),
        page: "/päge?id=7".into(),
        query: "utm_source=x%20y".into(),
        referrer: "https://www.google.com/search?q=weir".into(),
        user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0".into(),
        country: "NZ".into(),
        title: "日本語".into(),
        screen: "1920x1080".into(),
        language: "mi-NZ".into(),
        ..Event::default()
    };
    let events = [
        view.clone(),
        Event { received_ms: view.received_ms - 5, claimed_ms: Some(view.received_ms - 60_005), ..view.clone() },
        Event { claimed_ms: Some(view.received_ms + 9_000), id: "an id".into(), visitor: 0, ..view.clone() },
        Event { kind: Kind::Outbound, target: "https://elsewhere.example/".into(), ..view.clone() },
        Event {
            kind: Kind::Custom,
            name: "signup".into(),
            props: vec![("author".into(), "Ada".into()), ("category".into(), "α".into())],
            ..view
        },
    ];
    let mut batch = BatchBuilder::new(*b"sixteen bytes it", 42);
    events.iter().for_each(|event| batch.push(event));
    let record = batch_record(1_700_000_000_123, &batch.finish());
    println!("{}", record.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let events = events.iter().map(|event| {
        json!({
            "site": event.site, "kind": event.kind as u32, "received_ms": event.received_ms,
            "claimed_ms": event.claimed_ms, "visitor": event.visitor, "id": event.id, "host": event.host,
            "page": event.page, "query": event.query, "referrer": event.referrer, "user_agent": event.user_agent,
            "country": event.country, "name": event.name, "target": event.target, "title": event.title,
            "screen": event.screen, "language": event.language, "props": event.props,
        })
    });
    println!("{}", json!({ "sent_ms": 1_700_000_000_123_i64, "sequence": 42, "events": events.collect::<Vec<_>>() }));
}
