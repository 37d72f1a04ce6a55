//! P2, P2a, P2b and P2c in *every* schedule of a small instance: three acceptors, ballot 0 and two
//! proposers with a ballot each. A message, once sent, may arrive at any time, any number of times
//! or never, and every acceptor may restart at any time.

use std::collections::{BTreeSet, HashSet, VecDeque};

use paxos_commit::protocol::paxos::{Acceptor, Acceptors, Ballot, Choice, Proposer, ReplicaId};

use super::cluster::ballot;
use super::history::{History, Violation};
use super::node::{Memory, Message, Record, Value, answer, restarted};

const PROPOSERS: [Ballot; 2] = [ballot(1, 1), ballot(1, 2)];

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    nodes: [Acceptor<Value>; 3],
    /// Which of [`Explorer::messages`] were ever sent. None is ever taken away.
    sent: u128,
}

struct Explorer {
    acceptors: Acceptors,
    memory: Memory,
    /// Every message that is sent in any schedule, with its sender.
    messages: Vec<(ReplicaId, Message)>,
}

impl Explorer {
    fn new(memory: Memory) -> Self {
        Explorer {
            acceptors: Acceptors::new([1, 2, 3].map(ReplicaId)).expect("an odd number"),
            memory,
            messages: Vec::new(),
        }
    }

    fn first(&mut self) -> State {
        let mut first = State {
            nodes: Default::default(),
            sent: 0,
        };
        for ballot in PROPOSERS {
            self.send(&mut first, ballot.replica, Message::Prepare(ballot));
        }
        self.send(&mut first, ReplicaId(1), Message::Accept(Ballot::ZERO, 0));
        first
    }

    fn send(&mut self, state: &mut State, from: ReplicaId, message: Message) {
        let known = self.messages.iter().position(|one| *one == (from, message));
        let index = known.unwrap_or_else(|| {
            self.messages.push((from, message));
            self.messages.len() - 1
        });
        assert!(index < 128, "the set of messages has 128 places");
        state.sent |= 1 << index;
    }

    fn sent(&self, state: &State) -> Vec<(ReplicaId, Message)> {
        let messages = self.messages.iter().enumerate();
        let sent = messages.filter(|(index, _)| state.sent & (1 << index) != 0);
        sent.map(|(_, message)| *message).collect()
    }

    /// The states that can follow, this one perhaps among them.
    fn next(&mut self, state: &State) -> Vec<State> {
        let mut next = Vec::new();
        let sent = self.sent(state);
        for (_, message) in &sent {
            if matches!(message, Message::Prepare(_) | Message::Accept(..)) {
                next.extend((0..3).map(|to| self.request(state, to, *message)));
            }
        }
        for ballot in PROPOSERS {
            next.extend(self.propose(state, &sent, ballot));
        }
        next.extend((0..3).map(|node| self.restart(state, node)));
        next
    }

    fn request(&mut self, state: &State, to: usize, request: Message) -> State {
        let mut next = state.clone();
        if let Some((Some(_), answer)) = answer(&mut next.nodes[to], request) {
            self.send(&mut next, ReplicaId(to as u32 + 1), answer);
        }
        next
    }

    /// The proposer of `ballot` hears two of the promises that were sent to it, in either order.
    fn propose(
        &mut self,
        state: &State,
        sent: &[(ReplicaId, Message)],
        ballot: Ballot,
    ) -> Vec<State> {
        let is_used = |(_, one): &_| matches!(one, Message::Accept(at, _) if *at == ballot);
        if sent.iter().any(is_used) {
            return Vec::new();
        }
        let is_promise = |(_, one): &&_| matches!(one, Message::Promise(at, _) if *at == ballot);
        let promises: Vec<&(ReplicaId, Message)> = sent.iter().filter(is_promise).collect();
        let mut next = Vec::new();
        for first in &promises {
            for second in &promises {
                if let Some(value) = self.choice(ballot, [**first, **second]) {
                    let mut proposed = state.clone();
                    self.send(
                        &mut proposed,
                        ballot.replica,
                        Message::Accept(ballot, value),
                    );
                    next.push(proposed);
                }
            }
        }
        next
    }

    fn choice(&self, ballot: Ballot, heard: [(ReplicaId, Message); 2]) -> Option<Value> {
        let mut proposer = Proposer::new(ballot, self.acceptors.clone());
        let mut choice = None;
        for (from, message) in heard {
            if let Message::Promise(ballot, accepted) = message {
                choice = proposer.on_promise(from, ballot, accepted);
            }
        }
        let value = match choice? {
            Choice::Bound(value) => value,
            Choice::Free => Value::from(ballot.replica.0),
        };
        proposer.propose(value);
        Some(value)
    }

    /// An acceptor needs to remember no more than these two records.
    fn restart(&self, state: &State, node: usize) -> State {
        let mut next = state.clone();
        let node = &mut next.nodes[node];
        let mut disk = vec![Record::Promised(node.promised())];
        disk.extend(
            node.accepted()
                .map(|(ballot, value)| Record::Accepted(*ballot, *value)),
        );
        *node = restarted(&disk, self.memory);
        next
    }

    /// The part of `sent` that the history is made of.
    fn seen_from_above(&self, state: &State) -> u128 {
        let messages = self.messages.iter().enumerate();
        let told = messages
            .filter(|(_, (_, one))| matches!(one, Message::Accept(..) | Message::Accepted(..)));
        told.fold(0, |set, (index, _)| set | state.sent & (1 << index))
    }

    /// What was issued and accepted can be read off the messages.
    fn history(&self, state: &State) -> History {
        let mut history = History::new(self.acceptors.clone());
        for (from, message) in self.sent(state) {
            match message {
                Message::Accept(ballot, value) => history.issue(ballot, value),
                Message::Accepted(ballot, value) => history.accept(from, ballot, value),
                Message::Prepare(_) | Message::Promise(..) | Message::Nack { .. } => {}
            }
        }
        history
    }
}

/// What all schedules together lead to.
struct Explored {
    states: usize,
    violations: BTreeSet<Violation>,
    /// The values chosen, ballot by ballot, of every history.
    chosen: BTreeSet<Vec<(Ballot, Value)>>,
}

/// Visits every state that can be reached, nearest first. Stops at one that violates something.
fn explore(memory: Memory) -> Explored {
    let mut explorer = Explorer::new(memory);
    let mut violations = BTreeSet::new();
    let mut chosen = BTreeSet::new();
    let first = explorer.first();
    let mut seen = HashSet::from([first.clone()]);
    let mut histories = HashSet::new();
    let mut open = VecDeque::from([first]);
    while let Some(state) = open.pop_front()
        && violations.is_empty()
    {
        if histories.insert(explorer.seen_from_above(&state)) {
            let history = explorer.history(&state);
            violations.extend(history.violations());
            chosen.insert(history.chosen());
        }
        for next in explorer.next(&state) {
            if next != state && seen.insert(next.clone()) {
                open.push_back(next);
            }
        }
    }
    Explored {
        states: seen.len(),
        violations,
        chosen,
    }
}

/// Paxos Made Simple, section 2.2: P2 to P2c, with nothing left to chance.
#[test]
fn p2_to_p2c_hold_in_every_schedule_there_is() {
    let explored = explore(Memory::Everything);
    assert_eq!(explored.violations, BTreeSet::new());
    assert_eq!(explored.states, 120_203);
    let [one, two] = PROPOSERS;
    let zero = Ballot::ZERO;
    let expected = [
        vec![],
        // The value of ballot 0 wins, and whoever comes later confirms it, or is the first that
        // gets it chosen.
        vec![(zero, 0)],
        vec![(zero, 0), (one, 0)],
        vec![(zero, 0), (one, 0), (two, 0)],
        vec![(zero, 0), (two, 0)],
        vec![(one, 0)],
        vec![(one, 0), (two, 0)],
        vec![(two, 0)],
        // Ballot 0 came too late, and so did perhaps ballot 1.
        vec![(one, 1)],
        vec![(one, 1), (two, 1)],
        vec![(two, 1)],
        vec![(two, 2)],
    ];
    assert_eq!(explored.chosen, BTreeSet::from(expected));
}

#[test]
fn the_checker_finds_what_a_forgetful_acceptor_leads_to() {
    for memory in [Memory::NoPromises, Memory::NoAccepted] {
        let violations = explore(memory).violations;
        assert!(
            violations.contains(&Violation::P2c),
            "{memory:?}: {violations:?}"
        );
    }
}
