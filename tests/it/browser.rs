//! What a browser sends is what the table shows: the npm tracker and Weir's own script, in Chromium.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    chromium::chromium,
    support::{Place, repository},
};
use serde_json::Value;

/// Its pages are on 127.0.0.1, a host that no tracker of the internet would name.
const SITE: &str = "[[ingest.sites]]\nname = \"browser.example\"\nhosts = [\"127.0.0.1\"]\n";

#[test]
fn page_views_and_outbound_clicks_of_a_browser_are_those_in_clickhouse() {
    let Some(chromium) = chromium() else { return };
    let place = Place::new(SITE);
    let serve = place.start();
    let did = browse(&place, &chromium);
    place.wait_complete();

    let totals = "SELECT sum(page_views), sum(outbound_clicks), sum(bot_events), sum(custom_events) \
                  FROM sites WHERE site = 'browser.example'";
    let custom_events = 3; // one with each tracker, sent by the page itself
    let expected = format!("{}\t{}\t0\t{custom_events}\n", did["page_views"], did["outbound_clicks"]);
    assert_eq!(place.query(totals), Some(expected));
    assert!(did["page_views"].as_u64() >= Some(9) && did["outbound_clicks"].as_u64() >= Some(3), "{did}");

    let pages = "SELECT page, sum(page_views) AS views FROM pages GROUP BY page HAVING views > 0";
    assert_eq!(rows(&place, pages), counts(&did["pages"]));
    let targets = "SELECT target, sum(outbound_clicks) FROM outbound_links GROUP BY target";
    assert_eq!(rows(&place, targets), counts(&did["targets"]));
    // Three trackers, one person.
    let visitors = "SELECT uniqCombined64Merge(visitors) FROM sites WHERE site = 'browser.example'";
    assert_eq!(place.query(visitors), Some("1\n".to_owned()));
    assert_eq!(serve.stop(), Some(0));
}

/// Runs the script to its end; what it did, as it printed it.
fn browse(place: &Place, chromium: &Path) -> Value {
    let output = Command::new("node")
        .arg(repository().join("tests/browser/tracker.mjs"))
        .env("WEIR_COLLECTOR", format!("http://{}", place.collector))
        .env("WEIR_SITE", "browser.example")
        .env("WEIR_NODE_MODULES", node_modules())
        .env("WEIR_CHROMIUM", chromium)
        .stdin(Stdio::null())
        .output()
        .expect("node, version 20 or later");
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    serde_json::from_str(printed.trim()).unwrap_or_else(|_| panic!("one line of JSON: {printed}{said}"))
}

/// Rows of two columns, as a map from the first to the second.
fn rows(place: &Place, sql: &str) -> BTreeMap<String, u64> {
    let text = place.query(sql).expect("an answer of ClickHouse");
    let pairs = text.lines().filter_map(|line| line.split_once('\t'));
    pairs.map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect()
}

fn counts(printed: &Value) -> BTreeMap<String, u64> {
    printed.as_object().unwrap().iter().map(|(name, count)| (name.clone(), count.as_u64().unwrap())).collect()
}

fn node_modules() -> PathBuf {
    std::env::var_os("WEIR_NODE_MODULES").map_or_else(|| repository().join(".weir/node/node_modules"), PathBuf::from)
}
