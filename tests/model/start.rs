//! The state in which nothing has happened yet.

use paxos_commit::protocol::Input;
use paxos_commit::protocol::initiator::PrepareBy;
use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::participant::{Participant, ParticipantNotice};
use paxos_commit::protocol::types::Request;

use crate::bounds::{Begin, Bounds};
use crate::cast::Place;
use crate::disk::Disk;
use crate::network::Network;
use crate::state::{NOBODY, NOTHING, ReplicaNode, SessionNode, State};
use crate::tables::{self, Step, Tables, bit_of};

/// What a session's step comes to. It saves nothing, so nothing waits for a save.
pub(crate) fn take(state: &mut State, branch: usize, step: &Step<Participant>) {
    state.network = state.network.union(&step.send);
    let node = &mut state.sessions[branch];
    node.host = step.host;
    node.told |= tables::told(&step.notify);
    for notice in &step.notify {
        match notice {
            ParticipantNotice::Prepare { request, .. } => {
                node.asked = true;
                node.requests += u8::from(request.is_some());
            }
            ParticipantNotice::Finish { outcome, .. } => node.finishing |= bit_of(*outcome),
            ParticipantNotice::LetGo(_)
            | ParticipantNotice::Began(_)
            | ParticipantNotice::Refused { .. }
            | ParticipantNotice::Unproven { .. }
            | ParticipantNotice::Contradicted { .. }
            | ParticipantNotice::Outcome { .. }
            | ParticipantNotice::Expired { .. }
            | ParticipantNotice::Forgotten { .. }
            | ParticipantNotice::Settled { .. }
            | ParticipantNotice::Stands(_)
            | ParticipantNotice::Unasked { .. } => {}
        }
    }
}

/// The state in which nothing has happened yet.
pub(crate) fn start(bounds: &Bounds, tables: &mut Tables) -> State {
    assert_eq!(tables.networks.number(Network::default()), NOTHING);
    let ghost = tables.ghosts.number(Default::default());
    let request = Request([0].as_slice().into());
    let (prepare, request, hedges) = match bounds.begin {
        Begin::Itself => (PrepareBy::Itself, None, 0),
        Begin::Relay { hedges } => (PrepareBy::Relay, None, hedges),
        Begin::RelayWithRequest { hedges } => (PrepareBy::Relay, Some(request), hedges),
    };
    let works = request.is_none();
    let (initiator, send) = tables.cast.initiator(prepare, request);
    let is_begin = |message: &Message| tables.cast.is_begin(message);
    assert!(send.iter().all(|(_, message)| is_begin(message)));
    let initiator = tables.initiators.number(initiator);
    let mut state = State {
        replicas: [0, 1, 2].map(|index| start_replica(bounds, tables, index)),
        sessions: [0, 1].map(|branch| start_session(bounds, tables, branch)),
        initiator,
        hedges,
        network: tables.post(&tables.cast.initiator_peer(), send),
        ghost,
        victim: None,
    };
    for branch in 0..bounds.votes.len() {
        let [begin, prepare] = tables.cast.prepare_by_itself();
        let itself = bounds.begin == Begin::Itself;
        let commands = [works.then_some(begin), itself.then_some(prepare)];
        for command in commands.into_iter().flatten() {
            let place = Place::Session { branch, run: 0 };
            let host = state.sessions[branch].host;
            let step = tables.step_session(place, host, Input::Command(command));
            take(&mut state, branch, &step);
        }
    }
    state
}

fn start_replica(bounds: &Bounds, tables: &mut Tables, index: usize) -> ReplicaNode {
    let host = if index < bounds.replicas {
        tables.recover(index, Disk::default())
    } else {
        NOBODY
    };
    ReplicaNode {
        up: index < bounds.replicas,
        host,
        disk: Disk::default(),
        unsaved: Disk::default(),
        waiting: NOTHING,
        outbox: NOTHING,
        ballots: bounds.ballots[index],
        ticks: bounds.ticks[index],
        went_back: false,
        untrue: false,
        refused: false,
    }
}

fn start_session(bounds: &Bounds, tables: &mut Tables, branch: usize) -> SessionNode {
    let host = if branch < bounds.votes.len() {
        let session = tables.cast.session(branch, 0);
        tables.sessions.number(session)
    } else {
        NOBODY
    };
    SessionNode {
        up: branch < bounds.votes.len(),
        run: 0,
        host,
        asked: false,
        requests: 0,
        prepared: false,
        finishing: 0,
        told: 0,
    }
}
