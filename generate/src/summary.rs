use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use weir_schemas::Kind;

use crate::Hit;

/// What came of generated traffic. Every event is in exactly one of `accepted`, `rejected` and `unanswered`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub seed: u64,
    /// Events that were made.
    pub generated: u64,
    /// Events that were acknowledged.
    pub accepted: u64,
    /// Events that were not taken, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Events to which no clear answer came in time: they may count or not.
    pub unanswered: u64,

    /// The rest counts accepted events only. Page views by people:
    pub page_views: u64,
    pub page_views_by_site: BTreeMap<String, u64>,
    pub outbound_clicks: u64,
    pub ad_clicks: u64,
    pub downloads: u64,
    pub custom_events: u64,
    /// Events of any kind by bots; they are in none of the counts above.
    pub bot_events: u64,
    /// Events that claimed to be at least a second old.
    pub late: u64,

    /// Requests (or appends) that were made again because their answer was unclear or "later".
    pub retries: u64,
    pub seconds: f64,
    /// Accepted events a second.
    pub accepted_per_second: f64,
}

impl Summary {
    pub(crate) fn accept(&mut self, hit: &Hit) {
        self.accepted += 1;
        self.late += u64::from(hit.is_late());
        if hit.bot {
            self.bot_events += 1;
            return;
        }
        match hit.kind {
            Kind::PageView => {
                self.page_views += 1;
                match self.page_views_by_site.get_mut(&hit.site) {
                    Some(count) => *count += 1,
                    None => drop(self.page_views_by_site.insert(hit.site.clone(), 1)),
                }
            }
            Kind::Outbound => self.outbound_clicks += 1,
            Kind::AdClick => self.ad_clicks += 1,
            Kind::Download => self.downloads += 1,
            Kind::Custom => self.custom_events += 1,
        }
    }

    pub(crate) fn reject(&mut self, reason: &str) {
        *self.rejected.entry(reason.to_owned()).or_default() += 1;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { seed, generated, accepted, page_views, bot_events, late, .. } = self;
        write!(
            formatter,
            "{generated} events generated (seed {seed}), {accepted} accepted: {page_views} page views, {} outbound, \
             {} ad clicks, {} downloads, {} custom, {bot_events} by bots; {late} came late",
            self.outbound_clicks, self.ad_clicks, self.downloads, self.custom_events,
        )?;
        for (reason, count) in &self.rejected {
            write!(formatter, " · {count} rejected: {reason}")?;
        }
        if self.unanswered > 0 {
            write!(formatter, " · {} without a clear answer", self.unanswered)?;
        }
        if self.retries > 0 {
            write!(formatter, " · {} requests sent again", self.retries)?;
        }
        write!(formatter, " · {:.1} s, {:.0} events/s", self.seconds, self.accepted_per_second)
    }
}
