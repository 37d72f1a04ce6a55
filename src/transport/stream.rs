//! Frames on one QUIC stream.

use std::sync::Arc;

use quinn::{RecvStream, SendStream};
use tokio::sync::OwnedSemaphorePermit;

use crate::wire::{self, Frame, WireError};

use super::outbox::Outbox;
use super::shares::{SHORT_BYTES, Share};
use super::traffic::Traffic;

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

/// Why no more frames come.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The stream or its connection was closed, here or there, or lost.
    #[error("{0}")]
    Closed(String),
    /// What came is no frame.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Reads frames.
pub(super) struct FrameReader {
    stream: RecvStream,
    buffer: Vec<u8>,
    /// Up to here the buffer was decoded.
    taken: usize,
    /// Where room for long frames comes from; without one there are none.
    share: Option<Arc<Share>>,
    /// The room for the one that is being read.
    room: Option<OwnedSemaphorePermit>,
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream) -> Self {
        FrameReader {
            stream,
            buffer: Vec::new(),
            taken: 0,
            share: None,
            room: None,
        }
    }

    /// From now on long frames are read, as far as there is room for them.
    pub(super) fn share(&mut self, share: Arc<Share>) {
        self.share = Some(share);
    }

    /// What was decoded leaves the buffer; after a long frame, its memory goes too. (Else a peer that
    /// begins another frame with one byte would keep it.)
    fn give_back(&mut self) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        if self.buffer.len() < READ_BYTES && self.buffer.capacity() > 2 * READ_BYTES {
            self.buffer.shrink_to(READ_BYTES);
        }
    }

    /// The next frame.
    pub(super) async fn next(&mut self) -> Result<Frame, Ended> {
        self.receive().await.map(|received| received.frame)
    }

    /// The next frame, with what it takes, if it has come already.
    pub(super) fn received(&mut self) -> Result<Option<Received>, Ended> {
        let Some((frame, bytes)) = wire::decode(&self.buffer[self.taken..])? else {
            return Ok(None);
        };
        self.taken += bytes;
        if bytes > SHORT_BYTES {
            self.give_back();
        }
        Ok(Some(Received {
            frame,
            bytes,
            room: self.room.take(),
        }))
    }

    /// The next frame, with what it takes.
    pub(super) async fn receive(&mut self) -> Result<Received, Ended> {
        loop {
            if let Some(received) = self.received()? {
                return Ok(received);
            }
            self.give_back();
            if self.room.is_none()
                && let Some(bytes) = wire::announced(&self.buffer)
            {
                self.room = match &self.share {
                    Some(share) => share.room_for(bytes).await,
                    None if bytes > SHORT_BYTES => {
                        return Err(WireError::TooLong { got: bytes }.into());
                    }
                    None => None,
                };
            }
            let chunk = self.stream.read_chunk(READ_BYTES, true).await;
            match chunk {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err(Ended::Closed("the peer has ended the stream".into())),
                Err(error) => return Err(Ended::Closed(error.to_string())),
            }
        }
    }
}

/// A frame that came.
pub(super) struct Received {
    pub(super) frame: Frame,
    /// How many bytes it had.
    pub(super) bytes: usize,
    /// Its name's room for it, if it is a long one: to be kept as long as the frame waits.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// Writes one frame; for the greeting.
pub(super) async fn write(stream: &mut SendStream, frame: &Frame) -> Result<(), Ended> {
    let mut buffer = Vec::new();
    wire::encode(frame, &mut buffer)?;
    let written = stream.write_all(&buffer).await;
    written.map_err(|error| Ended::Closed(error.to_string()))
}

/// Writes what is queued, as much as there is in one go, until the queue is closed or the
/// connection is. (`write_all` must not be cancelled in the middle; so this is a task of its own.)
pub(super) async fn write_all(outbox: &Outbox, mut stream: SendStream, traffic: &Traffic) {
    let mut bytes = Vec::new();
    while outbox.take(&mut bytes).await {
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
        traffic.count_bytes(bytes.len());
    }
    // What was written last shall arrive before the connection goes.
    let _ = stream.finish();
    let _ = stream.stopped().await;
}
