use std::num::NonZeroU32;

use serde_json::json;
use weir_ingest::{IngestConfig, RateLimit};

use crate::support::{config, reasons, serve};

const PAGE: &str = r#"{"site":"blog","url":"https://blog.example/a"}"#;

/// One event a second, `burst` at once: a test never gets a second one by being slow, but in minutes.
fn limited(address: Option<u32>, site: Option<u32>) -> IngestConfig {
    let rate = |burst: Option<u32>, default| {
        burst.map_or(default, |burst| RateLimit { per_second: 1, burst: NonZeroU32::new(burst).unwrap() })
    };
    let mut config = config();
    config.limits.address = rate(address, config.limits.address);
    config.limits.site = rate(site, config.limits.site);
    config
}

#[tokio::test]
async fn an_address_over_its_rate_is_told_when_to_come_again() {
    let server = serve(limited(Some(3), None)).await;
    let mut limited = 0;
    for _ in 0..20 {
        let response = server.post("/v1/events", PAGE).send().await.unwrap();
        if response.status() == 429 {
            limited += 1;
            let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!(wait >= 1);
        } else {
            assert_eq!(response.status(), 202);
        }
    }
    assert!(limited > 0);
    assert_eq!(server.events().len(), 20 - limited);
}

#[tokio::test]
async fn events_of_one_request_count_each() {
    let server = serve(limited(Some(5), None)).await;
    let (status, answer) = server.send(format!("[{}]", [PAGE; 50].join(","))).await;
    assert_eq!(status, 202);
    let accepted = answer["accepted"].as_u64().unwrap();
    assert!((5..50).contains(&accepted), "{accepted}");
    assert!(reasons(&answer).iter().all(|(index, reason)| *index >= accepted && reason == "rate_limited"));
    assert_eq!(server.events().len() as u64, accepted);
}

#[tokio::test]
async fn a_token_is_not_held_to_the_rate_of_an_address() {
    let server = serve(limited(Some(1), None)).await;
    let (status, answer) = server.send_trusted(format!("[{}]", [PAGE; 50].join(","))).await;
    assert_eq!((status, &answer["accepted"]), (202, &json!(50)));
}

#[tokio::test]
async fn a_token_lifts_the_rate_of_an_address_for_its_own_site_only() {
    let server = serve(limited(Some(1), None)).await;
    let other = r#"{"site":"open","url":"https://o.example/"}"#;
    let both = format!("[{},{}]", [PAGE; 50].join(","), [other; 50].join(","));
    let (status, answer) = server.send_trusted(both).await;
    assert_eq!(status, 202);
    let rejected = reasons(&answer);
    assert!(!rejected.is_empty() && rejected.iter().all(|(index, reason)| *index >= 50 && reason == "rate_limited"));
}

#[tokio::test]
async fn events_that_are_rejected_count_like_others() {
    let server = serve(limited(Some(100), None)).await;
    let (status, answer) = server.send(format!("[{}]", ["{}"; 1_000].join(","))).await;
    assert_eq!((status, answer["accepted"].as_u64()), (400, Some(0)));
    let (status, _) = server.send(format!("[{}]", [PAGE; 50].join(","))).await;
    assert_eq!(status, 429, "the address has used up its allowance");
}

#[tokio::test]
async fn who_guesses_at_tokens_is_told_to_come_again() {
    let server = serve(limited(Some(3), None)).await;
    let mut told = Vec::new();
    for guess in 0..20 {
        let response = server.post("/v1/events", PAGE).bearer_auth(format!("guess{guess}")).send().await.unwrap();
        told.push(response.status().as_u16());
    }
    assert!(told[..3].iter().all(|status| *status == 401), "{told:?}");
    assert!(told.contains(&429), "{told:?}");
}

/// Each event of a site of its own: what is done for a site is done in the time of one event, not of all of them.
#[tokio::test]
async fn a_request_of_many_sites_is_answered_as_one_of_one_site() {
    let mut any = config();
    any.accept_any_site = true;
    any.limits.address.per_second = 0;
    any.limits.events_per_request_max = 20_000;
    let server = serve(any).await;
    let body = |site: &dyn Fn(u32) -> String| {
        let event = |n| format!(r#"{{"site":"{}","url":"https://o.example/"}}"#, site(n));
        format!("[{}]", (0..20_000).map(event).collect::<Vec<_>>().join(","))
    };
    let answered = async |body: String| {
        let begun = std::time::Instant::now();
        let (status, answer) = server.send(body).await;
        assert_eq!((status, answer["accepted"].as_u64()), (202, Some(20_000)));
        begun.elapsed()
    };
    let one = answered(body(&|_| "one".to_owned())).await;
    let many = answered(body(&|n| format!("site-{n}"))).await;
    assert!(many < 20 * one + std::time::Duration::from_secs(1), "{many:?} for many sites, {one:?} for one");
}

#[tokio::test]
async fn a_site_over_its_rate_costs_no_other_site_anything() {
    let server = serve(limited(None, Some(2))).await;
    let other = r#"{"site":"open","url":"https://o.example/"}"#;
    let (status, answer) = server.send(format!("[{},{other}]", [PAGE; 50].join(","))).await;
    assert_eq!(status, 202);
    assert!(reasons(&answer).iter().all(|(index, reason)| *index < 50 && reason == "rate_limited"));
    assert_eq!(server.events().iter().filter(|event| event.site == "open").count(), 1);
}

#[tokio::test]
async fn only_trusted_proxies_say_whose_request_it_is() {
    let proxied = |config: IngestConfig| IngestConfig { trusted_proxies: vec!["127.0.0.0/8".into()], ..config };
    let server = serve(proxied(limited(Some(1), None))).await;
    for n in 0..10 {
        let request = server.post("/v1/events", PAGE).header("x-forwarded-for", format!("192.0.2.{n}"));
        assert_eq!(request.send().await.unwrap().status(), 202);
    }
    let server = serve(limited(Some(1), None)).await;
    let mut limited = 0;
    for n in 0..10 {
        let request = server.post("/v1/events", PAGE).header("x-forwarded-for", format!("192.0.2.{n}"));
        limited += u32::from(request.send().await.unwrap().status() == 429);
    }
    assert!(limited > 0);
}
