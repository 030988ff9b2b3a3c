//! The body of a page that is sent while it is written. A thread of the pool writes; it waits for the reader, and gives up
//! one that takes nothing for too long.

use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use flate2::{Compression, write::GzEncoder};
use hyper::body::Frame;
use tokio::{
    runtime::Handle as Runtime,
    sync::{
        mpsc,
        mpsc::error::{SendError, TrySendError},
    },
};

use super::page::Taker;

/// Pieces between writer and reader.
const PIECES: usize = 4;
/// A reader that takes no piece for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);

enum Piece {
    Bytes(Bytes),
    /// The page is complete. Without it the reader must not think so.
    End,
}

/// A body that a thread of the pool writes.
pub(super) fn body(gzip: bool, write: impl FnOnce(&mut dyn Taker) + Send + 'static) -> Body {
    let (sender, receiver) = mpsc::channel(PIECES);
    let pipe = Pipe {
        sender,
        runtime: Runtime::current(),
    };
    tokio::task::spawn_blocking(move || {
        if gzip {
            let mut encoder = GzEncoder::new(pipe, Compression::fast());
            write(&mut Compressed(&mut encoder));
            if let Ok(pipe) = encoder.finish() {
                pipe.end();
            }
        } else {
            let mut pipe = pipe;
            write(&mut pipe);
            pipe.end();
        }
    });
    Body::new(Stream {
        receiver,
        ended: false,
    })
}

/// The writer's end.
struct Pipe {
    sender: mpsc::Sender<Piece>,
    runtime: Runtime,
}

impl Pipe {
    fn send(&self, piece: Piece) -> bool {
        let piece = match self.sender.try_send(piece) {
            Ok(()) => return true,
            Err(TrySendError::Full(piece)) => piece,
            Err(TrySendError::Closed(_)) => return false,
        };
        let sending = tokio::time::timeout(PATIENCE, self.sender.send(piece));
        let sent: Result<Result<(), SendError<Piece>>, _> = self.runtime.block_on(sending);
        matches!(sent, Ok(Ok(())))
    }

    fn end(&self) {
        self.send(Piece::End);
    }
}

impl Taker for Pipe {
    fn take(&mut self, piece: String) -> bool {
        self.send(Piece::Bytes(Bytes::from(piece)))
    }
}

/// What the compressor gives.
impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() && !self.send(Piece::Bytes(Bytes::copy_from_slice(bytes))) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Compressed<'a>(&'a mut GzEncoder<Pipe>);

impl Taker for Compressed<'_> {
    fn take(&mut self, piece: String) -> bool {
        self.0.write_all(piece.as_bytes()).is_ok()
    }
}

/// The reader's end.
struct Stream {
    receiver: mpsc::Receiver<Piece>,
    ended: bool,
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(self.receiver.poll_recv(context));
        Poll::Ready(match piece {
            Some(Piece::Bytes(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Piece::End) => {
                self.ended = true;
                None
            }
            None => {
                self.ended = true;
                Some(Err(io::ErrorKind::UnexpectedEof.into()))
            }
        })
    }
}
