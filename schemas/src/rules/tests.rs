use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn rules() -> &'static Rules {
    Rules::version(1).expect("version 1 is carried")
}

/// One line a user agent: `bot | browser | os | device`.
fn check_agents(agents: &[&str], expected: Expect) {
    let shown = agents.iter().map(|user_agent| {
        let Agent { bot, browser, os, device } = rules().agent(user_agent);
        format!("{} | {browser} | {os} | {device}\n", if bot { "bot" } else { "-" })
    });
    expected.assert_eq(&shown.collect::<String>());
}

/// One line a hit on a page of blog.example: `source | channel | referrer | search term`, `inside` for an internal one.
fn check_sources(hits: &[(&str, &str)], expected: Expect) {
    let shown = hits.iter().map(|(query, referrer)| {
        let found = rules().source("blog.example", query, referrer);
        if !found.external {
            assert_eq!((found.source + &found.channel + &found.referrer + &found.search_term).len(), 0);
            return "inside\n".to_owned();
        }
        assert!(CHANNELS.contains(&found.channel.as_str()), "{} is not in the list of channels", found.channel);
        format!("{} | {} | {} | {}\n", found.source, found.channel, found.referrer, found.search_term)
    });
    expected.assert_eq(&shown.collect::<String>());
}

#[test]
fn browsers_of_people_have_a_name_a_system_and_a_device() {
    check_agents(
        &[
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36 Edg/139.0.0.0",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:142.0) Gecko/20100101 Firefox/142.0",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
            "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.7 Mobile/15E148 Safari/604.1",
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Mobile Safari/537.36",
            "Mozilla/5.0 (Linux; Android 13; SM-X700) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36",
            "Mozilla/5.0 (Linux; Android 13; CUBOT P80) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36",
            "Mozilla/5.0 (Android 15; Mobile; rv:142.0) Gecko/142.0 Firefox/142.0",
            "Mozilla/5.0 (Linux; Android 14; SAMSUNG SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/139.0.7258.76 Mobile/15E148 Safari/604.1",
            "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36",
            "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:27.0) Gecko/20100101 Firefox/27.0",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36 OPR/122.0.0.0",
            "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 5.1; Trident/4.0; .NET CLR 2.0.50727)",
            "Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko",
            "Opera/9.80 (X11; Linux x86_64) Presto/2.12.388 Version/12.16",
            "Lynx/2.8.7rel.2 libwww-FM/2.14 SSL-MM/1.4.1 OpenSSL/1.0.1f",
            "Mozilla/5.0 (PlayStation 5 3.20) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/15.4 Safari/605.1.15",
            "Mozilla/5.0 (SMART-TV; LINUX; Tizen 6.0) AppleWebKit/537.36 (KHTML, like Gecko) 76.0.3809.146/6.0 TV Safari/537.36",
            "Mozilla/5.0 (Linux; Android 15; CPH2557 Build/AP3A.240617.008; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/142.0.7444.142 Mobile Safari/537.36 Instagram 406.0.0.58.159 Android",
        ],
        expect![[r#"
            - | Chrome | Windows | desktop
            - | Edge | Windows | desktop
            - | Firefox | Windows | desktop
            - | Safari | Mac OS X | desktop
            - | Mobile Safari | iOS | mobile
            - | Mobile Safari | iOS | tablet
            - | Chrome Mobile | Android | mobile
            - | Chrome | Android | tablet
            - | Chrome Mobile | Android | mobile
            - | Firefox Mobile | Android | mobile
            - | Samsung Internet | Android | mobile
            - | Chrome Mobile iOS | iOS | mobile
            - | Chrome | Chrome OS | desktop
            - | Firefox | Ubuntu | desktop
            - | Opera | Windows | desktop
            - | IE | Windows | desktop
            - | IE | Windows | desktop
            - | Opera | Linux | desktop
            - | Lynx |  | 
            - | Safari |  | console
            - | Safari | Tizen | tv
            - | Instagram | Android | mobile
        "#]],
    );
}

#[test]
fn crawlers_feed_readers_and_libraries_are_bots() {
    check_agents(
        &[
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
            "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/139.0.0.0 Safari/537.36",
            "Mozilla/5.0 (compatible; archive.org_bot +http://www.archive.org/details/archive.org_bot)",
            "Mozilla/5.0 (compatible; Ezooms/1.0; help@moz.com)",
            "UniversalFeedParser/4.2-pre-314-svn +http://feedparser.org/",
            "Tiny Tiny RSS/1.11 (http://tt-rss.org/)",
            "FeedBurner/1.0 (http://www.FeedBurner.com)",
            "Feedbin - 1 subscribers",
            "Chef Client/10.18.2 (ruby-1.9.3-p327; ohai-6.16.0; x86_64-linux; +http://opscode.com)",
            "LiveJournal.com (webmaster@livejournal.com; for http://www.livejournal.com/users/x/; 1 readers)",
            "curl/8.14.1",
            "Wget/1.21.4",
            "python-requests/2.32.3",
            "Go-http-client/2.0",
            "Java/1.7.0_51",
            "libwww-perl/6.05",
            "okhttp/4.12.0",
            "Mozilla/4.0 (compatible;)",
            "Twitterbot/1.0",
        ],
        expect![[r#"
            bot | Googlebot |  | 
            bot | bingbot |  | 
            bot | GPTBot |  | 
            bot | FacebookBot |  | 
            bot | HeadlessChrome | Linux | desktop
            bot | archive.org_bot |  | 
            bot |  |  | 
            bot |  |  | 
            bot | Tiny Tiny RSS |  | 
            bot |  |  | 
            bot | Feedbin |  | 
            bot |  | Linux | desktop
            bot |  |  | 
            bot | curl |  | 
            bot | Wget |  | 
            bot | Python Requests |  | 
            bot | Go-http-client |  | 
            bot | Java |  | 
            bot | libwww-perl |  | 
            bot | okhttp |  | 
            bot |  |  | 
            bot | Twitterbot |  | 
        "#]],
    );
}

#[test]
fn an_empty_agent_and_a_dash_are_unknown_and_no_bot() {
    assert_eq!(rules().agent(""), Agent::default());
    assert_eq!(rules().agent("-"), Agent::default());
    assert_eq!(rules().agent(" \t"), Agent::default());
}

#[test]
fn the_source_is_a_tag_or_a_site_or_the_host_or_direct() {
    check_sources(
        &[
            ("", ""),
            ("", "-"),
            ("", "about:blank"),
            ("", "file:///home/a/index.html"),
            ("", "asdf"),
            ("", "http://"),
            ("", "http://blog.example/other"),
            ("", "https://WWW.Blog.Example:8443/other?q=1"),
            ("utm_source=x", "http://blog.example/other"),
            ("", "http://shop.blog.example/"),
            ("", "https://www.google.com/"),
            ("", "http://www.google.co.uk/url?sa=t&rct=j&q=Logstash+Grok%20Pattern&source=web"),
            ("", "https://google.com.br/search?q="),
            ("", "http://www.google.fr/search?q=%E9t%E9"),
            ("", "android-app://com.google.android.googlequicksearchbox/"),
            ("", "https://mail.google.com/mail/u/0/"),
            ("", "https://translate.google.de/translate"),
            ("", "https://news.google.com/"),
            ("", "https://www.bing.com/search?q=xdotool"),
            ("", "http://r.duckduckgo.com/l/?q=a+b"),
            ("", "http://search.yahoo.com/search?p=find+files"),
            ("", "https://uk.search.yahoo.com/search?p=x"),
            ("", "https://mail.yahoo.com/"),
            ("", "http://www.baidu.com/s?wd=%E4%BD%A0%E5%A5%BD"),
            ("", "https://yandex.ru/search/?text=%D0%BF%D1%80%D0%B8%D0%B2%D0%B5%D1%82"),
            ("", "https://notgoogle.com/?q=x"),
            ("", "https://google.evil.example.com/?q=x"),
            ("", "https://t.co/AbCdEf"),
            ("", "https://l.facebook.com/l.php"),
            ("", "https://out.reddit.com/t3_abc"),
            ("", "https://news.ycombinator.com/item?id=1"),
            ("", "http://unix.stackexchange.com/questions/1"),
            ("", "https://www.youtube.com/watch?v=1"),
            ("", "https://chatgpt.com/"),
            ("", "http://en.wikipedia.org/wiki/Xdotool"),
            ("", "http://kufli.blogspot.com/"),
            ("", "http://xn--90adhhccf5aeewt7j.xn--p1ai/x"),
            ("", "http://user:pw@forum.example:8080/a/b?c#d"),
            ("", "http://[::1]:80/x"),
            ("", "http://10.0.0.1/x"),
            ("", "forum.example/thread/1"),
            ("utm_source=newsletter&utm_medium=email", ""),
            ("utm_source=Newsletter", "https://mail.proton.me/"),
            ("utm_source=google&utm_medium=cpc&utm_campaign=a", "https://www.google.com/"),
            ("utm_source=fb&utm_medium=paid_social", ""),
            ("utm_source=facebook.com&utm_medium=social", ""),
            ("utm_source=ig", ""),
            ("utm_source=youtube&utm_medium=cpv", ""),
            ("utm_source=bannernet&utm_medium=display", ""),
            ("utm_source=bannernet&utm_medium=cpm", ""),
            ("utm_source=some+shop&utm_medium=cpc", ""),
            ("utm_source=partner&utm_medium=affiliate", ""),
            ("utm_source=sms", ""),
            ("utm_medium=push", ""),
            ("utm_medium=audio&utm_source=show", ""),
            ("utm_medium=referral", ""),
            ("utm_medium=organic&utm_source=x-engine", ""),
            ("utm_medium=video&utm_source=show", ""),
            ("ref=hn", ""),
            ("ref=producthunt", "https://forum.example/"),
            ("gclid=abc", ""),
            ("gclid=abc", "https://www.google.com/"),
            ("msclkid=abc", "https://www.bing.com/"),
            ("fbclid=abc", ""),
            ("fbclid=abc", "https://m.facebook.com/"),
            ("ttclid=abc", "https://forum.example/"),
            ("dclid=abc", "https://forum.example/"),
            ("mc_cid=abc", ""),
            ("utm_source=%ff%00x&&=&utm_medium", ""),
        ],
        expect![[r#"
            Direct | direct |  | 
            Direct | direct |  | 
            Direct | direct |  | 
            Direct | direct |  | 
            Direct | direct |  | 
            Direct | direct |  | 
            inside
            inside
            inside
            shop.blog.example | referral | shop.blog.example | 
            Google | organic_search | google.com | 
            Google | organic_search | google.co.uk/url | logstash grok pattern
            Google | organic_search | google.com.br/search | 
            Google | organic_search | google.fr/search | �t�
            Google | organic_search | com.google.android.googlequicksearchbox | 
            Gmail | email | mail.google.com/mail/u/0/ | 
            Google Translate | referral | translate.google.de/translate | 
            Google News | referral | news.google.com | 
            Bing | organic_search | bing.com/search | xdotool
            DuckDuckGo | organic_search | r.duckduckgo.com/l/ | a b
            Yahoo! | organic_search | search.yahoo.com/search | find files
            Yahoo! | organic_search | uk.search.yahoo.com/search | x
            Yahoo! Mail | email | mail.yahoo.com | 
            Baidu | organic_search | baidu.com/s | 你好
            Yandex | organic_search | yandex.ru/search/ | привет
            notgoogle.com | referral | notgoogle.com | 
            google.evil.example.com | referral | google.evil.example.com | 
            Twitter | organic_social | t.co/AbCdEf | 
            Facebook | organic_social | l.facebook.com/l.php | 
            Reddit | organic_social | out.reddit.com/t3_abc | 
            Hacker News | organic_social | news.ycombinator.com/item | 
            Stack Overflow | organic_social | unix.stackexchange.com/questions/1 | 
            YouTube | video | youtube.com/watch | 
            chatgpt.com | referral | chatgpt.com | 
            Wikipedia | referral | en.wikipedia.org/wiki/Xdotool | 
            kufli.blogspot.com | referral | kufli.blogspot.com | 
            xn--90adhhccf5aeewt7j.xn--p1ai | referral | xn--90adhhccf5aeewt7j.xn--p1ai/x | 
            forum.example | referral | forum.example/a/b | 
            [::1] | referral | [::1]/x | 
            10.0.0.1 | referral | 10.0.0.1/x | 
            forum.example | referral | forum.example/thread/1 | 
            newsletter | email |  | 
            Newsletter | email | mail.proton.me | 
            Google | paid_search | google.com | 
            Facebook | paid_social |  | 
            Facebook | organic_social |  | 
            Instagram | organic_social |  | 
            YouTube | paid_video |  | 
            bannernet | display |  | 
            bannernet | display |  | 
            some shop | paid_other |  | 
            partner | affiliates |  | 
            sms | sms |  | 
            Direct | push |  | 
            show | audio |  | 
            Direct | referral |  | 
            x-engine | organic_search |  | 
            show | video |  | 
            Hacker News | organic_social |  | 
            Product Hunt | organic_social | forum.example | 
            Google | paid_search |  | 
            Google | paid_search | google.com | 
            Bing | paid_search | bing.com | 
            Facebook | organic_social |  | 
            Facebook | organic_social | m.facebook.com | 
            forum.example | paid_social | forum.example | 
            forum.example | display | forum.example | 
            Mailchimp | email |  | 
            �x | referral |  | 
        "#]],
    );
}

#[test]
fn campaign_tags_are_decoded_and_kept_on_an_internal_hit_too() {
    let query = "utm_source=n%26l&UTM_Medium=E-Mail&utm_campaign=Spring+Sale&utm_term=%C3%A9&utm_content=a%09b";
    for referrer in ["", "https://blog.example/"] {
        let found = rules().source("blog.example", query, referrer);
        let tags = [found.utm_source, found.utm_medium, found.utm_campaign, found.utm_term, found.utm_content];
        assert_eq!(tags, ["n&l", "E-Mail", "Spring Sale", "é", "ab"]);
    }
}

#[test]
fn other_versions_are_not_carried() {
    assert!(Rules::version(0).is_none());
    assert!(Rules::version(2).is_none());
    assert_eq!(rules().number(), 1);
}

#[test]
fn long_values_are_cut_at_a_character() {
    let found = rules().source("blog.example", &format!("utm_source={}", "é".repeat(1_000)), "");
    assert_eq!(found.source, "é".repeat(VALUE_BYTES_MAX / 2));
}

/// What version 1 makes of a real log may never change, whatever crates or code change: old logs are replayed with it.
#[test]
fn version_1_classifies_a_real_log_as_it_always_did() {
    let log = include_str!("../../../examples/blog-access.log");
    let (mut shown, mut bots) = (String::new(), 0);
    for line in log.lines() {
        let fields: Vec<&str> = line.split('"').collect();
        let [_, _, _, referrer, _, user_agent, ..] = fields[..] else { continue };
        let agent = rules().agent(user_agent);
        bots += usize::from(agent.bot);
        shown.push_str(&format!("{agent:?} {:?}\n", rules().source("semicomplete.com", "", referrer)));
    }
    let lists = [
        include_str!("v1/bots.txt"),
        include_str!("v1/browsers.tsv"),
        include_str!("v1/systems.tsv"),
        include_str!("v1/devices.tsv"),
        include_str!("v1/sources.toml"),
    ];
    let digest = |string: &str| xxhash_rust::xxh3::xxh3_64(string.as_bytes());
    expect!["ca4c3c877195d848 6a83c63ece5eb302 2727 of 10000 by bots"].assert_eq(&format!(
        "{:016x} {:016x} {bots} of {} by bots",
        digest(&lists.concat()),
        digest(&shown),
        shown.lines().count()
    ));
}

fn holds_for_a_value(value: &str) -> bool {
    value.len() <= VALUE_BYTES_MAX && !value.chars().any(char::is_control) && value.trim() == value
}

proptest! {
    #[test]
    fn any_string_has_an_agent(user_agent in "\\PC{0,80}|[\\x00-\\u{ff}]{0,300}") {
        let agent = rules().agent(&user_agent);
        prop_assert_eq!(&agent, &rules().agent(&user_agent));
        prop_assert!([&agent.browser, &agent.os, &agent.device].into_iter().all(|value| holds_for_a_value(value)));
    }

    #[test]
    fn any_strings_have_a_source(
        host in "[a-z.]{0,12}|\\PC{0,20}",
        query in "((utm_[a-z]{1,8}|ref|gclid|fbclid)=[a-zA-Z%0-9+]{0,20}&){0,5}|[\\x00-\\u{ff}]{0,60}",
        referrer in "(https?|android-app)://(www\\.)?(google|bing|facebook|x)\\.(com|co\\.uk)[/?#a-z=%:@\\[\\]]{0,40}|\\PC{0,60}",
    ) {
        let found = rules().source(&host, &query, &referrer);
        prop_assert!(!found.external || CHANNELS.contains(&found.channel.as_str()));
        prop_assert!(found.external || found.channel.is_empty());
        prop_assert_eq!(found.external, !found.source.is_empty());
        let Source { source, referrer, search_term, utm_source, utm_medium, utm_campaign, utm_term, utm_content, .. } = found;
        for value in [source, referrer, search_term, utm_source, utm_medium, utm_campaign, utm_term, utm_content] {
            prop_assert!(holds_for_a_value(&value), "{:?}", value);
        }
    }
}
