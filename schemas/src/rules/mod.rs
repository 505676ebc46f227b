//! What is derived from an event by lists that age: bots, browsers, sources, channels.

/// What a user agent says of the visitor. Strings are as the table has them; empty for unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Agent {
    pub bot: bool,
    pub browser: String,
    pub os: String,
    pub device: String,
}

/// Where a visit came from. Strings are as the table has them; empty where there is nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    pub source: String,
    pub channel: String,
    /// Host and path of a referrer on another host, else empty.
    pub referrer: String,
    pub search_term: String,
    /// Referrer empty or on another host: the page is an entry page.
    pub external: bool,
    pub utm_source: String,
    pub utm_medium: String,
    pub utm_campaign: String,
    pub utm_term: String,
    pub utm_content: String,
}

/// One version of the lists.
#[derive(Debug)]
pub struct Rules {
    version: u32,
}

impl Rules {
    /// The rules of this version; `None` if this binary does not carry them.
    pub fn version(version: u32) -> Option<&'static Rules> {
        let _ = version;
        None
    }

    pub fn number(&self) -> u32 {
        self.version
    }

    /// Pure: the same agent for the same string, for ever, in one version.
    pub fn agent(&self, user_agent: &str) -> Agent {
        let _ = user_agent;
        Agent::default()
    }

    /// Pure in its arguments: `host` of the page, `query` and `referrer` as the event has them.
    pub fn source(&self, host: &str, query: &str, referrer: &str) -> Source {
        let _ = (host, query, referrer);
        Source::default()
    }
}
