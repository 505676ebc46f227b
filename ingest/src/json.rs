//! Bodies of `POST /v1/events`: where their events begin and end, and what each says.

use memchr::memchr2;

use crate::{Hit, Reason, Reject};

/// How the events of a body stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One event.
    One,
    /// A JSON array of events.
    Array,
    /// One event a line; empty lines count for nothing.
    Lines,
}

/// There are more events than a request may have.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

/// The form of `body`: lines if its type says so, else as it begins; several objects in lines are lines, too.
pub fn form(body: &[u8], says_lines: bool) -> Form {
    if says_lines {
        return Form::Lines;
    }
    let body = trimmed(body);
    if body.first() == Some(&b'[') {
        return Form::Array;
    }
    match memchr::memchr(b'\n', body) {
        Some(end) if ends_in_object(&body[..end]) => Form::Lines,
        _ => Form::One,
    }
}

/// Without a byte order mark, which some put in front, and white space around it.
fn trimmed(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii()
}

/// Whether a line is a whole object by itself; the first of several, then.
fn ends_in_object(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    line.ends_with(b"}") && top_level(line).1 == 0
}

/// The events of `body`, each as its own JSON text, so that a broken one costs its neighbours nothing.
pub fn split(body: &[u8], form: Form, events_max: usize) -> Result<Vec<&[u8]>, TooMany> {
    let body = trimmed(body);
    let parts: Vec<&[u8]> = match form {
        Form::One => vec![body],
        Form::Lines => {
            let lines = body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
            lines.filter(|line| !line.is_empty()).take(events_max + 1).collect()
        }
        Form::Array => elements(body, events_max),
    };
    if parts.len() > events_max { Err(TooMany) } else { Ok(parts) }
}

/// The elements of an array that begins `body`, cut at its own commas. What follows the array is one more element,
/// which is then no event; so is what was cut off.
fn elements(body: &[u8], events_max: usize) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = &body[1..];
    while parts.len() <= events_max {
        let (end, _) = top_level(rest);
        let part = rest[..end].trim_ascii();
        match rest.get(end) {
            Some(b',') => parts.push(part),
            closed => {
                if !(part.is_empty() && parts.is_empty() && closed.is_some()) {
                    parts.push(part);
                }
                let behind = rest.get(end + 1..).unwrap_or_default().trim_ascii();
                if !behind.is_empty() {
                    parts.push(behind);
                }
                break;
            }
        }
        rest = &rest[end + 1..];
    }
    parts
}

/// Where the first comma or closing bracket stands that is in no string and no inner bracket, or the end; and how many
/// brackets are open there.
fn top_level(text: &[u8]) -> (usize, usize) {
    let mut open = 0usize;
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => match after_string(&text[at + 1..]) {
                Some(length) => at += length,
                None => return (text.len(), open + 1),
            },
            b'{' | b'[' => open += 1,
            b'}' | b']' if open > 0 => open -= 1,
            b',' | b']' if open == 0 => return (at, 0),
            _ => {}
        }
        at += 1;
    }
    (at, open)
}

/// How many bytes a string has up to and with its closing quote.
fn after_string(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Reads one event.
pub fn hit(json: &[u8]) -> Result<Hit<'_>, Reject> {
    if json.first() != Some(&b'{') {
        return Err(Reject::new(Reason::Malformed, "an event is a JSON object"));
    }
    serde_json::from_slice(json).map_err(|error| Reject::new(Reason::Malformed, error.to_string()))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(body: &str, expected: Expect) {
        let form = form(body.as_bytes(), false);
        let parts = split(body.as_bytes(), form, 100).unwrap();
        let parts: Vec<_> = parts.into_iter().map(|part| std::str::from_utf8(part).unwrap()).collect();
        expected.assert_eq(&format!("{form:?} {}", parts.join(" | ").replace('\n', "↵")));
    }

    #[test]
    fn a_body_is_one_event_an_array_or_lines() {
        check(" {\"a\":\n 1}\n", expect![[r#"One {"a":↵ 1}"#]]);
        check("[]", expect!["Array "]);
        check("[ {\"a\":[1,2]} ,\n{\"b\":\"]},\\\"\"} ]", expect![[r#"Array {"a":[1,2]} | {"b":"]},\""}"#]]);
        check("{\"a\":1}\r\n\n{\"b\":2}", expect![[r#"Lines {"a":1} | {"b":2}"#]]);
        check("{\"a\":\n{}}", expect![[r#"One {"a":↵{}}"#]]);
        check("", expect!["One "]);
    }

    #[test]
    fn a_byte_order_mark_changes_nothing() {
        check("\u{feff}[{\"a\":1},{\"b\":2}]", expect![[r#"Array {"a":1} | {"b":2}"#]]);
        check("\u{feff} {\"a\":1}", expect![[r#"One {"a":1}"#]]);
        check("\u{feff}{\"a\":1}\n{\"b\":2}", expect![[r#"Lines {"a":1} | {"b":2}"#]]);
    }

    #[test]
    fn a_broken_element_is_one_element() {
        check("[{\"a\":1},{bad},7,,{\"b\":2}]", expect![[r#"Array {"a":1} | {bad} | 7 |  | {"b":2}"#]]);
        check("[{\"a\":1},{\"b\":", expect![[r#"Array {"a":1} | {"b":"#]]);
        check("[{\"a\":1},\"open", expect![[r#"Array {"a":1} | "open"#]]);
        check("[{\"a\":1}", expect![[r#"Array {"a":1}"#]]);
        check("[{\"a\":1}] more", expect![[r#"Array {"a":1} | more"#]]);
        check("[{\"a\":1},]", expect![[r#"Array {"a":1} | "#]]);
        check("[", expect!["Array "]);
    }

    #[test]
    fn more_events_than_allowed_are_refused_before_they_are_read() {
        assert_eq!(split(b"[1,2,3]", Form::Array, 2), Err(TooMany));
        assert_eq!(split(b"1\n2\n3", Form::Lines, 2), Err(TooMany));
        assert_eq!(split(b"[1,2]", Form::Array, 2).unwrap().len(), 2);
    }

    #[test]
    fn nesting_of_any_depth_is_refused_and_not_followed() {
        let deep = format!("{{\"props\":{}", "{\"a\":".repeat(100_000));
        assert_eq!(hit(deep.as_bytes()).unwrap_err().reason, Reason::Malformed);
        let unknown = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let _ = hit(unknown.as_bytes());
        assert_eq!(hit(b"[\"a\"]").unwrap_err().reason, Reason::Malformed);
    }

    proptest! {
        #[test]
        fn an_array_splits_into_what_it_was_made_of(values in prop::collection::vec(".{0,20}", 1..20)) {
            let texts: Vec<String> = values.iter().map(|value| serde_json::json!({ "a": [value] }).to_string()).collect();
            let body = format!("[{}]", texts.join(","));
            let parts = split(body.as_bytes(), Form::Array, 100).unwrap();
            prop_assert_eq!(parts, texts.iter().map(|text| text.as_bytes()).collect::<Vec<_>>());
        }

        #[test]
        fn whatever_the_body_nothing_panics(body in prop::collection::vec(prop::sample::select(b"[]{},\"\\\n a1\xff".to_vec()), 0..60)) {
            for part in split(&body, form(&body, false), 100).unwrap() {
                let _ = hit(part);
            }
        }
    }
}
