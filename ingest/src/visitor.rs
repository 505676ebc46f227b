use std::{
    hash::Hasher,
    net::{IpAddr, Ipv6Addr},
};

use siphasher::sip::SipHasher24;

/// The secret of one UTC day (or of one import), under which visitors are hashed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 16]);

impl Salt {
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// One that nobody can guess.
    pub fn random() -> Self {
        Self(rand::random())
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The visitor with this address and user agent on this site: SipHash-2-4 of the three, each with its length, keyed
    /// with the salt. Never 0, which stands for "unknown".
    ///
    /// The same person on two sites, or on two days, is two visitors: nobody can be followed.
    pub fn visitor(&self, site: &str, address: IpAddr, user_agent: &str) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write_usize(site.len());
        hasher.write(site.as_bytes());
        let address: Ipv6Addr = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        hasher.write(&address.octets());
        hasher.write(user_agent.as_bytes());
        hasher.finish().max(1)
    }
}

/// Says nothing of the secret.
impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_is_one_per_salt_site_address_and_user_agent() {
        let salt = Salt::from_bytes([7; 16]);
        let address = "192.0.2.1".parse().unwrap();
        let visitor = salt.visitor("a", address, "Firefox");
        assert_eq!(visitor, salt.visitor("a", address, "Firefox"));
        assert_eq!(visitor, salt.visitor("a", "::ffff:192.0.2.1".parse().unwrap(), "Firefox"));
        assert_ne!(visitor, salt.visitor("b", address, "Firefox"));
        assert_ne!(visitor, salt.visitor("a", "192.0.2.2".parse().unwrap(), "Firefox"));
        assert_ne!(visitor, salt.visitor("a", address, "Firefox/2"));
        assert_ne!(visitor, Salt::from_bytes([8; 16]).visitor("a", address, "Firefox"));
        assert_ne!(visitor, 0);
    }

    #[test]
    fn a_salt_does_not_show_itself() {
        assert_eq!(format!("{:?}", Salt::from_bytes([7; 16])), "Salt(…)");
        assert_ne!(Salt::random(), Salt::random());
    }
}
