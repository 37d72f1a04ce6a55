//! Unit tests of the replica: each asserts the exact effects of each step.
//!
//! Ticks are 10 ms; a vote timeout is 5 to 20 ticks, 10 where a test says nothing else. Replica n
//! of the usual three takes its turn 2 * (n - 1) ticks after the first.

mod admitting;
mod asking;
mod batches;
mod begin;
mod control;
mod evicting;
mod leading;
mod patience;
mod promising;
mod restoring;
mod senders;
mod settling;
mod stores;
mod vocabulary;
mod votes;

use std::time::Duration;

use crate::protocol::effects::{Effects, Host, Input, TimerOp};
use crate::protocol::message::{
    BeginCommit, CastVote, Decision, Message, Question, Unapplied, Voter,
};
use crate::protocol::paxos::log::LogConfig;
use crate::protocol::paxos::{Acceptors, Ballot, ReplicaId};
use crate::protocol::types::{
    Branch, BranchSet, CommitId, InitiatorId, Outcome, Peer, Roster, Session, StoreId, TxnId, Vote,
};

use super::{Record, Records, Rejection, Replica, ReplicaConfig, ReplicaNotice, ReplicaTimer};

pub(super) use crate::protocol::message::{Report, State, Undecided};
pub(super) use Outcome::{Abort, Commit};
pub(super) use Vote::{Aborted, Prepared, ReadOnly};

const TICK: Duration = Duration::from_millis(10);
const TIMEOUT: Duration = Duration::from_millis(100);
const OWNER: InitiatorId = InitiatorId::from_u128(7);

fn config(id: u32, replicas: u32) -> ReplicaConfig {
    ReplicaConfig {
        tick: TICK,
        vote_timeout_min: 5 * TICK,
        vote_timeout_max: 20 * TICK,
        stagger_ticks: 2,
        retry_ticks: 3,
        retry_ticks_max: 20,
        push_ticks: 4,
        push_ticks_max: 10,
        undecided_max: 3,
        // Nothing happens by itself that a test does not ask for.
        announce_ticks: u32::MAX,
        log: LogConfig {
            silence_ticks: u32::MAX,
            ..LogConfig::default()
        },
        ..ReplicaConfig::new(ReplicaId(id), acceptors(replicas))
    }
}

fn acceptors(replicas: u32) -> Acceptors {
    Acceptors::new((1..=replicas).map(ReplicaId)).unwrap()
}

fn branch(name: &str, session: u64) -> Branch {
    Branch {
        participant: name.parse().unwrap(),
        session: Session(session),
        store: StoreId::from_u128(1),
    }
}

/// The usual roster: a/1 and b/1.
fn ab() -> Roster {
    Roster::new([branch("a", 1), branch("b", 1)]).unwrap()
}

/// The roster of a/1 alone.
fn only_a() -> Roster {
    Roster::new([branch("a", 1)]).unwrap()
}

fn txn(sequence: u32) -> TxnId {
    TxnId {
        generation: 1,
        initiator: OWNER,
        sequence,
        nonce: 9,
    }
}

/// The instance of transaction `sequence` with the usual roster.
fn id(sequence: u32) -> CommitId {
    CommitId::new(txn(sequence), &ab())
}

fn session(name: &str, session: u64) -> Peer {
    Peer::Session(branch(name, session))
}

fn a() -> Peer {
    session("a", 1)
}

fn b() -> Peer {
    session("b", 1)
}

fn initiator() -> Peer {
    Peer::Initiator(OWNER)
}

fn operator() -> Peer {
    Peer::Operator(1)
}

fn replica(id: u32) -> Peer {
    Peer::Replica(ReplicaId(id))
}

fn ballot(round: u64, replica: u32) -> Ballot {
    Ballot {
        round,
        replica: ReplicaId(replica),
    }
}

fn set(indices: &[usize]) -> BranchSet {
    let sets = indices.iter().map(|index| BranchSet::of(*index));
    sets.fold(BranchSet::default(), BranchSet::union)
}

/// Whom to tell of a commit of the usual roster, when these branches voted `ReadOnly`.
fn whom(read_only: &[usize]) -> Unapplied {
    Unapplied {
        roster: ab(),
        read_only: set(read_only),
    }
}

/// The same of a roster that the id does not name.
fn of_another() -> Unapplied {
    Unapplied {
        roster: only_a(),
        read_only: set(&[]),
    }
}

fn begin(id: CommitId, roster: Roster) -> BeginCommit {
    BeginCommit {
        id,
        roster,
        requests: Vec::new(),
        floor: 5,
        vote_timeout: TIMEOUT,
    }
}

fn begun(sequence: u32) -> Message {
    Message::BeginCommit(begin(id(sequence), ab()))
}

fn cast(id: CommitId, roster: Roster, vote: Vote) -> Message {
    Message::Vote(CastVote {
        id,
        roster,
        vote,
        vote_timeout: TIMEOUT,
    })
}

/// A vote in the usual roster.
fn vote(sequence: u32, vote: Vote) -> Message {
    cast(id(sequence), ab(), vote)
}

fn applied(id: CommitId, branch: Branch) -> Message {
    Message::Applied { id, branch }
}

fn phase1a(ballot: Ballot, ids: &[CommitId]) -> Message {
    let ids = ids.to_vec();
    Message::Phase1a { ballot, ids }
}

fn phase1b(ballot: Ballot, reports: impl Into<Vec<Report>>) -> Message {
    let reports = reports.into();
    Message::Phase1b { ballot, reports }
}

fn phase2a(ballot: Ballot, proposals: impl Into<Vec<Decision>>) -> Message {
    let proposals = proposals.into();
    Message::Phase2a { ballot, proposals }
}

fn phase2b(id: CommitId, ballot: Ballot, outcome: Outcome) -> Message {
    Message::Phase2b {
        id,
        ballot,
        outcome,
    }
}

fn nack(ballot: Ballot, refused: impl Into<Vec<(CommitId, Ballot)>>) -> Message {
    let refused = refused.into();
    Message::Nack { ballot, refused }
}

fn decision(id: CommitId, outcome: Outcome, unapplied: Option<Unapplied>) -> Decision {
    Decision {
        id,
        outcome,
        unapplied,
    }
}

fn decided(id: CommitId, outcome: Outcome, unapplied: Option<Unapplied>) -> Message {
    Message::Decided(decision(id, outcome, unapplied))
}

fn finish(id: CommitId, branch: Branch, outcome: Outcome) -> Message {
    Message::Finish {
        id,
        branch,
        outcome,
    }
}

fn undecided(id: CommitId, missing: &[Branch], silent: &[u32]) -> Message {
    Message::Undecided(Undecided {
        id,
        missing: missing.to_vec(),
        silent: silent.iter().copied().map(ReplicaId).collect(),
    })
}

fn ask(id: CommitId, branch: Option<Branch>, voter: Voter) -> Message {
    Message::Ask(Question {
        id,
        branch,
        voter,
        vote_timeout: TIMEOUT,
    })
}

/// What a replica that has heard of nothing but the commit id reports.
fn report(id: CommitId) -> Report {
    Report {
        id,
        accepted: None,
        held: set(&[]),
        read_only: set(&[]),
        roster: None,
    }
}

fn vote_record(sequence: u32, index: u8, vote: Vote, roster: Option<Roster>) -> Record {
    Record::Vote {
        id: id(sequence),
        index,
        vote,
        roster,
    }
}

fn promise_record(sequence: u32, ballot: Ballot) -> Record {
    let id = id(sequence);
    Record::Promise { id, ballot }
}

fn accept_record(sequence: u32, ballot: Ballot, outcome: Outcome) -> Record {
    Record::Accept {
        id: id(sequence),
        ballot,
        outcome,
        unapplied: (outcome == Commit).then(|| whom(&[])),
    }
}

fn finished_record(sequence: u32, outcome: Outcome) -> Record {
    let id = id(sequence);
    Record::Finished { id, outcome }
}

fn committed_record(sequence: u32) -> Record {
    let (id, unapplied) = (id(sequence), whom(&[]));
    Record::Committed { id, unapplied }
}

fn effects(
    save: impl Into<Vec<Record>>,
    send: impl Into<Vec<(Peer, Message)>>,
) -> Effects<Replica> {
    Effects {
        save: save.into(),
        send: send.into(),
        ..Effects::default()
    }
}

fn saves(save: impl Into<Vec<Record>>) -> Effects<Replica> {
    effects(save, [])
}

fn sends(send: impl Into<Vec<(Peer, Message)>>) -> Effects<Replica> {
    effects([], send)
}

fn nothing() -> Effects<Replica> {
    Effects::default()
}

fn rejected(from: Peer, reason: Rejection) -> Effects<Replica> {
    Effects {
        notify: vec![ReplicaNotice::Rejected { from, reason }],
        ..Effects::default()
    }
}

/// The same message to each of several peers.
fn to(peers: impl IntoIterator<Item = Peer>, message: Message) -> Vec<(Peer, Message)> {
    let each = peers.into_iter().map(|peer| (peer, message.clone()));
    each.collect()
}

fn all() -> [Peer; 3] {
    [1, 2, 3].map(replica)
}

/// A replica with its disk.
struct Rig {
    config: ReplicaConfig,
    replica: Replica,
    disk: Vec<Record>,
}

impl Rig {
    /// Replica `id` of 1, 2, 3.
    fn new(id: u32) -> Self {
        Rig::with(config(id, 3), Vec::new())
    }

    fn with(config: ReplicaConfig, disk: Vec<Record>) -> Self {
        let mut out = Effects::default();
        let replica = Replica::recover(config.clone(), disk.clone(), &mut out);
        let tick = tick_set();
        assert_eq!(out.timers, [tick]);
        out.timers.clear();
        assert!(out.is_empty(), "recovery sends nothing: {out:?}");
        Rig {
            config,
            replica,
            disk,
        }
    }

    /// What a store keeps of what was saved is enough to recover from, in any order.
    fn restart(self) -> Self {
        let mut kept = Records::new(self.config.genesis.clone());
        for record in &self.disk {
            kept.apply(record.clone());
        }
        let mut kept: Vec<Record> = kept.iter().collect();
        kept.reverse();
        let from_kept = Rig::with(self.config.clone(), kept);
        let all = Rig::with(self.config, self.disk);
        assert_eq!(all.replica, from_kept.replica);
        all
    }

    fn step(&mut self, input: Input<Replica>) -> Effects<Replica> {
        let mut out = Effects::default();
        self.replica.step(input, &mut out);
        self.disk.extend(out.save.iter().cloned());
        out
    }

    fn hear(&mut self, from: Peer, message: Message) -> Effects<Replica> {
        self.step(Input::Message { from, message })
    }

    /// Hears something whose effects are another test's business.
    fn given(mut self, from: Peer, message: Message) -> Self {
        self.hear(from, message);
        self
    }

    /// Whoever connects is told which generations there are, but for replicas.
    fn connect(&mut self, peer: Peer) {
        let told = match peer {
            Peer::Replica(_) => nothing(),
            Peer::Session(_) | Peer::Initiator(_) | Peer::Operator(_) => {
                let generations = self.replica.generations().clone();
                sends([(peer.clone(), Message::Announce(generations))])
            }
        };
        assert_eq!(self.step(Input::Connected(peer)), told);
    }

    fn disconnect(&mut self, peer: Peer) {
        assert_eq!(self.step(Input::Disconnected(peer)), nothing());
    }

    /// One tick. It always sets the next.
    fn tick(&mut self) -> Effects<Replica> {
        let mut out = self.step(Input::Timeout(ReplicaTimer::Tick));
        assert_eq!(out.timers, [tick_set()]);
        out.timers.clear();
        out
    }

    /// Ticks until something happens: how many ticks, and what.
    fn wait(&mut self) -> (u32, Effects<Replica>) {
        for ticks in 1..200 {
            let out = self.tick();
            if !out.is_empty() {
                return (ticks, out);
            }
        }
        panic!("nothing happens any more");
    }

    fn wait_quietly(&mut self, ticks: u32) {
        for tick in 1..=ticks {
            assert_eq!(self.tick(), nothing(), "at tick {tick}");
        }
    }

    /// How often something is done about what is under way: the ticks between.
    fn gaps(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.wait().0).collect()
    }

    fn outcome(&self, sequence: u32) -> Option<Outcome> {
        self.replica.outcome(&id(sequence))
    }
}

fn tick_set() -> TimerOp<ReplicaTimer> {
    TimerOp::Set {
        timer: ReplicaTimer::Tick,
        after: TICK,
    }
}

/// What a replica does when it starts ballot `ballot` in `ids`.
fn starts(ballot: Ballot, ids: &[CommitId]) -> Effects<Replica> {
    let round = Record::Round {
        round: ballot.round,
    };
    effects([round], to(all(), phase1a(ballot, ids)))
}
