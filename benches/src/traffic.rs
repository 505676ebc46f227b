//! Believable events, as many as asked, evenly over a span: the same ones each time.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, Zipf};
use weir_schemas::{Event, Kind};

/// What the traffic is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// 500 sites by Zipf's law, 200 pages each by Zipf's law, 2 M visitors
    Plain,
    /// The same, and each event carries an id
    Ids,
    /// One site has nine of ten events
    Skew,
    /// 5,000 small sites, visited alike
    Blogs,
}

/// The first event's time; a full minute.
pub(crate) const BEGIN_MS: i64 = 1_700_000_040_000;

const PAGES: f64 = 200.0;
const VISITORS: u64 = 2_000_000;
/// Of a hundred events, those that say they happened a while ago: seconds to half an hour.
const LATE_PERCENT: u32 = 2;

/// User agents: how many of a hundred, and whether the rules take it for a bot.
const AGENTS: [(u32, bool, &str); 8] = [
    (
        30,
        false,
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36",
    ),
    (
        20,
        false,
        "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Mobile Safari/537.36",
    ),
    (
        18,
        false,
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 \
         Mobile/15E148 Safari/604.1",
    ),
    (
        8,
        false,
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
    ),
    (
        8,
        false,
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 \
         Safari/537.36 Edg/139.0.0.0",
    ),
    (6, false, "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"),
    (5, true, "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
    (5, true, "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)"),
];

const COUNTRIES: [&str; 12] = ["US", "US", "US", "DE", "GB", "FR", "IN", "JP", "BR", "CA", "ES", ""];
const LANGUAGES: [&str; 4] = ["en-US", "de-DE", "fr-FR", "ja-JP"];
const SCREENS: [&str; 4] = ["1920x1080", "412x915", "393x852", "1440x900"];
const CATEGORIES: [&str; 8] = ["politics", "science", "culture", "sport", "technology", "food", "travel", "opinion"];
const SEARCHES: [&str; 3] =
    ["https://www.google.com/", "https://www.bing.com/search?q=river+guide", "https://duckduckgo.com/"];
const QUERIES: [&str; 3] = [
    "utm_source=newsletter&utm_medium=email&utm_campaign=weekly",
    "utm_source=google&utm_medium=cpc&utm_campaign=spring",
    "utm_source=partner&utm_medium=referral",
];

/// Makes events one after the other.
pub(crate) struct Traffic {
    rng: StdRng,
    shape: Shape,
    sites: Vec<String>,
    site: Option<Zipf<f64>>,
    page: Zipf<f64>,
    events: u64,
    span_ms: i64,
    next: u64,
    agents: Vec<usize>,
    /// Events so far that count as page views.
    pub(crate) page_views: u64,
}

impl Traffic {
    pub(crate) fn new(shape: Shape, events: u64, span: Duration) -> Traffic {
        let sites = if shape == Shape::Blogs { 5_000 } else { 500 };
        let zipf = |values: f64| Zipf::new(values, 1.0).expect("there is at least one value");
        Traffic {
            rng: StdRng::seed_from_u64(1),
            shape,
            sites: (0..sites).map(|rank| format!("site-{rank:04}.example")).collect(),
            site: (shape != Shape::Blogs).then(|| zipf(f64::from(sites))),
            page: zipf(PAGES),
            events,
            span_ms: span.as_millis() as i64,
            next: 0,
            agents: AGENTS.iter().enumerate().flat_map(|(place, agent)| vec![place; agent.0 as usize]).collect(),
            page_views: 0,
        }
    }

    /// When the next event is received.
    pub(crate) fn now_ms(&self) -> i64 {
        BEGIN_MS + (self.next as i128 * i128::from(self.span_ms) / i128::from(self.events)) as i64
    }

    fn site(&mut self) -> usize {
        match (&self.site, self.shape) {
            (_, Shape::Skew) if self.rng.random_bool(0.9) => 0,
            (Some(zipf), _) => zipf.sample(&mut self.rng) as usize - 1,
            (None, _) => self.rng.random_range(0..self.sites.len()),
        }
    }
}

impl Iterator for Traffic {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.next == self.events {
            return None;
        }
        let now_ms = self.now_ms();
        let site = self.site();
        let rng = &mut self.rng;
        let host = &self.sites[site];
        let page = self.page.sample(rng) as usize;
        let category = CATEGORIES[(page * 7 + site) % CATEGORIES.len()];
        let agent = self.agents[rng.random_range(0..self.agents.len())];
        let (_, bot, user_agent) = AGENTS[agent];
        let (referrer, query) = match rng.random_range(0..100) {
            0..45 => (format!("https://{host}/{category}/page-{}", rng.random_range(1..50)), ""),
            45..65 => (SEARCHES[rng.random_range(0..SEARCHES.len())].to_owned(), ""),
            65..75 => (format!("https://blog-{}.example/links", rng.random_range(0..300)), ""),
            75..82 => (String::new(), QUERIES[rng.random_range(0..QUERIES.len())]),
            _ => (String::new(), ""),
        };
        let (kind, target, name) = match rng.random_range(0..100) {
            0..4 => (Kind::Outbound, format!("https://out-{}.example/", rng.random_range(0..50)), ""),
            4..6 => (Kind::Download, format!("https://{host}/files/paper-{}.pdf", rng.random_range(0..20)), ""),
            6 => (Kind::AdClick, "https://ads.example/click".to_owned(), ""),
            7..10 => (Kind::Custom, String::new(), "signup"),
            _ => (Kind::PageView, String::new(), ""),
        };
        // A visitor of one site is nobody at another.
        let person = rng.random_range(0..VISITORS) << 16 | site as u64;
        let late = rng.random_range(0..100) < LATE_PERCENT;
        let claimed_ms = late.then(|| now_ms - (1_000.0 * 10f64.powf(rng.random::<f64>() * 3.25)) as i64);
        self.page_views += u64::from(kind == Kind::PageView && !bot);
        self.next += 1;
        Some(Event {
            site: host.clone(),
            kind,
            received_ms: now_ms,
            claimed_ms,
            visitor: (person + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            id: if self.shape == Shape::Ids { format!("c0ffee-{}", self.next) } else { String::new() },
            host: host.clone(),
            page: format!("/{category}/page-{page}"),
            query: query.to_owned(),
            referrer,
            user_agent: user_agent.to_owned(),
            country: COUNTRIES[rng.random_range(0..COUNTRIES.len())].to_owned(),
            name: name.to_owned(),
            target,
            title: format!("Page {page} of {category}"),
            screen: SCREENS[agent % SCREENS.len()].to_owned(),
            language: LANGUAGES[rng.random_range(0..LANGUAGES.len())].to_owned(),
            props: vec![("category".to_owned(), category.to_owned())],
        })
    }
}

#[cfg(test)]
mod tests {
    use weir_schemas::rules::Rules;

    use super::*;

    #[test]
    fn who_is_a_bot_is_what_the_rules_say() {
        let rules = Rules::version(1).expect("this binary carries version 1");
        for (_, bot, agent) in AGENTS {
            assert_eq!(rules.agent(agent).bot, bot, "{agent}");
        }
    }

    #[test]
    fn events_are_spread_over_the_span_and_made_alike_each_time() {
        let make = || Traffic::new(Shape::Plain, 1_000, Duration::from_secs(100)).collect::<Vec<_>>();
        let made = make();
        assert_eq!(made, make());
        assert_eq!(made.len(), 1_000);
        assert_eq!((made[0].received_ms, made[999].received_ms), (BEGIN_MS, BEGIN_MS + 99_900));
    }
}
