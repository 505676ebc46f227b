//! A line that counts becomes an event: by the same rules as a hit over HTTP.

use std::net::{IpAddr, Ipv6Addr};

use hashbrown::HashMap;
use weir_ingest::{Countries, Page, Salt, Site, referrer};
use weir_schemas::{Event, FIELD_BYTES_MAX, Kind, rules::Rules};
use xxhash_rust::xxh3::xxh3_128;

use crate::line::{Line, Malformed, Request, unescape};

/// What is the same for all lines of an import.
pub(crate) struct Subject<'a> {
    pub(crate) site: &'a str,
    /// Of the site's pages; empty where nobody said.
    pub(crate) host: &'a str,
    pub(crate) known: &'a Site,
    pub(crate) rules: &'static Rules,
    /// `None`: events have no country.
    pub(crate) countries: Option<&'a Countries>,
    /// Made for this import and thrown away after: without it no visitor's number can be tried out.
    pub(crate) key: [u8; 32],
}

/// Turns lines into events, without their site and their time. What repeats (pages, referrers, user agents, addresses)
/// is worked out once and remembered, in bounded memory.
pub(crate) struct Maker<'a> {
    subject: Subject<'a>,
    salts: HashMap<i64, Salt>,
    pages: Memory<Result<Page, Malformed>>,
    referrers: Memory<Result<String, Malformed>>,
    agents: Memory<Result<Agent, Malformed>>,
    countries: Memory<String>,
}

struct Agent {
    user_agent: String,
    bot: bool,
}

/// An event, borrowed. Empty strings are absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made<'a> {
    pub(crate) kind: Kind,
    pub(crate) bot: bool,
    pub(crate) visitor: u64,
    /// Host, page, query, referrer, user agent, country. A file that is downloaded is in the place of the page.
    pub(crate) texts: [&'a str; 6],
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

impl<'a> Maker<'a> {
    pub(crate) fn new(subject: Subject<'a>) -> Self {
        Self {
            subject,
            salts: HashMap::new(),
            pages: Memory::default(),
            referrers: Memory::default(),
            agents: Memory::default(),
            countries: Memory::default(),
        }
    }

    /// The event that `line` is, a hit of `kind`; [`Malformed`] where the collector would have refused it.
    pub(crate) fn make(&mut self, line: &Line, request: &Request, kind: Kind) -> Result<Made<'_>, Malformed> {
        let subject = &self.subject;
        let page = self.pages.get(request.target, |raw| cut_page(raw, subject)).as_ref().map_err(|error| *error)?;
        let (raw_referrer, raw_agent) =
            line.browser.map_or((&b""[..], &b""[..]), |browser| (browser.referrer, browser.user_agent));
        let referrer =
            self.referrers.get(raw_referrer, |raw| limited(referrer(&text(raw)))).as_ref().map_err(|error| *error)?;
        let agent =
            self.agents.get(raw_agent, |raw| read_agent(raw, subject.rules)).as_ref().map_err(|error| *error)?;
        let address = read_address(line.address);
        let country = match (address, subject.countries) {
            (Some(address), Some(countries)) => self.countries.get(line.address, |_| countries.country(address)),
            _ => "",
        };
        let visitor = address.map_or(0, |address| {
            let day = line.time_ms.div_euclid(DAY_MS);
            let salt = self.salts.entry(day).or_insert_with(|| salt_of(&subject.key, day));
            salt.visitor(subject.site, address, &agent.user_agent)
        });
        Ok(Made {
            kind,
            bot: agent.bot,
            visitor,
            texts: [&page.host, &page.page, &page.query, referrer, &agent.user_agent, country],
        })
    }
}

impl Made<'_> {
    /// Appends what [`read`] reads.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.visitor.to_le_bytes());
        out.push(self.kind as u8);
        for text in self.texts {
            out.extend_from_slice(&(text.len() as u16).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// Fills `event`, whose site is set already, with what [`Made::write`] wrote.
pub(crate) fn read(mut bytes: &[u8], time_ms: i64, event: &mut Event) {
    let (visitor, rest) = bytes.split_first_chunk::<8>().expect("a visitor");
    event.visitor = u64::from_le_bytes(*visitor);
    event.kind = Kind::from_wire(u32::from(rest[0])).expect("a kind");
    event.received_ms = time_ms;
    bytes = &rest[1..];
    let mut next = |to: &mut String| {
        let (len, rest) = bytes.split_first_chunk::<2>().expect("a length");
        let (text, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)));
        to.clear();
        to.push_str(str::from_utf8(text).expect("it was a string when it was written"));
        bytes = rest;
    };
    next(&mut event.host);
    if event.kind == Kind::Download {
        event.page.clear();
        next(&mut event.target);
    } else {
        event.target.clear();
        next(&mut event.page);
    }
    next(&mut event.query);
    next(&mut event.referrer);
    next(&mut event.user_agent);
    next(&mut event.country);
}

/// What a field says: escapes resolved, invalid UTF-8 replaced, control characters and the `-` of an absent one gone.
fn text(raw: &[u8]) -> String {
    if raw == b"-" {
        return String::new();
    }
    let mut bytes = Vec::with_capacity(raw.len());
    unescape(raw, &mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    if text.chars().any(char::is_control) { text.chars().filter(|c| !c.is_control()).collect() } else { text.into() }
}

fn limited(text: String) -> Result<String, Malformed> {
    if text.len() <= FIELD_BYTES_MAX { Ok(text) } else { Err(Malformed::FieldTooLong) }
}

fn cut_page(raw: &[u8], subject: &Subject) -> Result<Page, Malformed> {
    let raw = text(raw);
    // A request to a proxy names the host itself; a server that knows the site only answers those, too.
    let of_proxy = !raw.starts_with('/');
    let url = if of_proxy {
        raw
    } else {
        format!("http://{}{raw}", if subject.host.is_empty() { "unknown.invalid" } else { subject.host })
    };
    let mut page = Page::of_url(&url, |name| subject.known.allows_query(name)).ok_or(Malformed::BadRequest)?;
    if of_proxy && !subject.known.has_host(&page.host) {
        return Err(Malformed::WrongHost);
    }
    if subject.host.is_empty() && !of_proxy {
        page.host.clear();
    }
    let Page { host, page, query } = page;
    Ok(Page { host: limited(host)?, page: limited(page)?, query: limited(query)? })
}

fn read_agent(raw: &[u8], rules: &Rules) -> Result<Agent, Malformed> {
    let user_agent = limited(text(raw))?;
    let bot = rules.agent(&user_agent).bot;
    Ok(Agent { user_agent, bot })
}

/// A name instead of an address stands for a machine as well: it gets an address of its own, of no country.
fn read_address(raw: &[u8]) -> Option<IpAddr> {
    if raw == b"-" {
        return None;
    }
    let address = str::from_utf8(raw).ok().and_then(|text| text.parse::<IpAddr>().ok());
    Some(address.map_or_else(
        || {
            // 100::/64 is nobody's: packets to it are discarded (RFC 6666).
            let name = xxh3_128(&raw.to_ascii_lowercase()) >> 64;
            IpAddr::V6(Ipv6Addr::from(0x0100 << 112 | name))
        },
        |address| address.to_canonical(),
    ))
}

/// Every day has a salt of its own, so that nobody can be followed over days; all come from the import's key.
fn salt_of(key: &[u8; 32], day: i64) -> Salt {
    let hash = blake3::keyed_hash(key, &day.to_le_bytes());
    Salt::from_bytes(*hash.as_bytes().first_chunk().expect("32 bytes hold 16"))
}

/// Remembers what was worked out for a string; of what it was not asked for lately it forgets, so that it stays small.
///
/// Two generations: what is asked for is in the young one, or moves there; when that is full, the old one goes and the
/// young one is old.
struct Memory<V> {
    young: HashMap<Vec<u8>, V>,
    old: HashMap<Vec<u8>, V>,
    /// Of the young generation.
    bytes: usize,
}

/// Bytes of one generation: 50,000 pages, referrers or user agents of ~160 B. What is worked out takes about as much
/// again as the string itself; four memories of two generations are some 100 MB in the worst case, and a few as a rule.
const GENERATION_BYTES_MAX: usize = 16 << 20;
/// What an entry takes besides its strings.
const ENTRY_BYTES: usize = 160;

impl<V> Default for Memory<V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), bytes: 0 }
    }
}

impl<V> Memory<V> {
    fn get(&mut self, key: &[u8], work_out: impl FnOnce(&[u8]) -> V) -> &V {
        if self.bytes > GENERATION_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        let (old, bytes) = (&mut self.old, &mut self.bytes);
        self.young.entry_ref(key).or_insert_with(|| {
            *bytes += 2 * key.len() + ENTRY_BYTES;
            old.remove(key).unwrap_or_else(|| work_out(key))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_forgets_before_it_grows_too_large_and_is_right_all_the_same() {
        let mut memory = Memory::default();
        let (mut most, mut worked_out) = (0, 0);
        for number in 0..500_000u32 {
            let key = number.to_string();
            assert_eq!(*memory.get(key.as_bytes(), |raw| raw.len()), key.len());
            let again = memory.get(key.as_bytes(), |raw| {
                worked_out += 1;
                raw.len()
            });
            assert_eq!(*again, key.len());
            most = most.max(memory.young.len() + memory.old.len());
        }
        assert_eq!(worked_out, 0, "what it was asked a moment ago it still knows");
        assert!((1_000..=2 * GENERATION_BYTES_MAX / ENTRY_BYTES + 2).contains(&most), "{most}");
    }

    #[test]
    fn a_visitor_needs_the_imports_key_and_its_day() {
        assert_ne!(salt_of(&[1; 32], 7).as_bytes(), salt_of(&[1; 32], 8).as_bytes());
        assert_ne!(salt_of(&[1; 32], 7).as_bytes(), salt_of(&[2; 32], 7).as_bytes());
        assert_eq!(salt_of(&[1; 32], 7).as_bytes(), salt_of(&[1; 32], 7).as_bytes());
    }

    #[test]
    fn a_name_stands_for_one_machine_whatever_its_case() {
        let address = |raw: &str| read_address(raw.as_bytes());
        assert_eq!(address("Host.Example.org"), address("host.example.org"));
        assert_ne!(address("host.example.org"), address("other.example.org"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_eq!(address("-"), None);
    }
}
