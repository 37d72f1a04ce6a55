//! Opening generations: when it is time, and when an operator changes the membership; and letting
//! go of commits that wait for nobody who will ever come.

use crate::protocol::effects::Effects;
use crate::protocol::message::{Declined, Message};
use crate::protocol::types::{
    Branch, CommitId, Configuration, Entry, Generations, Open, Peer, UNSETTLED_MAX,
};

use super::instance::Phase;
use super::{Rejection, Replica};

/// With so many unsettled generations none is opened because of time or number: the latest, the one
/// before, and one that is being settled. More would only pile up.
const UNSETTLED_USUAL: usize = 3;

/// What an operator asked of this leader and is still to be told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) peer: Peer,
    slot: u64,
    entry: Entry,
}

impl Replica {
    /// A generation was opened: its age and its transactions count from now on.
    pub(super) fn opened(&mut self) {
        self.generation_age = 0;
        self.begun = 0;
    }

    /// The leader opens the next generation on the same configuration when the latest has lasted
    /// long enough or holds enough transactions.
    pub(super) fn open_if_due(&mut self, out: &mut Effects<Self>) {
        let config = &self.config;
        let due = self.generation_age >= config.generation_ticks
            || self.begun >= config.generation_transactions_max;
        if !due || self.generations.unsettled().count() > UNSETTLED_USUAL {
            return;
        }
        if let Some(configuration) = self.generations.in_force().cloned() {
            self.propose(self.next_open(configuration), out);
        }
    }

    fn next_open(&self, configuration: Configuration) -> Entry {
        Entry::Open(Open {
            generation: self.generations.latest().saturating_add(1),
            configuration,
        })
    }

    /// An operator changes the membership: the next generation runs on the new configuration.
    pub(super) fn on_reconfigure(
        &mut self,
        from: &Peer,
        latest: u32,
        configuration: Configuration,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        let result = self.check_reconfigure(latest, &configuration);
        let entry = self.next_open(configuration);
        self.propose_for(from, entry, result, out);
        Ok(())
    }

    /// An operator lets a settled commit go.
    pub(super) fn on_release(
        &mut self,
        from: &Peer,
        id: CommitId,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        let result = self.check_release(id);
        self.propose_for(from, Entry::Release { id }, result, out);
        Ok(())
    }

    /// A branch that comes back after its commit was let go would take it for an abort.
    fn check_release(&self, id: CommitId) -> Result<(), Declined> {
        let instance = self.instances.get(&id);
        let listed = instance.filter(|_| self.generations.is_settled(&id));
        let waiting = listed.ok_or(Declined::NotListed(id))?.unapplied();
        let is_here = |branch: &Branch| self.directory.contains_key(&branch.participant);
        match waiting.into_iter().find(is_here) {
            Some(branch) => Err(Declined::Connected(branch.participant)),
            None => Ok(()),
        }
    }

    fn check_reconfigure(&self, latest: u32, next: &Configuration) -> Result<(), Declined> {
        let generations = &self.generations;
        if generations.latest() != latest {
            let latest = generations.latest();
            return Err(Declined::Changed { latest });
        }
        let unsettled = generations.unsettled().count();
        if unsettled >= UNSETTLED_MAX {
            return Err(Declined::TooManyUnsettled(unsettled));
        }
        let before = generations.in_force().map(Configuration::acceptors);
        let is_used = |id: &_| {
            let stays = before.is_some_and(|before| before.contains(*id));
            !stays && !generations.is_new(*id)
        };
        match next.acceptors().iter().find(is_used) {
            Some(id) => Err(Declined::UsedId(id)),
            None => Ok(()),
        }
    }

    fn propose_for(
        &mut self,
        from: &Peer,
        entry: Entry,
        allowed: Result<(), Declined>,
        out: &mut Effects<Self>,
    ) {
        let (leading, free, leader) = match &self.log {
            Some(log) => (log.is_leading(), log.is_free(), log.leader()),
            None => (false, false, None),
        };
        let declined = if !leading {
            Some(Declined::NotLeader { leader })
        } else if let Err(declined) = allowed {
            Some(declined)
        } else if !free || self.operator.is_some() {
            Some(Declined::UnderWay)
        } else {
            None
        };
        if let Some(declined) = declined {
            out.send(from.clone(), Message::Declined(declined));
            return;
        }
        self.operator = Some(Asked {
            peer: from.clone(),
            slot: self.generations.slot(),
            entry: entry.clone(),
        });
        self.propose(entry, out);
    }

    /// The slot of an operator's entry is decided: for it, or for another one. (Before that nothing
    /// is certain, whoever leads: the next leader may find the entry and get it chosen.)
    pub(super) fn answer_operator(&mut self, slot: u64, entry: &Entry, out: &mut Effects<Self>) {
        let Some(asked) = self.operator.take_if(|asked| asked.slot <= slot) else {
            return;
        };
        let answer = match entry {
            _ if *entry != asked.entry || slot != asked.slot => {
                let latest = self.generations.latest();
                Message::Declined(Declined::Changed { latest })
            }
            Entry::Open(_) | Entry::Settle(_) => Message::Announce(self.generations.clone()),
            Entry::Release { id } => Message::Expired {
                id: *id,
                branch: None,
            },
        };
        out.send(asked.peer, answer);
    }

    /// An operator let this commit go; nobody is told an outcome by that.
    pub(super) fn let_go(&mut self, id: CommitId, out: &mut Effects<Self>) {
        if self.generations.is_settled(&id)
            && let Some(instance) = self.instances.remove(&id)
        {
            self.places.free(instance.place);
            debug_assert_eq!(instance.phase, Phase::Committed, "only commits are listed");
            for waiter in instance.waiters {
                super::forgetting::expire(&waiter, id, out);
            }
        }
    }

    /// The generations, as this replica knows them.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Whether this replica leads the control log.
    pub fn is_leading(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_leading())
    }

    /// Whether nobody needs this replica any more: no unsettled generation names it. To stop it
    /// earlier takes a replica from those that must decide what is under way.
    pub fn is_removed(&self) -> bool {
        self.generations.slot() > 0 && !self.generations.contains(self.config.id)
    }

    /// The settled commits that wait for a branch, oldest first. Those whose participant is gone
    /// for good stay until an operator releases them.
    pub fn listed(&self) -> impl Iterator<Item = &CommitId> + '_ {
        let settled = |id: &&CommitId| self.generations.is_settled(id);
        self.instances.keys().take_while(settled)
    }
}
