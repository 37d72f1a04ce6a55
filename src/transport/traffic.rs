//! How much was sent.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::wire::Sent;

use super::outbox::Outgoing;

/// Counts what a process writes to its connections.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    /// Something is queued.
    pub(super) fn count(&self, what: Outgoing<'_>) {
        if let Outgoing::Message(_) = what {
            self.messages.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So many bytes are written.
    pub(super) fn count_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn sent(&self) -> Sent {
        Sent {
            messages: self.messages.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}
