//! The last moments of a socket. Closing one that holds unread input resets it, and the peer might never see our last
//! words: so it is read over for a while first (client-expectations 14).

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::protocol::{
    frame,
    method::{Method, MethodId},
};

/// Reads and forgets until the peer closes or the time is over.
pub(super) async fn drain(socket: &mut (impl AsyncRead + Unpin), at_most: Duration) {
    let mut sink = [0; 4096];
    let read_all = async { while let Ok(1..) = socket.read(&mut sink).await {} };
    // Elapsed or not, we are done with this peer.
    drop(tokio::time::timeout(at_most, read_all).await);
}

/// What a peer may still say that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastWord {
    Close,
    CloseOk,
}

/// A peer whose every frame is read over, but for closes and their answers on channel 0.
pub(super) struct Farewell<'a, Socket> {
    pub(super) socket: &'a mut Socket,
    pub(super) input: &'a mut BytesMut,
    pub(super) frame_max: u32,
    /// How long one that broke the framing may go on talking: it is not understood any more.
    pub(super) unframed: Duration,
}

impl<Socket: AsyncRead + Unpin> Farewell<'_, Socket> {
    /// The next last word, or `None` when the socket ended. The caller bounds the time; memory is bounded by one frame.
    pub(super) async fn next(&mut self) -> Option<LastWord> {
        loop {
            match frame::parse(self.input, self.frame_max) {
                Ok(Some(frame)) => {
                    let len = frame.wire_len();
                    let on_connection = frame.kind == frame::METHOD && frame.channel == 0;
                    let word = on_connection.then(|| last_word(frame.payload)).flatten();
                    self.input.advance(len);
                    match word {
                        Some(word) => return Some(word),
                        None => continue,
                    }
                }
                Ok(None) => {}
                // What broke the framing is still in front: only the end of the socket can follow.
                Err(_) => {
                    drain(self.socket, self.unframed).await;
                    return None;
                }
            }
            self.input.reserve(4096);
            match self.socket.read_buf(self.input).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// A close is answered whatever its fields are worth.
fn last_word(payload: &[u8]) -> Option<LastWord> {
    match MethodId::split(payload) {
        Ok((MethodId::CONNECTION_CLOSE, _)) => Some(LastWord::Close),
        Ok(_) => {
            matches!(Method::decode(payload), Ok(Method::ConnectionCloseOk)).then_some(LastWord::CloseOk)
        }
        Err(_) => None,
    }
}
