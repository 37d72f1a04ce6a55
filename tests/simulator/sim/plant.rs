//! Planted bugs: wrappers around hosts, disks and network that break one rule each, to see whether
//! the judges notice. The product has no hook for them.

use paxos_commit::protocol::message::{Decision, Frozen, Message, Report};
use paxos_commit::protocol::paxos::log::{LogMessage, LogRecord};
use paxos_commit::protocol::paxos::{Ballot, ReplicaId};
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::{BranchSet, CommitId, Entry, Outcome, Peer};
use paxos_commit::protocol::{Effects, Host, Participant, Replica};

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
    /// Replicas say that a generation is frozen, and go on with it.
    NoFreezing,
    /// Replicas forget at restart what they have frozen.
    FreezeForgotten,
    /// The leader of the log tells what it collected.
    OutcomeFromCollection,
    /// A leader that finds a Settle in phase 1 proposes a list of its own.
    FreshList,
    /// Replicas answer with Expired when they have accepted a Settle.
    ExpiredEarly,
    /// Those who are no longer in force are not asked what they hold; others answer for them.
    CollectsFromNew,
    /// The horizon is saved, and the process dies before the list is.
    HorizonBeforeList,
    /// A generation is handed out when its Open is accepted.
    OpenHandedOutEarly,
    /// A replica that lost its disk comes back under its name.
    LostDiskComesBack,
    /// What is evicted is not looked for on disk: it is taken for new.
    ForgetsToRecall,
    /// A replica that restarts is not told what its disk holds besides: it is taken for new.
    ForgetsStored,
    /// What is finished is evicted before it is durable: what is recalled is older.
    EvictsBeforeSaved,
    /// A replica fails when a commit is settled that it holds as aborted.
    AssertsOnContradiction,
    /// A session believes that a generation is open because an id names it.
    BelievesIdsOfGenerations,
    /// The nonce of a transaction can be guessed.
    ConstantNonce,
    /// A session believes the floor of a plan as if a relay had checked its sender.
    FloorFromPlan,
}

impl Plant {
    /// What a step of a replica comes to.
    pub fn bend(self, world: &mut World, index: usize, effects: &mut Effects<Replica>) {
        match self {
            Plant::NoFreezing => thaw(world, index, effects),
            Plant::OutcomeFromCollection => {
                let proposed = effects
                    .send
                    .iter()
                    .filter_map(|(_, message)| match message {
                        Message::Log(LogMessage::Accept {
                            entry: Entry::Settle(settle),
                            ..
                        }) => Some(settle.unfinished.clone()),
                        _ => None,
                    });
                let told: Vec<CommitId> = proposed.flatten().map(|listed| listed.id).collect();
                for id in told {
                    let decided = Message::Decided(Decision {
                        id,
                        outcome: Outcome::Commit,
                        unapplied: None,
                    });
                    effects
                        .send
                        .push((Peer::Initiator(id.txn.initiator), decided));
                }
            }
            Plant::ExpiredEarly => {
                for entry in accepted(effects) {
                    expire_early(world, index, &entry, effects);
                }
            }
            Plant::OpenHandedOutEarly => {
                for entry in accepted(effects) {
                    if let Entry::Open(_) = entry {
                        let mut generations = world.disks[index].generations().clone();
                        generations.apply(&entry);
                        let client = world.initiators[0].me.clone();
                        effects.send.push((client, Message::Announce(generations)));
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether somebody else answers for a replica that is no longer in force: it is never asked.
    pub fn answers_for(self, world: &World, to: &Peer, message: &Message) -> Option<Message> {
        let Peer::Replica(id) = to else { return None };
        let in_force = world.facts.generations().in_force()?;
        if self != Plant::CollectsFromNew || in_force.acceptors().contains(*id) {
            return None;
        }
        match message {
            Message::Freeze { generation, after } => Some(Message::Frozen {
                generation: *generation,
                after: *after,
                ids: Vec::new(),
                more: false,
            }),
            Message::Collect { generation, ids } => Some(Message::Collected {
                generation: *generation,
                records: ids.iter().map(|id| nothing_of(*id)).collect(),
            }),
            _ => None,
        }
    }

    pub const ALL: [Plant; 27] = [
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
        Plant::NoFreezing,
        Plant::FreezeForgotten,
        Plant::OutcomeFromCollection,
        Plant::FreshList,
        Plant::ExpiredEarly,
        Plant::CollectsFromNew,
        Plant::HorizonBeforeList,
        Plant::OpenHandedOutEarly,
        Plant::LostDiskComesBack,
        Plant::ForgetsToRecall,
        Plant::ForgetsStored,
        Plant::EvictsBeforeSaved,
        Plant::AssertsOnContradiction,
        Plant::BelievesIdsOfGenerations,
        Plant::ConstantNonce,
        Plant::FloorFromPlan,
    ];

    /// What a replica's disk gives back when it restarts.
    pub fn load(self, me: ReplicaId, records: Vec<Record>) -> Vec<Record> {
        if self == Plant::LostDiskComesBack {
            return Vec::new();
        }
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
            (Plant::FreezeForgotten | Plant::NoFreezing, Record::Frozen { .. }) => false,
            (
                Plant::BallotTwice,
                Record::Promise { ballot, .. } | Record::Accept { ballot, .. },
            ) => ballot.replica != me,
            (_, _) => true,
        };
        let kept = records.into_iter().filter(keep);
        kept.map(|record| self.loaded(record)).collect()
    }

    fn loaded(self, mut record: Record) -> Record {
        if let (Plant::HorizonBeforeList, Record::State { listed, .. }) = (self, &mut record) {
            listed.clear();
        }
        record
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
            (
                Plant::FreshList,
                Message::Log(LogMessage::Promise {
                    accepted: accepted @ Some((_, Entry::Settle(_))),
                    ..
                }),
            ) => *accepted = None,
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

impl World {
    /// The planted session that forgets: its memory is gone, its name is not.
    pub fn maybe_forget(&mut self, index: usize) {
        if self.options.plant == Some(Plant::SessionForgets) && self.rng.u32(..20) == 0 {
            let config = self.sessions[index].config.clone();
            let blank = Participant::recover(config, [], &mut Effects::default());
            self.sessions[index].host = Some(blank);
        }
    }
}

/// The entries that a step accepts.
fn accepted(effects: &Effects<Replica>) -> Vec<Entry> {
    let accepted = effects.save.iter().filter_map(|record| match record {
        Record::Log(LogRecord::Accept { entry, .. }) => Some(entry.clone()),
        _ => None,
    });
    accepted.collect()
}

/// The replica says that it is frozen, and is not.
fn thaw(world: &mut World, index: usize, effects: &Effects<Replica>) {
    let is_frozen = |record: &Record| matches!(record, Record::Frozen { .. });
    if !effects.save.iter().any(is_frozen) {
        return;
    }
    let mut kept = world.disks[index].clone();
    let node = &mut world.replicas[index];
    let earlier = node.saving.iter().chain(&node.waiting);
    for record in earlier
        .flat_map(|effects| &effects.save)
        .chain(&effects.save)
    {
        kept.apply(record.clone());
    }
    let records: Vec<Record> = kept.iter().filter(|record| !is_frozen(record)).collect();
    let config = node.config.clone();
    node.host = Some(Replica::recover(config, records, &mut Effects::default()));
}

fn expire_early(world: &World, index: usize, entry: &Entry, effects: &mut Effects<Replica>) {
    let (Entry::Settle(settle), Some(host)) = (entry, &world.replicas[index].host) else {
        return;
    };
    for id in host.undecided().filter(|id| **id <= settle.through) {
        let expired = Message::Expired {
            id: *id,
            branch: None,
        };
        effects
            .send
            .push((Peer::Initiator(id.txn.initiator), expired));
    }
}

fn nothing_of(id: CommitId) -> Frozen {
    Frozen {
        report: Report {
            id,
            accepted: None,
            held: BranchSet::default(),
            read_only: BranchSet::default(),
            roster: None,
        },
        decided: None,
    }
}
