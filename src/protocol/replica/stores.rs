//! Which store may work under a participant's name, by the control log.

use crate::protocol::effects::Effects;
use crate::protocol::message::{Admission, Declined, Message};
use crate::protocol::types::{
    Branch, Entering, Entry, LIST_MAX, Opening, ParticipantName, Peer, StoreId, Stores,
};

use super::{Rejection, Replica};

impl Replica {
    /// What the log says of stores, as far as it is known here.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// A session presents itself. It is told what the log says of its name, now and at every change.
    pub(super) fn on_present(
        &mut self,
        from: &Branch,
        opening: Option<Opening>,
        after: Option<Opening>,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        let sessions = self.directory.get(&from.participant);
        if !sessions.is_some_and(|sessions| sessions.contains(from)) {
            return Ok(());
        }
        self.presented.insert(from.clone(), opening);
        let entering = Entering {
            participant: from.participant.clone(),
            store: from.store,
            opening,
            after,
        };
        let admits = self.stores.admits(&entering);
        // Who has answered what it was told waits for the log to say something new.
        if !admits || after.is_none() {
            self.tell_admission(from, opening, out);
        }
        if admits {
            // One for each name: the first that comes.
            let waiting = self.entering.entry(from.participant.clone());
            waiting.or_insert((from.clone(), entering));
            self.enter_stores(out);
        }
        Ok(())
    }

    /// What the log says to a session.
    fn admission(&self, session: &Branch, opening: Option<Opening>) -> Admission {
        match self.stores.get(&session.participant) {
            None if self.stores.is_full() => Admission::TooManyNames,
            None => Admission::Vacant,
            Some(entered) if entered.store != session.store => Admission::OtherStore {
                entered: entered.store,
            },
            Some(entered) if entered.opening == opening => Admission::Entered,
            Some(entered) => match entered.opening {
                Some(seen) => Admission::Opened { seen },
                None => Admission::Vacant,
            },
        }
    }

    fn tell_admission(&self, session: &Branch, opening: Option<Opening>, out: &mut Effects<Self>) {
        let slot = self.generations.slot();
        let admission = self.admission(session, opening);
        let message = Message::Admission { slot, admission };
        out.send(Peer::Session(session.clone()), message);
    }

    /// Whether this session may work, as far as is known here.
    pub(super) fn may_work(&self, session: &Branch) -> bool {
        let presented = self.presented.get(session);
        presented.is_some_and(|opening| self.admission(session, *opening) == Admission::Entered)
    }

    /// Whether another store works under this session's name. The session is told then.
    pub(super) fn is_of_other_store(&self, session: &Branch, out: &mut Effects<Self>) -> bool {
        let entered = self.stores.get(&session.participant);
        let is_other = entered.is_some_and(|entered| entered.store != session.store);
        if is_other {
            self.tell_admission(session, None, out);
        }
        is_other
    }

    /// The log says something new of these names: their sessions are told.
    pub(super) fn tell_admissions(&mut self, names: &[ParticipantName], out: &mut Effects<Self>) {
        for (session, opening) in &self.presented {
            if names.contains(&session.participant) {
                self.tell_admission(session, *opening, out);
            }
        }
        self.entering.retain(|name, _| !names.contains(name));
    }

    /// Another replica's state was taken over: everyone is told what it says.
    pub(super) fn tell_all_admissions(&mut self, out: &mut Effects<Self>) {
        for (session, opening) in &self.presented {
            self.tell_admission(session, *opening, out);
        }
        let stores = &self.stores;
        self.entering
            .retain(|_, (_, entering)| stores.admits(entering));
    }

    /// A session is not connected any more.
    pub(super) fn forget_session(&mut self, session: &Branch) {
        self.presented.remove(session);
        let entering = self.entering.get(&session.participant);
        if entering.is_some_and(|(of, _)| of == session) {
            self.entering.remove(&session.participant);
        }
    }

    /// Gets those entered that have presented themselves: by the leader itself, or through it. (A
    /// session may be cut off from the leader alone.) One entry every few ticks, so that a name which
    /// presents ever new openings takes no slots from others.
    pub(super) fn enter_stores(&mut self, out: &mut Effects<Self>) {
        let Some(log) = &self.log else {
            return;
        };
        if self.entering.is_empty() || self.enter_patience > 0 {
            return;
        }
        let entering = self.entering.values().take(LIST_MAX);
        let stores = entering.map(|(_, entering)| entering.clone()).collect();
        if log.is_leading() {
            if log.is_free() {
                self.enter_patience = self.config.collect_ticks.max(1);
                self.propose(Entry::Enter { stores }, out);
            }
        } else if let Some(leader) = log.leader() {
            self.enter_patience = self.config.collect_ticks.max(1);
            out.send(Peer::Replica(leader), Message::Enter { stores });
        }
    }

    pub(super) fn tick_stores(&mut self, out: &mut Effects<Self>) {
        self.enter_patience = self.enter_patience.saturating_sub(1);
        self.enter_stores(out);
    }

    /// Stores have presented themselves to another replica. It says so again until the log names them.
    pub(super) fn on_enter(
        &mut self,
        mut stores: Vec<Entering>,
        out: &mut Effects<Self>,
    ) -> Result<(), Rejection> {
        if stores.len() > LIST_MAX {
            return Err(Rejection::TooLong);
        }
        stores.retain(|entering| self.stores.admits(entering));
        let is_free = self.log.as_ref().is_some_and(|log| log.is_free());
        if self.is_leading() && is_free && !stores.is_empty() {
            self.propose(Entry::Enter { stores }, out);
        }
        Ok(())
    }

    /// What is said of a store must be said of the one that the name stands for, and no session may
    /// have it open. (As far as this replica, the leader, is connected: the operator answers for the
    /// rest.)
    pub(super) fn check_store(
        &self,
        participant: &ParticipantName,
        store: StoreId,
    ) -> Result<(), Declined> {
        let entered = self.stores.get(participant).map(|entered| entered.store);
        let participant = participant.clone();
        if entered != Some(store) {
            return Err(Declined::NotItsStore {
                participant,
                store,
                entered,
            });
        }
        let is_here = |session: &Branch| session.store == store && self.may_work(session);
        let mut sessions = self.directory.get(&participant).into_iter().flatten();
        if sessions.any(is_here) {
            return Err(Declined::StoreConnected { participant, store });
        }
        Ok(())
    }
}
