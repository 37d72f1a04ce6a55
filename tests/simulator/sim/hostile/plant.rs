//! Planted bugs that only hostile clients bring to light.

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::participant::ParticipantCommand;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::paxos::log::LogMessage;
use paxos_commit::protocol::types::{CommitId, Entry, Open, Outcome, Peer, TxnId};
use paxos_commit::protocol::{Effects, Host, Input, Participant};

use super::super::plant::Plant;
use super::super::world::World;

impl World {
    /// What a replica with a planted bug does before it takes this message.
    pub fn plant_before_replica(&mut self, index: usize, message: &Message) {
        if self.options.plant != Some(Plant::AssertsOnContradiction) {
            return;
        }
        let Message::Log(
            LogMessage::Chosen {
                entry: Entry::Settle(settle),
                ..
            }
            | LogMessage::Accept {
                entry: Entry::Settle(settle),
                ..
            },
        ) = message
        else {
            return;
        };
        let Some(host) = self.with_everything(index) else {
            return;
        };
        for listed in &settle.unfinished {
            let id = listed.id;
            assert!(
                host.outcome(&id) != Some(Outcome::Abort),
                "{id} is aborted here, and settled as a commit"
            );
        }
    }

    /// What a session with a planted bug does before it takes this input.
    pub fn plant_before_session(&mut self, index: usize, input: &Input<Participant>) {
        match (self.options.plant, input) {
            (Some(Plant::FloorFromPlan), Input::Command(ParticipantCommand::Prepare(prepare))) => {
                // As if a relay passed it on.
                let from = Peer::Replica(ReplicaId(1));
                let txn = TxnId {
                    sequence: u32::MAX,
                    ..prepare.id.txn
                };
                let floor = prepare.floor;
                let message = Message::LetGo { txn, floor };
                self.whisper(index, from, message);
            }
            (Some(Plant::BelievesIdsOfGenerations), Input::Message { message, .. }) => {
                if let Some(generation) = generation_of(message) {
                    self.believe(index, generation);
                }
            }
            (_, _) => {}
        }
    }

    /// The session takes one more input, and nothing that follows from it is done.
    fn whisper(&mut self, index: usize, from: Peer, message: Message) {
        if let Some(host) = &mut self.sessions[index].host {
            let input = Input::Message { from, message };
            host.step(input, &mut Effects::default());
        }
    }

    /// The session takes the generation for open.
    fn believe(&mut self, index: usize, generation: u32) {
        let Some(host) = &self.sessions[index].host else {
            return;
        };
        let mut generations = host.generations().clone();
        let Some(configuration) = generations.in_force().cloned() else {
            return;
        };
        if generation != generations.latest() + 1 {
            return;
        }
        generations.apply(&Entry::Open(Open {
            generation,
            configuration,
        }));
        let from = Peer::Replica(ReplicaId(1));
        self.whisper(index, from, Message::Announce(generations));
    }
}

fn generation_of(message: &Message) -> Option<u32> {
    let of = |id: &CommitId| id.txn.generation;
    match message {
        Message::Prepare(prepare) => Some(of(&prepare.id)),
        Message::LetGo { txn, .. } => Some(txn.generation),
        Message::Finish { id, .. } => Some(of(id)),
        _ => None,
    }
}
