use std::net::IpAddr;

use rand::{Rng, RngExt, distr::Distribution};
use rand_distr::weighted::WeightedAliasIndex;

use crate::world::{BROWSERS, COUNTRIES};

/// A person: address, browser and language stay the same from visit to visit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visitor {
    pub(crate) ip: IpAddr,
    pub(crate) user_agent: &'static str,
    pub(crate) screen: &'static str,
    pub(crate) language: &'static str,
}

/// People who are remembered, so that they can come back; beyond it a new one takes an old one's place.
const VISITORS_MAX: usize = 100_000;

/// Share of visits by somebody who was there before.
const RETURNING: f64 = 0.4;

pub(crate) struct Visitors {
    known: Vec<Visitor>,
    countries: WeightedAliasIndex<u32>,
    browsers: WeightedAliasIndex<u32>,
}

impl Visitors {
    pub(crate) fn new() -> Visitors {
        let weights = |weights: Vec<u32>| WeightedAliasIndex::new(weights).expect("weights are not all 0");
        Visitors {
            known: Vec::new(),
            countries: weights(COUNTRIES.iter().map(|country| country.weight).collect()),
            browsers: weights(BROWSERS.iter().map(|browser| browser.0).collect()),
        }
    }

    /// Who begins a visit: somebody known, or somebody new.
    pub(crate) fn arrive(&mut self, rng: &mut impl Rng) -> Visitor {
        if !self.known.is_empty() && rng.random_bool(RETURNING) {
            return self.known[rng.random_range(0..self.known.len())];
        }
        let country = &COUNTRIES[self.countries.sample(rng)];
        let (_, user_agent, screen) = BROWSERS[self.browsers.sample(rng)];
        let visitor = Visitor { ip: country.address(rng), user_agent, screen, language: country.language };
        if self.known.len() < VISITORS_MAX {
            self.known.push(visitor);
        } else {
            let place = rng.random_range(0..VISITORS_MAX);
            self.known[place] = visitor;
        }
        visitor
    }
}
