//! Planted bugs: wrappers around hosts, disks and network that break one rule each, to see whether
//! the judges notice. The product has no hook for them.

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::paxos::{Ballot, ReplicaId};
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::{BranchSet, CommitId, Outcome, Peer};
use paxos_commit::protocol::{Effects, Replica};

use super::world::World;

/// A rule, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Replicas send before they have saved.
    SendBeforeSave,
    /// What needs no save itself does not wait for earlier saves.
    ReleaseNotFifo,
    /// Replicas forget their promises when they restart.
    ForgetsPromises,
    /// Replicas forget the votes that they hold when they restart.
    ForgetsVotes,
    /// A promise hides the votes below it when a replica restarts.
    PromiseHidesVotes,
    /// Replicas forget which ballots they used when they restart.
    BallotTwice,
    /// A participant that restarts takes its old session again.
    VotesAgain,
    /// A session forgets what it voted.
    SessionForgets,
    /// Initiators and sessions count reports of different ballots together.
    MixesBallots,
    /// Initiators and sessions believe one replica's Abort at a ballot above 0.
    BelievesOneAbort,
    /// The votes that others report do not count in recovery.
    NoUnion,
}

impl Plant {
    /// What a step of a replica comes to.
    pub fn bend(self, _world: &mut World, _index: usize, _effects: &mut Effects<Replica>) {}

    pub const ALL: [Plant; 11] = [
        Plant::SendBeforeSave,
        Plant::ReleaseNotFifo,
        Plant::ForgetsPromises,
        Plant::ForgetsVotes,
        Plant::PromiseHidesVotes,
        Plant::BallotTwice,
        Plant::VotesAgain,
        Plant::SessionForgets,
        Plant::MixesBallots,
        Plant::BelievesOneAbort,
        Plant::NoUnion,
    ];

    /// What a replica's disk gives back when it restarts.
    pub fn load(self, me: ReplicaId, records: Vec<Record>) -> Vec<Record> {
        let promised: Vec<CommitId> = records
            .iter()
            .filter_map(|record| match record {
                Record::Promise { id, .. } => Some(*id),
                _ => None,
            })
            .collect();
        let keep = |record: &Record| match (self, record) {
            (Plant::ForgetsPromises, Record::Promise { .. }) => false,
            (Plant::ForgetsVotes, Record::Vote { .. }) => false,
            (Plant::PromiseHidesVotes, Record::Vote { id, .. }) => !promised.contains(id),
            (Plant::BallotTwice, Record::Round { .. }) => false,
            (
                Plant::BallotTwice,
                Record::Promise { ballot, .. } | Record::Accept { ballot, .. },
            ) => ballot.replica != me,
            (_, _) => true,
        };
        records.into_iter().filter(keep).collect()
    }

    /// What a message has become when it reaches `to`.
    pub fn receive(self, to: &Peer, mut message: Message) -> Message {
        let learner = matches!(to, Peer::Initiator(_) | Peer::Session(_));
        match (self, &mut message) {
            (Plant::MixesBallots, Message::Phase2b { ballot, .. })
                if learner && !ballot.is_zero() =>
            {
                *ballot = Ballot {
                    round: 1,
                    replica: ReplicaId(1),
                };
            }
            (
                Plant::BelievesOneAbort,
                Message::Phase2b {
                    ballot,
                    outcome: Outcome::Abort,
                    ..
                },
            ) if learner => *ballot = Ballot::ZERO,
            (Plant::NoUnion, Message::Phase1b { reports, .. }) => {
                for report in reports {
                    report.held = BranchSet::default();
                }
            }
            (_, _) => {}
        }
        message
    }
}
