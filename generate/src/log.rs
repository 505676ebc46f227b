use std::{future::Future, sync::Arc};

use anyhow::Context;
use sha2::{Digest, Sha256};
use weir_ingest::{
    Asker, Checker, Collector, Countries, IngestConfig, Props, SaltBook, SiteConfig, Sites, Text, Time, Token,
};
use weir_log::Clock;
use weir_schemas::Kind;

use crate::{
    Spec, Summary,
    drive::{Answer, Target, drive},
    hit::Sending,
    site_name,
};

/// Puts the traffic of `spec` straight into the log, without HTTP, until it ends or `shutdown` resolves.
///
/// Events pass the collector's own checks, so the log holds what it would hold had they been posted. An error if the
/// log has no salt for today's visitors.
pub async fn into_log(
    spec: &Spec,
    collector: Collector,
    salts: Arc<SaltBook>,
    countries: Arc<Countries>,
    clock: Arc<dyn Clock>,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<Summary> {
    salts.at(clock.now_ms()).await.context("the salt of the day cannot be had from the log")?;
    let (sites, token) = trusted_sites(spec.sites);
    Ok(drive(spec, LogTarget { collector, salts, countries, clock, sites, token }, shutdown).await)
}

struct LogTarget {
    collector: Collector,
    salts: Arc<SaltBook>,
    countries: Arc<Countries>,
    clock: Arc<dyn Clock>,
    sites: Sites,
    token: Token,
}

/// The generated sites, with a token that speaks for all of them.
fn trusted_sites(count: usize) -> (Sites, Token) {
    const SECRET: &str = "generated";
    let hash: String = Sha256::digest(SECRET.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let site = |name: String| SiteConfig {
        hosts: vec![name.clone()],
        name,
        timezone: "UTC".to_owned(),
        write_token_sha256: Some(hash.clone()),
        allowed_query: Vec::new(),
    };
    let config = IngestConfig { sites: (0..count).map(site_name).map(site).collect(), ..IngestConfig::default() };
    let sites = Sites::new(&config);
    let token = sites.token(SECRET).expect("all sites have it");
    (sites, token)
}

impl Target for LogTarget {
    async fn send(&self, events: &[Sending]) -> Answer {
        let received_ms = self.clock.now_ms();
        let salt = match self.salts.at(received_ms).await {
            Ok(salt) => salt,
            Err(error) => return Answer::Again { unclear: false, retry_after: None, why: error.to_string() },
        };
        let asker = Asker {
            received_ms,
            salt,
            address: [127, 0, 0, 1].into(),
            user_agent: String::new(),
            language: "",
            token: self.token.clone(),
        };
        let (mut taken, mut rejected) = (Vec::with_capacity(events.len()), Vec::new());
        let mut checker = Checker::new(&self.sites, &self.countries, asker);
        for (index, event) in events.iter().enumerate() {
            match checker.check(as_sent(event)) {
                Ok(event) => taken.push(event),
                Err(reject) => rejected.push((index, reject.reason.as_str().to_owned())),
            }
        }
        match self.collector.append(taken).await {
            Ok(()) => Answer::Taken { rejected, retry_after: None },
            Err(error) => Answer::Again { unclear: true, retry_after: None, why: error.to_string() },
        }
    }
}

/// The hit as the collector reads it from JSON.
fn as_sent(event: &Sending) -> weir_ingest::Hit<'_> {
    let Sending { hit, id, time_ms } = event;
    let kind = match hit.kind {
        Kind::PageView => "page_view",
        Kind::Outbound => "outbound",
        Kind::AdClick => "ad_click",
        Kind::Download => "download",
        Kind::Custom => "custom",
    };
    weir_ingest::Hit {
        site: Text::from(hit.site.as_str()),
        url: Text::from(hit.url.as_str()),
        referrer: Text::from(hit.referrer.as_str()),
        kind: Text::from(kind),
        name: Text::from(hit.name),
        target: Text::from(hit.target.as_str()),
        time: time_ms.map_or(Time::NotSaid, Time::Ms),
        id: Text::from(id.as_str()),
        title: Text::from(hit.title.as_str()),
        props: Props {
            pairs: hit.props.iter().map(|(name, value)| ((*name).into(), value.as_str().into())).collect(),
            too_many: false,
        },
        screen: Text::from(hit.screen),
        language: Text::from(hit.language),
        ip: Text::from(hit.ip.to_string()),
        user_agent: Text::from(hit.user_agent),
    }
}
