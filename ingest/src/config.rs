use std::{collections::HashSet, num::NonZeroU32, path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Bytes of a site's name.
pub const SITE_BYTES_MAX: usize = 255;

/// The least that a spool may hold: one of the largest batches, and room for it to be written.
const SPOOL_BYTES_MIN: u64 = 1 << 20;

/// How a collector takes events in. `weir.toml` has it as `[ingest]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// The sites whose events are taken.
    pub sites: Vec<SiteConfig>,
    /// Takes events of sites that are not in `sites`, too, without a token and with any host: for trying out.
    pub accept_any_site: bool,
    /// Networks (`10.0.0.0/8`) and addresses whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<String>,
    pub limits: LimitsConfig,
    pub http: HttpConfig,
    pub collector: CollectorConfig,
    pub spool: SpoolConfig,
    /// A MaxMind database (any that knows countries). Without one events have no country.
    pub mmdb: Option<PathBuf>,
}

/// One site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteConfig {
    /// What events and tables call it, often its domain. At most [`SITE_BYTES_MAX`] bytes.
    pub name: String,
    /// Hosts its pages may have, without "www."; `*.example.org` stands for all below. Empty: any.
    ///
    /// An event that names no site belongs to the one that lists its page's host.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// IANA name of the zone in which its days are shown.
    #[serde(default = "utc")]
    pub timezone: String,
    /// SHA-256, in hex, of the token that servers of this site send (`printf %s TOKEN | sha256sum`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_token_sha256: Option<String>,
    /// Query parameters that belong to a page, as `id` in `/article?id=7`.
    #[serde(default)]
    pub allowed_query: Vec<String>,
}

fn utc() -> String {
    "UTC".into()
}

/// How many events are taken from whom. A limit of 0 events a second is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Per address (IPv6: per /64), for requests without a write token.
    ///
    /// A reader makes an event in a few seconds; an office of 500 behind one address that all read at once makes 100 a
    /// second. 50 a second with a burst of 1,000 lets that office through for 20 s, and a script that hammers us not.
    pub address: RateLimit,
    /// Per site, with a token or without.
    ///
    /// 20,000 a second are 1.7 billion a day: more than any site here has, and a fifteenth of what one core takes in.
    pub site: RateLimit,
    /// Events of one request; more are refused with 413.
    pub events_per_request_max: usize,
    /// Bytes of a body, as sent and also when decompressed; more are refused with 413.
    ///
    /// 10,000 events × ~400 B = 4 MB of JSON, twice that for long URLs.
    pub body_bytes_max: usize,
    /// Bytes of bodies that all requests together hold in memory; beyond it the answer is 503.
    pub bodies_bytes_max: usize,
}

/// A rate: so many a second on average, so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Events a second; 0: no limit.
    pub per_second: u32,
    /// Events at once.
    pub burst: NonZeroU32,
}

/// Connections and their patience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// How long a client may take to send a request's head, and a kept-alive connection may be silent.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// How long a client may take to send a request's body.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// At a stop: how long `/readyz` says no, while requests are still taken, so that load balancers turn away.
    #[serde(with = "humantime_serde")]
    pub not_ready_for: Duration,
    /// At a stop: how long requests that were begun may take to end.
    #[serde(with = "humantime_serde")]
    pub finish_timeout: Duration,
}

/// How events become batches in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectorConfig {
    /// How long an event may wait to be durable; after that the answer is 503 with `Retry-After`.
    #[serde(with = "humantime_serde")]
    pub append_timeout: Duration,
    /// Bytes of events that are not yet durable; beyond it the answer is 503 with `Retry-After`.
    ///
    /// 100,000 events/s × ~300 B × 2 s of a slow log = 60 MB.
    pub in_flight_bytes_max: usize,
}

/// Where events wait while the log is away: on the collector's own disk, in `data_dir/spool`. For Kafka only: the
/// embedded log lies on that same disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// Bytes of batches; beyond it the answer is 503 with `Retry-After`. 0: no spool.
    ///
    /// 1,000 events/s × ~150 B = 150 kB/s: 4 GiB last 8 h. A lone event takes ~600 B: at 100 of those a second, 20 h.
    pub bytes_max: u64,
    /// How long the log may take for an append before its events go into the spool, and all others after them until
    /// the log is back: at most half of `collector.append_timeout`.
    ///
    /// It answers within milliseconds; a leader's election takes some seconds, which are better spent in the spool than
    /// in a browser that is about to close the page.
    #[serde(with = "humantime_serde")]
    pub after: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let rate = |per_second, burst| RateLimit { per_second, burst: NonZeroU32::new(burst).expect("not 0") };
        Self {
            address: rate(50, 1_000),
            site: rate(20_000, 100_000),
            events_per_request_max: 10_000,
            body_bytes_max: 8 << 20,
            bodies_bytes_max: 256 << 20,
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            not_ready_for: Duration::from_secs(1),
            finish_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for CollectorConfig {
    fn default() -> Self {
        Self { append_timeout: Duration::from_secs(10), in_flight_bytes_max: 64 << 20 }
    }
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self { bytes_max: 4 << 30, after: Duration::from_secs(1) }
    }
}

/// What is wrong with a configuration, with its place and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {what}")]
pub struct ConfigError {
    pub place: String,
    pub what: String,
}

impl IngestConfig {
    /// Checks all that can be checked without opening anything.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut names = HashSet::new();
        for (index, site) in self.sites.iter().enumerate() {
            let place = |field: &str| format!("ingest.sites[{index}].{field}");
            site_name(&site.name).map_err(|what| refuse(&place("name"), what))?;
            if !names.insert(&site.name) {
                return Err(refuse(&place("name"), format!("{:?} is there twice (keep one)", site.name)));
            }
            for host in &site.hosts {
                let bare = host.strip_prefix("*.").unwrap_or(host);
                if bare.is_empty() || bare.starts_with("www.") || bare.contains(|c: char| !host_char(c)) {
                    let what = format!(
                        "{host:?} is not a host (write it lower-case, without scheme, port, path and \"www.\", as \"example.org\" or \"*.example.org\")"
                    );
                    return Err(refuse(&place("hosts"), what));
                }
            }
            let zone = jiff::tz::TimeZone::get(&site.timezone)
                .map_err(|error| refuse(&place("timezone"), format!("{error} (use an IANA name, as Europe/Berlin)")))?;
            // ClickHouse knows zones by their exact names only.
            if zone.iana_name() != Some(&site.timezone) {
                let name = zone.iana_name().unwrap_or("UTC");
                return Err(refuse(
                    &place("timezone"),
                    format!("{:?} is no zone's name (write {name:?})", site.timezone),
                ));
            }
            if let Some(hash) = &site.write_token_sha256
                && parse_sha256(hash).is_none()
            {
                let what = "not a SHA-256 in hex: 64 digits (make it with `printf %s TOKEN | sha256sum`)";
                return Err(refuse(&place("write_token_sha256"), what));
            }
            if let Some(name) = site.allowed_query.iter().find(|name| name.is_empty()) {
                return Err(refuse(&place("allowed_query"), format!("{name:?} names no parameter (remove it)")));
            }
        }
        self.proxies()?;
        let positive = [
            ("limits.events_per_request_max", self.limits.events_per_request_max),
            ("limits.body_bytes_max", self.limits.body_bytes_max),
            ("http.connections_max", self.http.connections_max),
            ("collector.in_flight_bytes_max", self.collector.in_flight_bytes_max),
        ];
        for (field, value) in positive {
            if value == 0 {
                return Err(refuse(&format!("ingest.{field}"), "is 0: nothing would be taken (raise it)"));
            }
        }
        if (1..SPOOL_BYTES_MIN).contains(&self.spool.bytes_max) {
            let what = format!("is below {SPOOL_BYTES_MIN}: a few batches would fill it (raise it; 0: no spool)");
            return Err(refuse("ingest.spool.bytes_max", what));
        }
        if self.spool.after.is_zero() {
            return Err(refuse("ingest.spool.after", "is 0: the log could never answer in time (raise it)"));
        }
        if self.limits.bodies_bytes_max < self.limits.body_bytes_max {
            let what = "is below body_bytes_max: the largest body would never be taken (raise it)";
            return Err(refuse("ingest.limits.bodies_bytes_max", what));
        }
        Ok(())
    }

    /// `trusted_proxies` as networks.
    pub(crate) fn proxies(&self) -> Result<Vec<IpNet>, ConfigError> {
        let parse = |text: &String| {
            let network = text.parse::<IpNet>().ok();
            network.or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from)).ok_or_else(|| {
                let what = format!("{text:?} is no network (write it as 10.0.0.0/8, 2001:db8::/32 or one address)");
                refuse("ingest.trusted_proxies", what)
            })
        };
        self.trusted_proxies.iter().map(parse).collect()
    }
}

/// Whether `name` can be a site's name, else why not.
pub(crate) fn site_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty (name the site)".into());
    }
    if name.len() > SITE_BYTES_MAX {
        return Err(format!("has {} bytes (at most {SITE_BYTES_MAX})", name.len()));
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(format!("{name:?} holds a control character or white space (leave it out)"));
    }
    Ok(())
}

fn host_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_[]:".contains(c)
}

fn refuse(place: &str, what: impl Into<String>) -> ConfigError {
    ConfigError { place: place.into(), what: what.into() }
}

/// The 32 bytes that 64 hex digits stand for.
pub(crate) fn parse_sha256(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(toml: &str) -> String {
        match toml::from_str::<IngestConfig>(toml) {
            Ok(config) => config.validate().expect_err("should be refused").to_string(),
            Err(error) => error.message().to_string(),
        }
    }

    #[test]
    fn the_default_configuration_is_valid() {
        IngestConfig::default().validate().unwrap();
        assert_eq!(toml::from_str::<IngestConfig>("").unwrap(), IngestConfig::default());
    }

    #[test]
    fn a_full_configuration_is_read() {
        let config: IngestConfig = toml::from_str(
            r#"
            accept_any_site = true
            trusted_proxies = ["10.0.0.0/8", "::1"]
            [[sites]]
            name = "blog.example"
            hosts = ["blog.example", "*.blog.example"]
            timezone = "Europe/Berlin"
            write_token_sha256 = "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08"
            allowed_query = ["id"]
            [limits]
            address = { per_second = 0, burst = 1 }
            [http]
            body_timeout = "5s"
            "#,
        )
        .unwrap();
        config.validate().unwrap();
        assert_eq!(config.http.body_timeout, Duration::from_secs(5));
        assert_eq!(config.limits.site, LimitsConfig::default().site);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let site = |rest: &str| format!("[[sites]]\nname = \"a\"\n{rest}");
        assert!(wrong("acept_any_site = true").contains("unknown field `acept_any_site`"));
        assert!(wrong(&site("tokn = \"\"")).contains("unknown field `tokn`"));
        assert!(wrong("[[sites]]\nname = \"a b\"").starts_with("ingest.sites[0].name: "));
        assert!(wrong(&format!("{}{}", site(""), site(""))).starts_with("ingest.sites[1].name: \"a\" is there twice"));
        assert!(wrong(&site("timezone = \"Mars/Base\"")).starts_with("ingest.sites[0].timezone: "));
        assert!(wrong(&site("timezone = \"europe/berlin\"")).ends_with("(write \"Europe/Berlin\")"));
        assert!(wrong(&site("hosts = [\"https://a\"]")).starts_with("ingest.sites[0].hosts: "));
        assert!(wrong(&site("write_token_sha256 = \"secret\"")).starts_with("ingest.sites[0].write_token_sha256: "));
        assert!(wrong("trusted_proxies = [\"10.0.0.0/99\"]").starts_with("ingest.trusted_proxies: "));
        assert!(wrong("[spool]\nbytes_max = 1000").starts_with("ingest.spool.bytes_max: "));
        assert!(wrong("[spool]\nafter = \"0s\"").starts_with("ingest.spool.after: "));
        assert!(wrong("[limits]\nbody_bytes_max = 0").starts_with("ingest.limits.body_bytes_max: "));
    }
}
