//! A publisher's messages awaiting confirm. Pure: the caller brings the time and the tags.

use std::collections::VecDeque;

use crate::error::PerfError;

/// The window of confirms. Its memory is bounded by how far the oldest unconfirmed message lags behind the newest.
pub(crate) struct Ledger {
    window: u64,
    outstanding: u64,
    /// The publish sequence number `slots[0]` stands for; the first message of a channel is 1.
    oldest: u64,
    /// When each message was sent, or `None` once it is confirmed ahead of an older one.
    slots: VecDeque<Option<u64>>,
}

/// What `settle` needs to know of a basic.ack or basic.nack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Confirm {
    pub(crate) tag: u64,
    pub(crate) multiple: bool,
    /// basic.ack, not basic.nack.
    pub(crate) positive: bool,
}

impl Ledger {
    /// At most `window` messages may be unconfirmed; at least 1.
    pub(crate) fn new(window: u64) -> Self {
        Self {
            window,
            outstanding: 0,
            oldest: 1,
            slots: VecDeque::new(),
        }
    }

    /// How many more messages may be sent now.
    pub(crate) fn room(&self) -> u64 {
        self.window.saturating_sub(self.outstanding)
    }

    pub(crate) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Call before the message is written: its confirm may come while the write still runs.
    pub(crate) fn sent(&mut self, stamp_ns: u64) {
        self.slots.push_back(Some(stamp_ns));
        self.outstanding += 1;
    }

    /// Takes the confirmed messages out and gives the time each was sent to `each`.
    ///
    /// # Errors
    /// A tag that was never sent, or was confirmed before, is the broker's fault: invariant I4.
    pub(crate) fn settle(&mut self, confirm: Confirm, mut each: impl FnMut(u64)) -> Result<u64, PerfError> {
        let newest = self.oldest + self.slots.len() as u64 - 1;
        let unknown = || PerfError::Confirm {
            tag: confirm.tag,
            oldest: self.oldest,
            newest,
        };
        // Tag 0 with multiple means everything so far.
        let tag = if confirm.multiple && confirm.tag == 0 {
            newest
        } else {
            confirm.tag
        };
        if tag < self.oldest || tag > newest {
            return Err(unknown());
        }
        let before = self.outstanding;
        if confirm.multiple {
            while self.oldest <= tag {
                self.oldest += 1;
                if let Some(stamp_ns) = self.slots.pop_front().flatten() {
                    self.outstanding -= 1;
                    each(stamp_ns);
                }
            }
        } else {
            let place = usize::try_from(tag - self.oldest).unwrap_or(usize::MAX);
            let Some(stamp_ns) = self.slots.get_mut(place).and_then(Option::take) else {
                return Err(unknown());
            };
            self.outstanding -= 1;
            each(stamp_ns);
        }
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.oldest += 1;
        }
        Ok(before - self.outstanding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(tag: u64, multiple: bool) -> Confirm {
        Confirm {
            tag,
            multiple,
            positive: true,
        }
    }

    fn settled(ledger: &mut Ledger, confirm: Confirm) -> Vec<u64> {
        let mut stamps = Vec::new();
        let count = ledger
            .settle(confirm, |stamp| stamps.push(stamp))
            .expect("a known tag");
        assert_eq!(count, stamps.len() as u64);
        stamps
    }

    fn ledger_with(window: u64, sent: u64) -> Ledger {
        let mut ledger = Ledger::new(window);
        for tag in 1..=sent {
            ledger.sent(tag * 100);
        }
        ledger
    }

    #[test]
    fn the_window_is_exact() {
        let mut ledger = ledger_with(3, 2);
        assert_eq!(ledger.room(), 1);
        ledger.sent(300);
        assert_eq!(ledger.room(), 0);
        assert_eq!(settled(&mut ledger, ack(2, false)), [200]);
        assert_eq!(
            ledger.room(),
            1,
            "a confirm out of order makes room for exactly one"
        );
        ledger.sent(400);
        assert_eq!(ledger.room(), 0);
        assert_eq!(settled(&mut ledger, ack(3, true)), [100, 300]);
        assert_eq!((ledger.room(), ledger.outstanding()), (2, 1));
    }

    #[test]
    fn multiple_skips_what_was_confirmed_before() {
        let mut ledger = ledger_with(10, 5);
        assert_eq!(settled(&mut ledger, ack(3, false)), [300]);
        assert_eq!(settled(&mut ledger, ack(1, false)), [100]);
        assert_eq!(settled(&mut ledger, ack(4, true)), [200, 400]);
        assert_eq!(settled(&mut ledger, ack(5, false)), [500]);
        assert_eq!(ledger.outstanding(), 0);
    }

    #[test]
    fn tag_zero_with_multiple_is_everything() {
        let mut ledger = ledger_with(10, 3);
        assert_eq!(settled(&mut ledger, ack(0, true)), [100, 200, 300]);
        ledger.sent(400);
        assert_eq!(settled(&mut ledger, ack(4, false)), [400]);
    }

    #[test]
    fn a_tag_confirmed_twice_or_never_sent_is_refused() {
        for (already, wrong) in [
            (None, ack(4, false)),
            (None, ack(4, true)),
            (None, ack(0, false)),
            (Some(ack(2, false)), ack(2, false)),
            (Some(ack(2, true)), ack(1, false)),
            (Some(ack(2, true)), ack(2, true)),
            (Some(ack(3, true)), ack(0, true)),
        ] {
            let mut ledger = ledger_with(10, 3);
            if let Some(confirm) = already {
                settled(&mut ledger, confirm);
            }
            let outcome = ledger.settle(wrong, |_| {});
            assert!(
                matches!(outcome, Err(PerfError::Confirm { .. })),
                "{already:?} then {wrong:?}"
            );
        }
    }
}
