//! Unit tests of the initiator: each asserts the exact effects of each step.
//!
//! Of three replicas, replica 1 is the first relay. An unanswered commit or question is sent again
//! after 2 ticks, then 4, and 5 at most.

mod asking;
mod committing;
mod generations;
mod learning;
mod planning;
mod retrying;

use std::time::Duration;

use crate::protocol::effects::{Effects, Host, Input, TimerOp};
use crate::protocol::message::{BeginCommit, Decision, Message, Question, Undecided, Voter};
use crate::protocol::paxos::{Acceptors, Ballot, ReplicaId};
use crate::protocol::types::{
    Branch, CommitId, Configuration, Entry, Generations, InitiatorId, Open, Outcome, Peer, Request,
    Roster, Session, StoreId, TxnId,
};

use super::{
    CommitError, Initiator, InitiatorCommand, InitiatorConfig, InitiatorNotice, InitiatorTimer,
    PrepareBy,
};

pub(super) use Outcome::{Abort, Commit};
pub(super) use PrepareBy::{Itself, Relay};

const TICK: Duration = Duration::from_millis(10);
const HEDGE: Duration = Duration::from_millis(3);
const TIMEOUT: Duration = Duration::from_millis(100);
const ME: InitiatorId = InitiatorId::from_u128(7);

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

fn txn(sequence: u32) -> TxnId {
    TxnId {
        generation: 4,
        initiator: ME,
        sequence,
        nonce: 9,
    }
}

/// The instance of transaction `sequence` with the usual roster.
fn id(sequence: u32) -> CommitId {
    CommitId::new(txn(sequence), &ab())
}

/// An instance of an initiator that is no more.
fn old_id() -> CommitId {
    let initiator = InitiatorId::from_u128(6);
    CommitId::new(
        TxnId {
            initiator,
            ..txn(0)
        },
        &ab(),
    )
}

fn replica(id: u32) -> Peer {
    Peer::Replica(ReplicaId(id))
}

fn ballot(round: u64) -> Ballot {
    Ballot {
        round,
        replica: ReplicaId(2),
    }
}

fn request(bytes: usize) -> Request {
    Request(vec![7; bytes].into())
}

/// What a relay is sent for transaction `sequence`, with the floor at 0.
fn begin_commit(sequence: u32) -> Message {
    with_floor(sequence, 0)
}

fn with_floor(sequence: u32, floor: u32) -> Message {
    Message::BeginCommit(BeginCommit {
        id: id(sequence),
        roster: ab(),
        requests: Vec::new(),
        floor,
        vote_timeout: TIMEOUT,
    })
}

fn question(id: CommitId, vote_timeout: Duration) -> Message {
    Message::Ask(Question {
        id,
        branch: None,
        voter: Voter::Unknown,
        vote_timeout,
    })
}

fn phase2b(id: CommitId, ballot: Ballot, outcome: Outcome) -> Message {
    Message::Phase2b {
        id,
        ballot,
        outcome,
    }
}

fn decided(id: CommitId, outcome: Outcome) -> Message {
    Message::Decided(Decision {
        id,
        outcome,
        unapplied: None,
    })
}

fn outcome(id: CommitId, outcome: Outcome) -> InitiatorNotice {
    InitiatorNotice::Outcome { id, outcome }
}

fn refused(txn: TxnId, error: CommitError) -> Effects<Initiator> {
    notifies([InitiatorNotice::Refused { txn, error }])
}

fn effects(
    send: impl Into<Vec<(Peer, Message)>>,
    notify: impl Into<Vec<InitiatorNotice>>,
    timers: impl Into<Vec<TimerOp<InitiatorTimer>>>,
) -> Effects<Initiator> {
    Effects {
        save: Vec::new(),
        send: send.into(),
        notify: notify.into(),
        timers: timers.into(),
    }
}

fn sends(send: impl Into<Vec<(Peer, Message)>>) -> Effects<Initiator> {
    effects(send, [], [])
}

fn notifies(notify: impl Into<Vec<InitiatorNotice>>) -> Effects<Initiator> {
    effects([], notify, [])
}

fn nothing() -> Effects<Initiator> {
    Effects::default()
}

fn to_all(message: Message) -> Vec<(Peer, Message)> {
    let each = [1, 2, 3].map(|id| (replica(id), message.clone()));
    each.to_vec()
}

fn set_tick() -> TimerOp<InitiatorTimer> {
    TimerOp::Set {
        timer: InitiatorTimer::Tick,
        after: TICK,
    }
}

fn set_hedge(sequence: u32) -> TimerOp<InitiatorTimer> {
    TimerOp::Set {
        timer: InitiatorTimer::Hedge(id(sequence)),
        after: HEDGE,
    }
}

fn cancel_hedge(sequence: u32) -> TimerOp<InitiatorTimer> {
    TimerOp::Cancel(InitiatorTimer::Hedge(id(sequence)))
}

/// An initiator.
struct Rig {
    initiator: Initiator,
}

/// Four generations were opened on the same replicas.
fn fourth(acceptors: Acceptors) -> Generations {
    let configuration = Configuration::from(acceptors);
    let mut generations = Generations::genesis(configuration.clone());
    for generation in 2..=4 {
        let configuration = configuration.clone();
        generations.apply(&Entry::Open(Open {
            generation,
            configuration,
        }));
    }
    generations
}

impl Rig {
    fn new() -> Self {
        Rig::among(3)
    }

    /// Among so many replicas.
    fn among(replicas: u32) -> Self {
        let acceptors = Acceptors::new((1..=replicas).map(ReplicaId)).unwrap();
        let config = InitiatorConfig {
            generations: fourth(acceptors.clone()),
            hedge_delay: HEDGE,
            tick: TICK,
            retry_ticks: 2,
            retry_ticks_max: 5,
            ..InitiatorConfig::new(ME, acceptors)
        };
        let mut out = Effects::default();
        let initiator = Initiator::recover(config, [], &mut out);
        assert!(out.is_empty(), "it ticks while something is open");
        Rig { initiator }
    }

    /// So many transactions have begun.
    fn begun(count: u32) -> Self {
        let mut rig = Rig::new();
        for sequence in 0..count {
            assert_eq!(
                rig.begin(),
                notifies([InitiatorNotice::Begun(txn(sequence))])
            );
        }
        rig
    }

    /// Transaction 0 is committing.
    fn committing(prepare: PrepareBy) -> Self {
        let mut rig = Rig::begun(1);
        rig.commit(0, prepare);
        rig
    }

    fn step(&mut self, input: Input<Initiator>) -> Effects<Initiator> {
        let mut out = Effects::default();
        self.initiator.step(input, &mut out);
        out
    }

    fn command(&mut self, command: InitiatorCommand) -> Effects<Initiator> {
        self.step(Input::Command(command))
    }

    fn hear(&mut self, from: u32, message: Message) -> Effects<Initiator> {
        let from = replica(from);
        self.step(Input::Message { from, message })
    }

    fn begin(&mut self) -> Effects<Initiator> {
        self.command(InitiatorCommand::Begin { nonce: 9 })
    }

    /// Commits with the usual roster.
    fn commit(&mut self, sequence: u32, prepare: PrepareBy) -> Effects<Initiator> {
        let branches = ab().iter().map(|branch| (branch.clone(), None)).collect();
        self.commit_with(txn(sequence), branches, prepare)
    }

    fn commit_with(
        &mut self,
        txn: TxnId,
        branches: Vec<(Branch, Option<Request>)>,
        prepare: PrepareBy,
    ) -> Effects<Initiator> {
        self.command(InitiatorCommand::Commit {
            txn,
            branches,
            prepare,
            vote_timeout: TIMEOUT,
        })
    }

    /// Plans with the usual roster.
    fn plan(&mut self, sequence: u32) -> Effects<Initiator> {
        self.command(InitiatorCommand::Plan {
            txn: txn(sequence),
            branches: ab().iter().cloned().collect(),
            vote_timeout: TIMEOUT,
        })
    }

    /// Transaction 0 is planned.
    fn planned() -> Self {
        let mut rig = Rig::begun(1);
        assert_eq!(rig.plan(0), notifies([InitiatorNotice::Planned(id(0))]));
        rig
    }

    fn rollback(&mut self, sequence: u32) -> Effects<Initiator> {
        self.command(InitiatorCommand::Rollback {
            txn: txn(sequence),
            branches: ab().iter().cloned().collect(),
        })
    }

    fn ask(&mut self, id: CommitId) -> Effects<Initiator> {
        self.command(InitiatorCommand::Ask(id))
    }

    fn abandon(&mut self, txn: TxnId) -> Effects<Initiator> {
        self.command(InitiatorCommand::Abandon(txn))
    }

    fn busy(&mut self, from: u32, id: CommitId) -> Effects<Initiator> {
        self.hear(from, Message::Busy { id })
    }

    fn hedge(&mut self, sequence: u32) -> Effects<Initiator> {
        let timer = InitiatorTimer::Hedge(id(sequence));
        self.step(Input::Timeout(timer))
    }

    fn connected(&mut self, peer: Peer) -> Effects<Initiator> {
        self.step(Input::Connected(peer))
    }

    fn disconnected(&mut self, peer: Peer) -> Effects<Initiator> {
        self.step(Input::Disconnected(peer))
    }

    fn tick(&mut self) -> Effects<Initiator> {
        self.step(Input::Timeout(InitiatorTimer::Tick))
    }

    /// One tick while something is open: what happens besides setting the next.
    fn busy_tick(&mut self) -> Effects<Initiator> {
        let mut out = self.tick();
        assert_eq!(out.timers, [set_tick()]);
        out.timers.clear();
        out
    }

    /// Ticks until something happens: how many ticks, and what.
    fn wait(&mut self) -> (u32, Effects<Initiator>) {
        for ticks in 1..100 {
            let out = self.busy_tick();
            if !out.is_empty() {
                return (ticks, out);
            }
        }
        panic!("nothing happens any more");
    }

    /// Nothing is open: the last tick that is set is the last.
    fn is_at_rest(&mut self) -> bool {
        self.tick().is_empty()
    }
}
