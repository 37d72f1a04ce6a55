//! How the list of settled commits becomes shorter: by the log alone.

use crate::protocol::types::{CommitId, Entry, LIST_MAX};

use super::{Control, Rest};

impl Control {
    /// The leader proposes to take off the list what all branches have applied, as far as it has
    /// heard them since its start. (One that has not heard them tells them to commit once more.)
    pub(super) fn unlist_applied(&mut self, rest: &mut Rest<'_>) {
        self.unlist_patience = self.unlist_patience.saturating_sub(1);
        if self.unlist_patience > 0 || !self.is_free() {
            return;
        }
        let applied = rest.commit.listed_and_applied(&self.generations);
        let ids: Vec<CommitId> = applied.copied().take(LIST_MAX).collect();
        if !ids.is_empty() {
            self.unlist_patience = rest.config.collect_ticks.max(1);
            self.propose(Entry::Unlist { ids }, rest);
        }
    }
}
