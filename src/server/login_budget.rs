//! How often an address may fail to log in. Beyond that it is cut off without being looked at, so that guessing a
//! password costs days (hostile-input H5).

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Addresses remembered; beyond them the oldest memories give way all at once.
const ADDRESSES_MAX: usize = 16 * 1024;
const MINUTE: Duration = Duration::from_secs(60);

/// Failures by address. A failure is forgiven when a minute divided by the budget has passed.
pub(super) struct LoginBudget {
    per_minute: AtomicU32,
    /// When each address will have been forgiven everything.
    clean_at: Mutex<AHashMap<IpAddr, Instant>>,
}

impl LoginBudget {
    /// 0 is no limit.
    pub(super) fn new(per_minute: u32) -> Self {
        let clean_at = Mutex::default();
        Self {
            per_minute: AtomicU32::new(per_minute),
            clean_at,
        }
    }

    /// Another budget from now on.
    pub(super) fn set(&self, per_minute: u32) {
        self.per_minute.store(per_minute, Ordering::Relaxed);
    }

    /// Whether a login from there is looked at.
    pub(super) fn admits(&self, address: IpAddr, now: Instant) -> bool {
        let Some(penalty) = MINUTE.checked_div(self.per_minute.load(Ordering::Relaxed)) else {
            return true;
        };
        let clean_at = self.clean_at.lock();
        clean_at
            .get(&network(address))
            .is_none_or(|clean| *clean + penalty <= now + MINUTE)
    }

    /// A login from there failed.
    pub(super) fn failed(&self, address: IpAddr, now: Instant) {
        let Some(penalty) = MINUTE.checked_div(self.per_minute.load(Ordering::Relaxed)) else {
            return;
        };
        let mut clean_at = self.clean_at.lock();
        if clean_at.len() >= ADDRESSES_MAX {
            clean_at.retain(|_, clean| *clean > now);
        }
        if clean_at.len() >= ADDRESSES_MAX {
            clean_at.clear();
        }
        let clean = clean_at.entry(network(address)).or_insert(now);
        *clean = (*clean).max(now) + penalty;
    }
}

/// Whom an address belongs to: a host has one IPv4 address, but a whole /64 of IPv6 to come from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ten_failures_use_the_budget_up_and_time_gives_it_back_one_by_one() {
        let (budget, start) = (LoginBudget::new(10), Instant::now());
        let (guesser, neighbour) = (address("10.0.0.1"), address("10.0.0.2"));
        for _ in 0..10 {
            assert!(budget.admits(guesser, start));
            budget.failed(guesser, start);
        }
        assert!(!budget.admits(guesser, start));
        assert!(!budget.admits(address("::ffff:10.0.0.1"), start), "the same host");
        assert!(budget.admits(neighbour, start));
        let later = start + Duration::from_secs(6);
        assert!(budget.admits(guesser, later));
        budget.failed(guesser, later);
        assert!(!budget.admits(guesser, later));
        for _ in 0..10 {
            assert!(budget.admits(guesser, later + MINUTE));
            budget.failed(guesser, later + MINUTE);
        }
        assert!(
            !budget.admits(guesser, later + MINUTE),
            "no more than a full budget is saved up"
        );
    }

    #[test]
    fn a_host_cannot_escape_into_its_ipv6_network() {
        let (budget, now) = (LoginBudget::new(1), Instant::now());
        budget.failed(address("2001:db8::1"), now);
        assert!(!budget.admits(address("2001:db8::2"), now));
        assert!(budget.admits(address("2001:db8:0:1::1"), now));
    }

    #[test]
    fn no_budget_admits_everybody_and_memory_is_bounded() {
        let (unlimited, now) = (LoginBudget::new(0), Instant::now());
        unlimited.failed(address("10.0.0.1"), now);
        assert!(unlimited.admits(address("10.0.0.1"), now));
        let budget = LoginBudget::new(10);
        for host in 0..20_000_u32 {
            budget.failed(IpAddr::V4(host.into()), now);
        }
        assert!(budget.clean_at.lock().len() <= ADDRESSES_MAX);
    }
}
