//! What the settlement of a generation does to its instances: they are frozen and reported, then
//! dropped or listed; and how listed commits come to their end.
//!
//! The list after each slot of the log is the same everywhere: a Settle puts commits on it, and only
//! `Unlist` and `Release` take them off. Participants delete their markers by it.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::protocol::message::{BATCH_MAX, Frozen, ListPage, Message, Report, Unapplied, Waits};
use crate::protocol::types::{Branch, BranchSet, CommitId, Generations, Listed, Outcome, Peer};

use crate::protocol::replica::front::Cost;
use crate::protocol::replica::record::Record;
use crate::protocol::replica::vocabulary::{Out, Rejection, ReplicaNotice};

use super::asking::may_finish;
use super::instance::{Dispute, Instance, Phase, Waiter};
use super::{End, Instances, Turn};

impl Instances {
    /// The transactions of a generation that could become commits, after one of them: a batch, and
    /// whether there are more.
    pub(crate) fn unfinished(
        &self,
        generation: u32,
        after: Option<CommitId>,
    ) -> (Vec<CommitId>, bool) {
        let last = Generations::last_id(generation);
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = self.under_way.range((start, Bound::Included(last)));
        let ids = ids.filter(|(id, instance)| {
            id.txn.generation == generation && instance.may_be_committed()
        });
        let mut ids: Vec<CommitId> = ids.map(|(id, _)| *id).take(BATCH_MAX + 1).collect();
        let more = ids.len() > BATCH_MAX;
        ids.truncate(BATCH_MAX);
        (ids, more)
    }

    /// What is held of a transaction whose generation is frozen.
    pub(crate) fn frozen_record(&self, id: CommitId) -> Frozen {
        let instance = self.under_way.get(&id);
        let decided = match instance.map(|instance| instance.phase) {
            Some(Phase::Committed) => Some((Outcome::Commit, Waits::Some)),
            Some(Phase::Undecided) => None,
            None => self.finished.get(&id).map(|end| (end.outcome, Waits::None)),
        };
        let report = instance.map_or_else(|| Report::nothing(id), |it| it.report(id));
        Frozen { report, decided }
    }

    /// Everything from `before` up to the horizon is settled: drops every record of it that is not
    /// listed, decided or not, and adopts the commits that are.
    pub(crate) fn settle(
        &mut self,
        before: Option<CommitId>,
        listed: &[Listed],
        turn: &mut Turn<'_>,
    ) {
        for Listed { id, unapplied } in listed {
            let known = self.finished.get(id).cloned();
            self.adopt(*id, unapplied, turn);
            match known {
                None => {}
                Some(End {
                    outcome: Outcome::Commit,
                    ..
                }) => self.note_all_applied(*id, turn),
                Some(End {
                    outcome: Outcome::Abort,
                    against,
                }) => self.note_dispute(*id, against, turn.out),
            }
        }
        let Some(horizon) = turn.terms.generations.horizon() else {
            return;
        };
        let kept: BTreeSet<CommitId> = listed.iter().map(|listed| listed.id).collect();
        let start = before.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.under_way.range((start, Bound::Included(horizon)));
        let dropped = range.map(|(id, _)| *id).filter(|id| !kept.contains(id));
        for id in dropped.collect::<Vec<_>>() {
            self.recovery.end(&id);
            if let Some(instance) = self.drop_instance(&id, turn)
                && instance.phase == Phase::Undecided
            {
                self.undecided -= 1;
            }
        }
        // The horizon is the end of a generation, or an id that is listed.
        self.finished = self.finished.split_off(&horizon);
        self.finished.remove(&horizon);
    }

    /// A settled commit that waits for a branch, whether it was known here or not.
    fn adopt(&mut self, id: CommitId, unapplied: &Unapplied, turn: &mut Turn<'_>) {
        let patience = turn.terms.config.push_ticks;
        let instance = self.instance(id, patience);
        instance.take(unapplied);
        instance.tell_waiters(id, Outcome::Commit, turn.out);
        if instance.phase == Phase::Undecided {
            instance.phase = Phase::Committed;
            instance.patience = patience;
            instance.attempts = 0;
            self.undecided -= 1;
            self.recovery.end(&id);
        }
        self.charge(id, turn);
    }

    /// A commit that is listed, and that all branches have applied as this replica knows.
    fn note_all_applied(&mut self, id: CommitId, turn: &mut Turn<'_>) {
        if let Some(instance) = self.under_way.get_mut(&id)
            && let Some(roster) = &instance.roster
        {
            instance.applied = roster.all();
        }
        self.charge(id, turn);
    }

    /// A commit that is listed, and that is aborted here: a branch of the roster said different
    /// things to different replicas. The commit stands, and its other branches are told so.
    fn note_dispute(&mut self, id: CommitId, against: Option<Branch>, out: &mut Out) {
        if let Some(instance) = self.under_way.get_mut(&id) {
            instance.dispute = Dispute::Aborted;
            out.save.push(Record::Disputed { id });
        }
        out.notify
            .push(ReplicaNotice::Contradiction { id, against });
    }

    /// These commits are off the list: they wait for nothing any more.
    pub(crate) fn unlist(&mut self, ids: &[CommitId], turn: &mut Turn<'_>) {
        let terms = turn.terms;
        for id in ids.iter().filter(|id| terms.is_settled(id)) {
            self.drop_instance(id, turn);
        }
    }

    /// Drops an instance that is settled and not listed, and tells the peers that waited for it.
    fn drop_instance(&mut self, id: &CommitId, turn: &mut Turn<'_>) -> Option<Instance> {
        let mut instance = self.under_way.remove(id)?;
        turn.front.places_mut().free(&instance.place, Cost::Nothing);
        for waiter in std::mem::take(&mut instance.waiters) {
            expire(&waiter, *id, turn.out);
        }
        Some(instance)
    }

    /// The settled commits that wait for a branch, or for the entry that takes them off the list,
    /// oldest first.
    pub(crate) fn listed<'i>(
        &'i self,
        generations: &'i Generations,
    ) -> impl Iterator<Item = &'i CommitId> + 'i {
        let settled = |id: &&CommitId| generations.is_settled(id);
        self.under_way.keys().take_while(settled)
    }

    /// The same after one of them, each with whom to tell.
    pub(crate) fn listed_after<'i>(
        &'i self,
        after: Option<CommitId>,
        generations: &'i Generations,
    ) -> impl Iterator<Item = Listed> + 'i {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let settled = self.under_way.range((start, Bound::Unbounded));
        let settled = settled.take_while(|(id, _)| generations.is_settled(id));
        settled.filter_map(|(id, instance)| {
            let unapplied = instance.to_apply()?;
            Some(Listed { id: *id, unapplied })
        })
    }

    /// The listed commits that all branches have applied, as far as they have told this replica since
    /// its start.
    pub(crate) fn listed_and_applied<'i>(
        &'i self,
        generations: &'i Generations,
    ) -> impl Iterator<Item = &'i CommitId> + 'i {
        let listed = self.under_way.iter();
        let listed = listed.take_while(|(id, _)| generations.is_settled(id));
        let applied = listed.filter(|(_, instance)| instance.is_applied());
        applied.map(|(id, _)| id)
    }

    /// The branches of a listed commit that may still prove that they have it; none if it is not
    /// listed.
    pub(crate) fn to_prove(&self, id: &CommitId, generations: &Generations) -> Option<Vec<Branch>> {
        let listed = self.under_way.get(id);
        let listed = listed.filter(|_| generations.is_settled(id))?;
        Some(listed.to_prove())
    }

    /// A branch that was told to commit a disputed commit had rolled back. It waits for nothing.
    pub(crate) fn on_contradicted(
        &mut self,
        from: &Branch,
        id: CommitId,
        branch: &Branch,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        let instance = self.under_way.get(&id);
        let is_news = instance.is_some_and(|instance| {
            let index = instance.index_of(branch);
            let is_open = index.is_some_and(|index| !instance.applied.contains(index));
            instance.dispute == Dispute::Aborted && is_open
        });
        if is_news {
            let against = Some(branch.clone());
            let notice = ReplicaNotice::Contradiction { id, against };
            turn.out.notify.push(notice);
        }
        self.on_applied(from, id, branch, turn)
    }

    /// The store of a branch has no proof that it committed it. That ends only when the commit is
    /// off the list: the list knows that the branch was committed, or an operator has answered for
    /// it.
    pub(crate) fn on_unproven(
        &mut self,
        from: &Branch,
        id: CommitId,
        branch: &Branch,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        if !may_finish(from, branch) {
            return Err(Rejection::NotInRoster);
        }
        match self.under_way.get_mut(&id) {
            Some(instance) => {
                let index = instance.index_of(branch).ok_or(Rejection::NotInRoster)?;
                instance.unproven = instance.unproven.union(BranchSet::of(index));
                // Another replica told it to commit, and knows of no dispute.
                if instance.dispute == Dispute::Aborted {
                    let (to, branch) = (Peer::Session(from.clone()), branch.clone());
                    turn.out.send(to, Message::Disputed { id, branch });
                }
            }
            None if turn.terms.is_settled(&id) => {
                let branch = Some(branch.clone());
                let expired = Message::Expired { id, branch };
                turn.out.send(Peer::Session(from.clone()), expired);
            }
            None => {}
        }
        Ok(())
    }

    /// Which commits may the store of this session still be told to apply? One page. A replica whose
    /// log has not come to `through` does not answer: it does not know yet what will be listed.
    pub(crate) fn on_list(
        &self,
        from: &Branch,
        through: CommitId,
        after: Option<CommitId>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        // A page after the end: no correct session asks for it.
        if after.is_some_and(|after| after > through) {
            return Err(Rejection::DoesNotFollow);
        }
        if !turn.terms.is_settled(&through) {
            return Ok(());
        }
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = turn.terms.config.list_max();
        let range = self.under_way.range((start, Bound::Included(through)));
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
            self.under_way.range(rest).next().is_some()
        };
        let listing = Box::new(ListPage {
            through,
            after,
            listed,
            next: last.filter(is_more),
        });
        let to = Peer::Session(from.clone());
        turn.out.send(to, Message::ListPage(listing));
        Ok(())
    }
}

impl Report {
    /// Nothing is known of the instance.
    fn nothing(id: CommitId) -> Self {
        Report {
            id,
            accepted: None,
            held: BranchSet::default(),
            read_only: BranchSet::default(),
            roster: None,
        }
    }
}

impl Instance {
    /// What this replica reports of the instance in phase 1b.
    pub(super) fn report(&self, id: CommitId) -> Report {
        Report {
            id,
            accepted: self.acceptor.accepted(),
            held: self.acceptor.held(),
            read_only: self.read_only(),
            roster: self.roster.clone(),
        }
    }

    /// Whether anything is held here that could make it a commit.
    fn may_be_committed(&self) -> bool {
        self.phase == Phase::Committed
            || self.acceptor.accepted().is_some()
            || !self.acceptor.held().is_empty()
    }

    /// The branches that a listed commit may be told to: all but those that voted `ReadOnly`.
    fn to_tell(&self) -> Vec<Branch> {
        let unapplied = self.to_apply();
        unapplied.map_or(Vec::new(), |of| {
            let told = of.roster.all().minus(of.read_only);
            of.roster.select(told).cloned().collect()
        })
    }

    /// The branches that have neither applied the commit nor said that they have no proof of it.
    fn to_prove(&self) -> Vec<Branch> {
        let Some(roster) = &self.roster else {
            return Vec::new();
        };
        let done = self.applied.union(self.read_only()).union(self.unproven);
        roster.select(roster.all().minus(done)).cloned().collect()
    }
}

/// Tells one who waited that the transaction is settled, and is no commit that waits for it.
fn expire(waiter: &Waiter, id: CommitId, out: &mut Out) {
    let branch = waiter.branch.clone();
    out.send(waiter.peer.clone(), Message::Expired { id, branch });
}
