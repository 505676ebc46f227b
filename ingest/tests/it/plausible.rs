use weir_schemas::Kind;

use crate::support::{Server, config, serve};

/// Posts as the tracker does; gives status, text and whether it was dropped.
async fn track(server: &Server, body: &str) -> (u16, String, Option<String>) {
    let request = server.post("/api/event", body.to_owned()).header("content-type", "text/plain");
    let response = request.send().await.unwrap();
    let dropped = response
        .headers()
        .get("x-plausible-dropped")
        .map(|_| response.headers()["x-weir-rejected"].to_str().unwrap().to_owned());
    (response.status().as_u16(), response.text().await.unwrap(), dropped)
}

#[tokio::test]
async fn the_trackers_events_become_kinds() {
    let server = serve(config()).await;
    for body in [
        r#"{"n":"pageview","v":26,"u":"https://blog.example/a#x","d":"blog","r":"https://news.example/","p":{"author":"Ann"}}"#,
        r#"{"n":"Outbound Link: Click","u":"https://blog.example/a","d":"blog","r":null,"p":{"url":"https://b.example/x?y"}}"#,
        r#"{"n":"File Download","u":"https://blog.example/a","d":"blog","p":{"url":"https://blog.example/x.pdf"}}"#,
        r#"{"n":"Signup","u":"https://blog.example/a","d":"blog","p":{"plan":"pro"},"i":false}"#,
        r#"{"n":"engagement","u":"https://blog.example/a","d":"blog","e":1500,"sd":40,"h":1}"#,
    ] {
        assert_eq!(track(&server, body).await, (202, "ok".into(), None), "{body}");
    }
    let mut events = server.events();
    events.sort_by_key(|event| event.kind);
    let shown: Vec<_> = events.iter().map(|e| (e.kind, e.page.as_str(), e.name.as_str(), e.target.as_str())).collect();
    assert_eq!(
        shown,
        [
            (Kind::PageView, "/a", "", ""),
            (Kind::Outbound, "/a", "", "https://b.example/x"),
            (Kind::Download, "/a", "", "https://blog.example/x.pdf"),
            (Kind::Custom, "/a", "Signup", ""),
        ]
    );
    assert_eq!(events[0].props, [("author".into(), "Ann".into())]);
    assert_eq!(events[1].props, []);
}

#[tokio::test]
async fn what_is_dropped_says_so_as_plausible_does() {
    let server = serve(config()).await;
    let unknown = r#"{"n":"pageview","u":"https://x.example/","d":"unknown"}"#;
    assert_eq!(track(&server, unknown).await, (202, "ok".into(), Some("unknown_site".into())));
    assert_eq!(track(&server, "{").await.0, 400);
    assert_eq!(server.events(), []);
}
