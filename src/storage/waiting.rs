//! Whoever waits for the group being built: publishers for confirms, others for their `Done`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::broker::confirm::{ConfirmSink, ConfirmToken};
use crate::storage::{Done, StoreFailure};

/// So many sinks are few: the committer writes to their sockets itself.
const FEW: usize = 8;

/// Collected while a group is built, told once it is durable.
#[derive(Default)]
pub(super) struct Waiting {
    sinks: Vec<SinkTags>,
    /// Place in `sinks` by the sink's address.
    places: HashMap<usize, usize, ahash::RandomState>,
    last: Option<(usize, usize)>,
    dones: Vec<Done>,
    confirms: u64,
    /// Emptied lists, used again.
    spare: Vec<Vec<u64>>,
}

struct SinkTags {
    sink: Arc<dyn ConfirmSink>,
    tags: Vec<u64>,
}

impl Waiting {
    pub(super) fn confirm(&mut self, token: ConfirmToken) {
        self.confirms += 1;
        let address = Arc::as_ptr(&token.sink).cast::<()>().addr();
        let place = match self.last {
            // A channel's publishes mostly come in a row.
            Some((last, place)) if last == address => place,
            _ => *self.places.entry(address).or_insert_with(|| {
                self.sinks.push(SinkTags {
                    sink: token.sink,
                    tags: self.spare.pop().unwrap_or_default(),
                });
                self.sinks.len() - 1
            }),
        };
        self.last = Some((address, place));
        if let Some(sink) = self.sinks.get_mut(place) {
            sink.tags.push(token.tag);
        }
    }

    pub(super) fn done(&mut self, done: Option<Done>) {
        self.dones.extend(done);
    }

    pub(super) fn has_dones(&self) -> bool {
        !self.dones.is_empty()
    }

    /// Publishes awaiting their confirm.
    pub(super) fn confirms(&self) -> u64 {
        self.confirms
    }

    /// Parties that wait.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.confirms)
            .unwrap_or(usize::MAX)
            .saturating_add(self.dones.len())
    }

    /// The group is durable: tells everybody, in tag order as logged. With `idle` nobody waits for the next group: then a
    /// write to a few sockets holds nobody up, and is sooner done than a task is woken.
    pub(super) fn stored(&mut self, idle: bool) {
        let few = idle && self.sinks.len() <= FEW;
        for SinkTags { sink, tags } in &self.sinks {
            if few {
                sink.stored_among_few(tags);
            } else {
                sink.stored(tags);
            }
        }
        for SinkTags { sink, mut tags } in self.sinks.drain(..) {
            if !few {
                sink.wake();
            }
            tags.clear();
            self.spare.push(tags);
        }
        for done in self.dones.drain(..) {
            done(Ok(()));
        }
        self.forget();
    }

    /// The group will never be durable: no confirm is sent, and who waits otherwise is told so.
    pub(super) fn failed(&mut self, failure: StoreFailure) {
        self.sinks.clear();
        for done in self.dones.drain(..) {
            done(Err(failure));
        }
        self.forget();
    }

    fn forget(&mut self) {
        self.places.clear();
        self.last = None;
        self.confirms = 0;
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Sink(Mutex<Vec<Vec<u64>>>);

    impl ConfirmSink for Sink {
        fn stored(&self, tags: &[u64]) {
            self.0.lock().push(tags.to_vec());
        }
    }

    #[test]
    fn each_sink_is_told_once_in_its_order() {
        let sinks = [Arc::new(Sink::default()), Arc::new(Sink::default())];
        let mut waiting = Waiting::default();
        for (sink, tag) in [(0, 1), (1, 1), (0, 2), (0, 3), (1, 2)] {
            waiting.confirm(ConfirmToken {
                sink: sinks[sink].clone(),
                tag,
            });
        }
        assert_eq!(waiting.len(), 5);
        waiting.stored(true);
        assert_eq!(*sinks[0].0.lock(), [[1, 2, 3]]);
        assert_eq!(*sinks[1].0.lock(), [[1, 2]]);
        waiting.confirm(ConfirmToken {
            sink: sinks[1].clone(),
            tag: 3,
        });
        waiting.failed(StoreFailure::Failed);
        waiting.stored(true);
        assert_eq!(sinks[1].0.lock().len(), 1);
    }
}
