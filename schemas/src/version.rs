use crate::{Kind, WindowWidth};

/// What rows are grouped by, besides site and window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dimension {
    /// The site as a whole; its value is empty.
    Site,
    Page,
    /// The page of a view whose referrer is empty or of another host.
    EntryPage,
    Source,
    Channel,
    Referrer,
    SearchTerm,
    Country,
    Browser,
    Os,
    Device,
    Outbound,
    Download,
    UtmSource,
    UtmMedium,
    UtmCampaign,
    UtmTerm,
    UtmContent,
    /// Each property is a dimension of its own, `prop:NAME`.
    Props,
}

/// A number that adds up over rows. `visitors` and `visitor_check` are always there and not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Measure {
    PageViews,
    OutboundClicks,
    AdClicks,
    Downloads,
    CustomEvents,
    /// Events of any kind by a bot; the other measures and `visitors` leave bots out.
    BotEvents,
}

impl Measure {
    /// Whether an event of this kind counts for the measure.
    pub fn counts(self, kind: Kind, bot: bool) -> bool {
        match self {
            Measure::BotEvents => bot,
            Measure::PageViews => !bot && kind == Kind::PageView,
            Measure::OutboundClicks => !bot && kind == Kind::Outbound,
            Measure::AdClicks => !bot && kind == Kind::AdClick,
            Measure::Downloads => !bot && kind == Kind::Download,
            Measure::CustomEvents => !bot && kind == Kind::Custom,
        }
    }
}

/// One schema version: everything that decides which rows a log becomes.
#[derive(Debug, Clone, PartialEq)]
pub struct SchemaVersion {
    /// N of `stats_v<N>`.
    pub number: u32,
    pub width: WindowWidth,
    /// How long a window waits for stragglers.
    pub lateness_ms: i64,
    pub dimensions: Vec<Dimension>,
    pub measures: Vec<Measure>,
    /// Which [`crate::rules::Rules`] it pins.
    pub rules: u32,
    /// Values that a site, dimension and window leave; the rest is `(other)`.
    pub values_max: usize,
}

/// Why a schema version was refused, with its place.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct VersionError(String);
