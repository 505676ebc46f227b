use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use url::Url;

/// What of a page's URL goes into the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Lower case, without a leading "www.", without a port.
    pub host: String,
    /// Path, and the query parameters that the site allows.
    pub page: String,
    /// utm_*, ref and click ids, as "name=value&…", names in lower case, values still percent-encoded.
    pub query: String,
}

/// What advertisers put behind a link to know the click again.
const CLICK_IDS: [&str; 11] =
    ["gclid", "gbraid", "wbraid", "dclid", "fbclid", "msclkid", "twclid", "ttclid", "yclid", "li_fat_id", "mc_cid"];

/// Where search engines keep what was searched for (Google, Bing, DuckDuckGo; Yahoo; Yandex; Baidu; the rest).
const SEARCH_TERMS: [&str; 10] =
    ["q", "p", "text", "wd", "word", "query", "search", "search_query", "searchfor", "keyword"];

impl Page {
    /// Cuts `url`; `allows_query` says which parameters belong to the page. `None` if it is no http(s) URL with a host.
    ///
    /// Fragments, user names and passwords, ports and all other parameters go.
    pub fn of_url(url: &str, allows_query: impl Fn(&str) -> bool) -> Option<Self> {
        with_parts(url, |parts| Self::of_parts(parts.ok()?, allows_query))
    }

    fn of_parts(url: Parts<'_>, allows_query: impl Fn(&str) -> bool) -> Option<Self> {
        if !matches!(url.scheme, "http" | "https") || url.host.is_empty() {
            return None;
        }
        let host = url.host.strip_prefix("www.").unwrap_or(url.host).to_owned();
        let mut page = url.path.to_owned();
        let mut query = String::new();
        if let Some(given) = url.query {
            let mut begins = '?';
            for (name, value) in parameters(given) {
                if allows_query(&name) {
                    page.push(begins);
                    push(&mut page, &name, value);
                    begins = '&';
                }
                if !value.is_empty() && of_campaign(&name) {
                    if !query.is_empty() {
                        query.push('&');
                    }
                    push(&mut query, &name.to_ascii_lowercase(), value);
                }
            }
        }
        Some(Self { host, page, query })
    }
}

/// Scheme, host and path of where a visitor came from; of the query only what was searched for.
///
/// Empty for what is no URL of a page or an app: a browser that says nonsense here still saw the page.
pub fn referrer(url: &str) -> String {
    if url.is_empty() {
        return String::new();
    }
    with_parts(url, |parts| {
        let Ok(url) = parts else { return String::new() };
        if !matches!(url.scheme, "http" | "https" | "android-app" | "ios-app") {
            return String::new();
        }
        let Some(mut referrer) = url.without_query() else { return String::new() };
        let mut begins = '?';
        for (name, value) in url.query.into_iter().flat_map(parameters) {
            if SEARCH_TERMS.contains(&&*name) && !value.is_empty() {
                referrer.push(begins);
                push(&mut referrer, &name, value);
                begins = '&';
            }
        }
        referrer
    })
}

/// What was clicked or downloaded: scheme, host and path of a URL, or a path as it is; without query and fragment.
pub fn target(target: &str) -> String {
    if target.is_empty() {
        return String::new();
    }
    with_parts(target, |parts| match parts {
        // `mailto:` and `tel:` hold somebody's address: only the scheme stays.
        Ok(url) => url.without_query().unwrap_or_else(|| format!("{}:", url.scheme)),
        Err(url::ParseError::RelativeUrlWithoutBase) => target.split(['?', '#']).next().unwrap_or_default().to_owned(),
        Err(_) => String::new(),
    })
}

/// A URL in the normal form of the WHATWG's standard, without what never goes on.
#[derive(Debug, PartialEq)]
struct Parts<'a> {
    scheme: &'a str,
    /// Empty for URLs that have none.
    host: &'a str,
    port: Option<u16>,
    path: &'a str,
    query: Option<&'a str>,
}

/// Gives the parts of `url` to `then`: at once where it is in its normal form already, as most are, else parsed.
fn with_parts<R>(url: &str, then: impl FnOnce(Result<Parts<'_>, url::ParseError>) -> R) -> R {
    match plain(url) {
        Some(parts) => then(Ok(parts)),
        None => match Url::parse(url) {
            Ok(url) => then(Ok(Parts::of(&url))),
            Err(error) => then(Err(error)),
        },
    }
}

/// The parts of an http(s) URL of which nothing would change by being parsed; `None` wherever that is not certain.
fn plain(url: &str) -> Option<Parts<'_>> {
    let (scheme, rest) = match url.strip_prefix("https://") {
        Some(rest) => ("https", rest),
        None => ("http", url.strip_prefix("http://")?),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host_is_plain =
        all(host, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-');
    // Numbers may be IPv4 addresses in disguise, `xn--` may be no right Punycode, `/.` may be a dot segment.
    let last_label = host.rsplit('.').next().unwrap_or_default();
    let named = last_label.as_bytes().first().is_some_and(u8::is_ascii_lowercase) && !host.contains("--");
    let path_is_plain = all(path, |byte| byte.is_ascii_alphanumeric() || b"-_.~!$&()*+,;=:@/".contains(&byte));
    let query_is_plain =
        all(query.unwrap_or_default(), |byte| byte.is_ascii_alphanumeric() || b"-_.~!$&()*+,;=:@/?%".contains(&byte));
    let is_plain = host_is_plain && named && path_is_plain && query_is_plain && !path.contains("/.");
    is_plain.then_some(Parts { scheme, host, port: None, path: if path.is_empty() { "/" } else { path }, query })
}

fn all(text: &str, is_plain: impl Fn(u8) -> bool) -> bool {
    text.bytes().all(is_plain)
}

impl<'a> Parts<'a> {
    fn of(url: &'a Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        Self { scheme: url.scheme(), host, port: url.port(), path: url.path(), query: url.query() }
    }

    fn without_query(&self) -> Option<String> {
        let Self { scheme, host, port, path, .. } = self;
        match port {
            _ if host.is_empty() => None,
            None => Some([scheme, "://", host, path].concat()),
            Some(port) => Some(format!("{scheme}://{host}:{port}{path}")),
        }
    }
}

fn of_campaign(name: &str) -> bool {
    let begins = name.as_bytes().get(..4);
    begins.is_some_and(|begin| begin.eq_ignore_ascii_case(b"utm_"))
        || name.eq_ignore_ascii_case("ref")
        || CLICK_IDS.iter().any(|id| name.eq_ignore_ascii_case(id))
}

/// Names, decoded, with their values as they are written.
fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, str>, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // A plus stands for a blank, which no name here has.
        let name = if name.contains('%') { percent_decode_str(name).decode_utf8_lossy() } else { name.into() };
        (name, value)
    })
}

/// Names are known ones, of which those with odd characters are encoded again.
fn push(to: &mut String, name: &str, value: &str) {
    to.extend(percent_encoding::utf8_percent_encode(name, NAME));
    to.push('=');
    to.push_str(value);
}

const NAME: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(url: &str, expected: Expect) {
        let page = Page::of_url(url, |name| name == "id" || name == "weird name");
        let shown = page.map_or("none".to_owned(), |page| format!("{} {} {}", page.host, page.page, page.query));
        expected.assert_eq(&shown);
    }

    #[test]
    fn a_page_is_its_path_and_what_the_site_allows() {
        check("https://Example.ORG", expect!["example.org / "]);
        check("https://www.example.org:8443/a/b/../c#part", expect!["example.org /a/c "]);
        check("https://u:secret@example.org/a", expect!["example.org /a "]);
        check("https://example.org/a?session=1&id=7&id=8&x#?id=9", expect!["example.org /a?id=7&id=8 "]);
        check("https://example.org/a?weird%20name=1", expect!["example.org /a?weird%20name=1 "]);
        check("https://bücher.example/ä ö", expect!["xn--bcher-kva.example /%C3%A4%20%C3%B6 "]);
        check("https://example.org/a\0b\nc", expect!["example.org /a%00bc "]);
        check("http://[2001:db8::1]/a", expect!["[2001:db8::1] /a "]);
    }

    #[test]
    fn campaigns_and_clicks_are_kept_apart_from_the_page() {
        check(
            "https://example.org/?utm_source=n%26l&UTM_Medium=mail&utm_term=&gclid=X&email=a@b&ref=hn",
            expect!["example.org / utm_source=n%26l&utm_medium=mail&gclid=X&ref=hn"],
        );
    }

    #[test]
    fn most_urls_are_plain() {
        for url in ["https://example.org", "http://a.b-c.example/x/y.html?utm_source=n%20l&id=7#top"] {
            assert_eq!(plain(url).unwrap(), Parts::of(&Url::parse(url).unwrap()));
        }
        for url in [
            "https://u@e.example/",
            "https://e.example:8/",
            "https://1.2.3/",
            "https://e.example/a/../b",
            "ftp://e.example/",
        ] {
            assert_eq!(plain(url), None, "{url}");
        }
    }

    #[test]
    fn what_is_no_page_is_none() {
        for url in
            ["", "/a", "example.org/a", "mailto:a@b", "file:///etc/passwd", "https://", "javascript:1", "about:blank"]
        {
            check(url, expect!["none"]);
        }
    }

    #[test]
    fn of_a_referrer_only_the_search_terms_stay() {
        let check = |url, expected: &str| assert_eq!(referrer(url), expected);
        check("https://www.google.com/search?q=weir+dam&sxsrf=SECRET#top", "https://www.google.com/search?q=weir+dam");
        check("https://u:p@mail.example/inbox?token=1", "https://mail.example/inbox");
        check("https://Example.org", "https://example.org/");
        check("android-app://com.google.android.gm/", "android-app://com.google.android.gm/");
        check("-", "");
        check("javascript:alert(1)", "");
        check("data:text/html,x", "");
    }

    #[test]
    fn of_a_target_no_query_and_no_personal_address_stays() {
        let check = |url, expected: &str| assert_eq!(target(url), expected);
        check("https://other.example/a.zip?key=1#x", "https://other.example/a.zip");
        check("/files/a.pdf?key=1", "/files/a.pdf");
        check("mailto:somebody@example.org", "mailto:");
        check("", "");
    }

    proptest! {
        #[test]
        fn no_secret_of_a_url_reaches_the_log(path in "[a-z/]{0,8}", secret in "[0-9]{9}") {
            for url in [
                format!("https://e.example/{path}?session={secret}&utm_source=x"),
                format!("https://e.example/{path}#{secret}"),
                format!("https://{secret}:{secret}@e.example/{path}"),
            ] {
                let page = Page::of_url(&url, |_| false).unwrap();
                let kept = format!("{page:?} {} {}", referrer(&url), target(&url));
                prop_assert!(!kept.contains(&secret), "{}", kept);
            }
        }

        #[test]
        fn a_plain_url_has_the_parts_it_would_be_parsed_into(url in "https?://[a-zA-Z0-9.%@:-]{0,12}(/[a-zA-Z0-9./%~' -]{0,12})?([?][a-z=&%'+ -]{0,8})?(#.{0,3})?") {
            if let Some(parts) = plain(&url) {
                let parsed = Url::parse(&url).unwrap();
                prop_assert_eq!(parts, Parts::of(&parsed));
            }
        }

        #[test]
        fn whatever_the_text_nothing_panics(text in ".{0,200}") {
            Page::of_url(&text, |_| true);
            referrer(&text);
            target(&text);
        }
    }
}
