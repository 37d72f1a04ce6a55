//! The list: settled commits that some branch may not have applied.
//!
//! The list after each slot of the log is the same everywhere: a Settle puts commits on it, and only
//! `Unlist` and `Release` take them off. Participants delete their markers by it.

use std::ops::Bound;

use crate::protocol::effects::Effects;
use crate::protocol::message::{ListPage, Message};
use crate::protocol::types::{Branch, BranchSet, CommitId, Entry, LIST_MAX, Peer};

use super::admitting::Cost;
use super::asking::may_finish;
use super::forgetting::expire;
use super::instance::{Dispute, Instance};
use super::{Record, Rejection, Replica, ReplicaNotice};

impl Replica {
    /// The settled commits that wait for a branch, or for the entry that takes them off the list,
    /// oldest first. Those whose participant is gone for good stay until an operator releases them.
    pub fn listed(&self) -> impl Iterator<Item = &CommitId> + '_ {
        let settled = |id: &&CommitId| self.generations.is_settled(id);
        self.instances.keys().take_while(settled)
    }

    /// The leader proposes to take off the list what all branches have applied, as far as it has
    /// heard them since its start. (One that has not heard them tells them to commit once more.)
    pub(super) fn unlist_applied(&mut self, out: &mut Effects<Self>) {
        self.unlist_patience = self.unlist_patience.saturating_sub(1);
        let is_free = self.log.as_ref().is_some_and(|log| log.is_free());
        if self.unlist_patience > 0 || !is_free {
            return;
        }
        let settled = |id: &CommitId| self.generations.is_settled(id);
        let listed = self.instances.iter().take_while(|(id, _)| settled(id));
        let applied = listed.filter(|(_, instance)| instance.is_applied());
        let ids: Vec<CommitId> = applied.map(|(id, _)| *id).take(LIST_MAX).collect();
        if !ids.is_empty() {
            self.unlist_patience = self.config.collect_ticks.max(1);
            self.propose(Entry::Unlist { ids }, out);
        }
    }

    /// These commits wait for nothing any more.
    pub(super) fn unlist(&mut self, ids: &[CommitId], out: &mut Effects<Self>) {
        for id in ids {
            if !self.generations.is_settled(id) {
                continue;
            }
            if let Some(instance) = self.instances.remove(id) {
                self.places.free(&instance.place, Cost::Nothing);
                for waiter in instance.waiters {
                    expire(&waiter, *id, out);
                }
            }
        }
    }

    /// A commit that is listed, and that all branches have applied as this replica knows.
    pub(super) fn note_all_applied(&mut self, id: CommitId) {
        if let Some(instance) = self.instances.get_mut(&id)
            && let Some(roster) = &instance.roster
        {
            instance.applied = roster.all();
        }
        self.charge(id);
    }

    /// A commit that is listed, and that is aborted here: a branch of the roster said different
    /// things to different replicas. The commit stands, and its other branches are told so.
    pub(super) fn note_dispute(
        &mut self,
        id: CommitId,
        against: Option<Branch>,
        out: &mut Effects<Self>,
    ) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.dispute = Dispute::Aborted;
            out.save.push(Record::Disputed { id });
        }
        out.notify
            .push(ReplicaNotice::Contradiction { id, against });
    }

    /// A branch that was told to commit a disputed commit had rolled back. It waits for nothing.
    pub(super) fn on_contradicted(
        &mut self,
        from: &Branch,
        id: CommitId,
        branch: &Branch,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        let instance = self.instances.get(&id);
        let is_news = instance.is_some_and(|instance| {
            let index = instance.index_of(branch);
            let is_open = index.is_some_and(|index| !instance.applied.contains(index));
            instance.dispute == Dispute::Aborted && is_open
        });
        if is_news {
            let against = Some(branch.clone());
            out.notify
                .push(ReplicaNotice::Contradiction { id, against });
        }
        self.on_applied(from, id, branch, out)
    }

    /// The store of a branch has no proof that it committed it. That ends only when the commit is
    /// off the list: the list knows that the branch was committed, or an operator has answered for
    /// it.
    pub(super) fn on_unproven(
        &mut self,
        from: &Branch,
        id: CommitId,
        branch: &Branch,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        if !may_finish(from, branch) {
            return Err(Rejection::NotInRoster);
        }
        match self.instances.get_mut(&id) {
            Some(instance) => {
                let index = instance.index_of(branch).ok_or(Rejection::NotInRoster)?;
                instance.unproven = instance.unproven.union(BranchSet::of(index));
                // Another replica told it to commit, and knows of no dispute.
                if instance.dispute == Dispute::Aborted {
                    let (to, branch) = (Peer::Session(from.clone()), branch.clone());
                    out.send(to, Message::Disputed { id, branch });
                }
            }
            None if self.generations.is_settled(&id) => {
                let branch = Some(branch.clone());
                out.send(Peer::Session(from.clone()), Message::Expired { id, branch });
            }
            None => {}
        }
        Ok(())
    }

    /// Which commits may the store of this session still be told to apply? One page. A replica whose
    /// log has not come to `through` does not answer: it does not know yet what will be listed.
    pub(super) fn on_list(
        &mut self,
        from: &Branch,
        through: CommitId,
        after: Option<CommitId>,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        // A page after the end: no correct session asks for it.
        if after.is_some_and(|after| after > through) {
            return Err(Rejection::DoesNotFollow);
        }
        if !self.generations.is_settled(&through) {
            return Ok(());
        }
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = self.config.list_max();
        let range = self.instances.range((start, Bound::Included(through)));
        let mut listed = Vec::new();
        let mut last = None;
        for (id, instance) in range.take(page) {
            last = Some(*id);
            let own = instance.to_tell().into_iter();
            let own = own.filter(|branch| may_finish(from, branch));
            listed.extend(own.map(|branch| (*id, branch)));
        }
        let is_more = |last: &CommitId| {
            let rest = (Bound::Excluded(*last), Bound::Included(through));
            self.instances.range(rest).next().is_some()
        };
        let listing = Box::new(ListPage {
            through,
            after,
            listed,
            next: last.filter(is_more),
        });
        out.send(Peer::Session(from.clone()), Message::ListPage(listing));
        Ok(())
    }
}

impl Instance {
    /// The branches that a listed commit may be told to: all but those that voted `ReadOnly`.
    fn to_tell(&self) -> Vec<Branch> {
        let unapplied = self.to_apply();
        unapplied.map_or(Vec::new(), |of| {
            let told = of.roster.all().minus(of.read_only);
            of.roster.select(told).cloned().collect()
        })
    }

    /// The branches that have neither applied the commit nor said that they have no proof of it.
    pub(super) fn to_prove(&self) -> Vec<Branch> {
        let Some(roster) = &self.roster else {
            return Vec::new();
        };
        let done = self.applied.union(self.read_only()).union(self.unproven);
        roster.select(roster.all().minus(done)).cloned().collect()
    }
}
