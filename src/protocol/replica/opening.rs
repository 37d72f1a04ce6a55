//! Opening generations when it is time; and what operators ask of the log: that it releases commits
//! which wait for a participant that will never come back, or takes note of what became of a store.

use crate::protocol::effects::Effects;
use crate::protocol::message::{Declined, Message};
use crate::protocol::types::{Branch, CommitId, Entry, Generations, Peer};

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
    /// long enough, or holds enough transactions and has lasted its minimum.
    ///
    /// (Counter-example to counting everything, and at once: the owner of one participant's
    /// certificate votes in invented transactions of its own, and every transaction that another
    /// client needs more than a moment for is refused, since its generation is closed.)
    pub(super) fn open_if_due(&mut self, out: &mut Effects<Self>) {
        let config = &self.config;
        let is_full = self.begun >= config.generation_transactions_max
            && self.generation_age >= config.generation_ticks_min;
        let due = is_full || self.generation_age >= config.generation_ticks;
        if !due || self.generations.unsettled().count() > UNSETTLED_USUAL {
            return;
        }
        if let Some(configuration) = self.generations.in_force().cloned() {
            self.propose(self.next_open(configuration), out);
        }
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

    /// An operator gives a participant's store up, so that its name stands for the next one that
    /// presents itself; or has restored it from a copy.
    pub(super) fn on_told_of_store(
        &mut self,
        from: &Peer,
        entry: Entry,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        if let Entry::Gone { participant, store } | Entry::Restored { participant, store } = &entry
        {
            let result = self.check_store(participant, *store);
            self.propose_for(from, entry, result, out);
        }
        Ok(())
    }

    /// A branch that comes back after its commit was released would take it for an abort. So as long
    /// as its store is there and has not said that it has no proof, the commit is not released.
    fn check_release(&self, id: CommitId) -> Result<(), Declined> {
        let listed = self.instances.get(&id);
        let listed = listed.filter(|_| self.generations.is_settled(&id));
        let listed = listed.ok_or(Declined::NotListed(id))?;
        match listed
            .to_prove()
            .into_iter()
            .find(|branch| self.is_here(branch))
        {
            Some(branch) => Err(Declined::Connected(branch.participant)),
            None => Ok(()),
        }
    }

    /// Whether a session of the store that holds this branch is connected.
    fn is_here(&self, branch: &Branch) -> bool {
        let sessions = self.directory.get(&branch.participant);
        sessions.is_some_and(|sessions| sessions.iter().any(|it| it.store == branch.store))
    }

    pub(super) fn propose_for(
        &mut self,
        from: &Peer,
        entry: Entry,
        allowed: Result<(), Declined>,
        out: &mut Effects<Self>,
    ) {
        let free = self.log.as_ref().is_some_and(|log| log.is_free());
        let declined = if !self.is_leading() {
            Some(self.not_leader())
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
    /// is certain: the next leader may find the entry and get it chosen.)
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
            Entry::Gone { participant, .. } | Entry::Restored { participant, .. } => {
                Message::Named {
                    participant: participant.clone(),
                    entered: self.stores.get(participant),
                }
            }
            Entry::Release { id } => Message::Expired {
                id: *id,
                branch: None,
            },
            // No operator asks for it.
            Entry::Unlist { .. } | Entry::Enter { .. } => return,
        };
        out.send(asked.peer, answer);
    }

    /// The generations, as this replica knows them.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Whether this replica leads the control log.
    pub fn is_leading(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_leading())
    }
}
