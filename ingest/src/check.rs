use std::{borrow::Cow, net::IpAddr};

use jiff::Timestamp;
use weir_schemas::{CLAIM_AGE_MAX_MS, Event, FIELD_BYTES_MAX, Kind, UNTRUSTED_CLAIM_AGE_MAX_MS};

use crate::{
    Countries, Hit, Page, Reason, Reject, Salt, Sites,
    hit::{Props, Time},
    page,
    sites::Token,
};

/// Bytes of a property's name: it becomes the name of a dimension.
pub const PROP_NAME_BYTES_MAX: usize = 300;

/// What is known of a request before its hits are looked at.
pub struct Asker<'a> {
    pub received_ms: i64,
    /// Of the day of receipt.
    pub salt: Salt,
    pub address: IpAddr,
    pub user_agent: String,
    /// What the browser likes best; for hits that do not say.
    pub language: &'a str,
    pub token: Token,
}

/// Turns hits of one request into events.
pub struct Checker<'a> {
    pub sites: &'a Sites,
    pub countries: &'a Countries,
    pub asker: Asker<'a>,
    /// Of the asker's own address, looked up once.
    country: Option<String>,
}

impl<'a> Checker<'a> {
    pub fn new(sites: &'a Sites, countries: &'a Countries, asker: Asker<'a>) -> Self {
        Self { sites, countries, asker, country: None }
    }

    /// The event that `hit` is, cut to what may be in the log, or why it is none.
    ///
    /// Control characters are taken out of strings. The visitor's address ends here.
    pub fn check(&mut self, hit: Hit<'_>) -> Result<Event, Reject> {
        let kind = kind(&hit.kind)?;
        let site_name = match &*hit.site {
            "" => self.site_of_url(&hit.url)?,
            name => name,
        };
        let Some(site) = self.sites.get(site_name) else {
            let what = format!("site {site_name:?} is not known here (add it to the configuration)");
            return Err(Reject::new(Reason::UnknownSite, what));
        };
        let page = Page::of_url(&hit.url, |name| site.allows_query(name)).ok_or_else(|| bad_url(&hit.url))?;
        if !site.has_host(&page.host) {
            let what = format!("host {:?} is not one of {site_name:?} (add it to the site's hosts)", page.host);
            return Err(Reject::new(Reason::WrongHost, what));
        }
        let trusted = self.asker.token.is_of(site_name);
        let claimed_ms = self.claimed_ms(&hit.time, trusted)?;
        if !trusted && (!hit.ip.is_empty() || !hit.user_agent.is_empty()) {
            let what = format!("ip and user_agent need the write token of {site_name:?} (Authorization: Bearer …)");
            return Err(Reject::new(Reason::TokenRequired, what));
        }
        if kind == Kind::Custom && hit.name.is_empty() {
            return Err(Reject::new(Reason::MissingName, "a custom event needs a name"));
        }
        // A path is kept as it is written; a URL has none of these any more.
        let target = clean(&page::target(&hit.target)).into_owned();
        if matches!(kind, Kind::Outbound | Kind::Download) && target.is_empty() {
            return Err(Reject::new(Reason::MissingTarget, "an outbound click or a download needs a target, its URL"));
        }
        // A server that speaks for its visitors is not one itself: its own headers say nothing of them.
        let header = |said: &str| said.is_empty() && !trusted;
        let user_agent = if header(&hit.user_agent) { &self.asker.user_agent } else { &*hit.user_agent };
        let user_agent = field("user_agent", user_agent)?;
        let language = field("language", if header(&hit.language) { self.asker.language } else { &hit.language })?;
        let (visitor, country) = self.visitor(site_name, &hit.ip, trusted, &user_agent)?;
        Ok(Event {
            kind,
            received_ms: self.asker.received_ms,
            claimed_ms,
            visitor,
            id: field("id", &hit.id)?,
            host: limited("host", page.host)?,
            page: limited("page", page.page)?,
            query: limited("query", page.query)?,
            referrer: limited("referrer", page::referrer(&hit.referrer))?,
            user_agent,
            country,
            name: field("name", &hit.name)?,
            target: limited("target", target)?,
            title: field("title", &hit.title)?,
            screen: field("screen", &hit.screen)?,
            language,
            props: props(hit.props)?,
            site: site_name.to_owned(),
        })
    }

    fn site_of_url(&self, url: &str) -> Result<&'a str, Reject> {
        let page = Page::of_url(url, |_| false).ok_or_else(|| bad_url(url))?;
        self.sites.of_host(&page.host).ok_or_else(|| {
            let what = format!("no site is named, and none lists host {:?} (send `site`)", page.host);
            Reject::new(Reason::UnknownSite, what)
        })
    }

    /// The time that is claimed, if who claims it may. One in the future is taken: the pipeline bounds it.
    fn claimed_ms(&self, time: &Time<'_>, trusted: bool) -> Result<Option<i64>, Reject> {
        let bad = |shown: &str| {
            let what = format!("time {shown} is neither RFC 3339 nor ms since the Unix epoch");
            Reject::new(Reason::BadTime, what)
        };
        let claimed_ms = match time {
            Time::NotSaid => return Ok(None),
            Time::Ms(ms) => Timestamp::from_millisecond(*ms).map_err(|_| bad(&ms.to_string()))?.as_millisecond(),
            Time::Text(text) => text.parse::<Timestamp>().map_err(|_| bad(&format!("{:?}", &**text)))?.as_millisecond(),
            Time::OutOfRange => return Err(bad("as a number")),
        };
        let age_ms = self.asker.received_ms - claimed_ms;
        if age_ms > CLAIM_AGE_MAX_MS {
            let days = CLAIM_AGE_MAX_MS / 86_400_000;
            let what = format!("time lies over {days} days back (import older hits with `weir import`)");
            return Err(Reject::new(Reason::TooOld, what));
        }
        if age_ms > UNTRUSTED_CLAIM_AGE_MAX_MS && !trusted {
            return Err(Reject::new(Reason::TooOld, "a time over 24 h back needs the site's write token"));
        }
        Ok(Some(claimed_ms))
    }

    /// Hash and country; unknown where a server speaks for a visitor without saying whose address it is.
    fn visitor(&mut self, site: &str, ip: &str, trusted: bool, user_agent: &str) -> Result<(u64, String), Reject> {
        let address = match ip {
            "" if trusted => return Ok((0, String::new())),
            "" => self.asker.address,
            ip => {
                let address = ip.parse::<IpAddr>();
                let address = address.map_err(|_| Reject::new(Reason::BadIp, format!("{ip:?} is no IP address")))?;
                let address = address.to_canonical();
                return Ok((self.asker.salt.visitor(site, address, user_agent), self.countries.country(address)));
            }
        };
        let country = self.country.get_or_insert_with(|| self.countries.country(address)).clone();
        Ok((self.asker.salt.visitor(site, address, user_agent), country))
    }
}

fn bad_url(url: &str) -> Reject {
    let what = match url {
        "" => "url is missing (send the page's whole URL)".to_owned(),
        // Without its query, which may hold a secret.
        url => format!("url {:?} is no http(s) URL", url.split(['?', '#']).next().unwrap_or_default()),
    };
    Reject::new(Reason::BadUrl, what)
}

fn kind(name: &str) -> Result<Kind, Reject> {
    match name {
        "" | "page_view" => Ok(Kind::PageView),
        "outbound" => Ok(Kind::Outbound),
        "ad_click" => Ok(Kind::AdClick),
        "download" => Ok(Kind::Download),
        "custom" => Ok(Kind::Custom),
        other => {
            let what = format!("no kind {other:?} (page_view, outbound, ad_click, download, custom)");
            Err(Reject::new(Reason::BadKind, what))
        }
    }
}

fn props(props: Props<'_>) -> Result<Vec<(String, String)>, Reject> {
    if props.too_many {
        let what = format!("more than {} properties", weir_schemas::PROPS_MAX);
        return Err(Reject::new(Reason::TooManyProps, what));
    }
    let pairs = props.pairs.into_iter().filter(|(name, _)| !name.is_empty());
    let pairs = pairs.map(|(name, value)| {
        if name.len() > PROP_NAME_BYTES_MAX {
            let what = format!("a property's name has {} bytes (at most {PROP_NAME_BYTES_MAX})", name.len());
            return Err(Reject::new(Reason::FieldTooLong, what));
        }
        Ok((clean(&name).into_owned(), field(&name, &value)?))
    });
    let mut pairs: Vec<(String, String)> = pairs.collect::<Result<_, _>>()?;
    // Names that differed by control characters alone are now the same.
    let mut at = 0;
    while at < pairs.len() {
        let doubled = pairs[..at].iter().any(|earlier| earlier.0 == pairs[at].0) || pairs[at].0.is_empty();
        if doubled {
            pairs.remove(at);
        } else {
            at += 1;
        }
    }
    Ok(pairs)
}

/// The field without control characters, if it is within its limit.
fn field(name: &str, text: &str) -> Result<String, Reject> {
    limited(name, clean(text).into_owned())
}

fn limited(name: &str, text: String) -> Result<String, Reject> {
    if text.len() <= FIELD_BYTES_MAX {
        return Ok(text);
    }
    let what = format!("{name} has {} bytes (at most {FIELD_BYTES_MAX})", text.len());
    Err(Reject::new(Reason::FieldTooLong, what))
}

fn clean(text: &str) -> Cow<'_, str> {
    // 0xc2 begins the control characters beyond ASCII, among others. Without an early end the loop is done 16 at a time.
    let suspect = text.bytes().fold(false, |suspect, byte| suspect | (byte < b' ') | (byte == 0x7f) | (byte == 0xc2));
    if !suspect {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|c| !c.is_control()).collect())
}
