//! The end of a connection: what it held goes back, and both sides say their last words.

use std::time::Duration;

use bytes::BytesMut;
use tokio::net::tcp::OwnedReadHalf;

use super::Connection;
use crate::protocol::method::Method;
use crate::server::{
    farewell::{Farewell, LastWord},
    registry::DeleteIf,
};

/// How long we wait for close-ok when there is no heartbeat to go by.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a client that got its close-ok may take to hang up.
const HANG_UP_WAIT: Duration = Duration::from_secs(1);

impl Connection {
    /// Gives back what the connection held: unacked messages to their queues, exclusive queues to nothing.
    pub(super) fn release(&mut self) {
        self.batch.flush();
        let numbers: Vec<u16> = self.channels.keys().copied().collect();
        for number in numbers {
            self.release_channel(number);
        }
        self.channels.clear();
        debug_assert!(
            !self.share.is_counted(),
            "every channel gave back what it had assembled"
        );
        for queue in self.exclusive.drain(..) {
            if let Err(error) = self.vhost.delete_queue(&queue, DeleteIf::default(), &self.user) {
                tracing::error!(queue = %queue.name(), %error, "an exclusive queue could not be deleted; it is gone after a restart");
            }
        }
    }

    /// How long the last words may take, and who is to hear them.
    fn farewell<'a>(
        &self,
        socket: &'a mut OwnedReadHalf,
        input: &'a mut BytesMut,
    ) -> Farewell<'a, OwnedReadHalf> {
        Farewell {
            socket,
            input,
            frame_max: self.frame_max,
            unframed: self.broker.limits().failure_delay,
        }
    }

    /// After our close-ok: the client hangs up. Should it say close once more, it is answered once more.
    pub(super) async fn await_hanging_up(&mut self, socket: &mut OwnedReadHalf, input: &mut BytesMut) {
        let mut farewell = self.farewell(socket, input);
        let wait = async {
            while let Some(word) = farewell.next().await {
                if word == LastWord::Close {
                    self.outbox.method(0, &Method::ConnectionCloseOk);
                }
            }
        };
        drop(tokio::time::timeout(HANG_UP_WAIT, wait).await);
    }

    /// After our connection.close: input is read over until close-ok, a close, or the end of patience.
    pub(super) async fn await_close_ok(&mut self, socket: &mut OwnedReadHalf, input: &mut BytesMut) {
        let patience = if self.heartbeat.is_zero() {
            CLOSE_WAIT_MAX
        } else {
            self.heartbeat.min(CLOSE_WAIT_MAX)
        };
        let mut farewell = self.farewell(socket, input);
        // Both sides may have closed at once: the client's close is answered, and our own is then done with.
        if let Ok(Some(LastWord::Close)) = tokio::time::timeout(patience, farewell.next()).await {
            self.outbox.method(0, &Method::ConnectionCloseOk);
        }
    }
}
