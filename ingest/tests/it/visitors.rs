use std::sync::Arc;

use serde_json::json;
use weir_ingest::IngestConfig;
use weir_log::EmbeddedLog;

use crate::support::{NOON_MS, Server, TestClock, config, log, payloads, serve, serve_on};

const DAY_MS: i64 = 86_400_000;

fn proxied() -> IngestConfig {
    IngestConfig { trusted_proxies: vec!["127.0.0.1".into()], ..config() }
}

async fn view(server: &Server, site: &str, address: &str, agent: &str) {
    let body = json!({"site": site, "url": "https://blog.example/"}).to_string();
    let request = server.http.post(server.url("/v1/events")).header("user-agent", agent);
    let response = request.header("x-forwarded-for", address).body(body).send().await.unwrap();
    assert_eq!(response.status(), 202);
}

/// The visitors of the log's events, by user agent.
fn visitors(server: &Server) -> Vec<u64> {
    let mut events = server.events();
    events.sort_by(|a, b| a.user_agent.cmp(&b.user_agent));
    events.iter().map(|event| event.visitor).collect()
}

#[tokio::test]
async fn two_collectors_and_a_restart_see_one_visitor_as_one() {
    let clock = TestClock::at(NOON_MS);
    let inner = log(&clock);
    // A second handle, as a second process has one.
    let second: Arc<dyn weir_log::Log> =
        Arc::new(EmbeddedLog::open(inner.dir.path(), Arc::new(clock.clone())).unwrap());
    let (one, two) =
        tokio::join!(serve_on(inner.log.clone(), clock.clone(), proxied()), serve_on(second, clock.clone(), proxied()));
    view(&one, "blog", "192.0.2.1", "A").await;
    view(&two, "blog", "192.0.2.1", "A").await;
    let mut one = one;
    one.stop();
    (&mut one.served).await.unwrap().unwrap();
    let again = serve_on(inner.log.clone(), clock, proxied()).await;
    view(&again, "blog", "192.0.2.1", "A").await;
    let seen = visitors(&again);
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|&visitor| visitor == seen[0] && visitor != 0), "{seen:?}");
}

#[tokio::test]
async fn a_visitor_is_another_on_another_site_address_agent_or_day() {
    let server = serve(proxied()).await;
    view(&server, "blog", "192.0.2.1", "A").await;
    view(&server, "open", "192.0.2.1", "B").await;
    view(&server, "blog", "192.0.2.2", "C").await;
    view(&server, "blog", "192.0.2.1", "D").await;
    server.clock.advance(DAY_MS);
    view(&server, "blog", "192.0.2.1", "E").await;
    let mut seen = visitors(&server);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 5);
}

#[tokio::test]
async fn the_address_reaches_the_log_nowhere() {
    let server = serve(proxied()).await;
    view(&server, "blog", "192.0.2.77", "A").await;
    let body = json!({"site": "blog", "url": "https://blog.example/", "ip": "192.0.2.77", "user_agent": "A"});
    assert_eq!(server.send_trusted(body.to_string()).await.0, 202);
    for topic in server.log.topics().unwrap() {
        for partition in 0..server.log.partitions(&topic).unwrap() {
            for payload in payloads(&*server.log, &topic, partition) {
                assert!(!payload.windows(10).any(|window| window == b"192.0.2.77"), "{topic}");
                assert!(!payload.windows(4).any(|window| window == [192, 0, 2, 77]), "{topic}");
            }
        }
    }
    let seen = visitors(&server);
    assert_eq!(seen[0], seen[1], "the same visitor by header and by field");
}

#[tokio::test]
async fn a_server_that_does_not_say_for_whom_speaks_for_nobody() {
    let server = serve(config()).await;
    let body = json!({"site": "blog", "url": "https://blog.example/"});
    assert_eq!(server.send_trusted(body.to_string()).await.0, 202);
    let event = &server.events()[0];
    assert_eq!((event.visitor, event.user_agent.as_str(), event.country.as_str()), (0, "", ""));
}
