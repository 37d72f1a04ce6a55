//! What the same review found in the log, in catching up, and in the observer.

use std::time::Duration;

use crate::invariant::Facts;
use paxos_commit::protocol::message::{CastVote, Message};
use paxos_commit::protocol::paxos::log::{LogMessage, LogRecord};
use paxos_commit::protocol::paxos::{Ballot, ReplicaId};
use paxos_commit::protocol::replica::{Record, ReplicaConfig, ReplicaTimer};
use paxos_commit::protocol::types::{
    BranchSet, CommitId, Entry, Generations, Listed, Open, Peer, Roster, Settle, Unapplied, Vote,
};
use paxos_commit::protocol::{Effects, Host, Input, Replica};

use super::forgetting::{acceptors, branch, hear, id, quiet, roster, step};

/// Generations without a configuration: nobody has them to tell.
#[test]
fn a_state_of_nothing_does_no_harm() {
    let mut replica = Replica::recover(quiet(1), [], &mut Effects::default());
    let mut generations = Generations::default();
    generations.apply(&Entry::Release { id: id(1) });
    let state = Message::State {
        generations,
        after: None,
        listed: vec![],
        more: false,
        stores: Box::default(),
    };
    hear(&mut replica, Peer::Replica(ReplicaId(9)), state);
    let entry = Entry::Release { id: id(1) };
    let chosen = Message::Log(LogMessage::Chosen { slot: 0, entry });
    hear(&mut replica, Peer::Replica(ReplicaId(2)), chosen);
}

/// An Open that does not follow changes nothing, says `Generations::apply`; the log takes its
/// acceptors all the same, until the next restart.
#[test]
fn an_open_that_does_not_follow_changes_no_acceptors() {
    let mut replica = Replica::recover(quiet(1), [], &mut Effects::default());
    let open = Open {
        generation: u32::MAX,
        configuration: acceptors(&[1]).into(),
    };
    let chosen = Message::Log(LogMessage::Chosen {
        slot: 0,
        entry: Entry::Open(open),
    });
    let saved: Vec<Record> = hear(&mut replica, Peer::Replica(ReplicaId(2)), chosen).save;
    assert_eq!(saved, [], "it is refused");
    let mut alone = None;
    for _ in 0..100 {
        let out = step(&mut replica, Input::Timeout(ReplicaTimer::Tick));
        for (to, message) in out.send {
            if to == Peer::Replica(ReplicaId(1)) {
                let out = hear(&mut replica, to, message);
                for (to, message) in out.send {
                    if to == Peer::Replica(ReplicaId(1)) {
                        hear(&mut replica, to, message);
                    }
                }
            }
        }
        alone = alone.or(replica.is_leading().then_some(()));
    }
    assert_eq!(alone, None, "it leads three replicas by its own promise");
}

/// A participant is away, so 1280 settled commits wait for it: five pages of a state. A replica that
/// is behind asks for the first page again at each sign of life of the leader, and by that page
/// throws away what it has: with two round trips in each heartbeat it never comes to the end.
#[test]
fn a_long_state_is_taken_over_however_often_the_leader_shows_that_it_lives() {
    let config = |id| ReplicaConfig {
        list_max: 256,
        ..quiet(id)
    };
    let new = |id| Replica::recover(config(id), [], &mut Effects::default());
    let (mut leader, mut behind) = (new(2), new(1));
    let open = |generation| {
        let configuration = acceptors(&[1, 2, 3]).into();
        Entry::Open(Open {
            generation,
            configuration,
        })
    };
    let settle = |part: u32| {
        let unapplied = Unapplied {
            roster: roster(),
            read_only: BranchSet::default(),
        };
        let ids = (part * 256..(part + 1) * 256).map(id);
        let listed = |id| Listed {
            id,
            unapplied: unapplied.clone(),
        };
        let unfinished: Vec<Listed> = ids.map(listed).collect();
        Entry::Settle(Box::new(Settle {
            after: part.checked_sub(1).map(|last| id(last * 256 + 255)),
            through: unfinished[255].id,
            unfinished,
        }))
    };
    let mut entries = vec![open(2), open(3)];
    entries.extend((0..5).map(settle));
    let slots = entries.len() as u64;
    for (slot, entry) in entries.into_iter().enumerate() {
        let slot = slot as u64;
        let chosen = Message::Log(LogMessage::Chosen { slot, entry });
        hear(&mut leader, Peer::Replica(ReplicaId(3)), chosen);
    }
    let (one, two) = (Peer::Replica(ReplicaId(1)), Peer::Replica(ReplicaId(2)));
    let ballot = Ballot {
        round: 1,
        replica: ReplicaId(2),
    };
    let mut asked: Vec<Message> = Vec::new();
    for round_trip in 0..1_000 {
        let mut arriving = Vec::new();
        for message in std::mem::take(&mut asked) {
            let out = hear(&mut leader, one.clone(), message);
            arriving.extend(out.send.into_iter().filter(|(to, _)| *to == one));
        }
        if round_trip % 2 == 0 {
            let lead = LogMessage::Lead {
                slot: slots,
                ballot,
            };
            arriving.push((one.clone(), Message::Log(lead)));
        }
        for (_, message) in arriving {
            let out = hear(&mut behind, two.clone(), message);
            asked.extend(out.send.into_iter().map(|(_, message)| message));
        }
    }
    assert_eq!(behind.generations().slot(), slots, "behind for ever");
}

/// A transaction whose only branch voted ReadOnly: replica 3 alone has accepted Commit when it is
/// settled from 1 and 3. That is a commit, bound by replica 3, and nobody waits for it, so it is not
/// listed. Replica 2, which was paused, takes the vote later: the same commit.
#[test]
fn judge_takes_a_settled_read_only_commit_for_no_abort() {
    let mut facts = Facts::new(acceptors(&[1, 2, 3]));
    let roster = Roster::new([branch("a")]).expect("a roster");
    let id = CommitId::new(id(1).txn, &roster);
    let (vote, vote_timeout) = (Vote::ReadOnly, Duration::ZERO);
    let cast = CastVote {
        id,
        roster: roster.clone(),
        vote,
        vote_timeout,
    };
    facts
        .sent(&Peer::Session(branch("a")), &Message::Vote(cast))
        .expect("sound");
    let held = Record::Vote {
        id,
        index: 0,
        vote,
        roster: Some(roster),
    };
    facts.durable(ReplicaId(3), &held).expect("sound");
    let open = |generation| {
        let configuration = acceptors(&[1, 2, 3]).into();
        Entry::Open(Open {
            generation,
            configuration,
        })
    };
    let settle = Settle {
        after: None,
        through: Generations::last_id(1),
        unfinished: vec![],
    };
    let ballot = Ballot {
        round: 1,
        replica: ReplicaId(1),
    };
    for (slot, entry) in [open(2), open(3), Entry::Settle(Box::new(settle))]
        .into_iter()
        .enumerate()
    {
        let slot = slot as u64;
        for replica in [1, 3].map(ReplicaId) {
            let entry = entry.clone();
            let accept = Record::Log(LogRecord::Accept {
                slot,
                ballot,
                entry,
            });
            facts.durable(replica, &accept).expect("sound");
            let entry = match &accept {
                Record::Log(LogRecord::Accept { entry, .. }) => entry.clone(),
                _ => unreachable!(),
            };
            let before = facts.generations().slot();
            if before > slot {
                facts
                    .durable(
                        replica,
                        &Record::Chosen {
                            slot,
                            entry: entry.clone(),
                        },
                    )
                    .expect("sound");
                if replica == ReplicaId(3) {
                    facts
                        .durable(ReplicaId(1), &Record::Chosen { slot, entry })
                        .expect("sound");
                }
            }
        }
    }
    facts.durable(ReplicaId(2), &held).expect("the same commit");
}
