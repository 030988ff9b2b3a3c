//! A channel's publishes awaiting confirm: every number exactly once, coalesced where the rule allows
//! (amqp-behaviour 5).

use std::collections::VecDeque;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Acked,
    Nacked,
    /// Sent on its own, while something older still waited.
    Told,
}

/// One basic.ack or basic.nack to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirm {
    pub tag: u64,
    pub multiple: bool,
    pub ack: bool,
}

/// One channel's ledger; numbers begin at 1 with the first publish after confirm.select.
pub struct Confirms {
    /// The number of the first entry of `window`.
    base: u64,
    window: VecDeque<State>,
    resolved: bool,
}

impl Default for Confirms {
    fn default() -> Self {
        Self {
            base: 1,
            window: VecDeque::new(),
            resolved: false,
        }
    }
}

impl Confirms {
    /// The number of a publish that has just come.
    pub fn issue(&mut self) -> u64 {
        let tag = self.base + self.window.len() as u64;
        self.window.push_back(State::Waiting);
        tag
    }

    /// Publishes without an answer yet.
    pub fn waiting(&self) -> usize {
        self.window.len()
    }

    /// These publishes are done. Numbers resolved before stay as they are.
    pub fn resolve(&mut self, tags: &[u64], ack: bool) {
        for tag in tags {
            let at = tag.checked_sub(self.base).and_then(|at| usize::try_from(at).ok());
            if let Some(state @ State::Waiting) = at.and_then(|at| self.window.get_mut(at)) {
                *state = if ack { State::Acked } else { State::Nacked };
                self.resolved = true;
            }
        }
    }

    /// What to send now: one `multiple` for each run of like answers at the front, the rest one by one.
    pub fn flush(&mut self, mut send: impl FnMut(Confirm)) {
        if !std::mem::take(&mut self.resolved) {
            return;
        }
        let mut run: Option<(Confirm, u64)> = None;
        while let Some(state) = self
            .window
            .front()
            .copied()
            .filter(|state| *state != State::Waiting)
        {
            let tag = self.base;
            self.window.pop_front();
            self.base += 1;
            if state == State::Told {
                continue;
            }
            let ack = state == State::Acked;
            run = match run {
                Some((open, count)) if open.ack == ack => Some((Confirm { tag, ..open }, count + 1)),
                Some((done, count)) => {
                    send(Confirm {
                        multiple: count > 1,
                        ..done
                    });
                    Some((
                        Confirm {
                            tag,
                            multiple: false,
                            ack,
                        },
                        1,
                    ))
                }
                None => Some((
                    Confirm {
                        tag,
                        multiple: false,
                        ack,
                    },
                    1,
                )),
            };
        }
        if let Some((done, count)) = run {
            send(Confirm {
                multiple: count > 1,
                ..done
            });
        }
        for (tag, state) in (self.base..).zip(&mut self.window) {
            if matches!(state, State::Acked | State::Nacked) {
                send(Confirm {
                    tag,
                    multiple: false,
                    ack: *state == State::Acked,
                });
                *state = State::Told;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flushed(confirms: &mut Confirms) -> Vec<Confirm> {
        let mut sent = Vec::new();
        confirms.flush(|confirm| sent.push(confirm));
        sent
    }

    #[test]
    fn runs_at_the_front_are_sent_as_one() {
        let mut confirms = Confirms::default();
        for expected in 1..=6 {
            assert_eq!(confirms.issue(), expected);
        }
        confirms.resolve(&[1, 2, 3, 5], true);
        assert_eq!(
            flushed(&mut confirms),
            [
                Confirm {
                    tag: 3,
                    multiple: true,
                    ack: true
                },
                Confirm {
                    tag: 5,
                    multiple: false,
                    ack: true
                }
            ]
        );
        confirms.resolve(&[4], false);
        confirms.resolve(&[6], true);
        assert_eq!(
            flushed(&mut confirms),
            [
                Confirm {
                    tag: 4,
                    multiple: false,
                    ack: false
                },
                Confirm {
                    tag: 6,
                    multiple: false,
                    ack: true
                }
            ]
        );
        assert_eq!(flushed(&mut confirms), []);
        assert_eq!(confirms.issue(), 7);
    }

    proptest! {
        /// Every number is told exactly once, with its own answer, whatever the order of resolution.
        #[test]
        fn every_number_once(order in Just((1..=40_u64).collect::<Vec<_>>()).prop_shuffle(),
                             cuts in prop::collection::vec(1..6_usize, 1..40),
                             nacked in prop::collection::vec(any::<bool>(), 41)) {
            let mut confirms = Confirms::default();
            for _ in 1..=40 { confirms.issue(); }
            let mut told = [None; 41];
            let mut rest = &order[..];
            let mut cuts = cuts.into_iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                rest = later;
                for tag in now {
                    confirms.resolve(&[*tag], !nacked[usize::try_from(*tag).unwrap()]);
                }
                for confirm in flushed(&mut confirms) {
                    let first = if confirm.multiple { 1 } else { confirm.tag };
                    for tag in first..=confirm.tag {
                        let place = &mut told[usize::try_from(tag).unwrap()];
                        if confirm.multiple && place.is_some() { continue; }
                        prop_assert_eq!(*place, None, "number {} twice", tag);
                        *place = Some(confirm.ack);
                    }
                }
            }
            for tag in 1..=40 {
                prop_assert_eq!(told[tag], Some(!nacked[tag]), "number {}", tag);
            }
            prop_assert_eq!(confirms.waiting(), 0);
        }
    }
}
