use reqwest::Method;

use crate::support::{config, serve};

#[tokio::test]
async fn pages_of_any_origin_may_send_and_read() {
    let server = serve(config()).await;
    for (method, path) in [
        (Method::POST, "/v1/events"),
        (Method::POST, "/api/event"),
        (Method::GET, "/pixel.gif"),
        (Method::GET, "/weir.js"),
    ] {
        let preflight = server.http.request(Method::OPTIONS, server.url(path));
        let preflight = preflight.header("origin", "https://a.example").header("access-control-request-method", "POST");
        let preflight = preflight.header("access-control-request-headers", "content-type").send().await.unwrap();
        let actual =
            server.http.request(method, server.url(path)).header("origin", "https://a.example").send().await.unwrap();
        assert_eq!(preflight.status(), 204, "{path}");
        for response in [&preflight, &actual] {
            assert_eq!(response.headers()["access-control-allow-origin"], "*", "{path}");
            assert!(!response.headers().contains_key("access-control-allow-credentials"), "{path}");
        }
        assert!(preflight.headers()["access-control-allow-headers"].to_str().unwrap().contains("content-type"));
        assert!(preflight.headers()["access-control-allow-methods"].to_str().unwrap().contains("POST"));
        assert_eq!(preflight.headers()["access-control-max-age"], "86400");
    }
}

#[tokio::test]
async fn the_script_is_small_and_may_be_kept() {
    let server = serve(config()).await;
    let response = server.http.get(server.url("/weir.js")).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/javascript; charset=utf-8");
    assert!(response.headers()["cache-control"].to_str().unwrap().contains("max-age"));
    let script = response.text().await.unwrap();
    assert!(script.len() < 2_000, "{} bytes", script.len());
    for needed in ["data-site", "sendBeacon", "pushState", "popstate", "outbound"] {
        assert!(script.contains(needed), "{needed}");
    }
}

#[tokio::test]
async fn health_and_unknown_paths_are_answered() {
    let server = serve(config()).await;
    let status = async |path: &str| server.http.get(server.url(path)).send().await.unwrap().status().as_u16();
    assert_eq!((status("/healthz").await, status("/readyz").await), (200, 200));
    assert_eq!((status("/").await, status("/v1/events").await), (404, 405));
}
