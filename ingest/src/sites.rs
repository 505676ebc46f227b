use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::config::{IngestConfig, parse_sha256, site_name};

/// The sites a collector knows, ready to be asked for every event.
pub struct Sites {
    sites: Vec<Site>,
    by_name: HashMap<String, usize>,
    by_host: HashMap<String, usize>,
    by_token: HashMap<[u8; 32], Vec<usize>>,
    accept_any: bool,
}

/// What is known of one site. Compiled from a [`crate::SiteConfig`].
#[derive(Debug, Default)]
pub struct Site {
    name: String,
    hosts: Vec<String>,
    allowed_query: Vec<String>,
}

/// The sites that a write token speaks for; without a token: none.
#[derive(Debug, Default, Clone)]
pub struct Token(Vec<String>);

static ANY: Site = Site { name: String::new(), hosts: Vec::new(), allowed_query: Vec::new() };

impl Sites {
    /// `config` must be valid.
    pub fn new(config: &IngestConfig) -> Self {
        let mut all = Self {
            sites: Vec::new(),
            by_name: HashMap::new(),
            by_host: HashMap::new(),
            by_token: HashMap::new(),
            accept_any: config.accept_any_site,
        };
        for (index, site) in config.sites.iter().enumerate() {
            all.by_name.insert(site.name.clone(), index);
            for host in &site.hosts {
                all.by_host.entry(host.clone()).or_insert(index);
            }
            if let Some(hash) = site.write_token_sha256.as_deref().and_then(parse_sha256) {
                all.by_token.entry(hash).or_default().push(index);
            }
            all.sites.push(Site {
                name: site.name.clone(),
                hosts: site.hosts.clone(),
                allowed_query: site.allowed_query.clone(),
            });
        }
        all
    }

    /// The site of this name, which is to be taken as it is written. `None`: its events are not taken.
    pub fn get(&self, name: &str) -> Option<&Site> {
        match self.by_name.get(name) {
            Some(&index) => Some(&self.sites[index]),
            None if self.accept_any && site_name(name).is_ok() => Some(&ANY),
            None => None,
        }
    }

    /// The name of the site that lists `host`, for events that name no site.
    pub fn of_host(&self, host: &str) -> Option<&str> {
        let mut name = host;
        if let Some(&index) = self.by_host.get(name) {
            return Some(&self.sites[index].name);
        }
        while let Some((_, parent)) = name.split_once('.') {
            name = parent;
            if let Some(&index) = self.by_host.get(&format!("*.{name}")) {
                return Some(&self.sites[index].name);
            }
        }
        None
    }

    /// What `token` may write; `None` if it is no site's.
    ///
    /// The token is looked up by its hash, of which a stranger cannot choose the digits, so the look-up tells nothing.
    pub fn token(&self, token: &str) -> Option<Token> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let sites = self.by_token.get(&hash)?;
        Some(Token(sites.iter().map(|&index| self.sites[index].name.clone()).collect()))
    }
}

impl Site {
    /// Whether a page of the site may be at `host`.
    pub fn has_host(&self, host: &str) -> bool {
        self.hosts.is_empty()
            || self.hosts.iter().any(|known| match known.strip_prefix("*.") {
                Some(parent) => host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.')),
                None => known == host,
            })
    }

    /// Whether the query parameter `name` belongs to a page.
    pub fn allows_query(&self, name: &str) -> bool {
        self.allowed_query.iter().any(|allowed| allowed == name)
    }
}

impl Token {
    /// Whether it speaks for `site`.
    pub fn is_of(&self, site: &str) -> bool {
        self.0.iter().any(|name| name == site)
    }

    /// Whether there is one.
    pub fn is_some(&self) -> bool {
        !self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SiteConfig;

    fn sites(accept_any_site: bool) -> Sites {
        let site = |name: &str, hosts: &[&str]| SiteConfig {
            name: name.into(),
            hosts: hosts.iter().map(|&host| host.into()).collect(),
            timezone: "UTC".into(),
            // SHA-256 of "test".
            write_token_sha256: Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into()),
            allowed_query: vec![],
        };
        let config = IngestConfig {
            sites: vec![site("a", &["a.example", "*.a.example"]), site("b", &[])],
            accept_any_site,
            ..IngestConfig::default()
        };
        config.validate().unwrap();
        Sites::new(&config)
    }

    #[test]
    fn a_site_has_the_hosts_it_lists_and_no_other() {
        let sites = sites(false);
        let a = sites.get("a").unwrap();
        assert!(a.has_host("a.example") && a.has_host("x.a.example") && a.has_host("x.y.a.example"));
        assert!(!a.has_host("aa.example") && !a.has_host("xa.example") && !a.has_host("example"));
        assert!(sites.get("b").unwrap().has_host("anything"));
        assert_eq!(sites.of_host("a.example"), Some("a"));
        assert_eq!(sites.of_host("x.y.a.example"), Some("a"));
        assert_eq!(sites.of_host("example"), None);
    }

    #[test]
    fn an_unknown_site_is_taken_only_where_any_is() {
        assert!(sites(false).get("c").is_none());
        assert!(sites(true).get("c").is_some());
        assert!(sites(true).get("").is_none());
        assert!(sites(true).get("c\0").is_none());
        assert!(sites(true).get(&"c".repeat(256)).is_none());
    }

    #[test]
    fn a_token_speaks_for_the_sites_that_hold_its_hash() {
        let sites = sites(true);
        let token = sites.token("test").unwrap();
        assert!(token.is_of("a") && token.is_of("b") && !token.is_of("c") && token.is_some());
        assert!(sites.token("tests").is_none());
        assert!(sites.token("").is_none());
        assert!(!Token::default().is_some());
    }
}
