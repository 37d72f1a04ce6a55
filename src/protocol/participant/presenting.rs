//! Whether this session may work: it presents itself to the replicas, and they say what the control log
//! makes of its store.
//!
//! Until it is let in it does nothing: not even ask about the branches that stand prepared in its store,
//! because an older copy of the store holds the same ones, and would apply commits which the store
//! itself then misses.

use std::collections::BTreeMap;

use crate::protocol::effects::{Effects, Host, Input};
use crate::protocol::message::{Admission, Message};
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{Configuration, Opening, Peer, TxnId};

use super::branch::Phase;
use super::standing::Standing;
use super::{
    Participant, ParticipantCommand, ParticipantConfig, ParticipantNotice, ParticipantTimer,
};

/// What the replicas have said so far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Presence {
    standing: Standing,
    /// The last answer of each replica that is connected, with the slot of the log it comes from.
    answers: BTreeMap<ReplicaId, (u64, Admission)>,
    /// Ticks until those who have not answered are asked again.
    patience: u32,
}

impl Presence {
    pub(super) fn new(patience: u32) -> Self {
        Presence {
            standing: Standing::Asking,
            answers: BTreeMap::new(),
            patience,
        }
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }
}

impl Participant {
    /// Whether this session may work.
    pub fn standing(&self) -> Standing {
        self.presence.standing
    }

    /// A session that all replicas have let in, for tests that have no replicas.
    #[doc(hidden)]
    pub fn entered(config: ParticipantConfig) -> Self {
        let mut participant = Participant::recover(config, [], &mut Effects::default());
        let answer = (0, Admission::Entered);
        let replicas = participant.generations.replicas().into_iter();
        participant.presence.answers = replicas.map(|replica| (replica, answer)).collect();
        participant.presence.standing = Standing::Entered;
        participant
    }

    /// A connection is there: before anything else the session presents itself.
    pub(super) fn present(&self, replica: ReplicaId, out: &mut Effects<Self>) {
        self.present_after(replica, None, out);
    }

    fn present_after(&self, replica: ReplicaId, after: Option<Opening>, out: &mut Effects<Self>) {
        let opening = self.config.openings.last().copied();
        let present = Message::Present { opening, after };
        out.send(Peer::Replica(replica), present);
    }

    /// A connection is lost: what was heard there may have become wrong.
    pub(super) fn forget_answer(&mut self, replica: ReplicaId) {
        self.presence.answers.remove(&replica);
    }

    /// A replica says what it knows of this session's store.
    pub(super) fn on_admission(
        &mut self,
        from: ReplicaId,
        slot: u64,
        admission: Admission,
        out: &mut Effects<Self>,
    ) {
        if self.presence.standing.is_final() {
            return;
        }
        let generations = &self.generations;
        let presence = &mut self.presence;
        presence.answers.insert(from, (slot, admission));
        presence
            .answers
            .retain(|replica, _| generations.contains(*replica));
        // The log has an opening before this one: its store must remember it.
        if let Admission::Opened { seen } = admission
            && self.remembers_opening(&seen)
        {
            self.present_after(from, Some(seen), out);
        }
        let standing = self.judge();
        self.stand(standing, out);
    }

    fn remembers_opening(&self, opening: &Opening) -> bool {
        let earlier = self.config.openings.split_last();
        let earlier = earlier.map(|(_, earlier)| earlier);
        earlier.is_some_and(|earlier| earlier.contains(opening))
    }

    /// What the answers come to. The log decides, and who has more of it knows better. To be let in,
    /// one replica is enough: the log has entered this very opening. To be refused it takes the newest
    /// answer of a majority, or one that is newer than what let it in.
    fn judge(&self) -> Standing {
        let before = self.presence.standing;
        let answers = &self.presence.answers;
        let newest = answers.values().max_by_key(|(slot, _)| *slot);
        let refused = match newest.map(|(_, admission)| *admission) {
            Some(Admission::Entered) => return Standing::Entered,
            Some(Admission::OtherStore { entered }) => Standing::OtherStore { entered },
            Some(Admission::Opened { seen }) if !self.remembers_opening(&seen) => {
                Standing::OldOpening { seen }
            }
            Some(Admission::TooManyNames) => Standing::TooManyNames,
            Some(Admission::Opened { .. } | Admission::Vacant) | None => return before,
        };
        let acceptors = self.generations.in_force().map(Configuration::acceptors);
        let is_known = acceptors.is_some_and(|acceptors| {
            let heard = answers
                .keys()
                .filter(|replica| acceptors.contains(**replica));
            heard.count() >= acceptors.majority()
        });
        if is_known || before == Standing::Entered {
            refused
        } else {
            before
        }
    }

    fn stand(&mut self, standing: Standing, out: &mut Effects<Self>) {
        let before = self.presence.standing;
        if standing == before {
            return;
        }
        self.presence.standing = standing;
        out.notify.push(ParticipantNotice::Stands(standing));
        if standing.finishes() && !before.finishes() {
            // From now on it asks what became of the branches that stand prepared.
            for replica in self.generations.replicas() {
                self.say_again(replica, out);
            }
        }
        if before == Standing::Entered {
            // What has not been voted for can only be aborted.
            let open = |phase: &Phase| matches!(phase, Phase::Working(_) | Phase::Preparing(_));
            let working = self.branches.iter().filter(|(_, phase)| open(phase));
            let working: Vec<TxnId> = working.map(|(txn, _)| *txn).collect();
            for txn in working {
                self.let_go(txn, out);
            }
        }
    }

    /// What a session does that must not finish anything: it listens, and waits.
    pub(super) fn step_outside(&mut self, input: Input<Self>, out: &mut Effects<Self>) {
        let said = out.send.len();
        let is_final = self.presence.standing.is_final();
        match input {
            Input::Message {
                from: Peer::Replica(_),
                message: Message::Announce(generations) | Message::NotOpen { generations, .. },
            } => {
                self.on_generations(generations, out);
                out.send.truncate(said);
            }
            Input::Message {
                from: Peer::Replica(replica),
                message: Message::Admission { slot, admission },
            } if self.generations.contains(replica) => {
                self.on_admission(replica, slot, admission, out);
            }
            Input::Connected(Peer::Replica(replica))
                if self.generations.contains(replica) && !is_final =>
            {
                self.present(replica, out);
            }
            Input::Disconnected(Peer::Replica(replica)) => self.forget_answer(replica),
            Input::Timeout(ParticipantTimer::Tick) => {
                out.set(ParticipantTimer::Tick, self.config.tick);
                self.tick_presence(out);
            }
            Input::Command(ParticipantCommand::Begin(txn)) => self.begin(txn, out),
            Input::Command(ParticipantCommand::Stop) => self.stop(out),
            // They are asked about as soon as that is allowed.
            Input::Command(ParticipantCommand::InDoubt(found)) if !is_final => {
                self.on_in_doubt(found, out);
                out.send.truncate(said);
            }
            Input::Message { .. }
            | Input::Connected(_)
            | Input::Disconnected(_)
            | Input::Command(_) => {}
        }
    }

    /// Time passes: replicas that have not answered are asked again, those that are new among them.
    pub(super) fn tick_presence(&mut self, out: &mut Effects<Self>) {
        let presence = &mut self.presence;
        if presence.standing.is_final() {
            return;
        }
        presence.patience = presence.patience.saturating_sub(1);
        if presence.patience > 0 {
            return;
        }
        presence.patience = self.config.retry_ticks_max;
        let answers = &self.presence.answers;
        let replicas = self.generations.replicas().into_iter();
        let silent = replicas.filter(|replica| match answers.get(replica) {
            None => true,
            // It may have lost what it was told.
            Some((_, Admission::Vacant | Admission::Opened { .. })) => true,
            Some((
                _,
                Admission::Entered | Admission::OtherStore { .. } | Admission::TooManyNames,
            )) => false,
        });
        for replica in silent.collect::<Vec<_>>() {
            self.present(replica, out);
        }
    }
}
