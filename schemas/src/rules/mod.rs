//! What is derived from an event by lists that age: bots, browsers, sources, channels.
//!
//! ```text
//!  user agent ───────────────▶ Agent   bot, browser, os, device         v1/bots.txt browsers.tsv systems.tsv devices.tsv
//!  host, query, referrer ────▶ Source  source, channel, search term, …  v1/sources.toml
//! ```
//!
//! A rules version is data that is embedded here and code that reads it; both stay as they are once the version is in
//! use, because a replay of an old log must classify as the first run did. A test pins their digest.
//!
//! Invariants
//! - pure: equal arguments give equal values, for ever, in one version
//! - total: any string has an answer, nothing panics
//! - values hold no control characters and are at most [`VALUE_BYTES_MAX`] long

use std::sync::OnceLock;

mod agent;
mod channel;
mod referrer;
mod source;
mod sources;
#[cfg(test)]
mod tests;
mod text;

use agent::Agents;
use sources::Sources;
pub use text::VALUE_BYTES_MAX;

/// What a user agent says of the visitor. Strings are as the table has them; empty for unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Agent {
    /// A crawler, a feed reader, an HTTP library, a browser without a person (`HeadlessChrome`).
    pub bot: bool,
    /// Without its version: `Chrome`, `Mobile Safari`; of many bots their name.
    pub browser: String,
    /// Without its version: `Windows`, `iOS`.
    pub os: String,
    /// `desktop`, `mobile`, `tablet`, `tv`, `console`, `wearable`.
    pub device: String,
}

/// Where a visit came from. Strings are as the table has them; empty where there is nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// `utm_source` or `ref`, else the name of a search engine or network, else the referrer's host, else `Direct`.
    pub source: String,
    /// One of [`CHANNELS`].
    pub channel: String,
    /// Host and path of a referrer on another host, else empty.
    pub referrer: String,
    /// What was searched for, lower case.
    pub search_term: String,
    /// Referrer empty or on another host: the page is an entry page.
    pub external: bool,
    pub utm_source: String,
    pub utm_medium: String,
    pub utm_campaign: String,
    pub utm_term: String,
    pub utm_content: String,
}

/// The channels of version 1, each with what puts a visit into it.
pub const CHANNELS: [&str; 15] = [
    "affiliates",     // utm_medium
    "audio",          // utm_medium
    "direct",         // neither a referrer nor a tag
    "display",        // utm_medium, or a click id of a banner
    "email",          // a mail program's host, utm_medium or utm_source
    "organic_search", // a search engine
    "organic_social", // a social network
    "paid_other",     // utm_medium says that it was paid
    "paid_search",    // the same at a search engine, or its click id
    "paid_social",    // the same at a social network
    "paid_video",     // the same at a video site
    "push",           // utm_medium
    "referral",       // any other site
    "sms",            // utm_medium or utm_source
    "video",          // a video site
];

/// One version of the lists.
#[derive(Debug)]
pub struct Rules {
    version: u32,
    agents: OnceLock<Agents>,
    sources: OnceLock<Sources>,
}

static VERSION_1: Rules = Rules { version: 1, agents: OnceLock::new(), sources: OnceLock::new() };

impl Rules {
    /// The rules of this version; `None` if this binary does not carry them.
    pub fn version(version: u32) -> Option<&'static Rules> {
        (version == 1).then_some(&VERSION_1)
    }

    pub fn number(&self) -> u32 {
        self.version
    }

    /// Pure: the same agent for the same string, for ever, in one version. `""` and `"-"` are unknown, not a bot.
    ///
    /// The first call reads the lists. A call takes microseconds: ask once per distinct string, not per event.
    pub fn agent(&self, user_agent: &str) -> Agent {
        self.agents.get_or_init(Agents::version_1).of(user_agent)
    }

    /// Pure in its arguments: `host` of the page, `query` and `referrer` as the event has them.
    pub fn source(&self, host: &str, query: &str, referrer: &str) -> Source {
        source::of(self.sources.get_or_init(Sources::version_1), host, query, referrer)
    }
}
