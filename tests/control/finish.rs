//! No trap and no leak: from a state, a fair run with a majority of the replicas up brings every
//! prepared branch to its outcome, and leaves nothing of the transaction behind.

use std::collections::VecDeque;

use paxos_commit::protocol::learn::OutcomeLearner;
use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::replica::{Replica, ReplicaTimer};
use paxos_commit::protocol::types::{CommitId, Outcome, Peer};
use paxos_commit::protocol::{Effects, Host, Input};

use crate::cast::{OPERATOR, REPLICAS, branch, first, index_of, replica_peer, session_peer};
use crate::state::{NOBODY, State, bits};
use crate::tables::{Envelope, Tables};

/// So many ticks are enough for the longest patience to run out several times.
const TICKS_MAX: u32 = 1_000;

/// Ticks between two votes of a session that has heard nothing.
const VOTE_TICKS: u32 = 20;

/// So many messages in one tick would be a loop.
const MESSAGES_MAX: usize = 10_000;

/// A session that has voted: it says so again until it knows the outcome, and applies it.
#[derive(Debug, Default)]
struct Leaf {
    voted: bool,
    learner: OutcomeLearner,
    outcome: Option<Outcome>,
}

/// A fair run.
struct Run<'t> {
    tables: &'t Tables,
    id: CommitId,
    replicas: [Option<Replica>; REPLICAS],
    sessions: Vec<Leaf>,
    messages: VecDeque<(Peer, Peer, Message)>,
}

/// Whether all is well with all replicas up, and with each one of them down for good.
pub(crate) fn all_can_finish(tables: &Tables, state: &State, outcome: Option<Outcome>) -> bool {
    let present = (0..REPLICAS).filter(|index| state.hosts[*index] != NOBODY);
    let mut down = present.map(Some).chain([None]);
    down.all(|down| Run::new(tables, state, down).finishes(outcome))
}

impl<'t> Run<'t> {
    fn new(tables: &'t Tables, state: &State, down: Option<usize>) -> Self {
        let branches = tables.cast.roster.len();
        let is_up = |index: &usize| Some(*index) != down && state.hosts[*index] != NOBODY;
        let mut run = Run {
            tables,
            id: tables.cast.id,
            replicas: Default::default(),
            sessions: (0..branches).map(|_| Leaf::default()).collect(),
            messages: VecDeque::new(),
        };
        for (index, leaf) in run.sessions.iter_mut().enumerate() {
            leaf.voted = state.voted & (1 << index) != 0;
            leaf.outcome = (state.applied & (1 << index) != 0).then_some(Outcome::Commit);
        }
        for index in (0..REPLICAS).filter(is_up) {
            run.replicas[index] = Some(tables.hosts.value(state.hosts[index]).clone());
            for session in 0..branches {
                run.feed(index, Input::Connected(session_peer(session)));
            }
            for bit in bits(state.network[index]) {
                let Envelope { from, message } = tables.envelope(index, bit).clone();
                run.messages.push_back((from, replica_peer(index), message));
            }
        }
        run
    }

    fn finishes(&mut self, outcome: Option<Outcome>) -> bool {
        for tick in 0..TICKS_MAX {
            self.deliver_all();
            if self.is_finished(outcome) {
                return true;
            }
            if tick % VOTE_TICKS == 0 {
                self.vote_again();
                self.open_again();
            }
            for index in 0..REPLICAS {
                self.feed(index, Input::Timeout(ReplicaTimer::Tick));
            }
        }
        false
    }

    /// Every branch that voted knows the outcome, the same one; and nobody remembers anything.
    fn is_finished(&self, outcome: Option<Outcome>) -> bool {
        let mut ends = self.sessions.iter().filter(|leaf| leaf.voted);
        let end = ends.clone().find_map(|leaf| leaf.outcome);
        let decided = end.is_some() && (outcome.is_none() || outcome == end);
        let forgot = |replica: &Replica| {
            let generations = replica.generations();
            // One that was removed hears of no later entry of the log, and no replica hears it.
            let keeps_list = replica.is_removed();
            generations.is_settled(&self.id)
                && generations.oldest() > 1
                && replica.undecided().next().is_none()
                && (keeps_list || replica.unapplied().next().is_none())
                && (keeps_list || replica.listed().next().is_none())
                && (keeps_list || replica.outcome(&self.id).is_none())
        };
        decided
            && ends.all(|leaf| leaf.outcome == end)
            && self.replicas.iter().flatten().all(forgot)
    }

    fn vote_again(&mut self) {
        for (index, leaf) in self.sessions.iter().enumerate() {
            if leaf.voted && leaf.outcome.is_none() {
                let vote = self.tables.cast.vote();
                let to_all = (0..REPLICAS).map(replica_peer);
                let from = session_peer(index);
                let votes = to_all.map(|to| (from.clone(), to, vote.clone()));
                self.messages.extend(votes);
            }
        }
    }

    /// An operator asks again for the generation that closes the first one. (An `Open` that lost its
    /// slot is built anew, by time or by an operator; time opens none here.)
    fn open_again(&mut self) {
        for index in 0..REPLICAS {
            let Some(replica) = &self.replicas[index] else {
                continue;
            };
            let generations = replica.generations();
            if let (2, Some(configuration)) = (generations.latest(), generations.in_force()) {
                let message = Message::Reconfigure {
                    latest: 2,
                    configuration: configuration.clone(),
                };
                let from = OPERATOR;
                self.feed(index, Input::Message { from, message });
            }
        }
    }

    fn deliver_all(&mut self) {
        for _ in 0..MESSAGES_MAX {
            let Some((from, to, message)) = self.messages.pop_front() else {
                return;
            };
            match &to {
                Peer::Replica(id) => self.feed(index_of(*id), Input::Message { from, message }),
                Peer::Session(_) => self.tell(&from, &to, message),
                Peer::Initiator(_) | Peer::Operator(_) => {}
            }
        }
        panic!("a loop of messages");
    }

    fn feed(&mut self, index: usize, input: Input<Replica>) {
        if let Some(replica) = &mut self.replicas[index] {
            let mut out = Effects::default();
            replica.step(input, &mut out);
            let from = replica_peer(index);
            let sent = out.send.into_iter();
            let sent = sent.map(|(to, message)| (from.clone(), to, message));
            self.messages.extend(sent);
        }
    }

    /// A session is told something.
    fn tell(&mut self, from: &Peer, to: &Peer, message: Message) {
        let is_it = |index: &usize| session_peer(*index) == *to;
        let Some(index) = (0..self.sessions.len()).find(is_it) else {
            return;
        };
        let leaf = &mut self.sessions[index];
        let Peer::Replica(replica) = from else {
            return;
        };
        match message {
            Message::Phase2b {
                ballot, outcome, ..
            } => {
                let first = first();
                let of = first.acceptors();
                let learned = leaf.learner.on_phase2b(of, *replica, ballot, outcome);
                leaf.outcome = leaf.outcome.or(learned);
            }
            Message::Finish { outcome, .. } => leaf.outcome = leaf.outcome.or(Some(outcome)),
            // To a branch that stands prepared this is Abort.
            Message::Expired { .. } => leaf.outcome = leaf.outcome.or(Some(Outcome::Abort)),
            _ => return,
        }
        if leaf.outcome == Some(Outcome::Commit) {
            let applied = Message::Applied {
                id: self.id,
                branch: branch(index),
            };
            let to_all = (0..REPLICAS).map(replica_peer);
            let applied = to_all.map(|it| (to.clone(), it, applied.clone()));
            self.messages.extend(applied);
        }
    }
}
