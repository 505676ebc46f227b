use expect_test::{Expect, expect};
use proptest::{prelude::*, string::string_regex};

use super::*;

fn rules() -> &'static Rules {
    Rules::version(1).expect("version 1 is carried")
}

fn rules_2() -> &'static Rules {
    Rules::version(2).expect("version 2 is carried")
}

/// One line a user agent, the same in all versions: `bot | browser | os | device`.
fn check_agents(agents: &[&str], expected: Expect) {
    for rules in &VERSIONS {
        let shown = agents.iter().map(|user_agent| {
            let Agent { bot, browser, os, device } = rules.agent(user_agent);
            format!("{} | {browser} | {os} | {device}\n", if bot { "bot" } else { "-" })
        });
        expected.assert_eq(&shown.collect::<String>());
    }
}

/// One line a user agent: `in version 1 | in version 2 | the agent`.
fn check_bots(agents: &[&str], expected: Expect) {
    let word = |bot| if bot { "bot" } else { "-" };
    let shown = agents.iter().map(|user_agent| {
        let (version_1, version_2) = (rules().agent(user_agent), rules_2().agent(user_agent));
        format!("{} | {} | {user_agent}\n", word(version_1.bot), word(version_2.bot))
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

/// One line a hit from outside: `query referrer: source, channel in version 1 | source, channel in version 2`.
fn check_sources_of_both(hits: &[(&str, &str)], expected: Expect) {
    let shown = hits.iter().map(|(query, referrer)| {
        let [version_1, version_2] = [rules(), rules_2()].map(|rules| {
            let found = rules.source("blog.example", query, referrer);
            assert!(CHANNELS.contains(&found.channel.as_str()), "{} is not in the list of channels", found.channel);
            format!("{}, {}", found.source, found.channel)
        });
        format!("{query} {referrer}: {version_1} | {version_2}\n")
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
fn version_2_knows_what_fetches_for_models_monitors_and_libraries() {
    check_bots(
        &[
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko); compatible; ChatGPT-User/1.0; +https://openai.com/bot",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Claude-User/1.0; +Claude-User@anthropic.com)",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Perplexity-User/1.0; +https://perplexity.ai/perplexity-user)",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/132.0.0.0 Safari/537.36; Manus-User/1.0",
            "Mozilla/5.0 (compatible; Qwen-User/1.0) AppleWebKit/537.36",
            "claude-code/2.1.107 (cli)",
            "codex_cli_rs/0.46.0",
            "OpenAI/JS 4.77.0",
            "meta-externalagent/1.1 (+https://developers.facebook.com/docs/sharing/webmasters/crawler)",
            "Meta-ExternalAgent/1.1",
            "Meta-WebIndexer/1.1",
            "Mozilla/5.0 (compatible; FacebookCatalog/1.0)",
            "NovaAct/1.0",
            "GoogleAgent-URLContext",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/137.0.0.0 Safari/537.36 (compatible; Google-GeminiNotebook)",
            "Google-Pinpoint",
            "Mozilla/5.0 (compatible; Google-CWS)",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko; Google Web Preview) Chrome/41.0 Safari/537.36",
            "Lightpanda/1.0",
            "Mozilla/5.0 (compatible; Webzio-Extended/1.0)",
            "YandexAdditional/1.0",
            "ModelContextProtocol/1.0 (User-Specified; +https://github.com/modelcontextprotocol/servers)",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Cypress/13.1.0 Chrome/114.0.5735.289 Electron/25.8.0 Safari/537.36",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/109.0.0.0 Safari/537.36 CloudflareObservatory/1.0",
            "kube-probe/1.28",
            "ELB-HealthChecker/2.0",
            "Prometheus/2.45.0",
            "Datadog/Synthetics",
            "ApacheBench/2.3",
            "undici",
            "axios/1.8.4",
            "Python/3.11 aiohttp/3.8.4",
            "reqwest/0.12.4",
            "ktor-client",
            "GuzzleHttp/7",
            "Faraday v2.9.0",
            "RestSharp/106.5.4.0",
            "PostmanRuntime/7.29.0",
            "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.1682",
            "Nuclei - Open-source project (github.com/projectdiscovery/nuclei)",
            "${jndi:ldap://x.example/a}",
        ],
        expect![[r#"
            bot | bot | Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko); compatible; ChatGPT-User/1.0; +https://openai.com/bot
            bot | bot | Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Claude-User/1.0; +Claude-User@anthropic.com)
            bot | bot | Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Perplexity-User/1.0; +https://perplexity.ai/perplexity-user)
            bot | bot | Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/132.0.0.0 Safari/537.36; Manus-User/1.0
            - | bot | Mozilla/5.0 (compatible; Qwen-User/1.0) AppleWebKit/537.36
            - | bot | claude-code/2.1.107 (cli)
            - | bot | codex_cli_rs/0.46.0
            - | bot | OpenAI/JS 4.77.0
            bot | bot | meta-externalagent/1.1 (+https://developers.facebook.com/docs/sharing/webmasters/crawler)
            - | bot | Meta-ExternalAgent/1.1
            - | bot | Meta-WebIndexer/1.1
            - | bot | Mozilla/5.0 (compatible; FacebookCatalog/1.0)
            - | bot | NovaAct/1.0
            - | bot | GoogleAgent-URLContext
            - | bot | Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/137.0.0.0 Safari/537.36 (compatible; Google-GeminiNotebook)
            - | bot | Google-Pinpoint
            - | bot | Mozilla/5.0 (compatible; Google-CWS)
            bot | bot | Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko; Google Web Preview) Chrome/41.0 Safari/537.36
            - | bot | Lightpanda/1.0
            - | bot | Mozilla/5.0 (compatible; Webzio-Extended/1.0)
            - | bot | YandexAdditional/1.0
            bot | bot | ModelContextProtocol/1.0 (User-Specified; +https://github.com/modelcontextprotocol/servers)
            - | bot | Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Cypress/13.1.0 Chrome/114.0.5735.289 Electron/25.8.0 Safari/537.36
            - | bot | Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/109.0.0.0 Safari/537.36 CloudflareObservatory/1.0
            - | bot | kube-probe/1.28
            - | bot | ELB-HealthChecker/2.0
            - | bot | Prometheus/2.45.0
            - | bot | Datadog/Synthetics
            - | bot | ApacheBench/2.3
            - | bot | undici
            bot | bot | axios/1.8.4
            bot | bot | Python/3.11 aiohttp/3.8.4
            - | bot | reqwest/0.12.4
            - | bot | ktor-client
            - | bot | GuzzleHttp/7
            - | bot | Faraday v2.9.0
            - | bot | RestSharp/106.5.4.0
            - | bot | PostmanRuntime/7.29.0
            - | bot | Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.1682
            - | bot | Nuclei - Open-source project (github.com/projectdiscovery/nuclei)
            - | bot | ${jndi:ldap://x.example/a}
        "#]],
    );
}

#[test]
fn phones_that_version_1_takes_for_bots_are_people_in_version_2() {
    check_bots(
        &[
            "Mozilla/5.0 (Linux; Android 12; moto g(50) 5G Build/S1RSS32.38-20-9-13; wv) AppleWebKit/537.36 (KHTML,like Gecko) Version/4.0 Chrome/124.0.6367.180 Mobile Safari/537.36 Instagram 333.0.0.42.91 Android",
            "Mozilla/5.0 (Linux; Android 7.0; M bot 54) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/78.0.3904.96 Mobile Safari/537.36",
            "Mozilla/5.0 (Linux; Android 6.0; POWER BOT Build/MRA58K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/54.0.2840.85 Mobile Safari/537.36",
            "Mozilla/5.0 (Linux; Android 6.0; reeder_3G_Tablet) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/85.0.4183.81 Mobile Safari/537.36",
            "Mozilla/5.0 (Linux; Android 13; Spider 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36",
            "Mozilla/5.0 (Linux; Android 8.0.0; Expanse) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/86.0.4240.99 Mobile Safari/537.36",
            "Mozilla/5.0 (Linux; Android 10; ZTE A2020 SP Build/QKQ1.200913.002; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/68.0.3440.106 Mobile Safari/537.36 AWP/2.0 SogouMSE,SogouMobileBrowser/6.5.11",
            "Mozilla/5.0 (Windows NT 6.1) AppleWebKit/537.36 (KHTML like Gecko) coccocbrowser/47.0 Chrome/41.0.2272.119coccoc Safari/537.36",
        ],
        expect![[r#"
            bot | - | Mozilla/5.0 (Linux; Android 12; moto g(50) 5G Build/S1RSS32.38-20-9-13; wv) AppleWebKit/537.36 (KHTML,like Gecko) Version/4.0 Chrome/124.0.6367.180 Mobile Safari/537.36 Instagram 333.0.0.42.91 Android
            bot | - | Mozilla/5.0 (Linux; Android 7.0; M bot 54) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/78.0.3904.96 Mobile Safari/537.36
            bot | - | Mozilla/5.0 (Linux; Android 6.0; POWER BOT Build/MRA58K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/54.0.2840.85 Mobile Safari/537.36
            bot | - | Mozilla/5.0 (Linux; Android 6.0; reeder_3G_Tablet) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/85.0.4183.81 Mobile Safari/537.36
            bot | - | Mozilla/5.0 (Linux; Android 13; Spider 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36
            bot | - | Mozilla/5.0 (Linux; Android 8.0.0; Expanse) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/86.0.4240.99 Mobile Safari/537.36
            bot | - | Mozilla/5.0 (Linux; Android 10; ZTE A2020 SP Build/QKQ1.200913.002; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/68.0.3440.106 Mobile Safari/537.36 AWP/2.0 SogouMSE,SogouMobileBrowser/6.5.11
            bot | - | Mozilla/5.0 (Windows NT 6.1) AppleWebKit/537.36 (KHTML like Gecko) coccocbrowser/47.0 Chrome/41.0.2272.119coccoc Safari/537.36
        "#]],
    );
}

#[test]
fn crawlers_whose_pattern_version_2_has_narrowed_are_bots_still() {
    check_bots(
        &[
            "Sogou web spider/4.0(+http://www.sogou.com/docs/help/webmasters.htm#07)",
            "Sogou Pic Spider/3.0",
            "Mozilla/5.0 (compatible; coccocbot-web/1.0; +http://help.coccoc.com/searchengine)",
            "Expanse, a Palo Alto Networks company, searches across the global IPv4 space multiple times per day",
            "Kangaroo Bot/0.2",
            "Mozilla/5.0 (compatible;Impact Radius Compliance Bot)",
            "Bot",
            "Auto Spider 1.0",
            "Mozilla/5.0 (compatible; Spider/1.0)",
            "Reeder/5.4",
            "RSSOwl/2.2.1",
        ],
        expect![[r#"
            bot | bot | Sogou web spider/4.0(+http://www.sogou.com/docs/help/webmasters.htm#07)
            bot | bot | Sogou Pic Spider/3.0
            bot | bot | Mozilla/5.0 (compatible; coccocbot-web/1.0; +http://help.coccoc.com/searchengine)
            bot | bot | Expanse, a Palo Alto Networks company, searches across the global IPv4 space multiple times per day
            bot | bot | Kangaroo Bot/0.2
            bot | bot | Mozilla/5.0 (compatible;Impact Radius Compliance Bot)
            bot | bot | Bot
            bot | bot | Auto Spider 1.0
            bot | bot | Mozilla/5.0 (compatible; Spider/1.0)
            bot | bot | Reeder/5.4
            bot | bot | RSSOwl/2.2.1
        "#]],
    );
}

#[test]
fn an_empty_agent_and_a_dash_are_unknown_and_no_bot() {
    for rules in &VERSIONS {
        assert_eq!(rules.agent(""), Agent::default());
        assert_eq!(rules.agent("-"), Agent::default());
        assert_eq!(rules.agent(" \t"), Agent::default());
    }
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
fn version_2_tells_ai_assistants_from_other_sites() {
    check_sources_of_both(
        &[
            ("", "https://chatgpt.com/"),
            ("utm_source=chatgpt.com", ""),
            ("utm_source=ChatGPT.com&utm_medium=referral", "https://chatgpt.com/"),
            ("utm_source=openai", ""),
            ("", "https://chat.openai.com/c/1"),
            ("", "https://claude.ai/chat/1"),
            ("", "https://www.perplexity.ai/search/x"),
            ("utm_source=perplexity", ""),
            ("", "https://gemini.google.com/app"),
            ("", "https://notebooklm.google.com/"),
            ("", "https://copilot.microsoft.com/"),
            ("", "https://edgeservices.bing.com/"),
            ("", "https://m365.cloud.microsoft/chat"),
            ("", "https://chat.mistral.ai/chat"),
            ("", "https://chat.deepseek.com/"),
            ("", "https://grok.com/"),
            ("", "https://www.meta.ai/"),
            ("", "https://poe.com/"),
            ("", "https://you.com/search?q=x"),
            ("", "https://assistant.kagi.com/"),
            ("", "https://kagi.com/search?q=x"),
            ("", "https://www.doubao.com/chat/1"),
            ("", "https://www.kimi.com/"),
            ("", "https://chat.qwen.ai/"),
            ("", "https://duck.ai/"),
            ("", "android-app://com.openai.chatgpt/"),
            ("utm_medium=ai-assistant&utm_source=helper", ""),
            ("utm_medium=AI_Assistant", ""),
            ("utm_source=claude&utm_medium=organic", ""),
            ("utm_source=x-engine&utm_medium=organic", ""),
            // What a tag says of payment, or of another way than an answer, counts before the assistant.
            ("utm_source=chatgpt.com&utm_medium=cpc", ""),
            ("utm_source=chatgpt.com&utm_medium=display", ""),
            ("utm_source=chatgpt.com&utm_medium=email", ""),
            ("utm_source=chatgpt.com&utm_medium=social", ""),
            ("utm_source=newsletter&utm_medium=email", "https://chatgpt.com/"),
            ("gclid=abc", "https://chatgpt.com/"),
        ],
        expect![[r#"
             https://chatgpt.com/: chatgpt.com, referral | ChatGPT, ai_assistants
            utm_source=chatgpt.com : chatgpt.com, referral | ChatGPT, ai_assistants
            utm_source=ChatGPT.com&utm_medium=referral https://chatgpt.com/: ChatGPT.com, referral | ChatGPT, ai_assistants
            utm_source=openai : openai, referral | ChatGPT, ai_assistants
             https://chat.openai.com/c/1: chat.openai.com, referral | ChatGPT, ai_assistants
             https://claude.ai/chat/1: claude.ai, referral | Claude, ai_assistants
             https://www.perplexity.ai/search/x: perplexity.ai, referral | Perplexity, ai_assistants
            utm_source=perplexity : perplexity, referral | Perplexity, ai_assistants
             https://gemini.google.com/app: Gemini, referral | Gemini, ai_assistants
             https://notebooklm.google.com/: Google, organic_search | NotebookLM, ai_assistants
             https://copilot.microsoft.com/: copilot.microsoft.com, referral | Copilot, ai_assistants
             https://edgeservices.bing.com/: Bing Chat, referral | Copilot, ai_assistants
             https://m365.cloud.microsoft/chat: m365.cloud.microsoft, referral | Copilot, ai_assistants
             https://chat.mistral.ai/chat: chat.mistral.ai, referral | Mistral, ai_assistants
             https://chat.deepseek.com/: chat.deepseek.com, referral | DeepSeek, ai_assistants
             https://grok.com/: grok.com, referral | Grok, ai_assistants
             https://www.meta.ai/: meta.ai, referral | Meta AI, ai_assistants
             https://poe.com/: poe.com, referral | Poe, ai_assistants
             https://you.com/search?q=x: you.com, referral | You.com, ai_assistants
             https://assistant.kagi.com/: Kagi, organic_search | Kagi Assistant, ai_assistants
             https://kagi.com/search?q=x: Kagi, organic_search | Kagi, organic_search
             https://www.doubao.com/chat/1: doubao.com, referral | Doubao, ai_assistants
             https://www.kimi.com/: kimi.com, referral | Kimi, ai_assistants
             https://chat.qwen.ai/: chat.qwen.ai, referral | Qwen, ai_assistants
             https://duck.ai/: duck.ai, referral | Duck.ai, ai_assistants
             android-app://com.openai.chatgpt/: com.openai.chatgpt, referral | ChatGPT, ai_assistants
            utm_medium=ai-assistant&utm_source=helper : helper, referral | helper, ai_assistants
            utm_medium=AI_Assistant : Direct, referral | Direct, ai_assistants
            utm_source=claude&utm_medium=organic : claude, organic_search | Claude, ai_assistants
            utm_source=x-engine&utm_medium=organic : x-engine, organic_search | x-engine, organic_search
            utm_source=chatgpt.com&utm_medium=cpc : chatgpt.com, paid_other | ChatGPT, paid_other
            utm_source=chatgpt.com&utm_medium=display : chatgpt.com, display | ChatGPT, display
            utm_source=chatgpt.com&utm_medium=email : chatgpt.com, email | ChatGPT, email
            utm_source=chatgpt.com&utm_medium=social : chatgpt.com, organic_social | ChatGPT, organic_social
            utm_source=newsletter&utm_medium=email https://chatgpt.com/: newsletter, email | newsletter, email
            gclid=abc https://chatgpt.com/: chatgpt.com, paid_search | ChatGPT, paid_search
        "#]],
    );
}

#[test]
fn version_2_knows_more_networks_mail_and_search() {
    check_sources_of_both(
        &[
            ("", "android-app://com.instagram.barcelona/"),
            ("", "https://bsky.social/"),
            ("", "https://mastodon.world/@a/1"),
            ("", "https://lemmy.world/post/1"),
            ("", "https://www.xiaohongshu.com/explore/1"),
            ("", "https://teams.microsoft.com/"),
            ("", "https://dev.to/a"),
            ("", "https://outlook.cloud.microsoft/"),
            ("", "https://email.seznam.cz/"),
            ("", "https://search.seznam.cz/?q=x"),
            ("", "https://app.hey.com/"),
            ("", "https://metager.org/meta/meta.ger3?eingabe=x"),
            ("", "https://kick.com/a"),
            ("igsh=abc", ""),
            ("qclid=abc", ""),
            ("tblci=abc", ""),
        ],
        expect![[r#"
             android-app://com.instagram.barcelona/: com.instagram.barcelona, referral | Threads, organic_social
             https://bsky.social/: bsky.social, referral | Bluesky, organic_social
             https://mastodon.world/@a/1: mastodon.world, referral | Mastodon, organic_social
             https://lemmy.world/post/1: lemmy.world, referral | Lemmy, organic_social
             https://www.xiaohongshu.com/explore/1: xiaohongshu.com, referral | Xiaohongshu, organic_social
             https://teams.microsoft.com/: teams.microsoft.com, referral | Microsoft Teams, organic_social
             https://dev.to/a: dev.to, referral | Dev.to, organic_social
             https://outlook.cloud.microsoft/: outlook.cloud.microsoft, referral | Outlook, email
             https://email.seznam.cz/: Seznam, organic_search | Seznam Email, email
             https://search.seznam.cz/?q=x: Seznam, organic_search | Seznam, organic_search
             https://app.hey.com/: app.hey.com, referral | HEY, email
             https://metager.org/meta/meta.ger3?eingabe=x: metager.org, referral | MetaGer, organic_search
             https://kick.com/a: kick.com, referral | Kick, video
            igsh=abc : Direct, direct | Instagram, organic_social
            qclid=abc : Direct, direct | Quora, paid_social
            tblci=abc : Direct, direct | Taboola, paid_other
        "#]],
    );
}

#[test]
fn campaign_tags_are_decoded_and_kept_on_an_internal_hit_too() {
    let query = "utm_source=n%26l&UTM_Medium=E-Mail&utm_campaign=Spring+Sale&utm_term=%C3%A9&utm_content=a%09b";
    for (rules, referrer) in VERSIONS.iter().flat_map(|rules| ["", "https://blog.example/"].map(|from| (rules, from))) {
        let found = rules.source("blog.example", query, referrer);
        let tags = [found.utm_source, found.utm_medium, found.utm_campaign, found.utm_term, found.utm_content];
        assert_eq!(tags, ["n&l", "E-Mail", "Spring Sale", "é", "ab"]);
    }
}

#[test]
fn other_versions_are_not_carried() {
    assert!(Rules::version(0).is_none());
    assert!(Rules::version(3).is_none());
    assert_eq!([rules().number(), rules_2().number()], [1, 2]);
}

#[test]
fn version_2_has_bots_and_sources_of_its_own_and_names_agents_as_version_1() {
    let parts = |rules: &Rules| [Part::Bots, Part::Agents, Part::Sources].map(|part| rules.part(part));
    assert_eq!(parts(rules()), [1, 1, 1]);
    assert_eq!(parts(rules_2()), [2, 1, 2]);
}

#[test]
fn no_site_of_version_2_takes_the_name_or_tag_of_another() {
    let sources = &rules_2().sources.list;
    for site in sources.all() {
        for tag in std::iter::once(&site.name).chain(&site.tags) {
            assert_eq!(sources.site_tagged(tag).map(|found| &found.name), Some(&site.name), "{tag}");
        }
    }
}

#[test]
fn long_values_are_cut_at_a_character() {
    let found = rules().source("blog.example", &format!("utm_source={}", "é".repeat(1_000)), "");
    assert_eq!(found.source, "é".repeat(VALUE_BYTES_MAX / 2));
}

/// What a version makes of a real log may never change, whatever crates or code change: old logs are replayed with it.
fn check_digest(rules: &Rules, lists: &[&str], expected: Expect) {
    let log = include_str!("../../../examples/blog-access.log");
    let (mut shown, mut bots) = (String::new(), 0);
    for line in log.lines() {
        let fields: Vec<&str> = line.split('"').collect();
        let [_, _, _, referrer, _, user_agent, ..] = fields[..] else { continue };
        let agent = rules.agent(user_agent);
        bots += usize::from(agent.bot);
        shown.push_str(&format!("{agent:?} {:?}\n", rules.source("semicomplete.com", "", referrer)));
    }
    let digest = |string: &str| xxhash_rust::xxh3::xxh3_64(string.as_bytes());
    expected.assert_eq(&format!(
        "{:016x} {:016x} {bots} of {} by bots",
        digest(&lists.concat()),
        digest(&shown),
        shown.lines().count()
    ));
}

#[test]
fn version_1_classifies_a_real_log_as_it_always_did() {
    let lists = [
        include_str!("v1/bots.txt"),
        include_str!("v1/browsers.tsv"),
        include_str!("v1/systems.tsv"),
        include_str!("v1/devices.tsv"),
        include_str!("v1/sources.toml"),
    ];
    check_digest(rules(), &lists, expect!["ca4c3c877195d848 6a83c63ece5eb302 2727 of 10000 by bots"]);
}

#[test]
fn version_2_classifies_a_real_log_as_it_always_did() {
    let lists = [include_str!("v2/bots.txt"), include_str!("v2/sources.toml")];
    check_digest(rules_2(), &lists, expect!["b506a1c9cee24faa 00a0b2d8697195f9 2728 of 10000 by bots"]);
}

fn holds_for_a_value(value: &str) -> bool {
    value.len() <= VALUE_BYTES_MAX && !value.chars().any(char::is_control) && value.trim() == value
}

/// Hosts, tags and click ids that one list knows, or both, or none.
const HOSTS: &str = "(www\\.)?(chatgpt\\.com|gemini\\.google\\.com|google\\.[a-z]{2}|bing\\.com|dev\\.to|kagi\\.com|email\\.seznam\\.cz\
    |x\\.com|blog\\.example|[a-z]{1,5}\\.[a-z]{2})";
const QUERIES: &str = "((utm_source|utm_medium|utm_campaign|utm_term|utm_content|ref|gclid|igsh|tblci)=\
    (chatgpt\\.com|claude|ai-assistant|cpc|organic|google|[a-zA-Z%0-9+]{0,8})&){0,6}";

proptest! {
    #[test]
    fn any_string_has_an_agent(user_agent in "\\PC{0,80}|[\\x00-\\u{ff}]{0,300}") {
        for rules in &VERSIONS {
            let agent = rules.agent(&user_agent);
            prop_assert_eq!(&agent, &rules.agent(&user_agent));
            prop_assert!([&agent.browser, &agent.os, &agent.device].into_iter().all(|value| holds_for_a_value(value)));
        }
    }

    #[test]
    fn any_strings_have_a_source(
        host in "[a-z.]{0,12}|\\PC{0,20}",
        query in "((utm_[a-z]{1,8}|ref|gclid|fbclid)=[a-zA-Z%0-9+]{0,20}&){0,5}|[\\x00-\\u{ff}]{0,60}",
        referrer in "(https?|android-app)://(www\\.)?(google|bing|facebook|x)\\.(com|co\\.uk)[/?#a-z=%:@\\[\\]]{0,40}|\\PC{0,60}",
    ) {
        for rules in &VERSIONS {
            let found = rules.source(&host, &query, &referrer);
            prop_assert!(!found.external || CHANNELS.contains(&found.channel.as_str()));
            prop_assert!(found.external || found.channel.is_empty());
            prop_assert_eq!(found.external, !found.source.is_empty());
            let Source { source, referrer, search_term, utm_source, utm_medium, utm_campaign, utm_term, utm_content, .. } = found;
            for value in [source, referrer, search_term, utm_source, utm_medium, utm_campaign, utm_term, utm_content] {
                prop_assert!(holds_for_a_value(&value), "{:?}", value);
            }
        }
    }

    #[test]
    fn what_depends_on_no_list_is_the_same_in_all_versions(
        host in HOSTS,
        query in QUERIES,
        referrer in string_regex(&format!("(https?://{HOSTS}(/[a-z]{{0,5}})?([?](q|query|wd)=[a-z%+]{{0,8}})?)?|[\\x00-\\u{{ff}}]{{0,40}}")).unwrap(),
    ) {
        let without_lists = |rules: &Rules| Source {
            source: String::new(),
            channel: String::new(),
            search_term: String::new(),
            ..rules.source(&host, &query, &referrer)
        };
        prop_assert_eq!(without_lists(rules()), without_lists(rules_2()));
    }

    #[test]
    fn version_1_never_says_ai_assistants(query in QUERIES, referrer in string_regex(&format!("https://{HOSTS}/")).unwrap()) {
        prop_assert_ne!(rules().source("blog.example", &query, &referrer).channel, "ai_assistants");
    }

    #[test]
    fn versions_with_the_same_number_for_agents_name_them_alike(
        user_agent in "(Mozilla/5\\.0 \\((Windows NT 10\\.0|X11; Linux|iPhone; CPU iPhone OS 18_5|compatible; [A-Za-z]{3,9}/1\\.0)\\) )?\
            (Chrome|Firefox|Safari|GPTBot|undici|M bot|Sogou|[a-zA-Z]{1,9})/[0-9.]{1,5}( Mobile)?|\\PC{0,60}",
    ) {
        let named = |rules: &Rules| Agent { bot: false, ..rules.agent(&user_agent) };
        prop_assert_eq!(rules().part(Part::Agents), rules_2().part(Part::Agents));
        prop_assert_eq!(named(rules()), named(rules_2()));
    }
}
