//! What waits to be written to one connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::protocol::message::Message;
use crate::wire::{self, Frame};

use super::shares::Share;

/// The most frames that wait for one connection.
const FRAMES_MAX: usize = 65_536;

/// The most bytes that wait for one connection, those that are being written among them.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// A buffer that had to hold more than this is not kept for what comes next.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// How long what nobody waits for may wait for something that somebody does.
const LINGER: Duration = Duration::from_millis(10);

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
    /// Whether something is there that somebody waits for.
    urgent: bool,
    /// When the writer takes also what nobody waits for.
    due: Option<Instant>,
    closed: bool,
}

/// What is queued. A message is encoded where it stands; it is too large to be moved about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outgoing<'a> {
    /// A message of the protocol.
    Message(&'a Message),
    /// Any other frame.
    Frame(&'a Frame),
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
    pub(super) fn push(&self, what: Outgoing<'_>) -> Result<(), Full> {
        let mut state = self.lock();
        if state.closed {
            return Ok(());
        }
        let before = state.bytes.len();
        let encoded = match what {
            Outgoing::Message(message) => wire::encode_message(message, &mut state.bytes),
            Outgoing::Frame(frame) => wire::encode(frame, &mut state.bytes),
        };
        if let Err(error) = encoded {
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
        let may_linger = may_linger(what);
        let is_news = match may_linger {
            true => state.due.is_none() && !state.urgent,
            false => !state.urgent,
        };
        if is_news && may_linger {
            state.due = Some(Instant::now() + LINGER);
        } else if is_news {
            state.urgent = true;
        }
        drop(state);
        if is_news {
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
            let due = {
                let mut state = self.lock();
                // Who asks for more has written what there was.
                self.share.unqueue(std::mem::take(&mut state.taken));
                let is_due = |due: Instant| due <= Instant::now();
                let is_late = state.due.is_some_and(is_due);
                if state.urgent || is_late || (state.closed && !state.bytes.is_empty()) {
                    (state.urgent, state.due) = (false, None);
                    state.frames = 0;
                    state.taken = state.bytes.len();
                    std::mem::swap(bytes, &mut state.bytes);
                    return true;
                }
                if state.closed {
                    return false;
                }
                state.due
            };
            match due {
                // It is due, or something came that is not to wait: it looks again.
                Some(due) => drop(timeout_at(due, ready).await),
                None => ready.await,
            }
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

/// Whether nobody waits for it: `Applied` only lets a replica forget. So it goes with the next vote,
/// and takes no packet, and no turn of the replica, of its own.
fn may_linger(what: Outgoing<'_>) -> bool {
    matches!(what, Outgoing::Message(Message::Applied { .. }))
}

impl Drop for Outbox {
    fn drop(&mut self) {
        // Also if a panic had the lock: this runs while that one unwinds, and a second would end the
        // process.
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.share.unqueue(state.taken + state.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Waker};

    use super::super::shares::QUEUED_BYTES_MAX;
    use super::*;

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
            outbox.push(Outgoing::Frame(&Frame::Lsn(lsn))).unwrap();
        }
        let mut taken = Vec::new();
        assert!(outbox.take(&mut taken).await);
        assert_eq!(frames(&taken), [0, 1, 2].map(Frame::Lsn));
    }

    #[tokio::test]
    async fn what_is_queued_is_written_after_closing_and_nothing_more() {
        let outbox = Outbox::default();
        outbox.push(Outgoing::Frame(&Frame::Lsn(1))).unwrap();
        outbox.close();
        outbox.push(Outgoing::Frame(&Frame::Lsn(2))).unwrap();
        let mut taken = Vec::new();
        assert!(outbox.take(&mut taken).await);
        assert_eq!(frames(&taken), [Frame::Lsn(1)]);
        assert!(!outbox.take(&mut taken).await);
    }

    const ID: &str = "00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef-\
                      a3d89d86d17726f56b7e394b3ddee799";

    /// About half a megabyte on the wire.
    fn long() -> Message {
        Message::Collect {
            generation: 1,
            ids: vec![ID.parse().unwrap(); 10_000],
        }
    }

    fn is_ready(taking: Pin<&mut impl Future>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        taking.poll(&mut context).is_ready()
    }

    fn applied() -> Message {
        let branch = "stock/0000000000000007/00112233445566778899aabbccddeeff".parse();
        Message::Applied {
            id: ID.parse().unwrap(),
            branch: branch.unwrap(),
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_goes_with_the_next_that_somebody_does() {
        let outbox = Outbox::default();
        let mut taken = Vec::new();
        outbox.push(Outgoing::Message(&applied())).unwrap();
        {
            let mut taking = pin!(outbox.take(&mut taken));
            assert!(!is_ready(taking.as_mut()));
            outbox.push(Outgoing::Frame(&Frame::Lsn(1))).unwrap();
            assert!(is_ready(taking.as_mut()));
        }
        assert_eq!(frames(&taken), [Frame::Message(applied()), Frame::Lsn(1)]);
        // What was urgent is no longer.
        outbox.push(Outgoing::Message(&applied())).unwrap();
        assert!(!is_ready(pin!(outbox.take(&mut taken))));
    }

    #[tokio::test]
    async fn or_by_itself_after_a_while_or_at_the_end() {
        let outbox = Outbox::default();
        let mut taken = Vec::new();
        let before = Instant::now();
        outbox.push(Outgoing::Message(&applied())).unwrap();
        outbox.push(Outgoing::Message(&applied())).unwrap();
        assert!(outbox.take(&mut taken).await);
        assert!(before.elapsed() >= LINGER);
        assert_eq!(frames(&taken), [applied(), applied()].map(Frame::Message));
        outbox.push(Outgoing::Message(&applied())).unwrap();
        outbox.close();
        assert!(is_ready(pin!(outbox.take(&mut taken))));
        assert_eq!(frames(&taken), [applied()].map(Frame::Message));
        assert!(!outbox.take(&mut taken).await);
    }

    #[test]
    fn a_panic_that_had_the_lock_is_not_followed_by_one_of_the_drop() {
        let share = Arc::new(Share::default());
        let outbox = Outbox::new(Arc::clone(&share));
        outbox.push(Outgoing::Frame(&Frame::Lsn(1))).unwrap();
        let panicking = || {
            let _state = outbox.lock();
            panic!("as the test wants it");
        };
        let panicked = std::thread::scope(|scope| scope.spawn(panicking).join());
        assert!(panicked.is_err());
        assert!(!share.queue(QUEUED_BYTES_MAX));
        drop(outbox);
        assert!(share.queue(QUEUED_BYTES_MAX), "its bytes are given back");
    }

    #[tokio::test]
    async fn a_full_queue_is_given_up() {
        let outbox = Outbox::default();
        for lsn in 0..FRAMES_MAX as u64 {
            outbox.push(Outgoing::Frame(&Frame::Lsn(lsn))).unwrap();
        }
        assert_eq!(outbox.push(Outgoing::Frame(&Frame::Lsn(0))), Err(Full));
        // The connection is closed by whoever met that; nobody is told twice.
        assert_eq!(outbox.push(Outgoing::Frame(&Frame::Lsn(0))), Ok(()));
    }

    #[tokio::test]
    async fn a_queue_with_long_frames_is_full_earlier() {
        let outbox = Outbox::default();
        let pushed = (0..1_000).take_while(|_| outbox.push(Outgoing::Message(&long())).is_ok());
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
            while outbox.push(Outgoing::Message(&long())).is_ok() && !outbox.lock().closed {}
            assert!(outbox.take(&mut taken).await);
        }
        // Two connections of the name have taken nearly all of its room.
        let fit = (0..)
            .take_while(|_| outboxes[2].push(Outgoing::Message(&long())).is_ok())
            .take(9)
            .count();
        assert!(fit < 3, "{fit}");
        let [one, _, _] = outboxes;
        drop(one);
        assert!(Outbox::new(share).push(Outgoing::Message(&long())).is_ok());
    }
}
