use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;

use crate::support::{FaultyLog, NOON_MS, TestClock, config, eventually, log, serve, serve_on};

const PAGE: &str = r#"{"site":"blog","url":"https://blog.example/a"}"#;

#[tokio::test]
async fn a_stop_begins_with_not_ready_while_requests_are_still_taken() {
    let mut patient = config();
    patient.http.not_ready_for = Duration::from_secs(600);
    let mut server = serve(patient).await;
    let ready = async || server.http.get(server.url("/readyz")).send().await.unwrap().status();
    assert_eq!(ready().await, 200);
    let stop = &mut server;
    stop.stop();
    eventually("not ready", async || server.http.get(server.url("/readyz")).send().await.unwrap().status() == 503)
        .await;
    assert_eq!(server.send(PAGE).await.0, 202);
    server.served.abort();
}

#[tokio::test]
async fn a_request_that_was_begun_is_ended_and_no_other_is_taken() {
    let clock = TestClock::at(NOON_MS);
    let inner = log(&clock);
    let faulty = FaultyLog::over(inner.log.clone());
    let mut server = serve_on(faulty.clone(), clock, config()).await;
    faulty.close();
    let begun = tokio::spawn(server.post("/v1/events", PAGE).send());
    eventually("it is on its way", async || !faulty.tries().is_empty()).await;
    server.stop();
    eventually("nobody listens", async || tokio::net::TcpStream::connect(server.address).await.is_err()).await;
    assert!(!server.served.is_finished());
    faulty.open();
    assert_eq!(begun.await.unwrap().unwrap().status(), 202);
    (&mut server.served).await.unwrap().unwrap();
    assert_eq!(server.events().len(), 1);
}

#[tokio::test]
async fn a_connection_without_a_request_holds_no_stop_up() {
    let mut patient = config();
    patient.http.header_timeout = Duration::from_secs(600);
    patient.http.finish_timeout = Duration::from_secs(600);
    let mut server = serve(patient).await;
    let _silent = tokio::net::TcpStream::connect(server.address).await.unwrap();
    assert_eq!(server.send(PAGE).await.0, 202, "the silent one was accepted before");
    server.stop();
    tokio::time::timeout(Duration::from_secs(60), &mut server.served).await.expect("stops").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_loses_nothing_acknowledged() {
    let mut server = serve(weir_ingest::IngestConfig {
        limits: weir_ingest::LimitsConfig {
            address: weir_ingest::RateLimit { per_second: 0, burst: std::num::NonZeroU32::MIN },
            ..Default::default()
        },
        ..config()
    })
    .await;
    let acknowledged = Arc::new(Mutex::new(HashSet::new()));
    let count = Arc::new(AtomicUsize::new(0));
    let url = server.url("/v1/events");
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (http, url) = (server.http.clone(), url.clone());
            let (acknowledged, count) = (acknowledged.clone(), count.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    let id = format!("{client}-{n}");
                    let body = json!({"site": "blog", "url": "https://blog.example/", "id": id}).to_string();
                    match http.post(&url).body(body).send().await {
                        Ok(response) if response.status() == 202 => {
                            acknowledged.lock().unwrap().insert(id);
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => return,
                    }
                }
            })
        })
        .collect();
    eventually("there is load", async || count.load(Ordering::Relaxed) > 500).await;
    server.stop();
    (&mut server.served).await.unwrap().unwrap();
    for client in clients {
        client.await.unwrap();
    }
    let in_log: Vec<String> = server.events().into_iter().map(|event| event.id).collect();
    let distinct: HashSet<String> = in_log.iter().cloned().collect();
    assert_eq!(distinct.len(), in_log.len(), "nothing twice");
    let lost: Vec<_> = acknowledged.lock().unwrap().difference(&distinct).cloned().collect();
    assert_eq!(lost, Vec::<String>::new());
}
