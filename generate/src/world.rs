//! What the generated world holds: sites, pages, countries, browsers, bots, sources.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::{Rng, RngExt};

/// How many sites there are unless told otherwise.
pub const SITES_DEFAULT: usize = 8;

const SITES: [&str; SITES_DEFAULT] = [
    "news.example",
    "shop.example",
    "docs.example",
    "recipes.example",
    "travel.example",
    "forum.example",
    "photos.example",
    "music.example",
];

/// Name of the site of this rank, and the host of its pages; rank 0 has the most traffic.
pub fn site_name(rank: usize) -> String {
    SITES.get(rank).map_or_else(|| format!("site-{rank:04}.example"), |name| (*name).to_owned())
}

/// A site with thousands of pages is rare, one with dozens is common.
pub(crate) fn pages_of(site: usize) -> u32 {
    (4_000 / (site as u32 + 1)).max(40)
}

pub(crate) const CATEGORIES: [&str; 8] =
    ["politics", "science", "culture", "sport", "technology", "food", "travel", "opinion"];

const AUTHORS: [&str; 12] = [
    "Ada Moreno",
    "Bao Nguyen",
    "Clara Weiss",
    "Dmitri Volkov",
    "Esi Mensah",
    "Farah Haddad",
    "Gustav Lind",
    "Hana Sato",
    "Ivo Marić",
    "Júlia Lopes",
    "Kwame Boateng",
    "Léa Fournier",
];

const WORDS: [&str; 24] = [
    "quiet", "river", "guide", "first", "winter", "market", "small", "engine", "garden", "night", "paper", "bridge",
    "letter", "island", "summer", "signal", "copper", "window", "harbour", "valley", "lantern", "orchard", "compass",
    "echo",
];

/// A page of a site, the same for the same numbers.
pub(crate) struct Page {
    pub(crate) path: String,
    pub(crate) title: String,
    pub(crate) category: &'static str,
    pub(crate) author: &'static str,
}

pub(crate) fn page(site: usize, page: u32) -> Page {
    // Any spread will do, as long as it stays the same.
    let spread = (u64::from(page) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(site as u32 % 64);
    let pick = |list: &[&'static str], shift: u32| list[(spread >> shift) as usize % list.len()];
    let (category, author) = (pick(&CATEGORIES, 8), pick(&AUTHORS, 20));
    if page == 0 {
        return Page { path: "/".to_owned(), title: "Home".to_owned(), category, author };
    }
    let words = [pick(&WORDS, 26), pick(&WORDS, 37), pick(&WORDS, 48)];
    let path = format!("/{category}/{}-{}-{}-{page}", words[0], words[1], words[2]);
    Page { path, title: format!("The {} {} of the {}", words[0], words[1], words[2]), category, author }
}

/// Where visitors are: how many of a thousand, the language their browsers say, and networks of that country.
pub(crate) struct Country {
    pub(crate) weight: u32,
    pub(crate) language: &'static str,
    v4: &'static [([u8; 2], u8)],
    v6: Option<[u16; 2]>,
}

/// Networks of large access providers, as first two bytes and how many of the second byte's values there are.
pub(crate) const COUNTRIES: [Country; 16] = [
    country(300, "en-US", &[([73, 0], 255), ([24, 16], 8), ([98, 192], 16)], Some([0x2601, 0x0040])),
    country(110, "de-DE", &[([87, 128], 32), ([91, 0], 32), ([79, 192], 32)], Some([0x2003, 0x00c0])),
    country(90, "en-GB", &[([86, 128], 32), ([81, 128], 16)], Some([0x2a00, 0x23c4])),
    country(80, "fr-FR", &[([90, 0], 64), ([82, 64], 4)], Some([0x2a01, 0x0e0a])),
    country(70, "en-IN", &[([117, 192], 32), ([59, 88], 8)], None),
    country(60, "ja-JP", &[([126, 0], 255), ([60, 64], 32)], Some([0x2400, 0x2410])),
    country(55, "pt-BR", &[([189, 0], 64), ([177, 32], 16)], Some([0x2804, 0x0014])),
    country(40, "en-CA", &[([70, 24], 8), ([174, 88], 4)], None),
    country(35, "es-ES", &[([83, 32], 16), ([88, 0], 16)], None),
    country(35, "it-IT", &[([79, 0], 32), ([87, 0], 16)], None),
    country(30, "nl-NL", &[([77, 160], 8), ([86, 80], 8)], Some([0x2a02, 0xa440])),
    country(30, "pl-PL", &[([83, 0], 16), ([79, 184], 4)], None),
    country(25, "sv-SE", &[([78, 64], 16), ([81, 224], 8)], None),
    country(20, "en-AU", &[([101, 160], 16), ([1, 120], 8)], None),
    country(10, "de-CH", &[([85, 0], 4), ([178, 192], 8)], Some([0x2a02, 0x1200])),
    country(10, "ko-KR", &[([211, 192], 16), ([175, 192], 16)], None),
];

const fn country(weight: u32, language: &'static str, v4: &'static [([u8; 2], u8)], v6: Option<[u16; 2]>) -> Country {
    Country { weight, language, v4, v6 }
}

impl Country {
    /// An address of one of its networks; where it has IPv6, that in one of three.
    pub(crate) fn address(&self, rng: &mut impl Rng) -> IpAddr {
        if let Some([first, second]) = self.v6
            && rng.random_bool(0.33)
        {
            let [a, b]: [u16; 2] = rng.random();
            return Ipv6Addr::new(first, second, a, b & 0xff00, 0, 0, 0, rng.random_range(1..=0xffff)).into();
        }
        let (network, seconds) = self.v4[rng.random_range(0..self.v4.len())];
        let second = network[1] + rng.random_range(0..seconds);
        Ipv4Addr::new(network[0], second, rng.random(), rng.random_range(1..=254)).into()
    }
}

/// Addresses of bots: a data centre's.
pub(crate) fn bot_address(rng: &mut impl Rng) -> IpAddr {
    Ipv4Addr::new(66, 249, 64 + rng.random_range(0..16), rng.random_range(1..=254)).into()
}

/// Browsers of people: how many of a thousand, user agent, screen.
pub(crate) const BROWSERS: [(u32, &str, &str); 14] = [
    (
        260,
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36",
        "1920x1080",
    ),
    (
        190,
        "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Mobile Safari/537.36",
        "412x915",
    ),
    (
        170,
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
        "393x852",
    ),
    (
        80,
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36",
        "1512x982",
    ),
    (
        60,
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
        "1440x900",
    ),
    (
        60,
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36 Edg/139.0.0.0",
        "1536x864",
    ),
    (40, "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:142.0) Gecko/20100101 Firefox/142.0", "1920x1080"),
    (30, "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0", "2560x1440"),
    (
        30,
        "Mozilla/5.0 (Linux; Android 14; SAMSUNG SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
        "360x780",
    ),
    (
        25,
        "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.7 Mobile/15E148 Safari/604.1",
        "820x1180",
    ),
    (
        20,
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/139.0.7258.76 Mobile/15E148 Safari/604.1",
        "430x932",
    ),
    (
        15,
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36 OPR/122.0.0.0",
        "1366x768",
    ),
    (10, "Mozilla/5.0 (Android 15; Mobile; rv:142.0) Gecko/142.0 Firefox/142.0", "412x892"),
    (
        10,
        "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36",
        "1366x768",
    ),
];

/// Bots, as often as their numbers say.
pub(crate) const BOTS: [(u32, &str); 9] = [
    (300, "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
    (200, "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)"),
    (120, "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)"),
    (100, "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)"),
    (80, "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)"),
    (70, "python-requests/2.32.3"),
    (
        60,
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/139.0.0.0 Safari/537.36",
    ),
    (40, "Tiny Tiny RSS/24.05 (https://tt-rss.org/)"),
    (30, "curl/8.14.1"),
];

/// Where visits begin: how many of a thousand, referrer, query behind the page. `{term}` is a search term.
pub(crate) const SOURCES: [(u32, &str, &str); 20] = [
    (330, "", ""),
    (200, "https://www.google.com/", ""),
    (40, "https://www.google.de/search?q={term}", ""),
    (30, "https://www.bing.com/search?q={term}", ""),
    (30, "https://duckduckgo.com/?q={term}", ""),
    (15, "https://yandex.ru/search/?text={term}", ""),
    (15, "https://www.baidu.com/s?wd={term}", ""),
    (50, "https://t.co/Xy12Ab", ""),
    (40, "https://l.facebook.com/l.php", "fbclid=IwAR0"),
    (30, "https://www.reddit.com/r/all/comments/1/", ""),
    (30, "https://news.ycombinator.com/item?id=1", ""),
    (20, "https://www.linkedin.com/feed/", ""),
    (20, "https://www.youtube.com/watch?v=1", ""),
    (30, "https://en.wikipedia.org/wiki/Garden", ""),
    (25, "https://blog.neighbour.example/links", ""),
    (15, "https://chatgpt.com/", ""),
    (30, "", "utm_source=newsletter&utm_medium=email&utm_campaign=weekly"),
    (20, "https://www.google.com/", "gclid=Cj0K&utm_source=google&utm_medium=cpc&utm_campaign=spring"),
    (15, "", "utm_source=facebook&utm_medium=paid_social&utm_campaign=spring&utm_content=video-a"),
    (15, "https://mail.google.com/mail/u/0/", ""),
];

/// A term as people search for it, percent-encoded.
pub(crate) fn search_term(rng: &mut impl Rng) -> String {
    let word = |rng: &mut _| WORDS[RngExt::random_range(rng, 0..WORDS.len())];
    format!("{}+{}", word(rng), word(rng))
}

/// Custom events: how many of a hundred, name, the property it has, and that property's values.
pub(crate) const CUSTOM: [(u32, &str, &str, &[&str]); 5] = [
    (35, "video_play", "quality", &["480p", "720p", "1080p"]),
    (25, "search", "results", &["none", "few", "many"]),
    (20, "add_to_cart", "currency", &["EUR", "USD", "GBP"]),
    (12, "newsletter_signup", "form", &["footer", "popup"]),
    (8, "signup", "plan", &["free", "team", "business"]),
];

/// Where outbound clicks lead.
pub(crate) const OUTBOUND: [&str; 6] = [
    "https://en.wikipedia.org/wiki/Garden",
    "https://github.com/example/project",
    "https://www.openstreetmap.org/",
    "https://partner.example/offer",
    "https://archive.example/2019/report",
    "https://podcasts.example/episode/12",
];

/// Files that are downloaded.
pub(crate) const FILES: [&str; 4] =
    ["/files/annual-report.pdf", "/files/price-list.pdf", "/files/press-kit.zip", "/files/episode-12.mp3"];
