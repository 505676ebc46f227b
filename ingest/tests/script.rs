//! Our own tracker, run by node on a page that stands for a browser's.

use std::process::Command;

fn run(beacon: &str) -> Vec<serde_json::Value> {
    let dir = env!("CARGO_MANIFEST_DIR");
    let mut node = Command::new("node");
    node.args([format!("{dir}/tests/script/page.mjs"), format!("{dir}/src/weir.js"), beacon.into()]);
    let output = node.output().expect("this test needs node on the PATH");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_script_sends_views_clicks_downloads_and_events_of_its_own() {
    let sent = run("accepted");
    let text = |event: &serde_json::Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let shown: Vec<_> =
        sent.iter().map(|e| ["kind", "url", "referrer", "target", "name"].map(|f| text(e, f))).collect();
    let row = |row: [&str; 5]| row.map(String::from);
    assert_eq!(
        shown,
        [
            row(["", "https://blog.example/a?x=1#top", "https://news.example/", "", ""]),
            row(["", "https://blog.example/b", "https://blog.example/a?x=1", "", ""]),
            row(["", "https://blog.example/a", "https://blog.example/b", "", ""]),
            row(["outbound", "https://blog.example/a", "", "https://other.example/x", ""]),
            row(["outbound", "https://blog.example/a", "", "https://other.example/y", ""]),
            row(["download", "https://blog.example/a", "", "https://blog.example/files/x.pdf", ""]),
            row(["custom", "https://blog.example/a", "", "", "Signup"]),
        ]
    );
    for event in &sent {
        assert_eq!((text(event, "by"), text(event, "site")), ("beacon".into(), "blog".into()));
        assert_eq!(text(event, "to"), "https://collector.example/v1/events");
        assert_eq!(["title", "screen", "language"].map(|f| text(event, f)), ["A", "800x600", "de"]);
    }
    assert_eq!(sent[6]["props"]["plan"], "pro");
}

#[test]
fn a_browser_that_refuses_the_beacon_fetches_without_credentials() {
    let sent = run("refused");
    assert_eq!(sent.len(), 7);
    assert!(sent.iter().all(|event| event["by"] == "fetch" && event["credentials"] == "omit"));
}
