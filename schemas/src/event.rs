use serde::{Deserialize, Serialize};

/// What kind of hit an event is. The numbers are those of the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    #[default]
    PageView = 0,
    Outbound = 1,
    AdClick = 2,
    Download = 3,
    Custom = 4,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::PageView, Kind::Outbound, Kind::AdClick, Kind::Download, Kind::Custom];

    /// The kind with this number on the wire; `None` for a number that no kind has.
    pub fn from_wire(number: u32) -> Option<Kind> {
        Kind::ALL.get(number as usize).copied()
    }
}

/// One hit, as it goes into the log: checked, cut to its limits, without the visitor's address.
///
/// Strings are empty where the hit said nothing. Field by field the same as `EventBatch` in `proto/weir.proto`, which
/// is where their meaning is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    pub site: String,
    pub kind: Kind,
    /// Collector's clock at receipt, ms since the Unix epoch.
    pub received_ms: i64,
    /// When the hit happened, by a claim that the collector trusts.
    pub claimed_ms: Option<i64>,
    pub visitor: u64,
    pub id: String,
    pub host: String,
    pub page: String,
    pub query: String,
    pub referrer: String,
    pub user_agent: String,
    pub country: String,
    pub name: String,
    pub target: String,
    pub title: String,
    pub screen: String,
    pub language: String,
    /// (name, value), in the order given; no name twice.
    pub props: Vec<(String, String)>,
}
