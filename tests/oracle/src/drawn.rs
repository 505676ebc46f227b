//! Drawn events.

use rand::{RngExt, rngs::StdRng};
use weir_schemas::{CLAIM_AGE_MAX_MS, Event, Kind};

const MINUTE_MS: i64 = 60_000;

/// One of them.
pub fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// A hit that a collector has received about `now_ms`: late, claimed in the past or the future, or with one of the last
/// few ids again. `ids` are those that were drawn before.
pub fn event(rng: &mut StdRng, now_ms: i64, ids: &mut Vec<String>) -> Event {
    let received_ms = now_ms - pick(rng, &[0, 0, 1_000, 30_000, 5 * MINUTE_MS]);
    let old = pick(rng, &[0, 5_000, MINUTE_MS, -20_000, -CLAIM_AGE_MAX_MS, CLAIM_AGE_MAX_MS, CLAIM_AGE_MAX_MS + 1]);
    let id = match rng.random_range(0..10) {
        0..2 => {
            ids.push(format!("id{}", ids.len()));
            ids.last().unwrap().clone()
        }
        2..4 if !ids.is_empty() => ids[ids.len() - 1 - rng.random_range(0..ids.len().min(5))].clone(),
        _ => String::new(),
    };
    Event {
        site: pick(rng, &["a.example", "b.example"]).into(),
        kind: pick(
            rng,
            &[Kind::PageView, Kind::PageView, Kind::PageView, Kind::Outbound, Kind::Download, Kind::Custom],
        ),
        received_ms,
        claimed_ms: rng.random_bool(0.5).then(|| received_ms - old),
        visitor: rng.random_range(0..12),
        id,
        host: "a.example".into(),
        page: format!("/{}", rng.random_range(0..9)),
        query: pick(rng, &["", "", "utm_source=news&utm_medium=email"]).into(),
        referrer: pick(rng, &["", "https://a.example/x", "https://www.google.com/search?q=weir"]).into(),
        user_agent: pick(
            rng,
            &[
                "",
                "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
                "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            ],
        )
        .into(),
        country: pick(rng, &["", "NZ", "DE"]).into(),
        target: pick(rng, &["", "https://elsewhere.example/", "/file.pdf"]).into(),
        props: (0..rng.random_range(0..3)).map(|n| (format!("p{n}"), format!("v{}", rng.random_range(0..3)))).collect(),
        ..Event::default()
    }
}
