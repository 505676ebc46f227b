use std::net::IpAddr;

use serde::{Serialize, Serializer};
use weir_schemas::Kind;

/// One generated hit, as a site's server would report it for its visitor.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Counts from 0 within the traffic.
    pub number: u64,
    pub site: String,
    pub kind: Kind,
    pub url: String,
    pub referrer: String,
    pub ip: IpAddr,
    pub user_agent: &'static str,
    /// What the rules say of `user_agent`.
    pub bot: bool,
    pub language: &'static str,
    pub screen: &'static str,
    pub title: String,
    /// Of a custom event.
    pub name: &'static str,
    /// Of an outbound click or a download.
    pub target: String,
    pub props: Vec<(&'static str, String)>,
    /// How long before it is sent it claims to have happened; `None`: it claims nothing.
    pub back_ms: Option<u32>,
}

/// A hit that claims to be this old is a straggler; the others' claims are only network delay.
pub(crate) const LATE_MS: u32 = 1_000;

impl Hit {
    pub(crate) fn is_late(&self) -> bool {
        self.back_ms.is_some_and(|back_ms| back_ms >= LATE_MS)
    }
}

/// A hit that is under way: its id and its claimed time stay as they are when it is sent again.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    pub(crate) hit: Hit,
    pub(crate) id: String,
    /// ms since the Unix epoch.
    pub(crate) time_ms: Option<i64>,
}

/// The JSON of `POST /v1/events`.
impl Serialize for Sending {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Json<'a> {
            site: &'a str,
            #[serde(skip_serializing_if = "is_page_view")]
            kind: Kind,
            url: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            referrer: &'a str,
            id: &'a str,
            ip: IpAddr,
            user_agent: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            language: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            screen: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            title: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            name: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            target: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            time: Option<i64>,
            #[serde(serialize_with = "as_map", skip_serializing_if = "<[_]>::is_empty")]
            props: &'a [(&'static str, String)],
        }
        let Sending { hit, id, time_ms } = self;
        let json = Json {
            site: &hit.site,
            kind: hit.kind,
            url: &hit.url,
            referrer: &hit.referrer,
            id,
            ip: hit.ip,
            user_agent: hit.user_agent,
            language: hit.language,
            screen: hit.screen,
            title: &hit.title,
            name: hit.name,
            target: &hit.target,
            time: *time_ms,
            props: &hit.props,
        };
        json.serialize(serializer)
    }
}

fn is_page_view(kind: &Kind) -> bool {
    *kind == Kind::PageView
}

fn as_map<S: Serializer>(props: &[(&'static str, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(props.iter().map(|(name, value)| (name, value)))
}
