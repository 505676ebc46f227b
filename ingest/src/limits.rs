use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    num::NonZeroU32,
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::keyed::DashMapStateStore,
};

use crate::config::{LimitsConfig, RateLimit};

/// How many events are taken from an address and for a site.
///
/// Memory: a key lives while its allowance is not full again, at most `burst / per_second` seconds after its last
/// event, and until the next [`forget_idle`](Self::forget_idle).
pub struct Limits<C: Clock = DefaultClock> {
    addresses: Option<Keyed<C>>,
    sites: Option<Keyed<C>>,
    hasher: RandomState,
    clock: C,
}

type Keyed<C> = RateLimiter<u64, DashMapStateStore<u64>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// What was let through, and after how long the rest may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// The first so many.
    pub events: usize,
    /// `None` if all were let through.
    pub retry_after: Option<Duration>,
}

impl Limits {
    pub fn new(config: &LimitsConfig) -> Self {
        Self::with_clock(config, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Limits<C> {
    fn with_clock(config: &LimitsConfig, clock: C) -> Self {
        let keyed = |rate: RateLimit| {
            let quota = Quota::per_second(NonZeroU32::new(rate.per_second)?).allow_burst(rate.burst);
            Some(RateLimiter::new(quota, DashMapStateStore::default(), clock.clone()))
        };
        Self { addresses: keyed(config.address), sites: keyed(config.site), hasher: RandomState::new(), clock }
    }

    /// Takes `events` from the allowance of `address`: an IPv4 address, or an IPv6 /64, which is one household's.
    pub fn admit_address(&self, address: IpAddr, events: usize) -> Admitted {
        let key = match address {
            IpAddr::V4(v4) => self.hasher.hash_one((4, u64::from(v4.to_bits()))),
            IpAddr::V6(v6) => self.hasher.hash_one((6, (v6.to_bits() >> 64) as u64)),
        };
        self.admit(&self.addresses, key, events)
    }

    /// Takes `events` from the allowance of `site`.
    pub fn admit_site(&self, site: &str, events: usize) -> Admitted {
        self.admit(&self.sites, self.hasher.hash_one(site), events)
    }

    fn admit(&self, keyed: &Option<Keyed<C>>, key: u64, events: usize) -> Admitted {
        let all = Admitted { events, retry_after: None };
        let (Some(keyed), Some(count)) = (keyed, NonZeroU32::new(events.try_into().unwrap_or(u32::MAX))) else {
            return all;
        };
        if let Ok(Ok(())) = keyed.check_key_n(&key, count) {
            return all;
        }
        for admitted in 0..events {
            if let Err(not_until) = keyed.check_key(&key) {
                return Admitted { events: admitted, retry_after: Some(not_until.wait_time_from(self.clock.now())) };
            }
        }
        all
    }

    /// Forgets who has its full allowance again.
    pub fn forget_idle(&self) {
        for keyed in [&self.addresses, &self.sites].into_iter().flatten() {
            keyed.retain_recent();
            keyed.shrink_to_fit();
        }
    }

    /// Addresses and sites that are remembered.
    pub fn keys(&self) -> usize {
        [&self.addresses, &self.sites].into_iter().flatten().map(RateLimiter::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limits(per_second: u32, burst: u32) -> (Limits<FakeRelativeClock>, FakeRelativeClock) {
        let rate = RateLimit { per_second, burst: NonZeroU32::new(burst).unwrap() };
        let clock = FakeRelativeClock::default();
        let config = LimitsConfig { address: rate, site: rate, ..LimitsConfig::default() };
        (Limits::with_clock(&config, clock.clone()), clock)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_goes_through_and_the_rest_waits() {
        let (limits, clock) = limits(1, 3);
        let one = Some(Duration::from_secs(1));
        assert_eq!(limits.admit_site("a", 5), Admitted { events: 3, retry_after: one });
        assert_eq!(limits.admit_site("a", 1), Admitted { events: 0, retry_after: one });
        assert_eq!(limits.admit_site("b", 3), Admitted { events: 3, retry_after: None });
        clock.advance(Duration::from_secs(2));
        assert_eq!(limits.admit_site("a", 3).events, 2);
    }

    #[test]
    fn an_ipv6_household_is_one_address_and_ipv4_addresses_are_many() {
        let (limits, _) = limits(1, 1);
        assert_eq!(limits.admit_address(address("2001:db8::1"), 1).events, 1);
        assert_eq!(limits.admit_address(address("2001:db8::ffff:1"), 1).events, 0);
        assert_eq!(limits.admit_address(address("2001:db8:0:1::1"), 1).events, 1);
        assert_eq!(limits.admit_address(address("192.0.2.1"), 1).events, 1);
        assert_eq!(limits.admit_address(address("192.0.2.2"), 1).events, 1);
    }

    #[test]
    fn who_has_its_allowance_back_is_forgotten() {
        let (limits, clock) = limits(10, 10);
        for n in 0..1_000u32 {
            limits.admit_address(IpAddr::V4(n.into()), 1);
        }
        limits.forget_idle();
        assert_eq!(limits.keys(), 1_000);
        clock.advance(Duration::from_secs(2));
        limits.forget_idle();
        assert_eq!(limits.keys(), 0);
    }

    #[test]
    fn a_rate_of_0_is_no_limit() {
        let (limits, _) = limits(0, 1);
        assert_eq!(limits.admit_site("a", 1_000_000), Admitted { events: 1_000_000, retry_after: None });
        assert_eq!(limits.keys(), 0);
    }
}
