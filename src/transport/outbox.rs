//! What waits to be written to one connection.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::wire::{self, Frame};

use super::shares::Share;

/// The most frames that wait for one connection.
const FRAMES_MAX: usize = 65_536;

/// The most bytes that wait for one connection, those that are being written among them.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// A buffer that had to hold more than this is not kept for what comes next.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// A bounded queue of encoded frames with one reader, the connection's writer. When it is full the
/// connection is given up: everything unacknowledged is sent again on the next one.
///
/// Frames are encoded as they come: their bytes take a quarter of the memory, and the writer hands
/// on all that waits at once.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    ready: Notify,
    /// That of the peer's name.
    share: Arc<Share>,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// How many frames these are.
    frames: usize,
    /// How many bytes the writer took last, and may still hold.
    taken: usize,
    closed: bool,
}

/// The queue is full: its reader does not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Outbox {
    pub(super) fn new(share: Arc<Share>) -> Self {
        Outbox {
            state: Mutex::default(),
            ready: Notify::new(),
            share,
        }
    }

    /// Queues a frame. After [`close`](Self::close) it is dropped.
    pub(super) fn push(&self, frame: &Frame) -> Result<(), Full> {
        let mut state = self.lock();
        if state.closed {
            return Ok(());
        }
        let before = state.bytes.len();
        if let Err(error) = wire::encode(frame, &mut state.bytes) {
            // Cannot be with messages of this program, whose parts have limits.
            tracing::error!(%error, "a frame was not sent");
            return Ok(());
        }
        let after = state.bytes.len();
        let full = state.frames >= FRAMES_MAX
            || state.taken + after > BYTES_MAX
            || !self.share.queue(after - before);
        if full {
            state.bytes.truncate(before);
            state.closed = true;
            drop(state);
            self.ready.notify_one();
            return Err(Full);
        }
        state.frames += 1;
        drop(state);
        if before == 0 {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Takes everything that is queued, instead of what `bytes` holds; waits for something. False
    /// when closed and empty.
    pub(super) async fn take(&self, bytes: &mut Vec<u8>) -> bool {
        bytes.clear();
        if bytes.capacity() > KEPT_BYTES_MAX {
            *bytes = Vec::new();
        }
        loop {
            let ready = self.ready.notified();
            {
                let mut state = self.lock();
                // Who asks for more has written what there was.
                self.share.unqueue(state.taken);
                state.taken = state.bytes.len();
                if state.taken > 0 {
                    state.frames = 0;
                    std::mem::swap(bytes, &mut state.bytes);
                    return true;
                }
                if state.closed {
                    return false;
                }
            }
            ready.await;
        }
    }

    /// What is queued is still written; nothing new is.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nobody panics while holding the lock")
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let state = self.lock();
        self.share.unqueue(state.taken + state.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::Message;

    /// The frames that stand in `bytes`.
    fn frames(mut bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some((frame, length)) = wire::decode(bytes).unwrap() {
            frames.push(frame);
            bytes = &bytes[length..];
        }
        assert!(bytes.is_empty());
        frames
    }

    #[tokio::test]
    async fn frames_come_out_in_order_and_all_at_once() {
        let outbox = Outbox::default();
        for lsn in 0..3 {
            outbox.push(&Frame::Lsn(lsn)).unwrap();
        }
        let mut taken = Vec::new();
        assert!(outbox.take(&mut taken).await);
        assert_eq!(frames(&taken), [0, 1, 2].map(Frame::Lsn));
    }

    #[tokio::test]
    async fn what_is_queued_is_written_after_closing_and_nothing_more() {
        let outbox = Outbox::default();
        outbox.push(&Frame::Lsn(1)).unwrap();
        outbox.close();
        outbox.push(&Frame::Lsn(2)).unwrap();
        let mut taken = Vec::new();
        assert!(outbox.take(&mut taken).await);
        assert_eq!(frames(&taken), [Frame::Lsn(1)]);
        assert!(!outbox.take(&mut taken).await);
    }

    /// About a third of a megabyte on the wire.
    fn long() -> Frame {
        let id = "00000001-00c0ffee00c0ffee-0000002a-b86e3c1ce93979aa48bd5f9222a2016b";
        Frame::Message(Message::Collect {
            generation: 1,
            ids: vec![id.parse().unwrap(); 10_000],
        })
    }

    #[tokio::test]
    async fn a_full_queue_is_given_up() {
        let outbox = Outbox::default();
        for lsn in 0..FRAMES_MAX as u64 {
            outbox.push(&Frame::Lsn(lsn)).unwrap();
        }
        assert_eq!(outbox.push(&Frame::Lsn(0)), Err(Full));
        // The connection is closed by whoever met that; nobody is told twice.
        assert_eq!(outbox.push(&Frame::Lsn(0)), Ok(()));
    }

    #[tokio::test]
    async fn a_queue_with_long_frames_is_full_earlier() {
        let outbox = Outbox::default();
        let pushed = (0..1_000).take_while(|_| outbox.push(&long()).is_ok());
        let pushed = pushed.count();
        assert!((150..250).contains(&pushed), "{pushed}");
        let mut taken = Vec::new();
        assert!(outbox.take(&mut taken).await);
        assert_eq!(frames(&taken).len(), pushed);
    }

    #[tokio::test]
    async fn what_the_writer_holds_counts_until_it_asks_for_more() {
        let share = Arc::new(Share::default());
        let outboxes = [0, 1, 2].map(|_| Outbox::new(share.clone()));
        let mut taken = Vec::new();
        for outbox in &outboxes[..2] {
            while outbox.push(&long()).is_ok() && !outbox.lock().closed {}
            assert!(outbox.take(&mut taken).await);
        }
        // Two connections of the name have taken nearly all of its room.
        let fit = (0..)
            .take_while(|_| outboxes[2].push(&long()).is_ok())
            .take(9)
            .count();
        assert!(fit < 3, "{fit}");
        let [one, _, _] = outboxes;
        drop(one);
        assert!(Outbox::new(share).push(&long()).is_ok());
    }
}
