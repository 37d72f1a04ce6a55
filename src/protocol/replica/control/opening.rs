//! Opening generations when it is time; and what operators ask of the log: that it releases commits
//! which wait for a participant that will never come back, or takes note of what became of a store.

use crate::protocol::message::{Declined, Message};
use crate::protocol::types::{CommitId, Entry, Peer};

use crate::protocol::replica::vocabulary::{Out, Rejection};

use super::{Control, Rest};

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

impl Control {
    /// A generation was opened: its age and its transactions count from now on.
    pub(super) fn opened(&mut self, rest: &mut Rest<'_>) {
        self.generation_age = 0;
        rest.commit.opened();
    }

    /// The leader opens the next generation on the same configuration when the latest has lasted
    /// long enough, or holds enough transactions and has lasted its minimum.
    ///
    /// (Counter-example to counting everything, and at once: the owner of one participant's
    /// certificate votes in invented transactions of its own, and every transaction that another
    /// client needs more than a moment for is refused, since its generation is closed.)
    pub(super) fn open_if_due(&mut self, rest: &mut Rest<'_>) {
        let config = rest.config;
        let is_full = rest.commit.begun() >= config.generation_transactions_max
            && self.generation_age >= config.generation_ticks_min;
        let due = is_full || self.generation_age >= config.generation_ticks;
        if !due || self.generations.unsettled().count() > UNSETTLED_USUAL {
            return;
        }
        if let Some(configuration) = self.generations.in_force().cloned() {
            self.propose(self.next_open(configuration), rest);
        }
    }

    /// An operator lets a settled commit go.
    pub(crate) fn on_release(
        &mut self,
        from: &Peer,
        id: CommitId,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        let result = self.check_release(id, rest);
        self.propose_for(from, Entry::Release { id }, result, rest);
        Ok(())
    }

    /// An operator gives a participant's store up, so that its name stands for the next one that
    /// presents itself; or has restored it from a copy.
    pub(crate) fn on_told_of_store(
        &mut self,
        from: &Peer,
        entry: Entry,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        if let Entry::Gone { participant, store } | Entry::Restored { participant, store } = &entry
        {
            let result = self.check_store(participant, *store, rest);
            self.propose_for(from, entry, result, rest);
        }
        Ok(())
    }

    /// A branch that comes back after its commit was released would take it for an abort. So as long
    /// as its store is there and has not said that it has no proof, the commit is not released.
    fn check_release(&self, id: CommitId, rest: &Rest<'_>) -> Result<(), Declined> {
        let to_prove = rest.commit.to_prove(&id, &self.generations);
        let to_prove = to_prove.ok_or(Declined::NotListed(id))?;
        let mut to_prove = to_prove.into_iter();
        match to_prove.find(|branch| rest.front.is_here(branch)) {
            Some(branch) => Err(Declined::Connected(branch.participant)),
            None => Ok(()),
        }
    }

    pub(super) fn propose_for(
        &mut self,
        from: &Peer,
        entry: Entry,
        allowed: Result<(), Declined>,
        rest: &mut Rest<'_>,
    ) {
        let free = self.is_free();
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
            rest.out.send(from.clone(), Message::Declined(declined));
            return;
        }
        self.operator = Some(Asked {
            peer: from.clone(),
            slot: self.generations.slot(),
            entry: entry.clone(),
        });
        self.propose(entry, rest);
    }

    /// The slot of an operator's entry is decided: for it, or for another one. (Before that nothing
    /// is certain: the next leader may find the entry and get it chosen.)
    pub(super) fn answer_operator(&mut self, slot: u64, entry: &Entry, out: &mut Out) {
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
}
