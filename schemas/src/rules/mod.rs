//! What is derived from an event by lists that age: bots, browsers, sources, channels.
//!
//! ```text
//!  user agent ───────────────▶ Agent   bot                              v1/bots.txt    v2/bots.txt
//!                                      browser, os, device              v1/browsers.tsv systems.tsv devices.tsv
//!  host, query, referrer ────▶ Source  source, channel, search term, …  v1/sources.toml  v2/sources.toml
//! ```
//!
//! A rules version is data that is embedded here and code that reads it; both stay as they are once the version is in
//! use, because a replay of an old log must classify as the first run did. A test pins each one's digest. A version has
//! lists of its own only where they differ from an earlier one's; [`Rules::part`] says which it has.
//!
//! Invariants
//! - pure: equal arguments give equal values, for ever, in one version
//! - total: any string has an answer, nothing panics
//! - values hold no control characters and are at most [`VALUE_BYTES_MAX`] long

use std::sync::LazyLock;

mod agent;
mod channel;
mod referrer;
mod source;
mod sources;
#[cfg(test)]
mod tests;
mod text;

use agent::{Agents, Bots};
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

/// The channels, each with what puts a visit into it.
pub const CHANNELS: [&str; 16] = [
    "affiliates",     // utm_medium
    "ai_assistants",  // an AI assistant, or utm_medium; since version 2, in version 1 they are `referral`
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

/// What one list, or a few together, decide. Two rules versions with the same number for a part say the same there.
///
/// What is not named here depends on no list, so it is the same in all versions: [`Source::referrer`],
/// [`Source::external`] and the five `utm_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// [`Agent::bot`].
    Bots,
    /// [`Agent::browser`], [`Agent::os`], [`Agent::device`].
    Agents,
    /// [`Source::source`], [`Source::channel`], [`Source::search_term`].
    Sources,
}

/// One version of the lists.
#[derive(Debug)]
pub struct Rules {
    version: u32,
    bots: &'static Numbered<Bots>,
    agents: &'static Numbered<Agents>,
    sources: &'static Numbered<Sources>,
}

/// What is made of a list at its first use, with the version that brought it.
#[derive(Debug)]
struct Numbered<T> {
    version: u32,
    list: LazyLock<T>,
}

static BOTS_1: Numbered<Bots> =
    Numbered { version: 1, list: LazyLock::new(|| Bots::read(include_str!("v1/bots.txt"))) };
static BOTS_2: Numbered<Bots> =
    Numbered { version: 2, list: LazyLock::new(|| Bots::read(include_str!("v2/bots.txt"))) };

static AGENTS_1: Numbered<Agents> = Numbered {
    version: 1,
    list: LazyLock::new(|| {
        Agents::read(include_str!("v1/browsers.tsv"), include_str!("v1/systems.tsv"), include_str!("v1/devices.tsv"))
    }),
};

static SOURCES_1: Numbered<Sources> =
    Numbered { version: 1, list: LazyLock::new(|| Sources::read(include_str!("v1/sources.toml"))) };
static SOURCES_2: Numbered<Sources> =
    Numbered { version: 2, list: LazyLock::new(|| Sources::read(include_str!("v2/sources.toml"))) };

static VERSIONS: [Rules; 2] = [
    Rules { version: 1, bots: &BOTS_1, agents: &AGENTS_1, sources: &SOURCES_1 },
    Rules { version: 2, bots: &BOTS_2, agents: &AGENTS_1, sources: &SOURCES_2 },
];

impl Rules {
    /// The rules of this version; `None` if this binary does not carry them.
    pub fn version(version: u32) -> Option<&'static Rules> {
        VERSIONS.iter().find(|rules| rules.version == version)
    }

    pub fn number(&self) -> u32 {
        self.version
    }

    /// The version that brought what this one decides `part` by. Where two versions have the same number, they say the
    /// same of every hit.
    pub fn part(&self, part: Part) -> u32 {
        match part {
            Part::Bots => self.bots.version,
            Part::Agents => self.agents.version,
            Part::Sources => self.sources.version,
        }
    }

    /// Pure: the same agent for the same string, for ever, in one version. `""` and `"-"` are unknown, not a bot.
    ///
    /// The first call reads the lists. A call takes microseconds: ask once per distinct string, not per event.
    pub fn agent(&self, user_agent: &str) -> Agent {
        agent::of(&self.bots.list, &self.agents.list, user_agent)
    }

    /// Pure in its arguments: `host` of the page, `query` and `referrer` as the event has them.
    pub fn source(&self, host: &str, query: &str, referrer: &str) -> Source {
        source::of(&self.sources.list, host, query, referrer)
    }
}
