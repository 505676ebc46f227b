//! A test of its own process, because it looks at how much memory that has.

use std::{sync::Arc, time::Duration};

use tokio::sync::{oneshot, watch};
use weir_ingest::{Ingest, IngestConfig};
use weir_log::{EmbeddedLog, SystemClock};

/// The most memory this process ever had, in bytes.
fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_in_flat_memory() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(EmbeddedLog::open(dir.path(), Arc::new(SystemClock)).unwrap());
    let (_partitions, in_use) = watch::channel(1);
    let ingest = Ingest::start(log, Arc::new(SystemClock), IngestConfig::default(), in_use).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/events", listener.local_addr().unwrap());
    let (_stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(weir_ingest::serve(listener, ingest, async {
        let _ = stopped.await;
    }));
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(120)).build().unwrap();
    let before = peak_rss_bytes();
    let piece = bytes::Bytes::from(vec![b' '; 1 << 20]);
    let pieces = futures::stream::iter((0..100).map(move |_| Ok::<_, std::io::Error>(piece.clone())));
    let response = http.post(url).body(reqwest::Body::wrap_stream(pieces)).send().await.unwrap();
    assert_eq!(response.status(), 413);
    let grown = peak_rss_bytes() - before;
    assert!(grown < 50 << 20, "{grown} bytes for a limit of 8 MB");
}
