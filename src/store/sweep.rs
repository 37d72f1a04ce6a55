//! Removes what is settled, a little at a time.

use std::collections::VecDeque;
use std::ops::Bound;

use fjall::{Keyspace, UserKey};

use crate::protocol::types::CommitId;

use super::layout::{self, Tag};

/// How many keys are read at once: some hundred microseconds' worth.
const AHEAD: usize = 512;

/// Goes through the keys of settled transactions once, in order.
pub(super) struct Sweep {
    /// The horizon: everything up to it is dead.
    through: Option<CommitId>,
    /// The last key read. Before it there are only tombstones, perhaps millions: to pass over them
    /// takes seconds, for which no save can wait. So it is saved with the removals, for the next
    /// start.
    after: Vec<u8>,
    /// Keys read and not removed yet.
    ahead: VecDeque<UserKey>,
    /// Whether nothing up to the horizon is left to read.
    is_through: bool,
}

impl Sweep {
    /// Everything behind the last key removed, and up to the horizon, may be there.
    pub(super) fn new(through: Option<CommitId>, swept: Option<Vec<u8>>) -> Self {
        Sweep {
            through,
            after: swept.unwrap_or_else(|| layout::key(Tag::Transaction)),
            ahead: VecDeque::new(),
            is_through: through.is_none(),
        }
    }

    /// The horizon has moved, and nothing up to it is written any more.
    pub(super) fn move_to(&mut self, through: Option<CommitId>) {
        if self.through < through {
            self.through = through;
            self.is_through = false;
        }
    }

    /// The next keys to remove, at most `max`; none if all are.
    pub(super) fn next(&mut self, records: &Keyspace, max: usize) -> fjall::Result<Vec<UserKey>> {
        if self.ahead.is_empty() {
            self.read(records)?;
        }
        let count = self.ahead.len().min(max);
        Ok(self.ahead.drain(..count).collect())
    }

    fn read(&mut self, records: &Keyspace) -> fjall::Result<()> {
        let Some(through) = self.through.filter(|_| !self.is_through) else {
            return Ok(());
        };
        let end = layout::key_after(through);
        let range = (
            Bound::Excluded(self.after.as_slice()),
            Bound::Excluded(end.as_slice()),
        );
        for guard in records.range::<&[u8], _>(range).take(AHEAD) {
            self.ahead.push_back(guard.key()?);
        }
        self.is_through = self.ahead.len() < AHEAD;
        if let Some(last) = self.ahead.back() {
            self.after = last.to_vec();
        }
        Ok(())
    }
}
