//! What must be seen sometimes, as messages and records show it.

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::paxos::log::{LogMessage, LogRecord};
use paxos_commit::protocol::paxos::{Ballot, ReplicaId};
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::{CommitId, Entry, Generations, Outcome, Peer};
use paxos_commit::protocol::{Participant, Replica};

use super::stats::{Memory, Sometimes};
use super::world::World;

impl World {
    fn note_memory(&mut self, generation: u32) {
        let host = self.replicas[0].host.as_ref();
        let session = self.sessions[0].host.as_ref();
        self.stats.memory.push(Memory {
            generation,
            transactions: host.map_or(0, Replica::remembered),
            records: self.disks[0].transactions(),
            branches: session.map_or(0, Participant::remembered),
        });
    }

    /// A record of a replica has become durable.
    pub fn observe_durable(&mut self, index: usize, record: &Record) {
        let commits_before: Vec<CommitId> = match record {
            Record::Log(LogRecord::Accept {
                entry: Entry::Settle(settle),
                ..
            }) => {
                let listed = settle.unfinished.iter();
                let honest = listed.filter(|listed| self.is_judged(&listed.id));
                let undecided = honest.filter(|listed| self.facts.chosen(&listed.id).is_none());
                undecided.map(|listed| listed.id).collect()
            }
            _ => Vec::new(),
        };
        let result = self.judge_durable(ReplicaId(index as u32 + 1), record);
        self.check(result);
        if commits_before
            .iter()
            .any(|id| self.facts.chosen(id).is_some())
        {
            self.stats.saw(Sometimes::SettleCommits);
        }
        match record {
            Record::State { .. } => self.stats.saw(Sometimes::StateTakenOver),
            Record::Chosen {
                entry: Entry::Open(open),
                ..
            } => {
                self.stats.saw(Sometimes::GenerationOpened);
                if index == 0 {
                    self.note_memory(open.generation);
                }
            }
            Record::Chosen {
                entry: Entry::Settle(settle),
                ..
            } => {
                let last = Generations::last_id(settle.through.txn.generation);
                self.stats.saw(if settle.through == last {
                    Sometimes::GenerationSettled
                } else {
                    Sometimes::SettledInParts
                });
                if !settle.unfinished.is_empty() {
                    self.stats.saw(Sometimes::SettleLists);
                }
            }
            Record::Chosen {
                entry: Entry::Release { .. },
                ..
            } => self.stats.saw(Sometimes::ReleasedByOperator),
            Record::Chosen {
                entry: Entry::Unlist { .. },
                ..
            } => self.stats.saw(Sometimes::Unlisted),
            Record::Chosen {
                entry: Entry::Enter { .. } | Entry::Gone { .. } | Entry::Restored { .. },
                ..
            } => self.stats.saw(Sometimes::StoreEntered),
            Record::Vote { .. }
            | Record::Promise { .. }
            | Record::Accept { .. }
            | Record::Committed { .. }
            | Record::Finished { .. }
            | Record::Round { .. }
            | Record::Disputed { .. }
            | Record::Log(_)
            | Record::Frozen { .. } => {}
        }
    }

    /// Counts what must happen sometimes, as messages show it.
    pub fn observe_sent(&mut self, to: &Peer, message: &Message) {
        if self.plan.is_fair() {
            return;
        }
        match message {
            Message::Nack { .. } => self.stats.saw(Sometimes::NackSent),
            Message::Busy { .. } => self.stats.saw(Sometimes::BusyAnswer),
            Message::NotOpen { .. } => self.stats.saw(Sometimes::NotOpenAnswer),
            Message::Expired { .. } => match to {
                Peer::Session(_) => self.stats.saw(Sometimes::ExpiredToBranch),
                Peer::Initiator(_) => self.stats.saw(Sometimes::ExpiredToInitiator),
                Peer::Replica(_) | Peer::Operator(_) => {}
            },
            Message::Log(LogMessage::Promise {
                accepted: Some((_, Entry::Settle(_))),
                ..
            }) => self.stats.saw(Sometimes::SettleFoundInPhase1),
            Message::Log(LogMessage::Lead { ballot, .. }) => {
                let leader = Some(ballot.replica.0 as usize - 1);
                if self.leader != leader {
                    self.leader = leader;
                    self.stats.saw(Sometimes::LeaderMoved);
                }
            }
            Message::Phase2b { ballot, .. } if ballot.is_zero() => {
                if matches!(to, Peer::Replica(_)) {
                    self.stats.saw(Sometimes::ExchangeAtBallotZero);
                }
            }
            Message::Phase1b { ballot, reports } => {
                for report in reports {
                    if report.accepted.is_some() {
                        self.network.bound.insert((report.id, *ballot));
                    }
                }
            }
            Message::Phase2a { ballot, proposals } => {
                for proposal in proposals {
                    self.observe_proposal(proposal.id, *ballot, proposal.outcome);
                }
            }
            _ => {}
        }
    }

    fn observe_proposal(&mut self, id: CommitId, ballot: Ballot, outcome: Outcome) {
        let bound = self.network.bound.contains(&(id, ballot));
        self.stats.saw(match (outcome, bound) {
            (Outcome::Abort, _) => Sometimes::RecoveryAborts,
            (Outcome::Commit, true) => Sometimes::RecoveryCommitsBound,
            (Outcome::Commit, false) => Sometimes::RecoveryCommitsUnion,
        });
    }
}
