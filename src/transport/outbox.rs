//! What waits to be written to one connection.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::protocol::message::Message;
use crate::protocol::types::Entry;
use crate::wire::{Answer, Frame, Query};

use super::shares::Share;

/// The most frames that wait for one connection.
const FRAMES_MAX: usize = 65_536;

/// About how many bytes wait for one connection at most.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// About how many bytes a frame takes in memory, requests and lists aside.
const FRAME_BYTES: usize = 256;

/// A bounded queue with one reader, the connection's writer. When it is full the connection is
/// given up: everything unacknowledged is sent again on the next one.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    ready: Notify,
    /// That of the peer's name.
    share: Arc<Share>,
}

#[derive(Debug, Default)]
struct State {
    frames: Vec<Frame>,
    bytes: usize,
    /// The bytes that the writer took last, and may still hold.
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
    pub(super) fn push(&self, frame: Frame) -> Result<(), Full> {
        let mut state = self.lock();
        if state.closed {
            return Ok(());
        }
        let bytes = FRAME_BYTES + more_bytes(&frame);
        let full = state.frames.len() >= FRAMES_MAX
            || state.taken + state.bytes + bytes > BYTES_MAX
            || !self.share.queue(bytes);
        if full {
            state.closed = true;
            drop(state);
            self.ready.notify_one();
            return Err(Full);
        }
        state.bytes += bytes;
        state.frames.push(frame);
        let first = state.frames.len() == 1;
        drop(state);
        if first {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Takes everything that is queued, into an empty `frames`; waits for something. False when
    /// closed and empty.
    pub(super) async fn take(&self, frames: &mut Vec<Frame>) -> bool {
        loop {
            let ready = self.ready.notified();
            {
                let mut state = self.lock();
                // Who asks for more has written what there was.
                self.share.unqueue(state.taken);
                state.taken = 0;
                if !state.frames.is_empty() {
                    state.taken = std::mem::take(&mut state.bytes);
                    std::mem::swap(frames, &mut state.frames);
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
        self.share.unqueue(state.taken + state.bytes);
    }
}

/// About how many bytes one item of a list takes: an id and a roster, for most.
const ITEM_BYTES: usize = 256;

/// What a frame holds beyond the usual: requests, which can be long, and lists, which can have some
/// hundred items.
fn more_bytes(frame: &Frame) -> usize {
    match frame {
        Frame::Message(message) => more_bytes_of(message),
        Frame::Answer(Answer::List(listing)) => listing.transactions.len() * ITEM_BYTES,
        Frame::Answer(Answer::Status(report)) => report.participants.len() * ITEM_BYTES,
        Frame::Hello(_) | Frame::Welcome(_) | Frame::Refused(_) | Frame::Lsn(_) => 0,
        Frame::Answer(Answer::Refusals(refusals)) => refusals.len() * ITEM_BYTES,
        Frame::Query(Query::Status | Query::List { .. } | Query::Refusals) => 0,
    }
}

fn more_bytes_of(message: &Message) -> usize {
    let items = match message {
        Message::BeginCommit(begin) => {
            let requests = begin.requests.iter().flatten();
            return requests.map(|request| request.0.len()).sum();
        }
        Message::Prepare(prepare) => {
            let request = prepare.request.as_ref();
            return request.map_or(0, |request| request.0.len());
        }
        Message::Phase1a { ids, .. }
        | Message::Frozen { ids, .. }
        | Message::Collect { ids, .. } => ids.len(),
        Message::Phase1b { reports, .. } => reports.len(),
        Message::Phase2a { proposals, .. } => proposals.len(),
        Message::Nack { refused, .. } => refused.len(),
        Message::Collected { records, .. } => records.len(),
        Message::State { listed, .. } => listed.len(),
        Message::Status { instances, .. } => instances.len(),
        Message::Resolved { sessions, .. } => sessions.len(),
        Message::Log(log) => match log.entry() {
            Some(Entry::Settle(settle)) => settle.unfinished.len(),
            Some(Entry::Open(_) | Entry::Release { .. }) | None => 0,
        },
        Message::Rollback { .. }
        | Message::Ask(_)
        | Message::Inquire { .. }
        | Message::Resolve { .. }
        | Message::ForceAbort { .. }
        | Message::LetGo { .. }
        | Message::Vote(_)
        | Message::Applied { .. }
        | Message::Phase2b { .. }
        | Message::Decided(_)
        | Message::Finish { .. }
        | Message::Undecided(_)
        | Message::Busy { .. }
        | Message::Announce(_)
        | Message::NotOpen { .. }
        | Message::Expired { .. }
        | Message::Forgotten { .. }
        | Message::Freeze { .. }
        | Message::Fetch { .. }
        | Message::Reconfigure { .. }
        | Message::Release { .. }
        | Message::Declined(_) => 0,
    };
    items * ITEM_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_out_in_order_and_all_at_once() {
        let outbox = Outbox::default();
        for lsn in 0..3 {
            outbox.push(Frame::Lsn(lsn)).unwrap();
        }
        let mut frames = Vec::new();
        assert!(outbox.take(&mut frames).await);
        assert_eq!(frames, [0, 1, 2].map(Frame::Lsn));
    }

    #[tokio::test]
    async fn what_is_queued_is_written_after_closing_and_nothing_more() {
        let outbox = Outbox::default();
        outbox.push(Frame::Lsn(1)).unwrap();
        outbox.close();
        outbox.push(Frame::Lsn(2)).unwrap();
        let mut frames = Vec::new();
        assert!(outbox.take(&mut frames).await);
        assert_eq!(frames, [Frame::Lsn(1)]);
        frames.clear();
        assert!(!outbox.take(&mut frames).await);
    }

    #[tokio::test]
    async fn a_full_queue_is_given_up() {
        let outbox = Outbox::default();
        for lsn in 0..FRAMES_MAX as u64 {
            outbox.push(Frame::Lsn(lsn)).unwrap();
        }
        assert_eq!(outbox.push(Frame::Lsn(0)), Err(Full));
        // The connection is closed by whoever met that; nobody is told twice.
        assert_eq!(outbox.push(Frame::Lsn(0)), Ok(()));
    }

    #[tokio::test]
    async fn what_the_writer_holds_counts_until_it_asks_for_more() {
        let share = Arc::new(Share::default());
        let outboxes = [0, 1, 2].map(|_| Outbox::new(share.clone()));
        let long = || {
            Frame::Message(Message::Collect {
                generation: 1,
                ids: vec![
                    "00000001-00c0ffee00c0ffee-0000002a-b86e3c1ce93979aa48bd5f9222a2016b"
                        .parse()
                        .unwrap();
                    100_000
                ],
            })
        };
        let mut frames = Vec::new();
        for outbox in &outboxes[..2] {
            while outbox.push(long()).is_ok() && !outbox.lock().closed {}
            assert!(outbox.take(&mut frames).await);
            frames.clear();
        }
        // Two connections of the name have taken nearly all of its room.
        let fit = (0..)
            .take_while(|_| outboxes[2].push(long()).is_ok())
            .take(9)
            .count();
        assert!(fit < 3, "{fit}");
        let [one, _, _] = outboxes;
        drop(one);
        assert!(Outbox::new(share).push(long()).is_ok());
    }

    #[test]
    fn requests_and_lists_count_by_their_length() {
        use crate::protocol::types::{CommitId, Generations};
        let id: CommitId = "00000001-00c0ffee00c0ffee-0000002a-b86e3c1ce93979aa48bd5f9222a2016b"
            .parse()
            .unwrap();
        let long = Frame::Message(Message::Frozen {
            generation: 1,
            after: None,
            ids: vec![id; 256],
            more: true,
        });
        let outbox = Outbox::default();
        let pushed = (0..FRAMES_MAX).take_while(|_| outbox.push(long.clone()).is_ok());
        let pushed = pushed.count();
        // 1,020 of 64 KiB and a bit.
        assert!((500..2_000).contains(&pushed), "{pushed}");
        let short = Frame::Message(Message::Announce(Generations::default()));
        assert_eq!(more_bytes(&short), 0);
    }
}
