//! When a body's frames must wait: for memory that other bodies take (`server/intake.rs`), or for the end of an alarm.

use super::{Connection, End, Next, Orders};
use crate::protocol::{
    frame::Frame,
    method::{Method, MethodId},
    reply_code::ReplyCode,
};
use crate::server::{
    admission::Control,
    close::{Close, Fault},
    intake::Room,
};

impl Connection {
    /// What to do with a frame of a message while an alarm is on: `None` is to go on. Who has part of a large body in
    /// memory may finish it in its turn, for otherwise such parts alone could keep the alarm on for ever.
    #[cold]
    pub(super) fn held_back(&mut self) -> Option<Next> {
        let raised = self.broker.alarms().raised();
        if raised.disk || !self.share.is_counted() {
            self.share.end_turn();
            return Some(Next::Blocked);
        }
        (!self.share.has_turn()).then_some(Next::NoRoom {
            octets: 0,
            needs_turn: true,
        })
    }

    /// Counts a body frame before it is taken; what it says when there is no room for it.
    pub(super) fn count_body(&mut self, frame: &Frame<'_>) -> Option<Result<Next, Fault>> {
        let channel = self.channels.get(&frame.channel)?;
        // Faults are found later, by those who know what to say.
        if channel.is_closing() || !channel.assembler.takes_body() {
            return None;
        }
        let octets = frame.payload.len();
        match self.share.add(octets, self.broker.message_bytes_max()) {
            Room::Yes => None,
            Room::NotYet => Some(Ok(Next::NoRoom {
                octets,
                needs_turn: false,
            })),
            Room::Never => Some(Err(Fault::connection(
                ReplyCode::ResourceError,
                "too many bodies are sent at once, on different channels, for the memory limit",
                MethodId::BASIC_PUBLISH,
            ))),
        }
    }

    /// Waits in line without reading; deliveries, confirms and heartbeats still go out. `Some` when the connection ended
    /// meanwhile.
    pub(super) async fn wait_in_line(
        &mut self,
        (octets, needs_turn): (usize, bool),
        orders: &mut Orders,
        control: &Control,
    ) -> Result<Option<End>, Close> {
        let mut place = self.share.queue_up(octets, needs_turn);
        let tell = needs_turn && self.blocked_notify;
        if tell {
            let reason = self.broker.alarms().raised().reason().to_owned();
            self.outbox.method(0, &Method::ConnectionBlocked { reason });
        }
        loop {
            tokio::select! {
                granted = place.leave() => {
                    self.share.accept(granted);
                    break;
                }
                () = self.outbox.gone() => {
                    return Ok(Some(End::Dropped("the client's socket takes no more data".to_owned())));
                }
                told = control.told() => self.obey(told)?,
                close = orders.close() => return Err(close),
            }
        }
        if tell {
            self.outbox.method(0, &Method::ConnectionUnblocked);
        }
        Ok(None)
    }
}
