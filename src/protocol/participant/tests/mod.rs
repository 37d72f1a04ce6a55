//! Unit tests of the session: each asserts the exact effects of each step.
//!
//! The session is a/1, of three replicas. A vote or a question is sent again after 3 ticks, then 6,
//! 12, and 20 at most; work lets go after 5 ticks.

mod early;
mod finishing;
mod forgetting;
mod generations;
mod in_doubt;
mod preparing;
mod presenting;
mod proving;
mod quotas;
mod retrying;

use std::time::Duration;

use crate::protocol::effects::{Effects, Host, Input, TimerOp};
use crate::protocol::message::{CastVote, Message, Prepare, Question, State, Voter};
use crate::protocol::paxos::{Acceptors, Ballot, ReplicaId};
use crate::protocol::types::{
    self, Branch, CommitId, InitiatorId, Outcome, Peer, Request, Roster, Session, StoreId, TxnId,
    Vote,
};

use super::{
    InDoubt, Owner, Participant, ParticipantCommand, ParticipantConfig, ParticipantNotice,
    ParticipantTimer, Refusal,
};

pub(super) use Outcome::{Abort, Commit};
pub(super) use Vote::{Aborted, Prepared, ReadOnly};

const TICK: Duration = Duration::from_millis(10);
const TIMEOUT: Duration = Duration::from_millis(100);
const OWNER: InitiatorId = InitiatorId::from_u128(7);

fn branch(name: &str, session: u64) -> Branch {
    Branch {
        participant: name.parse().unwrap(),
        session: Session(session),
        store: StoreId::from_u128(1),
    }
}

/// The branch of the session under test.
fn me() -> Branch {
    branch("a", 1)
}

/// The usual roster: a/1 and b/1.
fn ab() -> Roster {
    Roster::new([me(), branch("b", 1)]).unwrap()
}

/// Another roster for the same transactions: a/1 alone.
fn only_a() -> Roster {
    Roster::new([me()]).unwrap()
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

fn alone(sequence: u32) -> CommitId {
    CommitId::new(txn(sequence), &only_a())
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

/// Prepare, with no request, in the usual roster.
fn please(sequence: u32) -> Prepare {
    Prepare {
        id: id(sequence),
        roster: ab(),
        request: None,
        read_only: types::ReadOnly::Allowed,
        floor: 0,
        vote_timeout: TIMEOUT,
    }
}

fn with_request(sequence: u32) -> Prepare {
    Prepare {
        request: Some(request()),
        read_only: types::ReadOnly::Forbidden,
        ..please(sequence)
    }
}

fn with_floor(sequence: u32, floor: u32) -> Prepare {
    Prepare {
        floor,
        ..please(sequence)
    }
}

fn request() -> Request {
    Request([1, 2, 3].into())
}

fn phase2b(id: CommitId, ballot: Ballot, outcome: Outcome) -> Message {
    Message::Phase2b {
        id,
        ballot,
        outcome,
    }
}

fn finish(id: CommitId, branch: Branch, outcome: Outcome) -> Message {
    Message::Finish {
        id,
        branch,
        outcome,
    }
}

fn applied(id: CommitId, branch: Branch) -> Message {
    Message::Applied { id, branch }
}

fn vote(sequence: u32, vote: Vote) -> Message {
    Message::Vote(CastVote {
        id: id(sequence),
        roster: ab(),
        vote,
        vote_timeout: TIMEOUT,
    })
}

fn question(id: CommitId, session: u64, voter: Voter) -> Message {
    Message::Ask(Question {
        id,
        branch: Some(branch("a", session)),
        voter,
        vote_timeout: Duration::ZERO,
    })
}

fn found(id: CommitId, session: u64) -> InDoubt {
    InDoubt {
        id,
        session: Session(session),
        owner: Owner::Unknown,
    }
}

/// What the resource manager is asked to make durable.
fn asks_to_prepare(prepare: Prepare) -> ParticipantNotice {
    ParticipantNotice::Prepare {
        id: prepare.id,
        request: prepare.request,
        read_only: prepare.read_only,
    }
}

/// What the resource manager is asked to apply.
fn asks_to_finish(id: CommitId, session: u64, outcome: Outcome) -> ParticipantNotice {
    ParticipantNotice::Finish {
        id,
        branch: branch("a", session),
        outcome,
    }
}

fn let_go(sequence: u32) -> ParticipantNotice {
    ParticipantNotice::LetGo(txn(sequence))
}

fn unproven(id: CommitId, session: u64) -> ParticipantNotice {
    let branch = branch("a", session);
    ParticipantNotice::Unproven { id, branch }
}

fn tells_unproven(id: CommitId, session: u64) -> Message {
    let branch = branch("a", session);
    Message::Unproven { id, branch }
}

fn unasked(sequence: u32, age_ticks: u32) -> ParticipantNotice {
    ParticipantNotice::Unasked {
        txn: txn(sequence),
        age_ticks,
    }
}

fn began(sequence: u32) -> ParticipantNotice {
    ParticipantNotice::Began(txn(sequence))
}

fn refused(sequence: u32) -> ParticipantNotice {
    ParticipantNotice::Refused {
        txn: txn(sequence),
        why: Refusal::Over,
    }
}

fn ended(sequence: u32, outcome: Outcome) -> ParticipantNotice {
    let id = id(sequence);
    ParticipantNotice::Outcome { id, outcome }
}

fn effects(
    send: impl Into<Vec<(Peer, Message)>>,
    notify: impl Into<Vec<ParticipantNotice>>,
) -> Effects<Participant> {
    Effects {
        send: send.into(),
        notify: notify.into(),
        ..Effects::default()
    }
}

fn sends(send: impl Into<Vec<(Peer, Message)>>) -> Effects<Participant> {
    effects(send, [])
}

fn notifies(notify: impl Into<Vec<ParticipantNotice>>) -> Effects<Participant> {
    effects([], notify)
}

/// A session presents itself first of all.
fn presents(replica_id: u32) -> (Peer, Message) {
    let (opening, after) = (None, None);
    (replica(replica_id), Message::Present { opening, after })
}

fn nothing() -> Effects<Participant> {
    Effects::default()
}

fn to_all(message: Message) -> Vec<(Peer, Message)> {
    let each = [1, 2, 3].map(|id| (replica(id), message.clone()));
    each.to_vec()
}

fn config() -> ParticipantConfig {
    let acceptors = Acceptors::new((1..=3).map(ReplicaId)).unwrap();
    ParticipantConfig {
        tick: TICK,
        retry_ticks: 3,
        retry_ticks_max: 20,
        work_ticks_max: 5,
        ..ParticipantConfig::new(me(), acceptors)
    }
}

/// A session.
struct Rig {
    participant: Participant,
}

impl Rig {
    fn new() -> Self {
        Rig::with(config())
    }

    fn with(config: ParticipantConfig) -> Self {
        let mut out = Effects::default();
        Participant::recover(config.clone(), [], &mut out);
        assert_eq!(out.timers, [tick_set()]);
        out.timers.clear();
        assert!(out.is_empty());
        Rig {
            participant: Participant::entered(config),
        }
    }

    /// Work has begun under transaction 1.
    fn working() -> Self {
        let mut rig = Rig::new();
        assert_eq!(rig.begin(1), notifies([began(1)]));
        rig
    }

    /// Transaction 1 was asked to prepare, and the resource manager has not answered.
    fn preparing() -> Self {
        let mut rig = Rig::working();
        rig.asked(please(1));
        rig
    }

    /// Transaction 1 has voted.
    fn voted(vote: Vote) -> Self {
        let mut rig = Rig::preparing();
        rig.prepared(1, vote);
        rig
    }

    /// Transaction 1 was committed and applied.
    fn committed() -> Self {
        let mut rig = Rig::voted(Prepared);
        rig.hear(1, finish(id(1), me(), Commit));
        rig.finished(id(1), 1);
        rig
    }

    fn step(&mut self, input: Input<Participant>) -> Effects<Participant> {
        let mut out = Effects::default();
        self.participant.step(input, &mut out);
        out
    }

    fn command(&mut self, command: ParticipantCommand) -> Effects<Participant> {
        self.step(Input::Command(command))
    }

    /// Hears a message from replica `from`.
    fn hear(&mut self, from: u32, message: Message) -> Effects<Participant> {
        let from = replica(from);
        self.step(Input::Message { from, message })
    }

    /// Is asked to prepare, by replica 2.
    fn asked(&mut self, prepare: Prepare) -> Effects<Participant> {
        self.hear(2, Message::Prepare(prepare))
    }

    fn begin(&mut self, sequence: u32) -> Effects<Participant> {
        self.command(ParticipantCommand::Begin(txn(sequence)))
    }

    fn poison(&mut self, sequence: u32) {
        let out = self.command(ParticipantCommand::Poison(txn(sequence)));
        assert_eq!(out, nothing());
    }

    fn rollback(&mut self, sequence: u32) -> Effects<Participant> {
        self.command(ParticipantCommand::Rollback(txn(sequence)))
    }

    /// The resource manager has answered Prepare.
    fn prepared(&mut self, sequence: u32, vote: Vote) -> Effects<Participant> {
        let id = id(sequence);
        self.command(ParticipantCommand::Prepared { id, vote })
    }

    /// The resource manager has answered Finish.
    fn finished(&mut self, id: CommitId, session: u64) -> Effects<Participant> {
        let branch = branch("a", session);
        self.command(ParticipantCommand::Finished { id, branch })
    }

    /// The other answer to Finish.
    fn not_proven(&mut self, id: CommitId, session: u64) -> Effects<Participant> {
        let branch = branch("a", session);
        self.command(ParticipantCommand::NotProven { id, branch })
    }

    fn found(&mut self, found: impl Into<Vec<InDoubt>>) -> Effects<Participant> {
        self.command(ParticipantCommand::InDoubt(found.into()))
    }

    /// One tick. It always sets the next.
    fn tick(&mut self) -> Effects<Participant> {
        let mut out = self.step(Input::Timeout(ParticipantTimer::Tick));
        assert_eq!(out.timers, [tick_set()]);
        out.timers.clear();
        out
    }

    /// Ticks until something happens: how many ticks, and what.
    fn wait(&mut self) -> (u32, Effects<Participant>) {
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

    fn in_doubt(&self) -> Vec<CommitId> {
        self.participant.in_doubt().collect()
    }
}

fn tick_set() -> TimerOp<ParticipantTimer> {
    TimerOp::Set {
        timer: ParticipantTimer::Tick,
        after: TICK,
    }
}
