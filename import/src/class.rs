//! What a line of an access log counts as. Each is in exactly one class.

use serde::{Deserialize, Serialize};
use weir_schemas::Kind;

use crate::line::{Line, Malformed};

/// The classes, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// GET, answered with 2xx or 304, no file of the two kinds below, no bot.
    PageViews,
    /// The same for a file that people keep.
    Downloads,
    /// What would be one of the above, by a bot: written, tagged by its user agent, in no measure but `bot_events`.
    Bots,
    /// What a page consists of, and robots.txt.
    StaticFiles,
    /// Answered with 4xx or 5xx, whatever was asked.
    Errors,
    /// Answered with 3xx other than 304.
    Redirects,
    /// Not GET.
    OtherMethods,
    /// GET, answered with 1xx, or with what is no status of HTTP.
    OtherStatuses,
    /// Not to be read, or not to be believed; with its reason in the rejects file.
    Malformed,
}

impl Class {
    pub const ALL: [Class; 9] = [
        Class::PageViews,
        Class::Downloads,
        Class::Bots,
        Class::StaticFiles,
        Class::Errors,
        Class::Redirects,
        Class::OtherMethods,
        Class::OtherStatuses,
        Class::Malformed,
    ];

    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Class::PageViews => "page views",
            Class::Downloads => "downloads",
            Class::Bots => "bots",
            Class::StaticFiles => "static files",
            Class::Errors => "errors",
            Class::Redirects => "redirects",
            Class::OtherMethods => "other methods",
            Class::OtherStatuses => "other statuses",
            Class::Malformed => "malformed",
        }
    }

    /// Why it is counted, or not.
    pub fn why(self) -> &'static str {
        match self {
            Class::PageViews => "counted: GET, 2xx or 304, no file, no bot",
            Class::Downloads => "counted: the same for pdf, zip, mp3, …",
            Class::Bots => "written, tagged by user agent; only in bot_events",
            Class::StaticFiles => "not counted: images, fonts, scripts, styles, feeds, robots.txt",
            Class::Errors => "not counted: answered with 4xx or 5xx",
            Class::Redirects => "not counted: answered with 3xx other than 304",
            Class::OtherMethods => "not counted: not GET",
            Class::OtherStatuses => "not counted: neither 2xx, 3xx, 4xx nor 5xx",
            Class::Malformed => "not counted: see the rejects file",
        }
    }
}

/// Extensions of files that are parts of pages or made for programs.
pub(crate) const STATIC_EXTENSIONS: [&str; 28] = [
    "gif", "jpg", "jpeg", "png", "bmp", "ico", "cur", "svg", "svgz", "webp", "avif", "tif", "tiff", "ttf", "otf",
    "eot", "woff", "woff2", "css", "js", "mjs", "map", "json", "wasm", "xml", "xsl", "rss", "atom",
];

/// Extensions of files that people keep.
pub(crate) const DOWNLOAD_EXTENSIONS: [&str; 52] = [
    "pdf", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "pps", "odt", "ods", "odp", "rtf", "csv", "epub", "mobi",
    "zip", "gz", "tgz", "bz2", "xz", "zst", "7z", "rar", "tar", "exe", "msi", "pkg", "dmg", "deb", "rpm", "apk", "iso",
    "jar", "mp3", "m4a", "ogg", "oga", "opus", "wav", "wma", "flac", "mid", "midi", "mp4", "m4v", "mov", "avi", "mpeg",
    "mpg", "wmv", "webm", "mkv",
];

/// What a line is before anybody asks whether it is a bot's.
pub(crate) enum Verdict {
    Hit(Kind),
    Not(Class),
}

pub(crate) fn verdict(line: &Line) -> Result<Verdict, Malformed> {
    if (400..600).contains(&line.status) {
        return Ok(Verdict::Not(Class::Errors));
    }
    let request = line.request.ok_or(Malformed::BadRequest)?;
    if request.method != b"GET" {
        return Ok(Verdict::Not(Class::OtherMethods));
    }
    match line.status {
        200..300 | 304 => {}
        300..400 => return Ok(Verdict::Not(Class::Redirects)),
        _ => return Ok(Verdict::Not(Class::OtherStatuses)),
    }
    Ok(of_target(request.target))
}

fn of_target(target: &[u8]) -> Verdict {
    let path = target.split(|byte| matches!(byte, b'?' | b'#' | b';')).next().unwrap_or_default();
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if name.eq_ignore_ascii_case(b"robots.txt") {
        return Verdict::Not(Class::StaticFiles);
    }
    let Some(dot) = memchr::memrchr(b'.', name) else { return Verdict::Hit(Kind::PageView) };
    let extension = &name[dot + 1..];
    let is_in = |list: &[&str]| list.iter().any(|known| extension.eq_ignore_ascii_case(known.as_bytes()));
    if is_in(&STATIC_EXTENSIONS) {
        Verdict::Not(Class::StaticFiles)
    } else if is_in(&DOWNLOAD_EXTENSIONS) {
        Verdict::Hit(Kind::Download)
    } else {
        Verdict::Hit(Kind::PageView)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::parse;

    fn class(request: &str, status: u16) -> String {
        let line = format!("1.2.3.4 - - [17/May/2015:10:05:03 +0000] \"{request}\" {status} 1");
        match verdict(&parse(line.as_bytes()).unwrap()) {
            Ok(Verdict::Hit(kind)) => format!("{kind:?}"),
            Ok(Verdict::Not(class)) => format!("{class:?}"),
            Err(malformed) => format!("{malformed:?}"),
        }
    }

    #[test]
    fn a_page_view_is_a_get_that_was_answered_and_no_file() {
        for (request, status) in [
            ("GET / HTTP/1.1", 200),
            ("GET /a/b.html?x=y.png HTTP/1.1", 206),
            ("GET /a#b.png HTTP/1.1", 304),
            ("GET /v1.2/ HTTP/1.1", 200),
            ("GET /a.php HTTP/1.1", 200),
            ("GET /readme.txt HTTP/1.1", 200),
        ] {
            assert_eq!(class(request, status), "PageView", "{request}");
        }
    }

    #[test]
    fn every_other_line_has_its_class() {
        for (request, status, expected) in [
            ("GET /a.PNG HTTP/1.1", 200, "StaticFiles"),
            ("GET /a.css?v=1 HTTP/1.1", 304, "StaticFiles"),
            ("GET /a.js;x HTTP/1.1", 200, "StaticFiles"),
            ("GET /robots.txt HTTP/1.1", 200, "StaticFiles"),
            ("GET /a.tar.gz HTTP/1.1", 206, "Download"),
            ("GET /a.pdf HTTP/1.1", 200, "Download"),
            ("GET /a.pdf HTTP/1.1", 404, "Errors"),
            ("POST /a HTTP/1.1", 503, "Errors"),
            ("-", 408, "Errors"),
            ("GET /a HTTP/1.1", 301, "Redirects"),
            ("POST /a HTTP/1.1", 302, "OtherMethods"),
            ("HEAD /a HTTP/1.1", 200, "OtherMethods"),
            ("get /a HTTP/1.1", 200, "OtherMethods"),
            ("GET /a HTTP/1.1", 101, "OtherStatuses"),
            ("GET /a HTTP/1.1", 999, "OtherStatuses"),
            ("nonsense", 200, "BadRequest"),
        ] {
            assert_eq!(class(request, status), expected, "{request} {status}");
        }
    }

    #[test]
    fn no_extension_is_in_both_lists() {
        assert!(STATIC_EXTENSIONS.iter().all(|extension| !DOWNLOAD_EXTENSIONS.contains(extension)));
    }
}
