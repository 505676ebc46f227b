//! From a batch's strings to the symbols that a window's columns hold: each distinct string is looked at once a batch,
//! each user agent and each referrer once as long as the caches remember it.

use rustc_hash::FxHashMap;
use weir_schemas::{Dimension, Interner, Kind, SchemaVersion, rules::Rules, wire::BatchView};

use crate::buffer::{BOT, Layout, Row};

/// What stands in the columns `country`, `browser`, `os` and `device` where nothing is known, so that their rows add up
/// to all events.
const UNKNOWN: &str = "(unknown)";

/// What the caches hold before they are emptied, bytes of a worker: some 30,000 usual user agents and referrers.
const CACHES_BYTES_MAX: usize = 8 << 20;

/// What an entry takes beside its text: up to 62 bytes, in a table that is at least seven sixteenths full, and the text's own
/// header.
const CACHE_ENTRY_BYTES: usize = 128;

/// Not looked at yet.
const UNSET: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct AgentSymbols {
    bot: bool,
    browser: u32,
    os: u32,
    device: u32,
}

#[derive(Debug, Clone, Copy)]
struct SourceSymbols {
    external: bool,
    source: u32,
    channel: u32,
    referrer: u32,
    search_term: u32,
    utm: [u32; 5],
}

/// (host, query, referrer), as the batch at hand numbers its strings.
type SourceKey = (u32, u32, u32);

/// Classifies the events of one worker. Symbols are valid until [`Classifier::forget`].
#[derive(Debug)]
pub(crate) struct Classifier {
    rules: &'static Rules,
    pub(crate) symbols: Interner,
    agents: FxHashMap<Box<str>, AgentSymbols>,
    sources: FxHashMap<Box<str>, SourceSymbols>,
    /// Of both, about.
    caches_bytes: usize,
    /// Per string of the batch at hand: its symbol, and that of its user agent.
    texts: Vec<u32>,
    agent_of: Vec<Option<AgentSymbols>>,
    /// Per string of the batch at hand: its symbol as the name of a property's dimension.
    prop_of: Vec<u32>,
    /// Per string of the batch at hand: the last answer with it as referrer.
    source_at: Vec<Option<(SourceKey, SourceSymbols)>>,
    source_of: FxHashMap<SourceKey, SourceSymbols>,
    columns: Vec<u32>,
    props: Vec<(u32, u32)>,
    key: String,
}

impl Classifier {
    pub(crate) fn new(version: &SchemaVersion) -> Self {
        let rules = Rules::version(version.rules).expect("a schema version names rules that the binary has");
        Self {
            rules,
            symbols: Interner::default(),
            agents: FxHashMap::default(),
            sources: FxHashMap::default(),
            caches_bytes: 0,
            texts: Vec::new(),
            agent_of: Vec::new(),
            prop_of: Vec::new(),
            source_at: Vec::new(),
            source_of: FxHashMap::default(),
            columns: Vec::new(),
            props: Vec::new(),
            key: String::new(),
        }
    }

    /// Bytes of the symbols, twice, since their strings are copied to be sorted, and of the caches that point to them; about.
    pub(crate) fn bytes(&self) -> usize {
        2 * (self.symbols.text_bytes() + self.symbols.len() * 24) + self.caches_bytes
    }

    /// Forgets every symbol: nothing may hold one any more.
    pub(crate) fn forget(&mut self) {
        self.symbols = Interner::default();
        self.forget_caches();
    }

    fn forget_caches(&mut self) {
        // Their room too, which may be much.
        self.agents = FxHashMap::default();
        self.sources = FxHashMap::default();
        self.caches_bytes = 0;
    }

    /// To be called before the rows of another batch are asked for.
    pub(crate) fn begin(&mut self, batch: &BatchView<'_>) {
        self.texts.clear();
        self.texts.resize(batch.strings.len(), UNSET);
        self.agent_of.clear();
        self.agent_of.resize(batch.strings.len(), None);
        self.prop_of.clear();
        self.prop_of.resize(batch.strings.len(), UNSET);
        self.source_at.clear();
        self.source_at.resize(batch.strings.len(), None);
        self.source_of.clear();
        if self.caches_bytes > CACHES_BYTES_MAX {
            self.forget_caches();
        }
    }

    fn text(&mut self, batch: &BatchView<'_>, index: u32) -> u32 {
        let at = index as usize;
        if self.texts[at] == UNSET {
            self.texts[at] = self.symbols.intern(batch.strings[at]);
        }
        self.texts[at]
    }

    fn prop(&mut self, batch: &BatchView<'_>, index: u32) -> u32 {
        let at = index as usize;
        if self.prop_of[at] == UNSET {
            self.prop_of[at] = self.symbols.intern(&Dimension::of_prop(batch.strings[at]));
        }
        self.prop_of[at]
    }

    fn agent(&mut self, batch: &BatchView<'_>, index: u32) -> AgentSymbols {
        let at = index as usize;
        if let Some(known) = self.agent_of[at] {
            return known;
        }
        let text = batch.strings[at];
        let found = match self.agents.get(text) {
            Some(known) => *known,
            None => {
                let agent = self.rules.agent(text);
                let mut known = |value: &str| self.symbols.intern(if value.is_empty() { UNKNOWN } else { value });
                let found = AgentSymbols {
                    bot: agent.bot,
                    browser: known(&agent.browser),
                    os: known(&agent.os),
                    device: known(&agent.device),
                };
                self.caches_bytes += text.len() + CACHE_ENTRY_BYTES;
                self.agents.insert(text.into(), found);
                found
            }
        };
        self.agent_of[at] = Some(found);
        found
    }

    fn source(&mut self, batch: &BatchView<'_>, host: u32, query: u32, referrer: u32) -> SourceSymbols {
        // Most referrers of a batch come with one host and no query: the last answer is the next one.
        let (key, memo) = ((host, query, referrer), referrer as usize);
        if let Some((known, found)) = self.source_at[memo]
            && known == key
        {
            return found;
        }
        let found = match self.source_of.get(&key) {
            Some(known) => *known,
            None => self.find_source(batch, host, query, referrer),
        };
        self.source_at[memo] = Some((key, found));
        found
    }

    fn find_source(&mut self, batch: &BatchView<'_>, host: u32, query: u32, referrer: u32) -> SourceSymbols {
        let [host_text, query_text, referrer_text] = [host, query, referrer].map(|index| batch.strings[index as usize]);
        self.key.clear();
        for text in [host_text, query_text, referrer_text] {
            self.key.push_str(text);
            self.key.push('\n');
        }
        let found = match self.sources.get(self.key.as_str()) {
            Some(known) => *known,
            None => {
                let source = self.rules.source(host_text, query_text, referrer_text);
                let utm = [
                    &source.utm_source,
                    &source.utm_medium,
                    &source.utm_campaign,
                    &source.utm_term,
                    &source.utm_content,
                ];
                let found = SourceSymbols {
                    external: source.external,
                    source: self.symbols.intern(&source.source),
                    channel: self.symbols.intern(&source.channel),
                    referrer: self.symbols.intern(&source.referrer),
                    search_term: self.symbols.intern(&source.search_term),
                    utm: utm.map(|value| self.symbols.intern(value)),
                };
                self.caches_bytes += self.key.len() + CACHE_ENTRY_BYTES;
                self.sources.insert(self.key.as_str().into(), found);
                found
            }
        };
        self.source_of.insert((host, query, referrer), found);
        found
    }

    /// The row of event `event`, whose properties begin at `prop` of the batch.
    ///
    /// Pages, entry pages and where a visit came from are said of page views; of these, where it came from only if it
    /// came from outside. Country, browser, system and device are said of every event.
    pub(crate) fn row(&mut self, batch: &BatchView<'_>, layout: &Layout, event: usize, prop: usize) -> Row<'_> {
        let index = |column: &[u32]| column.get(event).copied().unwrap_or(0);
        let kind = Kind::from_wire(index(&batch.kind)).expect("decoded batches have known kinds only");
        let agent = self.agent(batch, index(&batch.user_agent));
        let view = kind == Kind::PageView;
        let source = self.source(batch, index(&batch.host), index(&batch.query), index(&batch.referrer));
        let entry = view && source.external;
        let when = |condition: bool, symbol: u32| if condition { symbol } else { 0 };
        self.columns.clear();
        for dimension in &layout.columns {
            let symbol = match dimension {
                Dimension::Site | Dimension::Props => unreachable!("not columns"),
                Dimension::Page => when(view, self.text(batch, index(&batch.page))),
                Dimension::EntryPage => when(entry, self.text(batch, index(&batch.page))),
                Dimension::Source => when(entry, source.source),
                Dimension::Channel => when(entry, source.channel),
                Dimension::Referrer => when(entry, source.referrer),
                Dimension::SearchTerm => when(entry, source.search_term),
                Dimension::Country => match self.text(batch, index(&batch.country)) {
                    0 => self.symbols.intern(UNKNOWN),
                    country => country,
                },
                Dimension::Browser => agent.browser,
                Dimension::Os => agent.os,
                Dimension::Device => agent.device,
                Dimension::Outbound => when(kind == Kind::Outbound, self.text(batch, index(&batch.target))),
                Dimension::Download => when(kind == Kind::Download, self.text(batch, index(&batch.target))),
                Dimension::UtmSource => when(entry, source.utm[0]),
                Dimension::UtmMedium => when(entry, source.utm[1]),
                Dimension::UtmCampaign => when(entry, source.utm[2]),
                Dimension::UtmTerm => when(entry, source.utm[3]),
                Dimension::UtmContent => when(entry, source.utm[4]),
            };
            self.columns.push(symbol);
        }
        self.props.clear();
        if layout.has_props {
            for place in prop..prop + index(&batch.props) as usize {
                let dimension = self.prop(batch, batch.prop_names[place]);
                let value = self.text(batch, batch.prop_values[place]);
                // An empty value says nothing; a name given twice counts once, with its first value.
                if value != 0 && self.props.iter().all(|(known, _)| *known != dimension) {
                    self.props.push((dimension, value));
                }
            }
        }
        Row {
            site: self.text(batch, index(&batch.site)),
            visitor: batch.visitor.get(event).copied().unwrap_or(0),
            class: kind as u8 | if agent.bot { BOT } else { 0 },
            columns: &self.columns,
            props: &self.props,
        }
    }
}
