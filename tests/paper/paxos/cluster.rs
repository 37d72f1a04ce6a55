//! Scripted runs: a test says which message reaches whom, and when.

use std::collections::{BTreeMap, BTreeSet};

use paxos_commit::protocol::paxos::{
    Acceptor, Acceptors, Ballot, Choice, Nack, Proposer, ReplicaId,
};

use super::history::{History, Violation};
use super::node::{Memory, Message, Record, Value, answer, restarted};

/// Acceptors 1 to `n`, each with a disk to which everything is written before it answers.
pub(super) struct Cluster {
    pub(super) acceptors: Acceptors,
    nodes: BTreeMap<ReplicaId, Node>,
    history: History,
}

#[derive(Default)]
struct Node {
    acceptor: Acceptor<Value>,
    disk: Vec<Record>,
}

impl Cluster {
    pub(super) fn new(n: u32) -> Self {
        let acceptors = Acceptors::new((1..=n).map(ReplicaId)).expect("an odd number");
        Cluster {
            nodes: acceptors.iter().map(|id| (id, Node::default())).collect(),
            history: History::new(acceptors.clone()),
            acceptors,
        }
    }

    pub(super) fn acceptor(&self, id: u32) -> &Acceptor<Value> {
        &self.nodes[&ReplicaId(id)].acceptor
    }

    pub(super) fn proposer(&self, round: u64, replica: u32) -> Proposer<Value> {
        Proposer::new(ballot(round, replica), self.acceptors.clone())
    }

    /// Both phases at the acceptors `at`, which make a majority. Proposes `own` if free to.
    pub(super) fn choose(&mut self, round: u64, replica: u32, own: Value, at: &[u32]) {
        let mut proposer = self.proposer(round, replica);
        let value = match self.prepare(&mut proposer, at).expect("a majority") {
            Choice::Bound(value) => value,
            Choice::Free => own,
        };
        assert_eq!(self.propose(&mut proposer, value, at), at);
    }

    /// Phase 1 at the acceptors `at`. Answers with the choice, if their promises make a majority.
    pub(super) fn prepare(
        &mut self,
        proposer: &mut Proposer<Value>,
        at: &[u32],
    ) -> Option<Choice<Value>> {
        let mut choice = None;
        for (from, answer) in self.ask(Message::Prepare(proposer.ballot()), at) {
            match answer {
                Message::Promise(ballot, accepted) => {
                    choice = choice.or(proposer.on_promise(from, ballot, accepted));
                }
                Message::Nack { promised } => {
                    proposer.on_nack(Nack { promised });
                }
                Message::Prepare(_) | Message::Accept(..) | Message::Accepted(..) => {
                    unreachable!("no answer to a prepare request")
                }
            }
        }
        choice
    }

    /// Phase 2: proposes `value`, and sends it to the acceptors `at`. Tells who accepted it.
    pub(super) fn propose(
        &mut self,
        proposer: &mut Proposer<Value>,
        value: Value,
        at: &[u32],
    ) -> Vec<u32> {
        proposer.propose(value);
        self.accept(proposer.ballot(), value, at)
    }

    /// Sends an accept request to the acceptors `at`, whoever issues it. Tells who accepted it.
    pub(super) fn accept(&mut self, ballot: Ballot, value: Value, at: &[u32]) -> Vec<u32> {
        self.history.issue(ballot, value);
        let answers = self.ask(Message::Accept(ballot, value), at);
        let accepted = answers
            .into_iter()
            .filter(|(_, answer)| *answer == Message::Accepted(ballot, value));
        let by: Vec<ReplicaId> = accepted.map(|(from, _)| from).collect();
        for from in &by {
            self.history.accept(*from, ballot, value);
        }
        by.into_iter().map(|from| from.0).collect()
    }

    pub(super) fn restart(&mut self, id: u32, memory: Memory) {
        let node = self.nodes.get_mut(&ReplicaId(id)).expect("an acceptor");
        node.acceptor = restarted(&node.disk, memory);
    }

    /// The values that were ever chosen.
    pub(super) fn chosen(&self) -> Vec<Value> {
        let values: BTreeSet<Value> = self
            .history
            .chosen()
            .into_iter()
            .map(|(_, value)| value)
            .collect();
        values.into_iter().collect()
    }

    pub(super) fn violations(&self) -> BTreeSet<Violation> {
        self.history.violations()
    }

    fn ask(&mut self, request: Message, at: &[u32]) -> Vec<(ReplicaId, Message)> {
        let mut answers = Vec::new();
        for id in at.iter().copied().map(ReplicaId) {
            let node = self.nodes.get_mut(&id).expect("an acceptor");
            if let Some((record, answer)) = answer(&mut node.acceptor, request) {
                node.disk.extend(record);
                answers.push((id, answer));
            }
        }
        answers
    }
}

/// A ballot of `replica`.
pub(super) const fn ballot(round: u64, replica: u32) -> Ballot {
    Ballot {
        round,
        replica: ReplicaId(replica),
    }
}
