//! What the control log comes to, read from one replica; and what an operator says of participants'
//! stores.

use tokio::time::Instant;

use crate::protocol::message::Message;
use crate::protocol::types::{Entered, Generations, Listed, ParticipantName, StoreId, Stores};

use super::{Event, Operator, OperatorError, PATIENCE};

impl Operator {
    /// The participants that have presented themselves, and the store of each.
    ///
    /// # Errors
    /// When no replica answers.
    pub async fn participants(&mut self) -> Result<Stores, OperatorError> {
        Ok(self.state().await?.1)
    }

    /// Gives a store up that is gone for good: the participant's name stands for the next store that
    /// presents itself. Commits that the store has not applied stay listed, until each is
    /// [released](Self::release) by name.
    ///
    /// # Errors
    /// When the replicas decline, because the name stands for another store or a session of the store
    /// is connected; or too few answer.
    pub async fn gone(
        &mut self,
        participant: ParticipantName,
        store: StoreId,
    ) -> Result<(), OperatorError> {
        let is_done = is_named(&participant);
        let message = Message::Gone { participant, store };
        self.change(&message, is_done).await
    }

    /// Says that a participant's store was restored from a copy: its next opening is entered,
    /// whichever it is.
    ///
    /// # Errors
    /// When the replicas decline, because the name stands for another store or a session of the store
    /// is connected; or too few answer.
    pub async fn restored(
        &mut self,
        participant: ParticipantName,
        store: StoreId,
    ) -> Result<(), OperatorError> {
        let is_done = is_named(&participant);
        let message = Message::Restored { participant, store };
        self.change(&message, is_done).await
    }

    /// What the entries of the control log come to: one replica's state, page by page. It is the same
    /// everywhere, but for what was chosen a moment ago.
    pub(super) async fn state(&mut self) -> Result<(Vec<Listed>, Stores), OperatorError> {
        let deadline = Instant::now() + PATIENCE;
        let replica = self.connected.keys().next().copied();
        let replica = replica.ok_or_else(|| self.no_answer(PATIENCE))?;
        let (mut listed, mut stores) = (Vec::<Listed>::new(), Vec::<(ParticipantName, _)>::new());
        let mut read = None;
        let fetch = |listed: &[Listed], stores: &[(ParticipantName, _)]| Message::Fetch {
            slot: 0,
            after: listed.last().map(|listed| listed.id),
            after_name: stores
                .last()
                .map(|(name, _): &(ParticipantName, Entered)| name.clone()),
        };
        self.send(replica, fetch(&listed, &stores));
        loop {
            let Some((from, event)) = self.next(deadline).await else {
                return Err(self.no_answer(PATIENCE));
            };
            let Event::Message(Message::State {
                generations,
                after,
                listed: commits,
                stores: names,
                more,
            }) = event
            else {
                continue;
            };
            let cursor = fetch(&listed, &stores);
            let is_next = matches!(&cursor, Message::Fetch { after: of, after_name, .. }
                if *of == after && *after_name == names.after);
            if from != replica || !is_next {
                continue;
            }
            // The log went on in between: from the first page again.
            let slot = generations.slot();
            if *read.get_or_insert(slot) != slot {
                (listed, stores, read) = (Vec::new(), Vec::new(), None);
                self.send(replica, fetch(&listed, &stores));
                continue;
            }
            listed.extend(commits);
            stores.extend(names.stores);
            if !more {
                return Ok((listed, stores.into_iter().collect()));
            }
            self.send(replica, fetch(&listed, &stores));
        }
    }
}

/// Whether an event says what this name stands for now.
fn is_named(participant: &ParticipantName) -> impl Fn(&Generations, &Event) -> bool + use<> {
    let name = participant.clone();
    move |_, event| matches!(event, Event::Message(Message::Named { participant, .. }) if *participant == name)
}
