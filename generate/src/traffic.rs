use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng, distr::Distribution, rngs::StdRng};
use rand_distr::{Zipf, weighted::WeightedAliasIndex};
use weir_schemas::{Kind, rules::Rules};

use crate::{
    Hit,
    hit::LATE_MS,
    site_name,
    visitors::{Visitor, Visitors},
    world::{self, BOTS, BROWSERS, CUSTOM, FILES, OUTBOUND, SOURCES},
};

/// What traffic to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Events a second.
    pub rate: f64,
    pub duration: Duration,
    /// How many sites, from the most visited on.
    pub sites: usize,
    pub seed: u64,
    /// Share of events that are a bot's, 0 to 1.
    pub bots: f64,
    /// Share of events that claim to be at least a second old, 0 to 1.
    pub late: f64,
}

impl Spec {
    /// How many events there are in all; at least one.
    pub fn events(&self) -> u64 {
        ((self.rate * self.duration.as_secs_f64()).round() as u64).max(1)
    }
}

/// The hits of a [`Spec`], without end, at no particular time: how many are taken a second is the caller's.
///
/// Sites and pages are visited by Zipf's law. People come with a referrer, read on (the referrer is then the page
/// before), click, and come back another time with the same address and browser. Bots read any page.
pub struct Traffic {
    rng: StdRng,
    spec: Spec,
    next: u64,
    sites: Zipf<f64>,
    /// One a site.
    pages: Vec<Zipf<f64>>,
    visitors: Visitors,
    /// Visits that may go on, a list a site.
    visits: Vec<Vec<Visit>>,
    sources: WeightedAliasIndex<u32>,
    bots: WeightedAliasIndex<u32>,
    custom: WeightedAliasIndex<u32>,
    /// What the rules say of the browsers and bots that there are.
    browser_is_bot: Vec<(&'static str, bool)>,
}

#[derive(Clone, Copy)]
struct Visit {
    visitor: Visitor,
    /// The page it is at.
    page: u32,
}

/// Visits that go on at one site, at most.
const VISITS_MAX: usize = 2_000;

/// Share of people's hits that go on with a visit, if there is one.
const GOES_ON: f64 = 0.62;

/// Of a thousand hits within a visit; the rest are page views.
const OUTBOUND_SHARE: u32 = 50;
const DOWNLOAD_SHARE: u32 = 30;
const AD_CLICK_SHARE: u32 = 15;
const CUSTOM_SHARE: u32 = 80;

impl Traffic {
    pub fn new(spec: &Spec) -> Traffic {
        let weights = |weights: Vec<u32>| WeightedAliasIndex::new(weights).expect("weights are not all 0");
        let zipf = |values: f64| Zipf::new(values, 1.0).expect("there is at least one value");
        let rules = Rules::version(1).expect("this binary carries version 1");
        let agents = BROWSERS.iter().map(|browser| browser.1).chain(BOTS.iter().map(|bot| bot.1));
        Traffic {
            rng: StdRng::seed_from_u64(spec.seed),
            spec: spec.clone(),
            next: 0,
            sites: zipf(spec.sites as f64),
            pages: (0..spec.sites).map(|site| zipf(f64::from(world::pages_of(site)))).collect(),
            visitors: Visitors::new(),
            visits: vec![Vec::new(); spec.sites],
            sources: weights(SOURCES.iter().map(|source| source.0).collect()),
            bots: weights(BOTS.iter().map(|bot| bot.0).collect()),
            custom: weights(CUSTOM.iter().map(|custom| custom.0).collect()),
            browser_is_bot: agents.map(|agent| (agent, rules.agent(agent).bot)).collect(),
        }
    }

    fn is_bot(&self, user_agent: &'static str) -> bool {
        let known = self.browser_is_bot.iter().find(|(agent, _)| *agent == user_agent);
        known.expect("every agent of this world was looked up").1
    }

    fn bot_hit(&mut self, site: usize) -> Hit {
        let page = self.rng.random_range(0..world::pages_of(site));
        let user_agent = BOTS[self.bots.sample(&mut self.rng)].1;
        let visitor = Visitor { ip: world::bot_address(&mut self.rng), user_agent, screen: "", language: "" };
        self.hit(site, page, visitor, String::new(), "")
    }

    /// The first page of a visit.
    fn entry(&mut self, site: usize) -> Hit {
        let visitor = self.visitors.arrive(&mut self.rng);
        let (_, referrer, query) = SOURCES[self.sources.sample(&mut self.rng)];
        let referrer = match referrer.contains("{term}") {
            true => referrer.replace("{term}", &world::search_term(&mut self.rng)),
            false => referrer.to_owned(),
        };
        let page = self.page(site);
        self.remember(site, Visit { visitor, page });
        self.hit(site, page, visitor, referrer, query)
    }

    /// What somebody does who is at a page already.
    fn step(&mut self, site: usize) -> Hit {
        let place = self.rng.random_range(0..self.visits[site].len());
        let Visit { visitor, page } = self.visits[site][place];
        let referrer = format!("https://{}{}", site_name(site), world::page(site, page).path);
        let roll = self.rng.random_range(0..1_000);
        let (outbound, download) = (OUTBOUND_SHARE, OUTBOUND_SHARE + DOWNLOAD_SHARE);
        let (ad_click, custom) = (download + AD_CLICK_SHARE, download + AD_CLICK_SHARE + CUSTOM_SHARE);
        if roll >= custom {
            let next = self.page(site);
            self.visits[site][place].page = next;
            return self.hit(site, next, visitor, referrer, "");
        }
        let mut hit = self.hit(site, page, visitor, String::new(), "");
        if roll < outbound {
            hit.kind = Kind::Outbound;
            hit.target = OUTBOUND[self.rng.random_range(0..OUTBOUND.len())].to_owned();
            // Whoever has left does not read on.
            self.visits[site].swap_remove(place);
        } else if roll < download {
            hit.kind = Kind::Download;
            hit.target = format!("https://{}{}", hit.site, FILES[self.rng.random_range(0..FILES.len())]);
        } else if roll < ad_click {
            hit.kind = Kind::AdClick;
            hit.target = "https://ads.example/click".to_owned();
        } else {
            let (_, name, prop, values) = CUSTOM[self.custom.sample(&mut self.rng)];
            hit.kind = Kind::Custom;
            hit.name = name;
            hit.props.push((prop, values[self.rng.random_range(0..values.len())].to_owned()));
        }
        hit
    }

    /// A page by Zipf's law; rank 1 is the first page.
    fn page(&mut self, site: usize) -> u32 {
        self.pages[site].sample(&mut self.rng) as u32 - 1
    }

    fn remember(&mut self, site: usize, visit: Visit) {
        let visits = &mut self.visits[site];
        if visits.len() < VISITS_MAX {
            visits.push(visit);
        } else {
            let place = self.rng.random_range(0..VISITS_MAX);
            visits[place] = visit;
        }
    }

    /// A page view; its number and its time come last.
    fn hit(&self, site: usize, page: u32, visitor: Visitor, referrer: String, query: &str) -> Hit {
        let (name, page) = (site_name(site), world::page(site, page));
        let mark = if query.is_empty() { "" } else { "?" };
        Hit {
            number: 0,
            kind: Kind::PageView,
            url: format!("https://{name}{}{mark}{query}", page.path),
            site: name,
            referrer,
            ip: visitor.ip,
            user_agent: visitor.user_agent,
            bot: self.is_bot(visitor.user_agent),
            language: visitor.language,
            screen: visitor.screen,
            title: page.title,
            name: "",
            target: String::new(),
            props: vec![("author", page.author.to_owned()), ("category", page.category.to_owned())],
            back_ms: None,
        }
    }
}

impl Iterator for Traffic {
    type Item = Hit;

    /// Never `None`.
    fn next(&mut self) -> Option<Hit> {
        let site = self.sites.sample(&mut self.rng) as usize - 1;
        let hit = if self.rng.random_bool(self.spec.bots) {
            self.bot_hit(site)
        } else if !self.visits[site].is_empty() && self.rng.random_bool(GOES_ON) {
            self.step(site)
        } else {
            self.entry(site)
        };
        let back_ms = back_ms(&mut self.rng, self.spec.late);
        self.next += 1;
        Some(Hit { number: self.next - 1, back_ms, ..hit })
    }
}

/// A straggler is one second to about half an hour old, most of them seconds; of the rest some say when they happened.
fn back_ms(rng: &mut impl Rng, late: f64) -> Option<u32> {
    if rng.random_bool(late) {
        let decades = rng.random::<f64>().powi(2) * 3.25;
        return Some((f64::from(LATE_MS) * 10f64.powf(decades)) as u32);
    }
    rng.random_bool(0.3).then(|| rng.random_range(0..300))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const HITS: usize = 50_000;

    fn spec(seed: u64) -> Spec {
        Spec { rate: 1_000.0, duration: Duration::from_secs(50), sites: 8, seed, bots: 0.1, late: 0.02 }
    }

    fn hits(spec: &Spec) -> Vec<Hit> {
        Traffic::new(spec).take(HITS).collect()
    }

    fn share(hits: &[Hit], of: impl Fn(&Hit) -> bool) -> f64 {
        hits.iter().filter(|hit| of(hit)).count() as f64 / hits.len() as f64
    }

    #[test]
    fn the_same_seed_makes_the_same_traffic_and_another_another() {
        assert_eq!(hits(&spec(7)), hits(&spec(7)));
        assert_ne!(hits(&spec(7)), hits(&spec(8)));
    }

    #[test]
    fn shares_of_bots_and_stragglers_are_as_asked() {
        let made = hits(&Spec { bots: 0.3, late: 0.2, ..spec(1) });
        assert!((share(&made, |hit| hit.bot) - 0.3).abs() < 0.01);
        assert!((share(&made, Hit::is_late) - 0.2).abs() < 0.01);
        assert!(made.iter().filter_map(|hit| hit.back_ms).all(|back_ms| back_ms < 31 * 60 * 1000));
        assert!(share(&made, |hit| hit.back_ms.is_some_and(|back_ms| back_ms > 60_000)) > 0.02);
        let none = hits(&Spec { bots: 0.0, late: 0.0, ..spec(1) });
        assert!(!none.iter().any(|hit| hit.bot || hit.is_late()));
    }

    #[test]
    fn who_is_a_bot_is_what_the_rules_say() {
        let rules = Rules::version(1).expect("carried");
        for (_, user_agent, _) in BROWSERS {
            let agent = rules.agent(user_agent);
            assert!(!agent.bot && !agent.browser.is_empty() && !agent.os.is_empty() && !agent.device.is_empty());
        }
        for (_, user_agent) in BOTS {
            assert!(rules.agent(user_agent).bot, "{user_agent} is no bot");
        }
    }

    #[test]
    fn sites_and_pages_follow_zipf_and_all_sites_are_there() {
        let made = hits(&spec(2));
        let mut sites: BTreeMap<&str, usize> = BTreeMap::new();
        for hit in &made {
            *sites.entry(&hit.site).or_default() += 1;
            assert!(hit.url.starts_with(&format!("https://{}/", hit.site)));
        }
        assert_eq!(sites.len(), 8);
        let (first, second) = (sites[site_name(0).as_str()] as f64, sites[site_name(1).as_str()] as f64);
        assert!((first / second - 2.0).abs() < 0.2, "{first} and {second}");
        let pages: BTreeSet<_> = made.iter().map(|hit| hit.url.split('?').next()).collect();
        assert!(pages.len() > 2_000, "only {} pages", pages.len());
    }

    #[test]
    fn people_come_back_read_on_and_click() {
        let made: Vec<Hit> = hits(&spec(3)).into_iter().filter(|hit| !hit.bot).collect();
        let people: BTreeSet<_> = made.iter().map(|hit| (hit.ip, hit.user_agent)).collect();
        assert!(people.len() < made.len() / 3, "{} people for {} hits", people.len(), made.len());
        assert!(people.len() > made.len() / 10);
        assert!(people.iter().any(|(ip, _)| ip.is_ipv6()) && people.iter().any(|(ip, _)| ip.is_ipv4()));
        let inside = |hit: &Hit| hit.referrer.starts_with(&format!("https://{}/", hit.site));
        assert!((0.3..0.7).contains(&share(&made, inside)));
        for kind in Kind::ALL {
            assert!(share(&made, |hit| hit.kind == kind) > 0.005, "hardly any {kind:?}");
        }
        assert!(share(&made, |hit| hit.kind == Kind::PageView) > 0.8);
        for hit in &made {
            assert_eq!(hit.name.is_empty(), hit.kind != Kind::Custom);
            assert!(!hit.target.is_empty() || matches!(hit.kind, Kind::PageView | Kind::Custom));
        }
    }

    #[test]
    fn visits_come_through_most_channels_and_some_with_a_search_term() {
        let rules = Rules::version(1).expect("carried");
        let mut channels = BTreeSet::new();
        let mut terms = 0;
        for hit in hits(&spec(4)).into_iter().filter(|hit| !hit.bot) {
            let query = hit.url.split_once('?').map_or("", |(_, query)| query);
            let found = rules.source(&hit.site, query, &hit.referrer);
            terms += usize::from(!found.search_term.is_empty());
            channels.insert(found.channel);
        }
        for channel in ["direct", "organic_search", "paid_search", "organic_social", "paid_social", "email", "referral"]
        {
            assert!(channels.contains(channel), "nobody came by {channel}");
        }
        assert!(terms > 500);
    }
}
