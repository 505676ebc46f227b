//! One line of an access log, taken apart without copying.

use std::net::IpAddr;

use memchr::{memchr, memchr2, memrchr};

use crate::time;

/// Bytes of one line: an event's longest fields, escaped as `\xhh`, are 3 × 2,048 × 4 = 24 kB.
pub(crate) const LINE_BYTES_MAX: usize = 64 * 1024;

/// A line that could be read. Strings are as the server wrote them, escapes and all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Address or name of the visitor's machine.
    pub(crate) address: &'a [u8],
    /// ms since the Unix epoch.
    pub(crate) time_ms: i64,
    /// `None` for what is no request line: port scans, TLS on a plain port.
    pub(crate) request: Option<Request<'a>>,
    pub(crate) status: u16,
    /// `None` in the Common Log Format.
    pub(crate) browser: Option<Browser<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a [u8],
    pub(crate) target: &'a [u8],
}

/// What the Combined Log Format says more than the Common one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Browser<'a> {
    pub(crate) referrer: &'a [u8],
    pub(crate) user_agent: &'a [u8],
}

/// Why a line is not counted although something may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("empty line")]
    Empty,
    #[error("longer than 65536 bytes")]
    LineTooLong,
    #[error("no address at the beginning")]
    NoAddress,
    #[error("no time in brackets")]
    NoTime,
    #[error("time in brackets is none, or has no zone")]
    BadTime,
    #[error("time is before 1990")]
    BeforeTheWeb,
    #[error("time is in the future")]
    InTheFuture,
    #[error("no request in quotes behind the time")]
    NoRequest,
    #[error("no request and status behind the time")]
    NoStatus,
    #[error("request is none, but was not refused")]
    BadRequest,
    #[error("no size behind the status")]
    NoSize,
    #[error("no referrer and user agent, each in quotes, behind the size")]
    NoUserAgent,
    #[error("request is for a host that is not the site's")]
    WrongHost,
    #[error("page, referrer or user agent is longer than 2048 bytes")]
    FieldTooLong,
}

/// Takes apart a line in the Common or the Combined Log Format, whichever it is; what a server appends behind either
/// is ignored.
///
/// ```text
///  host ident user [time] "method target protocol" status size ["referrer" "user agent"] …
/// ```
/// Total: any bytes give a line or why they are none. Of a field whose quotes were not escaped the first end counts
/// behind which the rest can be read.
pub(crate) fn parse(line: &[u8]) -> Result<Line<'_>, Malformed> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Err(Malformed::Empty);
    }
    let space = memchr(b' ', line).ok_or(Malformed::NoTime)?;
    // Some servers write a list of proxies here: the visitor's own address is the first.
    let address = line[..space].split(|byte| *byte == b',').next().unwrap_or_default();
    let address = behind_host(address, &line[space + 1..]).unwrap_or(address);
    if address.is_empty() {
        return Err(Malformed::NoAddress);
    }
    let (time_ms, rest) = bracketed_time(&line[space..])?;
    let rest = rest.strip_prefix(b" \"").ok_or(Malformed::NoRequest)?;
    let end = closing_quote(rest, |behind| status(behind).is_some()).ok_or(Malformed::NoStatus)?;
    let (request, rest) = (&rest[..end], &rest[end + 1..]);
    let status = status(rest).ok_or(Malformed::NoStatus)?;
    let rest = rest[4..].strip_prefix(b" ").ok_or(Malformed::NoSize)?;
    let size = rest.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'-').count();
    if size == 0 {
        return Err(Malformed::NoSize);
    }
    let browser = match rest[size..].strip_prefix(b" \"") {
        Some(rest) => Some(browser(rest).ok_or(Malformed::NoUserAgent)?),
        None => None,
    };
    Ok(Line { address, time_ms, request: split_request(request), status, browser })
}

/// Apache's `vhost_combined` writes the server's host before the visitor's address. Behind an address stands `-`, or what
/// a server of 1995 was told by the visitor's machine, which is no address.
fn behind_host<'a>(first: &[u8], rest: &'a [u8]) -> Option<&'a [u8]> {
    if rest.first() == Some(&b'-') {
        return None;
    }
    let second = rest.split(|byte| *byte == b' ').next()?;
    let is_address = |text: &[u8]| str::from_utf8(text).is_ok_and(|text| text.parse::<IpAddr>().is_ok());
    (is_address(second) && !is_address(first)).then_some(second)
}

/// The time in the first brackets that hold one: a user's name may have brackets, too.
fn bracketed_time(text: &[u8]) -> Result<(i64, &[u8]), Malformed> {
    const TIME_BYTES_MAX: usize = 48;
    let mut found = Malformed::NoTime;
    let mut from = 0;
    while let Some(at) = memchr(b'[', &text[from..]) {
        let inside = &text[from + at + 1..];
        let end = memchr(b']', &inside[..inside.len().min(TIME_BYTES_MAX)]);
        if let Some(end) = end
            && let Some(time_ms) = time::parse(&inside[..end])
        {
            return Ok((time_ms, &inside[end + 1..]));
        }
        found = Malformed::BadTime;
        from += at + 1;
    }
    Err(found)
}

/// The first quote that is not escaped and behind which `fits`.
fn closing_quote(text: &[u8], fits: impl Fn(&[u8]) -> bool) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = memchr2(b'"', b'\\', text.get(from..)?) {
        let at = from + at;
        if text[at] == b'\\' {
            from = at + 2;
        } else if fits(&text[at + 1..]) {
            return Some(at);
        } else {
            from = at + 1;
        }
    }
    None
}

/// The status at the beginning of ` 200 …`.
fn status(text: &[u8]) -> Option<u16> {
    let [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] = text else { return None };
    let number = |digit: &u8| u16::from(digit - b'0');
    matches!(rest.first(), None | Some(b' ' | b'\r')).then(|| number(a) * 100 + number(b) * 10 + number(c))
}

fn browser(text: &[u8]) -> Option<Browser<'_>> {
    let end = closing_quote(text, |behind| behind.starts_with(b" \""))?;
    let (referrer, rest) = (&text[..end], &text[end + 3..]);
    let end = closing_quote(rest, |behind| matches!(behind.first(), None | Some(b' ' | b'\r' | b'\t')))?;
    Some(Browser { referrer, user_agent: &rest[..end] })
}

/// `GET /a HTTP/1.1`, or `GET /a` of HTTP/0.9; a target may hold spaces.
fn split_request(request: &[u8]) -> Option<Request<'_>> {
    let space = memchr(b' ', request)?;
    let (method, rest) = (&request[..space], &request[space + 1..]);
    let target = match memrchr(b' ', rest) {
        Some(at) if rest[at + 1..].starts_with(b"HTTP/") => &rest[..at],
        _ => rest,
    };
    let target = target.trim_ascii();
    let is_method = !method.is_empty() && method.len() <= 32 && method.iter().all(u8::is_ascii_alphanumeric);
    (is_method && !target.is_empty()).then_some(Request { method, target })
}

/// Appends what the server escaped: Apache's `\"`, `\\`, `\n`, `\t`, … and everybody's `\xhh`.
pub(crate) fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let hex = |digit: &u8| (*digit as char).to_digit(16).map(|value| value as u8);
        let (byte, taken) = match rest {
            [b'x', high, low, ..] if hex(high).is_some() && hex(low).is_some() => {
                (hex(high).unwrap_or(0) << 4 | hex(low).unwrap_or(0), 3)
            }
            [b'n' | b't' | b'r' | b'b' | b'f' | b'v', ..] => (b'\n', 1),
            [quoted @ (b'"' | b'\\'), ..] => (*quoted, 1),
            _ => (b'\\', 0),
        };
        out.push(byte);
        rest = &rest[taken..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(line: &[u8], expected: Expect) {
        let shown = match parse(line) {
            Err(malformed) => malformed.to_string(),
            Ok(line) => {
                let request = line.request.map_or("no request".to_owned(), |request| {
                    format!("{} {}", request.method.escape_ascii(), request.target.escape_ascii())
                });
                let browser = line.browser.map_or("common".to_owned(), |browser| {
                    format!("{} | {}", browser.referrer.escape_ascii(), browser.user_agent.escape_ascii())
                });
                format!("{} | {request} | {} | {browser}", line.address.escape_ascii(), line.status)
            }
        };
        expected.assert_eq(&shown);
    }

    const HEAD: &str = r#"1.2.3.4 - - [17/May/2015:10:05:03 +0000] "#;

    fn check_tail(tail: &str, expected: Expect) {
        check(format!("{HEAD}{tail}").as_bytes(), expected);
    }

    #[test]
    fn both_formats_are_found_by_themselves() {
        check_tail(r#""GET /a HTTP/1.1" 200 12"#, expect!["1.2.3.4 | GET /a | 200 | common"]);
        check_tail(r#""GET /a HTTP/1.1" 304 -"#, expect!["1.2.3.4 | GET /a | 304 | common"]);
        check_tail(r#""GET /a HTTP/1.1" 200 12 "-" "M 5""#, expect!["1.2.3.4 | GET /a | 200 | - | M 5"]);
        check_tail(r#""GET /a HTTP/1.1" 200 12 "" "" "10.0.0.1" 0.1"#, expect!["1.2.3.4 | GET /a | 200 |  | "]);
        check_tail(r#""GET /a HTTP/1.1" 200 12 0.003"#, expect!["1.2.3.4 | GET /a | 200 | common"]);
        check_tail("\"GET /a HTTP/1.1\" 200 12 \"-\" \"M\"\r", expect!["1.2.3.4 | GET /a | 200 | - | M"]);
    }

    #[test]
    fn who_asks_may_be_named_in_many_ways() {
        let check = |who: &str, expected: Expect| {
            check(format!("{who} [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 1").as_bytes(), expected);
        };
        check("2001:db8::1 - -", expect!["2001:db8::1 | GET / | 200 | common"]);
        check("host.example.org - -", expect!["host.example.org | GET / | 200 | common"]);
        check("1.2.3.4, 10.0.0.1 - -", expect!["1.2.3.4 | GET / | 200 | common"]);
        check("1.2.3.4 - ann lee [x]", expect!["1.2.3.4 | GET / | 200 | common"]);
        check("www.example.org:80 1.2.3.4 - -", expect!["1.2.3.4 | GET / | 200 | common"]);
        check("1.2.3.4 ident ann", expect!["1.2.3.4 | GET / | 200 | common"]);
        check("- - -", expect!["- | GET / | 200 | common"]);
        check("1.2.3.4", expect!["1.2.3.4 | GET / | 200 | common"]);
        check("", expect!["no address at the beginning"]);
    }

    #[test]
    fn quotes_inside_a_field_do_not_end_it() {
        check_tail(
            r#""GET /a\"b HTTP/1.1" 200 1 "http://x/\"" "a \"b\" c\\""#,
            expect![[r#"1.2.3.4 | GET /a\\\"b | 200 | http://x/\\\" | a \\\"b\\\" c\\\\"#]],
        );
        check_tail(r#""GET /a"b HTTP/1.1" 200 1 "-" "M""#, expect![[r#"1.2.3.4 | GET /a\"b | 200 | - | M"#]]);
        check_tail(r#""GET /a" 1 HTTP/1.1" 200 1 "-" "M""#, expect![[r#"1.2.3.4 | GET /a\" 1 | 200 | - | M"#]]);
    }

    #[test]
    fn a_request_may_be_none() {
        check_tail(r#""-" 408 -"#, expect!["1.2.3.4 | no request | 408 | common"]);
        check_tail(r#""\x16\x03\x01" 400 0 "-" "-""#, expect!["1.2.3.4 | no request | 400 | - | -"]);
        check_tail(r#""GET /old" 200 7"#, expect!["1.2.3.4 | GET /old | 200 | common"]);
        check_tail(r#""GET /a b c HTTP/1.0" 200 7"#, expect!["1.2.3.4 | GET /a b c | 200 | common"]);
        check_tail(r#""GET  HTTP/1.0" 200 7"#, expect!["1.2.3.4 | no request | 200 | common"]);
    }

    #[test]
    fn a_line_that_lacks_something_says_what() {
        check(b"", expect!["empty line"]);
        check(b" \t\r", expect!["empty line"]);
        check(b"1.2.3.4", expect!["no time in brackets"]);
        check(b"1.2.3.4 - - ", expect!["no time in brackets"]);
        check(b"1.2.3.4 - - [yesterday] \"GET / HTTP/1.1\" 200 1", expect!["time in brackets is none, or has no zone"]);
        check_tail("", expect!["no request in quotes behind the time"]);
        check_tail(r#""GET / HTTP/1.1"#, expect!["no request and status behind the time"]);
        check_tail(r#""GET / HTTP/1.1" 20"#, expect!["no request and status behind the time"]);
        check_tail(r#""GET / HTTP/1.1" 200"#, expect!["no size behind the status"]);
        check_tail(r#""GET / HTTP/1.1" 200 x"#, expect!["no size behind the status"]);
        check_tail(
            r#""GET / HTTP/1.1" 200 1 "-""#,
            expect![[r#"no referrer and user agent, each in quotes, behind the size"#]],
        );
        check_tail(
            r#""GET / HTTP/1.1" 200 1 "-" "Moz"#,
            expect![[r#"no referrer and user agent, each in quotes, behind the size"#]],
        );
    }

    #[test]
    fn escapes_become_what_they_stand_for() {
        let check = |raw: &[u8], expected: &[u8]| {
            let mut out = Vec::new();
            unescape(raw, &mut out);
            assert_eq!(out, expected);
        };
        check(br#"a\"b\\c"#, br#"a"b\c"#);
        check(br"\x22\xC3\xa4\x5C", "\"ä\\".as_bytes());
        check(br"\n\t|\q|\x1|\", b"\n\n|\\q|\\x1|\\");
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            unescape(&bytes, &mut Vec::new());
        }

        #[test]
        fn whatever_happens_to_a_line_nothing_panics(cuts in proptest::collection::vec((0usize..200, any::<u8>(), 0u8..3), 0..6)) {
            let mut line = format!(r#"{HEAD}"GET /a\"b?x=1 HTTP/1.1" 200 12 "http://x/" "Mozilla \x22 5.0""#).into_bytes();
            for (at, byte, what) in cuts {
                let at = at % line.len();
                match what {
                    0 => line[at] = byte,
                    1 => line.insert(at, byte),
                    _ => line.truncate(at + 1),
                }
            }
            let _ = parse(&line);
        }
    }
}
