//! Which store may work under a participant's name, by the control log.

use crate::protocol::message::{Declined, Message};
use crate::protocol::types::{
    Branch, Entering, Entry, LIST_MAX, Opening, ParticipantName, Peer, StoreId,
};

use crate::protocol::replica::vocabulary::Rejection;

use super::{Control, Rest};

impl Control {
    /// A session presents itself. It is told what the log says of its name, now and at every change.
    pub(crate) fn on_present(
        &mut self,
        from: &Branch,
        opening: Option<Opening>,
        after: Option<Opening>,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        if !rest.front.present(from, opening) {
            return Ok(());
        }
        let entering = Entering {
            participant: from.participant.clone(),
            store: from.store,
            opening,
            after,
        };
        let admits = self.stores.admits(&entering);
        // Who has answered what it was told waits for the log to say something new.
        if !admits || after.is_none() {
            let admission = self.terms(rest.config).admission_message(from, opening);
            rest.out.send(Peer::Session(from.clone()), admission);
        }
        if admits {
            // One for each name: the first that comes.
            let waiting = self.entering.entry(from.participant.clone());
            waiting.or_insert((from.clone(), entering));
            self.enter_stores(rest);
        }
        Ok(())
    }

    /// The log says something new of these names: their sessions are told.
    pub(super) fn tell_admissions(&mut self, names: &[ParticipantName], rest: &mut Rest<'_>) {
        let is_meant = |session: &Branch| names.contains(&session.participant);
        self.tell_presented(is_meant, rest);
        self.entering.retain(|name, _| !names.contains(name));
    }

    /// Another replica's state was taken over: everyone is told what it says.
    pub(super) fn tell_all_admissions(&mut self, rest: &mut Rest<'_>) {
        self.tell_presented(|_| true, rest);
        let stores = &self.stores;
        self.entering
            .retain(|_, (_, entering)| stores.admits(entering));
    }

    /// Tells these sessions what the log says.
    fn tell_presented(&self, is_meant: impl Fn(&Branch) -> bool, rest: &mut Rest<'_>) {
        let terms = self.terms(rest.config);
        let presented = rest.front.presented();
        for (session, opening) in presented.filter(|(session, _)| is_meant(session)) {
            let admission = terms.admission_message(session, opening);
            rest.out.send(Peer::Session(session.clone()), admission);
        }
    }

    /// A session is not connected any more.
    pub(crate) fn forget_session(&mut self, session: &Branch) {
        let entering = self.entering.get(&session.participant);
        if entering.is_some_and(|(of, _)| of == session) {
            self.entering.remove(&session.participant);
        }
    }

    /// Gets those entered that have presented themselves: by the leader itself, or through it. (A
    /// session may be cut off from the leader alone.) One entry every few ticks, so that a name which
    /// presents ever new openings takes no slots from others.
    pub(super) fn enter_stores(&mut self, rest: &mut Rest<'_>) {
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
                self.enter_patience = rest.config.collect_ticks.max(1);
                self.propose(Entry::Enter { stores }, rest);
            }
        } else if let Some(leader) = log.leader() {
            self.enter_patience = rest.config.collect_ticks.max(1);
            rest.out
                .send(Peer::Replica(leader), Message::Enter { stores });
        }
    }

    pub(super) fn tick_stores(&mut self, rest: &mut Rest<'_>) {
        self.enter_patience = self.enter_patience.saturating_sub(1);
        self.enter_stores(rest);
    }

    /// Stores have presented themselves to another replica. It says so again until the log names them.
    pub(crate) fn on_enter(
        &mut self,
        mut stores: Vec<Entering>,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        if stores.len() > LIST_MAX {
            return Err(Rejection::TooLong);
        }
        stores.retain(|entering| self.stores.admits(entering));
        if self.is_leading() && self.is_free() && !stores.is_empty() {
            self.propose(Entry::Enter { stores }, rest);
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
        rest: &Rest<'_>,
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
        let terms = self.terms(rest.config);
        let mut working = rest.front.working(&participant, terms);
        if working.any(|session| session.store == store) {
            return Err(Declined::StoreConnected { participant, store });
        }
        Ok(())
    }
}
