//! The control log, generations, freezing and forgetting, as one replica sees them.

mod catching_up;
mod closed;
mod forgetting;
mod freezing;
mod listing;
mod membership;
mod operator;

use super::*;
use crate::protocol::message::{BATCH_MAX, Frozen, ListPage, Waits};
use crate::protocol::paxos::log::{LogMessage, LogRecord};
use crate::protocol::types::{Configuration, Entry, Generations, Listed, Member, Open, Settle};

pub(super) fn configuration(ids: &[u32]) -> Configuration {
    let ids = ids.iter().copied().map(ReplicaId);
    Acceptors::new(ids).unwrap().into()
}

pub(super) fn open(generation: u32, ids: &[u32]) -> Entry {
    Entry::Open(Open {
        generation,
        configuration: configuration(ids),
    })
}

/// All of generation 1 is settled, and these commits wait.
pub(super) fn settle(listed: &[u32]) -> Entry {
    settle_through(Generations::last_id(1), listed)
}

pub(super) fn settle_through(through: CommitId, sequences: &[u32]) -> Entry {
    Entry::Settle(Box::new(Settle {
        after: None,
        through,
        unfinished: sequences.iter().copied().map(listed).collect(),
    }))
}

pub(super) fn listed(sequence: u32) -> Listed {
    Listed {
        id: id(sequence),
        unapplied: whom(&[]),
    }
}

pub(in super::super) fn chosen(slot: u64, entry: Entry) -> Record {
    Record::Chosen { slot, entry }
}

/// What these entries come to.
pub(in super::super) fn generations(entries: &[Entry]) -> Generations {
    let mut generations = Generations::genesis(configuration(&[1, 2, 3]));
    for entry in entries {
        generations.apply(entry);
    }
    generations
}

/// Generations 2 and 3 are open, on the same replicas.
pub(super) fn third() -> [Entry; 2] {
    [open(2, &[1, 2, 3]), open(3, &[1, 2, 3])]
}

pub(super) fn chosen_all(entries: &[Entry]) -> Vec<Record> {
    let entries = (0..).zip(entries.iter().cloned());
    entries.map(|(slot, entry)| chosen(slot, entry)).collect()
}

/// Replica `me` of three, which has learned these entries and saved these records.
pub(in super::super) fn knowing(me: u32, entries: &[Entry], saved: impl Into<Vec<Record>>) -> Rig {
    let mut records = saved.into();
    records.extend(chosen_all(entries));
    Rig::with(config(me, 3), records)
}

/// Replica `me` of three with generation 1 closed.
pub(super) fn closed(me: u32, saved: impl Into<Vec<Record>>) -> Rig {
    knowing(me, &third(), saved)
}

/// Replica 4, which has still to learn which generations there are.
pub(super) fn joining() -> Rig {
    let config = ReplicaConfig {
        genesis: None,
        ..config(4, 3)
    };
    Rig::with(config, Vec::new())
}

pub(super) fn log(message: LogMessage<Entry>) -> Message {
    Message::Log(message)
}

pub(in super::super) fn learn(slot: u64, entry: Entry) -> Message {
    log(LogMessage::Chosen { slot, entry })
}

pub(super) fn fetch(slot: u64) -> Message {
    Message::Fetch {
        slot,
        after: None,
        after_name: None,
    }
}

pub(super) fn state(entries: &[Entry], listed: impl Into<Vec<Listed>>) -> Message {
    Message::State {
        generations: generations(entries),
        after: None,
        listed: listed.into(),
        more: false,
        stores: Box::default(),
    }
}

pub(super) fn expired(sequence: u32, branch: Option<Branch>) -> Message {
    let id = id(sequence);
    Message::Expired { id, branch }
}

pub(super) fn freeze(generation: u32) -> Message {
    let after = None;
    Message::Freeze { generation, after }
}

pub(super) fn frozen(generation: u32, ids: &[CommitId], more: bool) -> Message {
    Message::Frozen {
        generation,
        after: None,
        ids: ids.to_vec(),
        more,
    }
}

pub(super) fn collect(ids: &[CommitId]) -> Message {
    let (generation, ids) = (1, ids.to_vec());
    Message::Collect { generation, ids }
}

pub(super) fn collected(records: impl Into<Vec<Frozen>>) -> Message {
    let (generation, records) = (1, records.into());
    Message::Collected {
        generation,
        records,
    }
}

pub(super) fn holds(report: Report, decided: Option<(Outcome, Waits)>) -> Frozen {
    Frozen { report, decided }
}

pub(super) const FROZEN: Record = Record::Frozen { generation: 1 };

/// The votes of the usual roster.
pub(super) fn both_votes(sequence: u32) -> [Record; 2] {
    [
        vote_record(sequence, 0, Prepared, Some(ab())),
        vote_record(sequence, 1, Prepared, None),
    ]
}

/// Replica 1 of three leads the log, with generation 1 closed.
pub(super) fn leading(saved: impl Into<Vec<Record>>) -> Rig {
    let mut rig = Rig::with(
        ReplicaConfig {
            log: LogConfig {
                silence_ticks: 1,
                silence_ticks_max: 1,
                heartbeat_ticks: 1_000,
                stagger_ticks: 0,
            },
            generation_ticks: u32::MAX,
            grace_ticks: 3,
            collect_ticks: 4,
            list_max: 2,
            ..config(1, 3)
        },
        {
            let mut records = saved.into();
            records.extend(chosen_all(&third()));
            records
        },
    );
    let ballot = ballot(1, 1);
    let prepare = log(LogMessage::Prepare { slot: 2, ballot });
    let round = Record::Log(LogRecord::Round { round: 1 });
    assert_eq!(rig.tick(), effects([round], to(all(), prepare)));
    for from in [2, 3] {
        rig.hear(replica(from), promise(None));
    }
    assert!(rig.replica.is_leading());
    rig
}

pub(super) fn promise(accepted: Option<(Ballot, Entry)>) -> Message {
    log(LogMessage::Promise {
        slot: 2,
        ballot: ballot(1, 1),
        accepted,
    })
}

/// The leader's proposal in slot 2.
pub(super) fn proposed(entry: Entry) -> Vec<(Peer, Message)> {
    let ballot = ballot(1, 1);
    let accept = log(LogMessage::Accept {
        slot: 2,
        ballot,
        entry,
    });
    to(all(), accept)
}

/// Replica 2 accepts too: the leader's entry in slot 2 is chosen.
pub(super) fn accepted(rig: &mut Rig) -> Effects<Replica> {
    let accepted = log(LogMessage::Accepted {
        slot: 2,
        ballot: ballot(1, 1),
    });
    rig.hear(replica(3), accepted.clone());
    rig.hear(replica(2), accepted)
}

/// Replica 1 leads with generation 1 alone; nothing is to be settled.
pub(in super::super) fn leading_the_first(config: ReplicaConfig) -> Rig {
    let log_config = LogConfig {
        silence_ticks: 1,
        silence_ticks_max: 1,
        heartbeat_ticks: 1_000,
        stagger_ticks: 0,
    };
    let mut rig = Rig::with(
        ReplicaConfig {
            log: log_config,
            ..config
        },
        Vec::new(),
    );
    rig.tick();
    for from in [2, 3] {
        rig.hear(
            replica(from),
            log(LogMessage::Promise {
                slot: 0,
                ballot: ballot(1, 1),
                accepted: None,
            }),
        );
    }
    assert!(rig.replica.is_leading());
    rig
}

/// The entry that replica 1 has proposed in slot 0 is chosen.
pub(in super::super) fn choose(rig: &mut Rig) -> Effects<Replica> {
    let accepted = log(LogMessage::Accepted {
        slot: 0,
        ballot: ballot(1, 1),
    });
    rig.hear(replica(2), accepted.clone());
    rig.hear(replica(3), accepted)
}
