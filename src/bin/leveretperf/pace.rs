//! When each message of a rate-limited publisher falls due. Pure: the caller brings the time.

use crate::clock::SECOND_NS;

/// An even schedule shared by all publishers: message `k` of publisher `i` of `n` is the `(k * n + i)`-th of the
/// run, so the whole run is evenly spaced and not only each publisher.
pub(crate) struct Pace {
    start_ns: u64,
    per_second: u64,
    publisher: u64,
    publishers: u64,
    sent: u64,
    blocked_until_ns: u64,
}

impl Pace {
    /// `per_second` is the rate of all publishers together, at least 1.
    pub(crate) fn new(start_ns: u64, per_second: u64, publisher: u64, publishers: u64) -> Self {
        Self {
            start_ns,
            per_second,
            publisher,
            publishers,
            sent: 0,
            blocked_until_ns: 0,
        }
    }

    /// When the `ahead`-th message from now falls due (0 is the next one).
    pub(crate) fn due_ns(&self, ahead: u64) -> u64 {
        let nth = u128::from(self.sent + ahead) * u128::from(self.publishers) + u128::from(self.publisher);
        let after_ns = nth * u128::from(SECOND_NS) / u128::from(self.per_second);
        self.start_ns
            .saturating_add(u64::try_from(after_ns).unwrap_or(u64::MAX))
    }

    /// How many messages are due at `now_ns` and not sent yet.
    pub(crate) fn due_count(&self, now_ns: u64) -> u64 {
        let Some(elapsed_ns) = now_ns.checked_sub(self.start_ns) else {
            return 0;
        };
        // The last message of the whole run that is due, then how many of those up to it are this publisher's.
        let last = u128::from(elapsed_ns + 1) * u128::from(self.per_second);
        let due_in_run = last.div_ceil(u128::from(SECOND_NS));
        let mine = due_in_run
            .saturating_sub(u128::from(self.publisher))
            .div_ceil(u128::from(self.publishers));
        u64::try_from(mine).unwrap_or(u64::MAX).saturating_sub(self.sent)
    }

    /// The time a message's latency is counted from: the moment it is written, unless it fell due while the
    /// publisher was blocked by the broker (a full socket, a full confirm window). Then it is the moment it fell
    /// due, so that a stalled broker cannot hide the messages it kept waiting. A late wake-up of our own sleep is
    /// not the broker's.
    pub(crate) fn stamp_ns(&self, ahead: u64, now_ns: u64) -> u64 {
        let due_ns = self.due_ns(ahead);
        if due_ns < self.blocked_until_ns {
            due_ns.min(now_ns)
        } else {
            now_ns
        }
    }

    pub(crate) fn sent(&mut self, count: u64) {
        self.sent += count;
    }

    /// The publisher could not write between its last writing and `now_ns`.
    pub(crate) fn unblocked(&mut self, now_ns: u64) {
        self.blocked_until_ns = now_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_NS: u64 = 5_000_000_000_000;

    #[test]
    fn the_first_message_is_due_at_once_and_the_next_one_interval_later() {
        let mut pace = Pace::new(START_NS, 1_000, 0, 1);
        assert_eq!(pace.due_count(START_NS - 1), 0);
        assert_eq!(pace.due_count(START_NS), 1);
        pace.sent(1);
        assert_eq!(pace.due_ns(0), START_NS + 1_000_000);
        assert_eq!(pace.due_count(START_NS + 999_999), 0);
        assert_eq!(pace.due_count(START_NS + 1_000_000), 1);
    }

    #[test]
    fn count_and_time_agree_at_every_message_for_awkward_rates() {
        for (per_second, publishers) in [(1, 1), (3, 2), (7, 3), (1_000, 7), (10_000, 1), (999_983, 4)] {
            for publisher in 0..publishers {
                let mut pace = Pace::new(START_NS, per_second, publisher, publishers);
                for message in 0..200 {
                    let due_ns = pace.due_ns(0);
                    assert_eq!(pace.due_count(due_ns), 1, "{per_second}/s {publisher} {message}");
                    if due_ns > START_NS {
                        assert_eq!(
                            pace.due_count(due_ns - 1),
                            0,
                            "{per_second}/s {publisher} {message}"
                        );
                    }
                    pace.sent(1);
                }
            }
        }
    }

    #[test]
    fn publishers_take_turns_evenly() {
        let mut due: Vec<u64> = (0..4)
            .flat_map(|publisher| {
                let pace = Pace::new(START_NS, 1_000, publisher, 4);
                (0..5).map(move |ahead| pace.due_ns(ahead)).collect::<Vec<_>>()
            })
            .collect();
        due.sort_unstable();
        let expected: Vec<u64> = (0..20).map(|nth| START_NS + nth * 1_000_000).collect();
        assert_eq!(due, expected);
    }

    #[test]
    fn a_missed_stretch_is_caught_up_in_full() {
        let mut pace = Pace::new(START_NS, 1_000, 0, 1);
        pace.sent(1);
        assert_eq!(pace.due_count(START_NS + 500 * 1_000_000), 500);
        pace.sent(500);
        assert_eq!(pace.due_count(START_NS + 500 * 1_000_000), 0);
    }

    #[test]
    fn latency_counts_from_due_time_only_for_what_the_broker_blocked() {
        let mut pace = Pace::new(START_NS, 1_000, 0, 1);
        pace.sent(1);
        let late_ns = START_NS + 3_500_000;
        assert_eq!(
            pace.stamp_ns(0, late_ns),
            late_ns,
            "our own oversleeping is not counted"
        );
        pace.unblocked(START_NS + 2_500_000);
        assert_eq!(pace.stamp_ns(0, late_ns), START_NS + 1_000_000);
        assert_eq!(pace.stamp_ns(1, late_ns), START_NS + 2_000_000);
        assert_eq!(pace.stamp_ns(2, late_ns), late_ns, "due after the block ended");
    }
}
