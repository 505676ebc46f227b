use serde_json::{Value, json};
use weir_schemas::Kind;

use crate::support::{NOON_MS, config, reasons, serve};

const PAGE: &str = r#"{"site":"blog","url":"https://blog.example/a"}"#;

#[tokio::test]
async fn an_event_is_in_the_log_when_it_is_acknowledged() {
    let server = serve(config()).await;
    let event = json!({
        "site": "blog", "url": "https://www.Blog.example/a?id=7&x=1&utm_source=n#part", "referrer": "https://news.example/?s=1",
        "id": "e1", "title": "A", "props": {"author": "Ann", "n": 7}, "screen": "800x600", "language": "de",
    });
    let (status, answer) = server.send(event.to_string()).await;
    assert_eq!((status, answer), (202, json!({"accepted": 1, "rejected": []})));
    let events = server.events();
    let event = &events[0];
    assert_eq!(events.len(), 1);
    assert_eq!((event.kind, event.received_ms, event.claimed_ms), (Kind::PageView, NOON_MS, None));
    let shown = [&event.site, &event.host, &event.page, &event.query, &event.referrer, &event.user_agent, &event.id];
    assert_eq!(shown, ["blog", "blog.example", "/a?id=7", "utm_source=n", "https://news.example/", "Firefox", "e1"]);
    assert_eq!([&event.title, &event.screen, &event.language], ["A", "800x600", "de"]);
    assert_eq!(event.props, [("author".into(), "Ann".into()), ("n".into(), "7".into())]);
    assert_ne!(event.visitor, 0);
}

#[tokio::test]
async fn a_bad_event_costs_its_neighbours_nothing() {
    let server = serve(config()).await;
    for separator in [",", "\n"] {
        let (begin, end) = if separator == "," { ("[", "]") } else { ("", "") };
        let bad = ["{bad}", "7", r#"{"site":7}"#, r#"{"site":"blog"}"#, "{\"site\":\"blog\",\"url\":\"\u{1}\"}"];
        let mut parts = vec![PAGE];
        for part in bad {
            parts.extend([part, PAGE]);
        }
        let before = server.events().len();
        let (status, answer) = server.send(format!("{begin}{}{end}", parts.join(separator))).await;
        assert_eq!((status, &answer["accepted"]), (202, &json!(6)), "{answer}");
        let expected = ["malformed", "malformed", "malformed", "bad_url", "malformed"];
        let expected: Vec<(u64, String)> = (0..).map(|n| 2 * n + 1).zip(expected.map(String::from)).collect();
        assert_eq!(reasons(&answer), expected);
        assert_eq!(server.events().len() - before, 6);
    }
}

#[tokio::test]
async fn invalid_utf8_costs_only_its_own_event() {
    let server = serve(config()).await;
    let mut body = format!("[{PAGE},{{\"site\":\"blog\",\"title\":\"").into_bytes();
    body.extend(b"\xff\xfe\"},");
    body.extend(format!("{PAGE}]").into_bytes());
    let (status, answer) = server.send(body).await;
    assert_eq!((status, &answer["accepted"]), (202, &json!(2)));
    assert_eq!(reasons(&answer), [(1, "malformed".into())]);
}

#[tokio::test]
async fn every_reason_is_given_for_what_it_names() {
    let server = serve(config()).await;
    let url = "https://blog.example/a";
    let long = "x".repeat(2_049);
    let many: serde_json::Map<String, Value> = (0..31).map(|n| (format!("p{n}"), json!(1))).collect();
    let cases = [
        (json!({"site": 1}), "malformed"),
        (json!({"site": "blog", "url": url, "props": {"a": {"b": 1}}}), "malformed"),
        (json!({"site": "unknown", "url": url}), "unknown_site"),
        (json!({"url": "https://unknown.example/"}), "unknown_site"),
        (json!({"site": "blog", "url": "https://evil.example/"}), "wrong_host"),
        (json!({"site": "blog", "url": "/a"}), "bad_url"),
        (json!({"site": "blog"}), "bad_url"),
        (json!({"site": "blog", "url": url, "kind": "visit"}), "bad_kind"),
        (json!({"site": "blog", "url": url, "kind": "custom"}), "missing_name"),
        (json!({"site": "blog", "url": url, "kind": "outbound"}), "missing_target"),
        (json!({"site": "blog", "url": url, "time": "yesterday"}), "bad_time"),
        (json!({"site": "blog", "url": url, "time": 1e300}), "bad_time"),
        (json!({"site": "blog", "url": url, "time": NOON_MS - 86_400_001}), "too_old"),
        (json!({"site": "blog", "url": url, "ip": "192.0.2.1"}), "token_required"),
        (json!({"site": "blog", "url": url, "user_agent": "A"}), "token_required"),
        (json!({"site": "blog", "url": url, "title": long}), "field_too_long"),
        (json!({"site": "blog", "url": format!("{url}{long}")}), "field_too_long"),
        (json!({"site": "blog", "url": url, "props": {"a": long}}), "field_too_long"),
        (json!({"site": "blog", "url": url, "props": {long.clone(): 1}}), "field_too_long"),
        (json!({"site": "blog", "url": url, "props": many}), "too_many_props"),
    ];
    for (event, reason) in cases {
        let (status, answer) = server.send(event.to_string()).await;
        assert_eq!((status, reasons(&answer)), (400, vec![(0, reason.into())]), "{event}");
        let detail = answer["rejected"][0]["detail"].as_str().unwrap();
        assert!(!detail.is_empty() && detail.len() < 200, "{detail}");
    }
    assert_eq!(server.events(), []);
}

#[tokio::test]
async fn a_token_opens_the_past_and_the_visitor_and_no_other_site() {
    let server = serve(config()).await;
    let day = 86_400_000;
    let event = |site: &str, age_ms: i64| json!({"site": site, "url": "https://blog.example/a", "time": NOON_MS - age_ms, "ip": "192.0.2.1", "user_agent": "Opera"});
    let body = json!([event("blog", 29 * day), event("blog", 31 * day), event("open", 2 * day), event("open", 0)]);
    let (status, answer) = server.send_trusted(body.to_string()).await;
    assert_eq!((status, &answer["accepted"]), (202, &json!(1)));
    assert_eq!(reasons(&answer), [(1, "too_old".into()), (2, "too_old".into()), (3, "token_required".into())]);
    let (status, answer) =
        server.send_trusted(json!({"site": "blog", "url": "https://blog.example/", "ip": "x"}).to_string()).await;
    assert_eq!((status, reasons(&answer)), (400, vec![(0, "bad_ip".into())]));
    let events = server.events();
    assert_eq!((events[0].claimed_ms, events[0].user_agent.as_str()), (Some(NOON_MS - 29 * day), "Opera"));
    assert_ne!(events[0].visitor, 0);
}

#[tokio::test]
async fn a_wrong_token_is_refused_as_a_whole() {
    let server = serve(config()).await;
    let request = server.post("/v1/events", PAGE).bearer_auth("wrong");
    let (status, answer) = crate::support::answer(request).await;
    assert_eq!((status, answer["error"].as_str()), (401, Some("wrong_token")));
    assert_eq!(server.events(), []);
}

#[tokio::test]
async fn times_of_any_year_are_taken_bounded_or_refused() {
    let server = serve(config()).await;
    let event = |time: Value| json!({"site": "blog", "url": "https://blog.example/", "time": time});
    let times = [
        json!("9999-12-30T00:00:00Z"),
        json!("0001-01-01T00:00:00Z"),
        json!("9999-12-31T23:59:59Z"),
        json!("2026-03-01T13:00:00+02:00"),
        json!(i64::MIN),
        json!(i64::MAX),
        json!("2026-02-30T00:00:00Z"),
        json!(NOON_MS - 86_400_000),
    ];
    let body: Vec<Value> = times.into_iter().map(event).collect();
    let (_, answer) = server.send_trusted(json!(body).to_string()).await;
    let expected = [(1, "too_old"), (2, "bad_time"), (4, "bad_time"), (5, "bad_time"), (6, "bad_time")];
    assert_eq!(reasons(&answer), expected.map(|(index, reason)| (index, reason.to_string())));
    let claimed: Vec<_> = server.events().iter().map(|event| event.claimed_ms.unwrap()).collect();
    assert_eq!(claimed, [253_402_128_000_000, NOON_MS - 3_600_000, NOON_MS - 86_400_000]);
}

#[tokio::test]
async fn bodies_come_compressed_or_not() {
    use tokio::io::AsyncWriteExt;
    let server = serve(config()).await;
    let lines = format!("{PAGE}\n").repeat(1_000).into_bytes();
    macro_rules! compressed {
        ($encoder:ident) => {{
            let mut encoder = async_compression::tokio::write::$encoder::new(Vec::new());
            encoder.write_all(&lines).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }
    let bodies = [
        ("identity", lines.clone()),
        ("gzip", compressed!(GzipEncoder)),
        ("zstd", compressed!(ZstdEncoder)),
        ("br", compressed!(BrotliEncoder)),
    ];
    for (n, (encoding, body)) in bodies.into_iter().enumerate() {
        let request =
            server.post("/v1/events", body).header("content-encoding", encoding).bearer_auth(crate::support::TOKEN);
        let (status, answer) = crate::support::answer(request).await;
        assert_eq!((status, &answer["accepted"]), (202, &json!(1_000)), "{encoding}: {answer}");
        assert_eq!(server.events().len(), 1_000 * (n + 1));
    }
}

#[tokio::test]
async fn nothing_is_answered_to_nothing() {
    let server = serve(config()).await;
    assert_eq!(server.send("[]").await.0, 202);
    assert_eq!(server.send("").await.0, 400);
    assert_eq!(server.events(), []);
}

#[tokio::test]
async fn lines_are_lines_where_the_type_says_so() {
    let server = serve(config()).await;
    let request = server.post("/v1/events", format!("oops\n{PAGE}\n")).header("content-type", "application/x-ndjson");
    let (status, answer) = crate::support::answer(request).await;
    assert_eq!((status, &answer["accepted"]), (202, &json!(1)));
    assert_eq!(reasons(&answer), [(0, "malformed".into())]);
}

#[tokio::test]
async fn a_site_is_found_by_its_host_if_it_is_not_named() {
    let server = serve(config()).await;
    let (status, _) = server.send(r#"{"url":"https://shop.blog.example/a"}"#).await;
    assert_eq!((status, server.events()[0].site.as_str()), (202, "blog"));
}

#[tokio::test]
async fn the_first_event_of_a_new_site_counts_where_any_site_is_taken() {
    let server = serve(weir_ingest::IngestConfig { accept_any_site: true, ..config() }).await;
    let (status, _) = server.send(r#"{"site":"brand-new","url":"https://new.example/"}"#).await;
    assert_eq!((status, server.events()[0].site.as_str()), (202, "brand-new"));
    let (status, answer) = server.send(r#"{"site":"a\u0000b","url":"https://new.example/"}"#).await;
    assert_eq!((status, reasons(&answer)), (400, vec![(0, "unknown_site".into())]));
}

#[tokio::test]
async fn control_characters_do_not_reach_the_log() {
    let server = serve(config()).await;
    let event = r#"{"site":"blog","url":"https://blog.example/a\u0000b","title":"a\u0000\u0007b\u0085c","kind":"custom",
        "name":"n\u0000","props":{"k\u0000":"v\u001b","k":"w"}}"#;
    assert_eq!(server.send(event).await.0, 202);
    let event = &server.events()[0];
    assert_eq!([&event.title, &event.name, &event.page], ["abc", "n", "/a%00b"]);
    assert_eq!(event.props, [("k".into(), "v".into())]);
    let click = |target: &str| {
        format!(r#"{{"site":"blog","url":"https://blog.example/","kind":"download","target":"{target}"}}"#)
    };
    assert_eq!(server.send(click(r"/a\u0000b\u001b[31m\u0085.zip")).await.0, 202);
    let targets: Vec<String> = server.events().into_iter().map(|event| event.target).collect();
    assert!(targets.contains(&"/ab[31m.zip".to_owned()), "{targets:?}");
    let (status, answer) = server.send(click(r"\u0000\u0007")).await;
    assert_eq!((status, reasons(&answer)), (400, vec![(0, "missing_target".into())]));
}
