//! Whatever a file holds.

use std::fs;

use expect_test::expect;
use proptest::prelude::*;
use weir_ingest::SiteConfig;
use weir_schemas::Kind;

use super::support::{Place, view};
use crate::Class;

const HEAD: &str = "192.0.2.1 - - [17/May/2015:10:00:00 +0000]";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

#[test]
fn bad_lines_are_set_aside_with_their_numbers_and_the_others_count() {
    let place = Place::new();
    let long = format!("{HEAD} \"GET /{} HTTP/1.1\" 200 1 \"-\" \"M\"", "x".repeat(1_000_000));
    let lines: Vec<Vec<u8>> = vec![
        view(1, "/first").trim_end().into(),
        long.into(),
        b"\xff\xfe\x00 [".into(),
        b"".into(),
        format!("{HEAD} \"GET /nul\0\x07 HTTP/1.1\" 200 1 \"-\" \"a\0b\"").into(),
        [HEAD.as_bytes(), b" \"GET /latin\xe9 HTTP/1.1\" 200 1 \"http://x.example/\xe9\" \"agent \xe9\""].concat(),
        b"192.0.2.1 - - [17/May/9999:10:00:00 +0000] \"GET / HTTP/1.1\" 200 1".into(),
        b"192.0.2.1 - - [17/May/0001:10:00:00 +0000] \"GET / HTTP/1.1\" 200 1".into(),
        format!("{HEAD} \"GET /{} HTTP/1.1\" 200 1", "y".repeat(3_000)).into(),
        format!("{HEAD} \"GET / HTTP/1.1\" 200 1 \"-\" \"{}\"", "z".repeat(3_000)).into(),
        format!("{HEAD} \"GET /{}.png HTTP/1.1\" 200 1", "y".repeat(3_000)).into(),
        view(2, "/last").trim_end().into(),
    ];
    let summary = place
        .import(&[&place.file("a.log", lines.join(&b'\n').into_iter().chain([b'\n']).collect::<Vec<_>>())])
        .unwrap();
    assert_eq!(summary.lines, 12);
    let pages: Vec<String> = place.events(&summary.id.unwrap()).into_iter().map(|event| event.page).collect();
    assert_eq!(pages, ["/nul", "/latin%EF%BF%BD", "/first", "/last"]);
    assert_eq!(summary.classes[&Class::StaticFiles], 1);
    let rejects = fs::read_to_string(summary.rejects.unwrap()).unwrap();
    let shown: Vec<String> = rejects
        .lines()
        .map(|line| line.split('\t').skip(1).map(|field| &field[..field.len().min(60)]).collect::<Vec<_>>().join(" | "))
        .collect();
    expect![[r#"
        2 | longer than 65536 bytes | 192.0.2.1 - - [17/May/2015:10:00:00 +0000] \"GET /xxxxxxxxxx
        3 | time in brackets is none, or has no zone | \xff\xfe\x00 [
        4 | empty line | 
        7 | time is in the future | 192.0.2.1 - - [17/May/9999:10:00:00 +0000] \"GET / HTTP/1.1\
        8 | time is before 1990 | 192.0.2.1 - - [17/May/0001:10:00:00 +0000] \"GET / HTTP/1.1\
        9 | page, referrer or user agent is longer than 2048 bytes | 192.0.2.1 - - [17/May/2015:10:00:00 +0000] \"GET /yyyyyyyyyy
        10 | page, referrer or user agent is longer than 2048 bytes | 192.0.2.1 - - [17/May/2015:10:00:00 +0000] \"GET / HTTP/1.1\"#]].assert_eq(&shown.join("\n"));
}

#[test]
fn an_event_holds_what_a_hit_over_http_would() {
    let mut place = Place::new();
    let site = SiteConfig {
        name: "blog".into(),
        hosts: vec!["blog.example".into()],
        timezone: "UTC".into(),
        write_token_sha256: None,
        allowed_query: vec!["id".into()],
    };
    place.environment.sites = vec![site];
    let line =
        |request: &str, referrer: &str| format!("{HEAD} \"{request} HTTP/1.1\" 200 1 \"{referrer}\" \"{FIREFOX}\"\n");
    let content = [
        line("GET /a/../b?id=7&session=1&utm_source=n#x", "https://www.google.com/search?q=weir&token=1"),
        line("GET http://www.blog.example/c", "http://blog.example/b?x=1"),
        line("GET http://evil.example/c", "-"),
        line("GET /files/a.pdf?key=1", "-"),
        line("GET \\x2fescaped\\x22", "nonsense"),
        format!(
            "host.example.org - ann lee [17/May/2015:12:00:00 +0200] \"GET /name HTTP/1.1\" 200 1 \"-\" \"{FIREFOX}\"\n"
        ),
        format!("2001:db8::1 - - [17/May/2015:10:00:00 +0000] \"GET /six HTTP/1.1\" 200 1 \"-\" \"{FIREFOX}\"\n"),
        "- - - [17/May/2015:10:00:00 +0000] \"GET /nobody HTTP/1.1\" 200 1\n".to_owned(),
    ]
    .concat();
    let summary = place.import(&[&place.file("a.log", content)]).unwrap();
    assert_eq!(summary.classes[&Class::Malformed], 1, "a request for another host is no view of this site");
    assert_eq!((summary.combined, summary.common), (6, 1));
    let events = place.events(&summary.id.unwrap());
    let shown: Vec<String> = events
        .iter()
        .map(|event| {
            let unknown = if event.visitor == 0 { " nobody" } else { "" };
            let (kind, host, page) = (event.kind, &event.host, &event.page);
            format!("{kind:?} {host} {page} {} {} {}{unknown}", event.query, event.referrer, event.target)
        })
        .collect();
    expect![[r#"
        PageView blog.example /b?id=7 utm_source=n https://www.google.com/search?q=weir 
        PageView blog.example /c  http://blog.example/b 
        Download blog.example    /files/a.pdf
        PageView blog.example /escaped%22   
        PageView blog.example /name   
        PageView blog.example /six   
        PageView blog.example /nobody    nobody"#]]
    .assert_eq(&shown.join("\n"));
    assert!(events.iter().all(|event| event.time_ms == 1_431_856_800_000 && event.site == "blog"));
    assert!(events.iter().all(|event| event.user_agent == FIREFOX || event.visitor == 0));
    assert_eq!(events.iter().filter(|event| event.kind == Kind::Download).count(), 1);
}

#[test]
fn a_bot_is_written_and_tagged_by_its_user_agent() {
    let place = Place::new();
    let bot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    let content = format!(
        "{HEAD} \"GET / HTTP/1.1\" 200 1 \"-\" \"{bot}\"\n{HEAD} \"GET /a.css HTTP/1.1\" 200 1 \"-\" \"{bot}\"\n"
    );
    let summary = place.import(&[&place.file("a.log", content)]).unwrap();
    assert_eq!((summary.page_views, summary.bots, summary.classes[&Class::StaticFiles]), (0, 1, 1));
    let events = place.events(&summary.id.unwrap());
    assert_eq!((events.len(), &*events[0].user_agent), (1, bot));
}

#[test]
fn a_country_comes_from_the_database_and_a_visitor_from_a_key_of_its_own() {
    let mut place = Place::new();
    place.environment.mmdb = Some(place.file("countries.mmdb", super::support::mmdb()).into());
    let content = view(1, "/a") + &view(2, "/a").replace("192.0.2.1", "198.51.100.1");
    let file = place.file("a.log", content);
    let first = place.events(&place.import(&[&file]).unwrap().id.unwrap());
    assert_eq!(first.iter().map(|event| &*event.country).collect::<Vec<_>>(), ["DE", ""]);
    assert_ne!(first[0].visitor, first[1].visitor);
    let other = crate::import::Identity::random();
    let args = super::support::args(&["--site", "blog", "--again", &file]);
    let again = crate::import::import_until(&args, &place.environment, &other, &Default::default()).unwrap();
    let again = place.events(&again.id.unwrap());
    assert_ne!(first[0].visitor, again[0].visitor, "nobody can be found again in another import");
    place.environment.mmdb = Some(place.path("nothing"));
    assert!(place.import(&["--again", &file]).unwrap_err().to_string().contains("nothing"));
}

#[test]
fn a_file_without_anything_that_counts_makes_no_import() {
    let place = Place::new();
    for content in ["", "nonsense\n", "\0\0\0\n\n"] {
        let summary = place.import(&[&place.file("a.log", content)]).unwrap();
        assert_eq!((summary.id, summary.events), (None, 0));
    }
    assert!(place.actions().is_empty() && place.import_topics().is_empty());
}

#[test]
fn an_unknown_site_is_refused() {
    let mut place = Place::new();
    place.environment.accept_any_site = false;
    let error = place.import(&[&place.file("a.log", view(1, "/"))]).unwrap_err();
    assert!(error.to_string().starts_with("site \"blog\" is not known here"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_lines_the_classes_add_up_to_them(
        lines in proptest::collection::vec(
            (0u32..3_600, "[ -~]{0,30}", prop_oneof![Just(200u16), Just(304), Just(301), Just(404), 0u16..1_000],
             prop_oneof![Just("GET"), Just("POST"), Just("")], proptest::collection::vec((0usize..400, any::<u8>(), 0u8..3), 0..3)),
            0..40,
        ),
    ) {
        let place = Place::new();
        let mut content = Vec::new();
        for (second, page, status, method, cuts) in &lines {
            let mut line = format!(
                "192.0.2.1 - - [17/May/2015:10:{:02}:{:02} +0000] \"{method} /{page} HTTP/1.1\" {status} 1 \"-\" \"{FIREFOX}\"",
                second / 60, second % 60
            ).into_bytes();
            for (at, byte, what) in cuts {
                let at = at % line.len();
                match what {
                    0 => line[at] = *byte,
                    1 => line.insert(at, *byte),
                    _ => line.truncate(at + 1),
                }
            }
            content.extend(line);
            content.push(b'\n');
        }
        let ends = content.iter().filter(|byte| **byte == b'\n').count() as u64;
        let summary = place.import(&[&place.file("a.log", content)]).unwrap();
        prop_assert_eq!(summary.lines, ends);
        prop_assert_eq!(summary.classes.values().sum::<u64>(), ends);
        let events = summary.id.map_or(0, |id| place.events(&id).len() as u64);
        prop_assert_eq!(events, summary.events);
        prop_assert_eq!(events, summary.page_views + summary.downloads + summary.bots);
        let rejected = summary.rejects.map_or(0, |path| fs::read_to_string(path).unwrap().lines().count() as u64);
        prop_assert_eq!(rejected, summary.classes[&Class::Malformed]);
    }
}
