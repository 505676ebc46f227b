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
        let url = Url::parse(url).ok()?;
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let host = url.host_str().filter(|host| !host.is_empty())?;
        let host = host.strip_prefix("www.").unwrap_or(host).to_owned();
        let mut page = url.path().to_owned();
        let mut query = String::new();
        if let Some(given) = url.query() {
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
    let Ok(url) = Url::parse(url) else { return String::new() };
    if !matches!(url.scheme(), "http" | "https" | "android-app" | "ios-app") {
        return String::new();
    }
    let Some(mut referrer) = scheme_host_path(&url) else { return String::new() };
    let mut begins = '?';
    for (name, value) in url.query().into_iter().flat_map(parameters) {
        if SEARCH_TERMS.contains(&&*name) && !value.is_empty() {
            referrer.push(begins);
            push(&mut referrer, &name, value);
            begins = '&';
        }
    }
    referrer
}

/// What was clicked or downloaded: scheme, host and path of a URL, or a path as it is; without query and fragment.
pub fn target(target: &str) -> String {
    let bare = || target.split(['?', '#']).next().unwrap_or_default();
    match Url::parse(target) {
        // `mailto:` and `tel:` hold somebody's address: only the scheme stays.
        Ok(url) => scheme_host_path(&url).unwrap_or_else(|| format!("{}:", url.scheme())),
        Err(url::ParseError::RelativeUrlWithoutBase) => bare().to_owned(),
        Err(_) => String::new(),
    }
}

fn scheme_host_path(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{host}{port}{}", url.scheme(), url.path()))
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
        fn whatever_the_text_nothing_panics(text in ".{0,200}") {
            Page::of_url(&text, |_| true);
            referrer(&text);
            target(&text);
        }
    }
}
