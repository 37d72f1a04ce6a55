//! What happens to sessions and the initiator; crashes and restarts.

use paxos_commit::protocol::Input;
use paxos_commit::protocol::initiator::InitiatorTimer;
use paxos_commit::protocol::participant::ParticipantCommand;
use paxos_commit::protocol::types::Vote;

use crate::bounds::{Plant, Victim};
use crate::cast::Place;
use crate::disk::Disk;
use crate::start::take;
use crate::state::{NOBODY, NOTHING, State};
use crate::system::System;

impl System {
    pub(crate) fn deliver_to_session(&self, state: &mut State, branch: usize, bit: u8) {
        let node = &state.sessions[branch];
        let run = usize::from(node.run);
        let place = Place::Session { branch, run };
        let host = node.host;
        let known = self.tables().session_steps.get(&(host, bit)).cloned();
        let step = known.unwrap_or_else(|| self.tables_mut().deliver_to_session(place, host, bit));
        take(state, branch, &step);
    }

    pub(crate) fn command(&self, state: &mut State, branch: usize, command: ParticipantCommand) {
        let node = &state.sessions[branch];
        let run = usize::from(node.run);
        let place = Place::Session { branch, run };
        let input = Input::Command(command);
        let step = self.tables_mut().step_session(place, node.host, input);
        take(state, branch, &step);
    }

    pub(crate) fn answer(&self, state: &mut State, branch: usize, vote: Vote) {
        let node = &mut state.sessions[branch];
        node.asked = false;
        node.prepared |= vote == Vote::Prepared;
        let id = self.tables().cast.id;
        self.command(state, branch, ParticipantCommand::Prepared { id, vote });
    }

    pub(crate) fn finish(&self, state: &mut State, branch: usize) {
        state.sessions[branch].finishing = 0;
        state.sessions[branch].prepared = false;
        let (id, of) = {
            let tables = self.tables();
            (tables.cast.id, tables.cast.branch(branch))
        };
        self.command(
            state,
            branch,
            ParticipantCommand::Finished { id, branch: of },
        );
    }

    pub(crate) fn hedge(&self, state: &mut State) {
        state.hedges -= 1;
        let mut tables = self.tables_mut();
        let input = Input::Timeout(InitiatorTimer::Hedge(tables.cast.id));
        let step = tables.step_initiator(state.initiator, input);
        state.initiator = step.host;
        state.network = state.network.union(&step.send);
    }

    pub(crate) fn crash(&self, state: &mut State, victim: Victim) {
        state.victim = None;
        match victim {
            Victim::Replica(replica) => {
                let node = &mut state.replicas[replica];
                node.up = false;
                node.host = NOBODY;
                node.unsaved = Disk::default();
                node.waiting = NOTHING;
                node.outbox = NOTHING;
                let mut tables = self.tables_mut();
                let mut ghost = tables.ghosts.value(state.ghost).clone();
                ghost.forget(replica);
                state.ghost = tables.ghosts.number(ghost);
            }
            Victim::Session(branch) => {
                let node = &mut state.sessions[branch];
                node.up = false;
                node.host = NOBODY;
                node.asked = false;
                node.finishing = 0;
            }
        }
    }

    pub(crate) fn restart(&self, state: &mut State, victim: Victim) {
        match victim {
            Victim::Replica(replica) => {
                let node = &mut state.replicas[replica];
                let known = self.tables().recovered.get(&(replica, node.disk)).copied();
                node.host = known.unwrap_or_else(|| self.tables_mut().recover(replica, node.disk));
                node.up = true;
            }
            Victim::Session(branch) => self.restart_session(state, branch),
        }
    }

    pub(crate) fn restart_session(&self, state: &mut State, branch: usize) {
        let node = &mut state.sessions[branch];
        node.up = true;
        if self.bounds.plant == Some(Plant::SessionVotesAgain) {
            node.host = self.start.sessions[branch].host;
            node.asked = true;
            return;
        }
        node.run = 1;
        let prepared = node.prepared;
        let in_doubt = {
            let mut tables = self.tables_mut();
            let session = tables.cast.session(branch, 1);
            state.sessions[branch].host = tables.sessions.number(session);
            tables.cast.in_doubt()
        };
        // The scan at start finds what the old session has prepared.
        if prepared {
            self.command(state, branch, in_doubt);
        }
    }
}
