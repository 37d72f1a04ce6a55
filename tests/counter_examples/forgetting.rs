//! What a review of the control log found: generations, freezing, forgetting, operators. Each test
//! asserts what holds now; each failed before the fix.

use std::collections::BTreeMap;
use std::time::Duration;

use paxos_commit::protocol::message::{CastVote, Declined, Message};
use paxos_commit::protocol::paxos::log::LogMessage;
use paxos_commit::protocol::paxos::{Acceptors, ReplicaId};
use paxos_commit::protocol::replica::{ReplicaConfig, ReplicaTimer};
use paxos_commit::protocol::types::{
    Branch, BranchSet, CommitId, Configuration, Entry, Generations, InitiatorId, Listed, Open,
    Outcome, Peer, Roster, Session, Settle, StoreId, TxnId, Unapplied, Vote,
};
use paxos_commit::protocol::{Effects, Host, Input, Replica};

pub(crate) fn acceptors(ids: &[u32]) -> Acceptors {
    Acceptors::new(ids.iter().copied().map(ReplicaId)).expect("2F+1")
}
pub(crate) fn branch(name: &str) -> Branch {
    Branch {
        participant: name.parse().expect("a name"),
        session: Session(1),
        store: StoreId::from_u128(1),
    }
}
pub(crate) fn roster() -> Roster {
    Roster::new(["a", "b"].map(branch)).expect("a roster")
}
pub(crate) fn id(sequence: u32) -> CommitId {
    let txn = TxnId {
        generation: 1,
        initiator: InitiatorId::from_u128(7),
        sequence,
        nonce: 9,
    };
    CommitId::new(txn, &roster())
}
pub(crate) fn cast(sequence: u32) -> Message {
    Message::Vote(CastVote {
        id: id(sequence),
        roster: roster(),
        vote: Vote::Prepared,
        vote_timeout: Duration::from_secs(600),
    })
}
pub(crate) fn step<H: Host>(host: &mut H, input: Input<H>) -> Effects<H> {
    let mut out = Effects::default();
    host.step(input, &mut out);
    out
}
pub(crate) fn hear(host: &mut Replica, from: Peer, message: Message) -> Effects<Replica> {
    step(host, Input::Message { from, message })
}
pub(crate) fn quiet(id: u32) -> ReplicaConfig {
    let mut config = ReplicaConfig::new(ReplicaId(id), acceptors(&[1, 2, 3]));
    config.list_max = 1;
    config.grace_ticks = 0;
    config.exchange_ticks = 1_000_000;
    config
}

/// Three replicas, and every message on its way.
struct Net {
    replicas: BTreeMap<u32, Replica>,
    way: Vec<(Peer, u32, Message)>,
    told: Vec<(u32, Peer, Message)>,
}

impl Net {
    fn new(config: impl Fn(u32) -> ReplicaConfig) -> Self {
        let replica = |id| Replica::recover(config(id), [], &mut Effects::default());
        Net {
            replicas: (1..=3).map(|id| (id, replica(id))).collect(),
            way: Vec::new(),
            told: Vec::new(),
        }
    }
    fn input(&mut self, at: u32, input: Input<Replica>) {
        let out = step(self.replicas.get_mut(&at).expect("1 to 3"), input);
        for (to, message) in out.send {
            match to {
                Peer::Replica(to) => self.way.push((Peer::Replica(ReplicaId(at)), to.0, message)),
                client => self.told.push((at, client, message)),
            }
        }
    }
    fn say(&mut self, from: Peer, at: u32, message: Message) {
        self.input(at, Input::Message { from, message });
    }
    fn tick(&mut self, at: u32) {
        self.input(at, Input::Timeout(ReplicaTimer::Tick));
    }
    /// Delivers what `wanted` says, and all such that follows from it; the rest stays on its way.
    fn deliver(&mut self, wanted: impl Fn(u32, u32, &Message) -> bool) {
        let from = |peer: &Peer| match peer {
            Peer::Replica(id) => id.0,
            _ => unreachable!("only replicas talk here"),
        };
        while let Some(at) = (self.way.iter()).position(|(f, t, m)| wanted(from(f), *t, m)) {
            let (from, to, message) = self.way.remove(at);
            self.say(from, to, message);
        }
    }
    fn tick_until_prepare(&mut self, at: u32) {
        for _ in 0..100 {
            self.tick(at);
            let prepare = |m: &Message| matches!(m, Message::Log(LogMessage::Prepare { .. }));
            if self.way.iter().any(|(_, _, m)| prepare(m)) {
                return;
            }
        }
        panic!("no ballot");
    }
    fn vote(&mut self, sequence: u32, at: &[u32]) {
        for at in at {
            for name in ["a", "b"] {
                self.say(Peer::Session(branch(name)), *at, cast(sequence));
            }
        }
    }
    /// What replica `at` answers a branch of transaction `sequence` that votes again.
    fn answer(&mut self, sequence: u32, name: &str, at: u32) -> Vec<Message> {
        self.told.clear();
        self.say(Peer::Session(branch(name)), at, cast(sequence));
        std::mem::take(&mut self.told)
            .into_iter()
            .map(|(_, _, m)| m)
            .collect()
    }
    fn open(&mut self, leader: u32, latest: u32) {
        let configuration = Configuration::from(acceptors(&[1, 2, 3]));
        let message = Message::Reconfigure {
            latest,
            configuration,
        };
        self.say(Peer::Operator(1), leader, message);
        self.deliver(|_, _, _| true);
    }
}

/// Replica 1 computes a Settle from 1 and 2 (transaction 1 stands at replica 3 only: an abort), and
/// accepts it alone. Replica 2 finds it in phase 1 and proposes it unchanged; meanwhile it starts to
/// collect by itself, from 2 and 3 (transaction 1 is a commit). The first Settle is chosen, and
/// covers only part of the generation. The answers come in, and the second list is proposed in the
/// next slot: what was aborted by the first Settle is committed by the second.
#[test]
fn a_list_that_was_collected_before_another_settle_is_never_proposed() {
    use Message::{Collect, Collected, Freeze, Frozen, Log};
    let mut net = Net::new(quiet);
    net.vote(1, &[3]);
    net.vote(2, &[1, 2, 3]);
    net.vote(3, &[1, 2, 3]);
    net.tick_until_prepare(1);
    net.deliver(|_, _, _| true);
    net.open(1, 1);
    net.open(1, 2);
    assert_eq!(net.replicas[&3].generations().latest(), 3);

    // Replica 1 freezes and collects from 1 and 2; its Accept reaches itself only.
    net.way.clear();
    net.tick(1);
    net.deliver(|from, to, m| {
        from != 3
            && to != 3
            && match m {
                Freeze { .. } | Frozen { .. } | Collect { .. } | Collected { .. } => true,
                Log(LogMessage::Accept { .. }) => to == 1,
                _ => false,
            }
    });
    net.way.clear();

    // Replica 2 takes over, finds the entry at replica 1, and proposes it.
    net.tick_until_prepare(2);
    net.deliver(|_, to, m| match m {
        Log(LogMessage::Prepare { .. }) => to != 3,
        Log(LogMessage::Promise { .. }) => true,
        _ => false,
    });
    for _ in 0..20 {
        net.tick(2);
    }
    // It collects from 2 and 3. The answers are on their way ...
    net.deliver(|_, to, m| match m {
        Freeze { .. } | Collect { .. } => to != 1,
        Frozen { .. } => true,
        _ => false,
    });
    // ... when the entry is chosen, and replica 1 learns it.
    net.deliver(|_, to, m| match m {
        Log(LogMessage::Accept { .. }) => to != 3,
        Log(LogMessage::Accepted { .. }) => true,
        Log(LogMessage::Chosen { .. }) => to == 1,
        _ => false,
    });
    let settled = net.replicas[&1].generations().is_settled(&id(1));
    assert!(settled, "the first Settle is chosen");
    let first = net.answer(1, "a", 1);
    let expired = |m: &Message| matches!(m, Message::Expired { .. });
    assert!(first.iter().any(expired), "branch a rolls back: {first:?}");

    net.deliver(|_, _, _| true);
    for _ in 0..20 {
        net.tick(2);
        net.deliver(|_, _, _| true);
    }
    let second = net.answer(1, "b", 1);
    let committed = |m: &Message| {
        matches!(
            m,
            Message::Finish {
                outcome: Outcome::Commit,
                ..
            }
        )
    };
    assert!(
        !second.iter().any(committed),
        "branch b commits: {second:?}"
    );
}

/// A setting of 0 is no wish to lose every commit.
#[test]
fn a_list_of_at_most_nothing_drops_no_commit() {
    let mut net = Net::new(|id| ReplicaConfig {
        list_max: 0,
        ..quiet(id)
    });
    net.vote(2, &[1, 2, 3]);
    net.tick_until_prepare(1);
    net.deliver(|_, _, _| true);
    net.open(1, 1);
    net.open(1, 2);
    for _ in 0..20 {
        net.tick(1);
        net.deliver(|_, _, _| true);
    }
    let told = net.answer(2, "a", 1);
    let expired = |m: &Message| matches!(m, Message::Expired { .. });
    assert!(
        !told.iter().any(expired),
        "a prepared branch of a commit: {told:?}"
    );
}

/// The leader of an operator's entry loses its ballot, tells the operator that nothing was done,
/// and the next leader, which found the entry, gets it chosen.
#[test]
fn an_operator_is_not_told_declined_of_what_is_done() {
    use Message::{Log, Probe, Probed};
    let mut net = Net::new(quiet);
    net.tick_until_prepare(1);
    net.deliver(|_, _, _| true);
    let configuration = Configuration::from(acceptors(&[1, 2, 3]));
    let open = Message::Reconfigure {
        latest: 1,
        configuration,
    };
    net.say(Peer::Operator(1), 1, open);
    net.deliver(|_, _, m| matches!(m, Probe { .. } | Probed { .. }));
    net.deliver(|_, _, m| matches!(m, Log(LogMessage::Accept { .. })));
    net.way.clear();
    net.tick_until_prepare(2);
    net.deliver(|_, _, m| matches!(m, Log(LogMessage::Prepare { .. })));
    net.tick(1);
    net.deliver(|_, _, _| true);
    let declined = |m: &Message| matches!(m, Message::Declined(Declined::NotLeader { .. }));
    let declined = net.told.iter().any(|(_, _, m)| declined(m));
    let done = net.replicas[&1].generations().latest() == 2;
    assert!(!(declined && done), "nothing was done, it said");
}

/// Replica 1 has the roster and one vote; both branches say that they applied the commit, which it
/// does not know. Then the commit is settled, and nobody else is left. Nothing is pushed, nobody
/// says anything more, and the record stays for ever.
#[test]
fn a_listed_commit_whose_branches_were_heard_before_is_let_go() {
    let config = ReplicaConfig::new(ReplicaId(1), acceptors(&[1, 2, 3]));
    let mut replica = Replica::recover(config, [], &mut Effects::default());
    let session = |name| Peer::Session(branch(name));
    hear(&mut replica, session("a"), cast(1));
    for name in ["a", "b"] {
        let branch = branch(name);
        hear(
            &mut replica,
            session(name),
            Message::Applied { id: id(1), branch },
        );
    }
    let open = |generation| {
        let configuration = acceptors(&[1]).into();
        Entry::Open(Open {
            generation,
            configuration,
        })
    };
    let unapplied = Unapplied {
        roster: roster(),
        read_only: BranchSet::default(),
    };
    let settle = Entry::Settle(Box::new(Settle {
        after: None,
        through: Generations::last_id(1),
        unfinished: vec![Listed {
            id: id(1),
            unapplied,
        }],
    }));
    for (slot, entry) in [open(2), open(3), settle].into_iter().enumerate() {
        let slot = slot as u64;
        let chosen = Message::Log(LogMessage::Chosen { slot, entry });
        hear(&mut replica, Peer::Replica(ReplicaId(2)), chosen);
    }
    step(&mut replica, Input::Connected(session("a")));
    step(&mut replica, Input::Connected(session("b")));
    let mut pushed = false;
    for _ in 0..2_000 {
        let mut sent = step(&mut replica, Input::Timeout(ReplicaTimer::Tick)).send;
        while let Some((to, message)) = sent.pop() {
            pushed |= matches!(message, Message::Finish { .. });
            // It is alone in the log: what it sends itself arrives.
            if to == Peer::Replica(ReplicaId(1)) {
                sent.extend(hear(&mut replica, to, message).send);
            }
        }
    }
    assert!(
        pushed || replica.listed().count() == 0,
        "it is kept and nobody is asked"
    );
}
