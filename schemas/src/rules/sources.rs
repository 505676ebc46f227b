use std::collections::HashMap;

use rustc_hash::FxHashMap;
use serde::Deserialize;

/// The sites and click ids of a rules version, ready to look up.
#[derive(Debug)]
pub(super) struct Sources {
    sites: Vec<Site>,
    /// `facebook.com` → its site.
    by_host: FxHashMap<String, usize>,
    /// `google` (of `google.*`) → its site.
    by_host_without_end: FxHashMap<String, usize>,
    /// Lower-case names and tags → their site.
    by_tag: FxHashMap<String, usize>,
    by_click_id: FxHashMap<String, ClickId>,
    /// What `utm_medium` says of a link in an assistant's answer, lower case; empty in version 1.
    pub(super) ai_medium: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SiteKind {
    Search,
    Social,
    Email,
    Video,
    /// An AI assistant; version 1 has none.
    Ai,
    Other,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Site {
    pub(super) name: String,
    pub(super) kind: SiteKind,
    hosts: Vec<String>,
    #[serde(default)]
    pub(super) tags: Vec<String>,
    /// Query parameters that hold the search term.
    #[serde(default)]
    pub(super) term: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClickId {
    param: String,
    pub(super) source: String,
    pub(super) channel: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    ai_medium: Vec<String>,
    site: Vec<Site>,
    click_id: Vec<ClickId>,
}

impl Sources {
    pub(super) fn read(list: &str) -> Sources {
        let file: File = toml::from_str(list).expect("the list of sources is checked");
        let mut sources = Sources {
            by_host: HashMap::default(),
            by_host_without_end: HashMap::default(),
            by_tag: HashMap::default(),
            by_click_id: file.click_id.into_iter().map(|id| (id.param.clone(), id)).collect(),
            ai_medium: file.ai_medium,
            sites: file.site,
        };
        for (index, site) in sources.sites.iter().enumerate() {
            let name = site.name.to_lowercase();
            sources.by_tag.insert(name.replace(' ', ""), index);
            sources.by_tag.insert(name, index);
            sources.by_tag.extend(site.tags.iter().map(|tag| (tag.clone(), index)));
            for host in &site.hosts {
                let (map, key) = match host.strip_suffix(".*") {
                    Some(key) => (&mut sources.by_host_without_end, key),
                    None => (&mut sources.by_host, host.as_str()),
                };
                let before = map.insert(key.to_owned(), index);
                assert!(before.is_none(), "{host} stands twice in the list of sources");
            }
        }
        sources
    }

    /// The site that `host` (lower case) belongs to: the longest entry that it is, or ends in.
    pub(super) fn site(&self, host: &str) -> Option<&Site> {
        let host = host.strip_prefix("www.").unwrap_or(host);
        let mut rest = host;
        loop {
            let found = self.by_host.get(rest).or_else(|| self.by_host_without_end.get(without_end(rest)?));
            if let Some(&index) = found {
                return Some(&self.sites[index]);
            }
            rest = rest.split_once('.')?.1;
        }
    }

    /// The site that a `utm_source` or `ref` names: by its name, a tag or its host.
    pub(super) fn site_tagged(&self, tag: &str) -> Option<&Site> {
        let tag = tag.to_lowercase();
        match self.by_tag.get(&tag) {
            Some(&index) => Some(&self.sites[index]),
            None if tag.contains('.') => self.site(&tag),
            None => None,
        }
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> &[Site] {
        &self.sites
    }

    pub(super) fn click_id(&self, param: &str) -> Option<&ClickId> {
        self.by_click_id.get(param)
    }
}

/// `google.co.uk` → `google`, `mail.google.de` → `mail.google`; `None` if nothing is left.
fn without_end(host: &str) -> Option<&str> {
    const SECOND_LEVEL: [&str; 9] = ["co", "com", "org", "net", "ac", "gov", "edu", "or", "ne"];
    let (front, _end) = host.rsplit_once('.')?;
    match front.rsplit_once('.') {
        Some((name, second)) if SECOND_LEVEL.contains(&second) => Some(name),
        _ => Some(front),
    }
}
