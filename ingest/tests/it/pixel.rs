use crate::support::{FaultyLog, NOON_MS, Server, TestClock, config, log, serve, serve_on};

/// Gets the pixel; gives the reason of a rejection. It is the image, whatever comes.
async fn get(server: &Server, query: &str, referer: Option<&str>) -> Option<String> {
    let mut request = server.http.get(server.url(&format!("/pixel.gif{query}"))).header("user-agent", "Lynx");
    if let Some(referer) = referer {
        request = request.header("referer", referer);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "image/gif");
    assert!(response.headers()["cache-control"].to_str().unwrap().contains("no-store"));
    let rejected = response.headers().get("x-weir-rejected").map(|value| value.to_str().unwrap().to_owned());
    let image = response.bytes().await.unwrap();
    assert!(image.starts_with(b"GIF89a\x01\x00\x01\x00") && image.ends_with(b";"));
    rejected
}

#[tokio::test]
async fn a_page_without_javascript_is_counted() {
    let server = serve(config()).await;
    let query = "?site=blog&url=https%3A%2F%2Fblog.example%2Fa%3Fid%3D7&referrer=https://news.example/&title=A+b";
    assert_eq!(get(&server, query, None).await, None);
    assert_eq!(get(&server, "?site=blog", Some("https://blog.example/b")).await, None);
    let mut events = server.events();
    events.sort_by(|a, b| a.page.cmp(&b.page));
    let shown: Vec<_> = events.iter().map(|e| [&*e.page, &*e.referrer, &*e.title, &*e.user_agent]).collect();
    assert_eq!(shown, [["/a?id=7", "https://news.example/", "A b", "Lynx"], ["/b", "", "", "Lynx"]]);
}

#[tokio::test]
async fn a_rejected_hit_says_why_in_a_header() {
    let server = serve(config()).await;
    assert_eq!(get(&server, "", None).await.as_deref(), Some("bad_url"));
    assert_eq!(get(&server, "?site=unknown&url=https://a/", None).await.as_deref(), Some("unknown_site"));
    assert_eq!(get(&server, "?site=blog&url=https://blog.example/&time=1", None).await.as_deref(), Some("too_old"));
    assert_eq!(get(&server, "?site=%ff%00&url=%zz&&&==", None).await.as_deref(), Some("unknown_site"));
    assert_eq!(server.events(), []);
}

#[tokio::test]
async fn looking_at_the_pixels_head_counts_nothing() {
    let server = serve(config()).await;
    let url = server.url("/pixel.gif?site=blog&url=https://blog.example/");
    assert_eq!(server.http.head(url).send().await.unwrap().status(), 200);
    assert_eq!(server.events(), []);
}

#[tokio::test]
async fn the_image_comes_even_when_the_log_refuses() {
    let clock = TestClock::at(NOON_MS);
    let inner = log(&clock);
    let faulty = FaultyLog::over(inner.log.clone());
    *faulty.always.lock().unwrap() = Some(|| crate::support::Fault::TooLarge);
    let server = serve_on(faulty, clock, config()).await;
    let rejected = get(&server, "?site=blog&url=https://blog.example/", None).await;
    assert_eq!(rejected.as_deref(), Some("log_refused"));
}
