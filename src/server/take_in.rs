//! Messages that come from another broker's queue into ours as they were there: no exchange routes them again, nobody is
//! asked whether the user id is theirs, and what CC headers or delays once did is not done twice.

use smallvec::SmallVec;

use crate::broker::{
    error::{BrokerError, Resource},
    message::Message,
};
use crate::server::{Handle, OperateError, QueueLook, operate::stored, registry::durable_done};
use crate::storage::{Op, Target};

/// What became of messages that were brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenIn {
    pub taken: u64,
    /// The first that a full queue refused and all behind it, by their number among what was brought, from 0.
    pub refused: Vec<usize>,
}

impl Handle {
    /// Puts messages at the end of a queue, in order. Waits until all of them are durable; a crash before that keeps none.
    /// Not for a task's thread.
    ///
    /// # Errors
    /// When the queue is damaged or the store fails.
    pub fn take_in(&self, queue: &QueueLook, messages: Vec<Message>) -> Result<TakenIn, OperateError> {
        if queue.0.is_damaged() {
            let vhost = queue.0.vhost().map(|vhost| vhost.name.clone());
            let resource = Resource::queue(queue.0.name(), &vhost.unwrap_or_default());
            return Err(BrokerError::Damaged(resource).into());
        }
        let mut outcome = TakenIn::default();
        let mut ops = Vec::with_capacity(messages.len());
        let mut guard = queue.0.lock();
        for (number, message) in messages.into_iter().enumerate() {
            // Nothing overtakes a message that was refused.
            if !outcome.refused.is_empty() || guard.state.is_deleted() || guard.state.refuses(&message) {
                outcome.refused.push(number);
                continue;
            }
            outcome.taken += 1;
            let targets: SmallVec<[Target; 1]> = guard.enqueue(message.clone()).into_iter().collect();
            if !targets.is_empty() {
                ops.push(Op::Publish {
                    message,
                    targets,
                    confirm: None,
                });
            }
        }
        let durable = (!ops.is_empty()).then(|| {
            let (done, durable) = durable_done();
            let done = Some(done);
            self.broker.store().log(&mut vec![Op::Tx { ops, done }]);
            durable
        });
        guard.dispatch();
        drop(guard);
        stored(durable)?;
        Ok(outcome)
    }

    /// Bytes that a message's body may have.
    pub fn message_bytes_max(&self) -> u64 {
        self.broker.message_bytes_max()
    }
}
