//! A stage for scripts: the very hosts, message by message as the script says, before the
//! omniscient observer.

use std::collections::BTreeMap;

use crate::invariant::{Facts, Violation};
use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::replica::{Record, Replica, ReplicaTimer};
use paxos_commit::protocol::types::Peer;
use paxos_commit::protocol::{Effects, Host, Input};

use crate::cast::{first, replica, replica_peer};

/// One message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) from: Peer,
    pub(crate) to: Peer,
    pub(crate) message: Message,
}

/// Replicas 1 to 3, all that was ever sent, and what the observer objects to.
pub(crate) struct Stage {
    pub(crate) replicas: BTreeMap<usize, Replica>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) facts: Facts,
    pub(crate) violations: Vec<Violation>,
    /// Whether replicas freeze: if not, the question is answered on their behalf, and nothing else
    /// comes of it.
    pub(crate) freezes: bool,
}

impl Stage {
    pub(crate) fn new(list_max: usize, saved: &[Vec<Record>; 3]) -> Self {
        let start = |(index, saved): (usize, &Vec<Record>)| {
            (index, replica(index, list_max, saved.clone()))
        };
        Stage {
            replicas: saved.iter().enumerate().map(start).collect(),
            sent: Vec::new(),
            facts: Facts::new(first()),
            violations: Vec::new(),
            freezes: true,
        }
    }

    pub(crate) fn note(&mut self, judged: Result<(), Violation>) {
        self.violations.extend(judged.err());
    }

    /// A message leaves, and arrives nowhere yet.
    pub(crate) fn send(&mut self, from: Peer, to: Peer, message: Message) {
        let judged = self.facts.sent(&from, &message);
        self.note(judged);
        self.sent.push(Sent { from, to, message });
    }

    pub(crate) fn feed(&mut self, index: usize, input: Input<Replica>) {
        let host = self.replicas.get_mut(&index).expect("it is on the stage");
        let mut out = Effects::default();
        let question = matches!(
            &input,
            Input::Message {
                message: Message::Freeze { .. } | Message::Collect { .. },
                ..
            }
        );
        if question && !self.freezes {
            host.clone().step(input, &mut out);
            out.save.clear();
        } else {
            host.step(input, &mut out);
        }
        for record in &out.save {
            let judged = self.facts.durable(crate::cast::replica_id(index), record);
            self.note(judged);
        }
        for (to, message) in out.send {
            self.send(replica_peer(index), to, message);
        }
    }

    pub(crate) fn tick(&mut self, index: usize) {
        self.feed(index, Input::Timeout(ReplicaTimer::Tick));
    }

    /// Delivers to `to` whatever `from` ever sent it that is `wanted`.
    pub(crate) fn deliver(&mut self, from: &Peer, to: usize, wanted: impl Fn(&Message) -> bool) {
        let of = |sent: &&Sent| {
            sent.from == *from && sent.to == replica_peer(to) && wanted(&sent.message)
        };
        let found: Vec<Sent> = self.sent.iter().filter(of).cloned().collect();
        assert!(!found.is_empty(), "{from} sent nothing such to {to}");
        for Sent { from, message, .. } in found {
            self.feed(to, Input::Message { from, message });
        }
    }

    /// The same between two replicas.
    pub(crate) fn pass(&mut self, from: usize, to: usize, wanted: impl Fn(&Message) -> bool) {
        self.deliver(&replica_peer(from), to, wanted);
    }

    /// A question to `to`, and its answer back.
    pub(crate) fn ask(
        &mut self,
        leader: usize,
        to: usize,
        question: impl Fn(&Message) -> bool,
        answer: impl Fn(&Message) -> bool,
    ) {
        self.pass(leader, to, question);
        self.pass(to, leader, answer);
    }
}
