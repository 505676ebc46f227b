use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Server, TOKEN, answer, config, reasons, serve};

const PAGE: &str = r#"{"site":"blog","url":"https://blog.example/a"}"#;

/// What the server says to these bytes until it closes.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut said)).await;
    read.expect("the server holds the connection for ever").ok();
    String::from_utf8_lossy(&said).into_owned()
}

/// It still takes events.
async fn assert_alive(server: &Server) {
    let before = server.events().len();
    assert_eq!(server.send(PAGE).await.0, 202);
    assert_eq!(server.events().len(), before + 1);
}

async fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = async_compression::tokio::write::GzipEncoder::new(Vec::new());
    encoder.write_all(bytes).await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder.into_inner()
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_an_answer() {
    let mut small = config();
    small.limits.body_bytes_max = 10_000;
    let server = serve(small).await;
    let (status, said) = server.send(vec![b' '; 10_001]).await;
    assert_eq!((status, said["error"].as_str()), (413, Some("body_too_large")));
    let pieces = futures::stream::iter((0..11).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1_000])));
    let (status, _) = server.send(reqwest::Body::wrap_stream(pieces)).await;
    assert_eq!(status, 413, "also where no length was said");
    assert_alive(&server).await;
}

#[tokio::test]
async fn bombs_of_every_encoding_are_refused() {
    let server = serve(config()).await;
    let zeros = vec![b' '; 64 << 20];
    let mut zstd = async_compression::tokio::write::ZstdEncoder::new(Vec::new());
    zstd.write_all(&zeros).await.unwrap();
    zstd.shutdown().await.unwrap();
    let mut brotli = async_compression::tokio::write::BrotliEncoder::new(Vec::new());
    brotli.write_all(&zeros).await.unwrap();
    brotli.shutdown().await.unwrap();
    let bombs = [
        ("gzip", gzip(&zeros).await),
        ("gzip", [gzip(b"[").await, gzip(&zeros).await].concat()),
        ("zstd", zstd.into_inner()),
        ("br", brotli.into_inner()),
    ];
    for (encoding, bomb) in bombs {
        assert!(bomb.len() < 1 << 20);
        let (status, _) = answer(server.post("/v1/events", bomb).header("content-encoding", encoding)).await;
        assert_eq!(status, 413);
    }
    assert_alive(&server).await;
}

#[tokio::test]
async fn a_broken_or_unknown_encoding_is_refused() {
    let server = serve(config()).await;
    let good = gzip(PAGE.as_bytes()).await;
    let cases = [
        ("gzip", good[..good.len() - 9].to_vec(), 400),
        ("gzip", PAGE.into(), 400),
        ("zstd", PAGE.into(), 400),
        ("br", vec![0xff; 100], 400),
        ("deflate", PAGE.into(), 415),
    ];
    for (encoding, body, expected) in cases {
        let (status, said) = answer(server.post("/v1/events", body).header("content-encoding", encoding)).await;
        assert_eq!(status, expected, "{encoding}: {said}");
    }
    // A frame that asks for a window of 2 GB.
    let huge_window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
    let request = server.post("/v1/events", huge_window.to_vec()).header("content-encoding", "zstd");
    assert_eq!(answer(request).await.0, 400);
    assert_alive(&server).await;
}

#[tokio::test]
async fn more_events_than_a_request_may_have_are_refused() {
    let server = serve(config()).await;
    let (status, said) = server.send_trusted(format!("[{}]", vec![PAGE; 10_001].join(","))).await;
    assert_eq!((status, said["error"].as_str()), (413, Some("too_many_events")));
    assert_eq!(server.events(), []);
}

#[tokio::test]
async fn deep_nesting_and_huge_properties_cost_nobody_anything() {
    let server = serve(config()).await;
    let deep = "[".repeat(10_000);
    let objects = r#"{"a":"#.repeat(10_000);
    let bodies = [
        format!(r#"{{"site":"blog","url":"https://blog.example/","props":{objects}"#),
        format!(r#"{{"site":"blog","url":"https://blog.example/","props":{{"a":{deep}"#),
        format!("{{\"x\":{deep}"),
        deep.clone(),
        format!("[{deep}"),
        objects.clone(),
    ];
    for body in bodies {
        assert_eq!(server.send(body).await.0, 400);
    }
    let huge = json!([
        {"site": "blog", "url": "https://blog.example/", "props": {"a": "x".repeat(5_000_000)}},
        {"site": "blog", "url": "https://blog.example/"},
    ]);
    let (status, said) = server.send(huge.to_string()).await;
    assert_eq!((status, reasons(&said)), (202, vec![(0, "field_too_long".into())]));
    let many: serde_json::Map<_, _> = (0..100_000).map(|n| (format!("p{n}"), json!(n))).collect();
    let (status, said) =
        server.send(json!({"site": "blog", "url": "https://blog.example/", "props": many}).to_string()).await;
    assert_eq!((status, reasons(&said)), (400, vec![(0, "too_many_props".into())]));
    assert_alive(&server).await;
}

#[tokio::test]
async fn an_answer_stays_small_whatever_was_sent() {
    let server = serve(config()).await;
    let long = "ä".repeat(100_000);
    let (_, said) = server.send(json!({"site": long, "url": "https://a/"}).to_string()).await;
    assert_eq!(reasons(&said), [(0, "unknown_site".into())]);
    assert!(said.to_string().len() < 500);
    let response = server.post("/v1/events", format!("[{}]", ["7"; 10_000].join(","))).send().await.unwrap();
    assert!(response.bytes().await.unwrap().len() < 2 << 20);
}

#[tokio::test]
async fn junk_in_headers_is_refused_or_passed_over() {
    let server = serve(config()).await;
    assert!(raw(&server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc").await.starts_with("HTTP/1.1 400"));
    assert!(raw(&server, b"POST /v1/events HTTP/1.1\r\nbad header\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let huge = format!("GET /healthz HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let refused = raw(&server, huge.as_bytes()).await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431"), "{refused}");
    let many = format!("GET /healthz HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert!(raw(&server, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let length = "POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n";
    assert!(raw(&server, length.as_bytes()).await.starts_with("HTTP/1.1 400"));
    let odd = format!(
        "POST /v1/events HTTP/1.1\r\nhost: a\r\nuser-agent: \u{e9}\u{80}x\r\naccept-language: ;;,\r\nx-forwarded-for: ,,;\r\n\
         authorization: Bearer\r\ncontent-type: ///\r\nreferer: \u{ff}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{PAGE}",
        PAGE.len()
    );
    let odd: Vec<u8> = odd.chars().map(|c| c as u32 as u8).collect();
    assert!(raw(&server, &odd).await.starts_with("HTTP/1.1 202"));
    assert_alive(&server).await;
}

#[tokio::test]
async fn a_user_agent_over_the_limit_rejects_the_event_only() {
    let server = serve(config()).await;
    let request = server.http.post(server.url("/v1/events")).header("user-agent", "x".repeat(3_000)).body(PAGE);
    let (status, said) = answer(request).await;
    assert_eq!((status, reasons(&said)), (400, vec![(0, "field_too_long".into())]));
}

#[tokio::test]
async fn a_client_that_dawdles_is_let_go() {
    let mut hasty = config();
    hasty.http.header_timeout = Duration::from_millis(200);
    hasty.http.body_timeout = Duration::from_millis(200);
    let server = serve(hasty).await;
    let half_a_head = raw(&server, b"POST /v1/events HTTP/1.1\r\nhost: a\r\n").await;
    assert!(half_a_head.is_empty() || half_a_head.starts_with("HTTP/1.1 408"), "{half_a_head}");
    let half_a_body = raw(&server, b"POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{").await;
    assert!(half_a_body.starts_with("HTTP/1.1 408"), "{half_a_body}");
    assert_alive(&server).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_gives_its_memory_back() {
    let mut tight = config();
    tight.limits.body_bytes_max = 1_000;
    tight.limits.bodies_bytes_max = 1_000;
    let server = serve(tight).await;
    for _ in 0..10 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = b"POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 999\r\n\r\n";
        stream.write_all(head).await.unwrap();
        stream.write_all(&[b' '; 900]).await.unwrap();
    }
    crate::support::eventually("there is room again", async || server.send(PAGE).await.0 == 202).await;
}

#[tokio::test]
async fn one_connection_too_many_waits_for_its_turn() {
    let mut few = config();
    few.http.connections_max = 1;
    let server = serve(few).await;
    let first = TcpStream::connect(server.address).await.unwrap();
    // The kernel takes the second; it is served when the first has gone.
    let second = tokio::spawn(server.post("/v1/events", PAGE).bearer_auth(TOKEN).send());
    drop(first);
    assert_eq!(second.await.unwrap().unwrap().status(), 202);
}
