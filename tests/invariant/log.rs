//! The observer sees each violation of the control log, and nothing else.

use std::time::Duration;

use crate::facts::{Facts, Violation};
use paxos_commit::protocol::message::{CastVote, Message, Unapplied};
use paxos_commit::protocol::paxos::log::{LogMessage, LogRecord};
use paxos_commit::protocol::paxos::{Acceptors, Ballot, ReplicaId};
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::{
    Branch, BranchSet, CommitId, Entry, Generations, InitiatorId, Listed, Open, Outcome, Peer,
    Roster, Session, Settle, StoreId, TxnId, Vote,
};

type Result = std::result::Result<(), Violation>;

fn branch(session: u64) -> Branch {
    Branch {
        participant: "p".parse().unwrap(),
        session: Session(session),
        store: StoreId::from_u128(1),
    }
}

fn roster() -> Roster {
    Roster::new([branch(0)]).unwrap()
}

fn id() -> CommitId {
    let txn = TxnId {
        generation: 1,
        initiator: InitiatorId::from_u128(1),
        sequence: 1,
        nonce: 9,
    };
    CommitId::new(txn, &roster())
}

fn acceptors(ids: [u32; 3]) -> Acceptors {
    Acceptors::new(ids.map(ReplicaId)).unwrap()
}

fn ballot(round: u64, replica: u32) -> Ballot {
    Ballot {
        round,
        replica: ReplicaId(replica),
    }
}

fn open(generation: u32, ids: [u32; 3]) -> Entry {
    Entry::Open(Open {
        generation,
        configuration: acceptors(ids).into(),
    })
}

fn listed() -> Listed {
    Listed {
        id: id(),
        unapplied: Unapplied {
            roster: roster(),
            read_only: BranchSet::default(),
        },
    }
}

fn settle(unfinished: impl Into<Vec<Listed>>) -> Entry {
    Entry::Settle(Box::new(Settle {
        after: None,
        through: Generations::last_id(1),
        unfinished: unfinished.into(),
    }))
}

/// The observer and a few steps.
struct Watch(Facts);

impl Watch {
    fn new() -> Self {
        Watch(Facts::new(acceptors([1, 2, 3])))
    }

    /// A transaction of one branch, which has voted `Prepared`.
    fn voted() -> Self {
        let mut watch = Watch::new();
        let vote = Message::Vote(CastVote {
            id: id(),
            roster: roster(),
            vote: Vote::Prepared,
            vote_timeout: Duration::ZERO,
        });
        let said = watch.0.sent(&Peer::Session(branch(0)), &vote);
        assert_eq!(said, Ok(()));
        watch
    }

    /// The same, and the vote is held by a majority: it is committed.
    fn committed() -> Self {
        let mut watch = Watch::voted();
        for replica in [1, 2] {
            assert_eq!(watch.hold(replica), Ok(()));
        }
        assert_eq!(watch.0.chosen(&id()), Some(Outcome::Commit));
        watch
    }

    fn save(&mut self, replica: u32, record: Record) -> Result {
        self.0.durable(ReplicaId(replica), &record)
    }

    fn send(&mut self, replica: u32, message: Message) -> Result {
        self.0.sent(&Peer::Replica(ReplicaId(replica)), &message)
    }

    fn say(&mut self, replica: u32, message: LogMessage<Entry>) -> Result {
        self.send(replica, Message::Log(message))
    }

    fn hold(&mut self, replica: u32) -> Result {
        let vote = Record::Vote {
            id: id(),
            index: 0,
            vote: Vote::Prepared,
            roster: Some(roster()),
        };
        self.save(replica, vote)
    }

    fn accept(&mut self, replica: u32, slot: u64, ballot: Ballot, entry: Entry) -> Result {
        let record = LogRecord::Accept {
            slot,
            ballot,
            entry,
        };
        self.save(replica, Record::Log(record))
    }

    fn learn(&mut self, replica: u32, slot: u64, entry: Entry) -> Result {
        self.save(replica, Record::Chosen { slot, entry })
    }

    /// Generation 1 is closed, and then comes to its end by this entry.
    fn end(&mut self, settle: Entry) -> Result {
        for generation in [2, 3] {
            self.choose(u64::from(generation) - 2, open(generation, [1, 2, 3]))?;
        }
        self.choose(2, settle)
    }

    /// Replicas 1 and 2 choose it, and learn so.
    fn choose(&mut self, slot: u64, entry: Entry) -> Result {
        for replica in [1, 2] {
            self.accept(replica, slot, ballot(slot + 1, 1), entry.clone())?;
        }
        for replica in [1, 2] {
            self.learn(replica, slot, entry.clone())?;
        }
        Ok(())
    }
}

#[test]
fn a_slot_is_decided_by_a_majority_of_those_in_force_at_one_ballot() {
    let mut watch = Watch::new();
    let (next, other) = (open(2, [2, 3, 4]), open(2, [1, 2, 4]));
    assert_eq!(watch.accept(1, 0, ballot(1, 1), next.clone()), Ok(()));
    assert_eq!(watch.accept(2, 0, ballot(2, 2), other.clone()), Ok(()));
    assert_eq!(watch.accept(4, 0, ballot(1, 1), next.clone()), Ok(()));
    let early = Violation::EntryNotChosen {
        slot: 0,
        replica: ReplicaId(4),
    };
    assert_eq!(
        watch.learn(4, 0, next.clone()),
        Err(early),
        "no majority yet"
    );
    assert_eq!(watch.accept(3, 0, ballot(1, 1), next.clone()), Ok(()));
    assert_eq!(watch.0.generations().latest(), 2);
    let two = Violation::TwoEntries { slot: 0 };
    assert_eq!(watch.accept(3, 0, ballot(2, 2), other), Err(two));
    assert_eq!(watch.learn(1, 0, next), Ok(()));
    // Those who are in force now decide the next one.
    let third = open(3, [2, 3, 4]);
    assert_eq!(watch.accept(1, 1, ballot(3, 1), third.clone()), Ok(()));
    assert_eq!(watch.accept(4, 1, ballot(3, 1), third), Ok(()));
    assert_eq!(
        watch.0.generations().latest(),
        2,
        "replica 1 does not count"
    );
}

#[test]
fn one_ballot_has_one_entry() {
    let mut watch = Watch::new();
    assert_eq!(watch.accept(1, 0, ballot(1, 1), open(2, [1, 2, 3])), Ok(()));
    let twice = Violation::TwoEntriesProposed {
        slot: 0,
        ballot: ballot(1, 1),
    };
    let other = open(2, [1, 2, 4]);
    assert_eq!(watch.accept(2, 0, ballot(1, 1), other), Err(twice));
}

#[test]
fn slots_are_learned_one_after_the_other() {
    let mut watch = Watch::new();
    let skipped = |slot| Violation::SlotSkipped {
        slot,
        replica: ReplicaId(3),
    };
    assert_eq!(watch.choose(0, open(2, [1, 2, 3])), Ok(()));
    let early = watch.accept(3, 1, ballot(2, 1), open(3, [1, 2, 3]));
    assert_eq!(early, Err(skipped(1)));
    assert_eq!(watch.choose(1, open(3, [1, 2, 3])), Ok(()));
    assert_eq!(watch.learn(3, 1, open(3, [1, 2, 3])), Err(skipped(1)));
}

#[test]
fn promises_of_the_log_never_go_back() {
    let mut watch = Watch::new();
    let promise = |ballot| Record::Log(LogRecord::Promise { ballot });
    assert_eq!(watch.save(1, promise(ballot(2, 2))), Ok(()));
    let back = Violation::SlotWentBack {
        slot: 0,
        replica: ReplicaId(1),
    };
    assert_eq!(watch.save(1, promise(ballot(1, 1))), Err(back.clone()));
    let low = watch.accept(1, 0, ballot(1, 1), settle([]));
    assert_eq!(low, Err(back));
    let round = |round| Record::Log(LogRecord::Round { round });
    assert_eq!(watch.save(1, round(2)), Ok(()));
    let twice = Violation::BallotUsedTwice {
        replica: ReplicaId(1),
        round: 2,
    };
    assert_eq!(watch.save(1, round(2)), Err(twice));
}

#[test]
fn what_is_said_of_the_log_is_on_disk() {
    let mut watch = Watch::new();
    let (slot, entry, low) = (0, open(2, [1, 2, 3]), ballot(1, 1));
    let hidden = Err(Violation::SlotNotDurable {
        slot,
        replica: ReplicaId(1),
    });
    let promise = |ballot, accepted| LogMessage::Promise {
        slot,
        ballot,
        accepted,
    };
    let prepare = LogMessage::Prepare { slot, ballot: low };
    assert_eq!(watch.say(1, prepare.clone()), hidden);
    let round = Record::Log(LogRecord::Round { round: 1 });
    assert_eq!(watch.save(1, round), Ok(()));
    assert_eq!(watch.say(1, prepare), Ok(()));
    assert_eq!(watch.say(1, promise(low, None)), hidden);
    let accepted = LogMessage::Accepted { slot, ballot: low };
    assert_eq!(watch.say(1, accepted.clone()), hidden);
    assert_eq!(watch.accept(1, slot, low, entry.clone()), Ok(()));
    assert_eq!(watch.say(1, accepted), Ok(()));
    let high = ballot(2, 2);
    let record = Record::Log(LogRecord::Promise { ballot: high });
    assert_eq!(watch.save(1, record), Ok(()));
    assert_eq!(watch.say(1, promise(high, None)), hidden, "it hides one");
    let told = Some((low, entry.clone()));
    assert_eq!(watch.say(1, promise(high, told)), Ok(()));
    let news = LogMessage::Chosen {
        slot,
        entry: entry.clone(),
    };
    assert_eq!(watch.say(1, news.clone()), hidden);
    assert_eq!(watch.accept(2, slot, low, entry.clone()), Ok(()));
    assert_eq!(
        watch.say(1, news.clone()),
        hidden,
        "chosen, and not learned"
    );
    assert_eq!(watch.learn(1, slot, entry), Ok(()));
    assert_eq!(watch.say(1, news), Ok(()));
}

#[test]
fn a_generation_is_told_when_it_is_learned() {
    let mut watch = Watch::new();
    let mut later = watch.0.generations().clone();
    assert_eq!(watch.send(3, Message::Announce(later.clone())), Ok(()));
    later.apply(&open(2, [1, 2, 3]));
    let announce = Message::Announce(later);
    let early = Violation::Announced {
        replica: ReplicaId(3),
    };
    assert_eq!(watch.send(3, announce.clone()), Err(early.clone()));
    assert_eq!(watch.choose(0, open(2, [1, 2, 3])), Ok(()));
    assert_eq!(watch.send(3, announce.clone()), Err(early));
    assert_eq!(watch.send(1, announce), Ok(()));
    let nothing = Message::Announce(Generations::default());
    assert_eq!(watch.send(4, nothing), Ok(()), "one that joins");
}

#[test]
fn frozen_is_on_disk_and_stays_untouched() {
    let mut watch = Watch::voted();
    let frozen = Message::Frozen {
        generation: 1,
        after: None,
        ids: Vec::new(),
        more: false,
    };
    let generation = 1;
    let early = Violation::FrozenNotDurable {
        replica: ReplicaId(1),
        generation,
    };
    assert_eq!(watch.send(1, frozen.clone()), Err(early));
    assert_eq!(watch.save(1, Record::Frozen { generation }), Ok(()));
    assert_eq!(watch.send(1, frozen), Ok(()));
    let touched = Violation::FrozenTouched {
        id: id(),
        replica: ReplicaId(1),
    };
    assert_eq!(watch.hold(1), Err(touched));
    assert_eq!(watch.hold(2), Ok(()));
}

#[test]
fn what_is_settled_stays_untouched() {
    let mut watch = Watch::voted();
    assert_eq!(watch.end(settle([])), Ok(()));
    let touched = Violation::FrozenTouched {
        id: id(),
        replica: ReplicaId(1),
    };
    assert_eq!(watch.hold(1), Err(touched));
    assert_eq!(watch.hold(3), Ok(()), "it has not learned so");
}

#[test]
fn the_settle_is_the_last_ballot() {
    let mut watch = Watch::voted();
    assert_eq!(watch.end(settle([listed()])), Ok(()));
    assert_eq!(watch.0.chosen(&id()), Some(Outcome::Commit));
    assert_eq!(watch.0.listed().count(), 1);
    let mut watch = Watch::voted();
    assert_eq!(watch.end(settle([])), Ok(()));
    assert_eq!(watch.0.chosen(&id()), Some(Outcome::Abort));
    let mut watch = Watch::new();
    assert_eq!(watch.end(settle([])), Ok(()));
    assert_eq!(
        watch.0.tell(id(), Outcome::Abort),
        Ok(()),
        "of one nobody heard of"
    );
    let mut watch = Watch::new();
    let without = Violation::CommitWithoutVotes { id: id() };
    assert_eq!(watch.end(settle([listed()])), Err(without));
}

/// A list that was made for what is settled already is heard once only.
#[test]
fn a_settle_that_does_not_follow_changes_nothing() {
    let mut watch = Watch::voted();
    assert_eq!(watch.end(settle([])), Ok(()));
    assert_eq!(watch.choose(3, settle([listed()])), Ok(()));
    assert_eq!(watch.0.chosen(&id()), Some(Outcome::Abort));
    assert_eq!(watch.0.generations().slot(), 4);
    let open_generation = Watch::voted().choose(0, settle([listed()]));
    assert_eq!(
        open_generation,
        Ok(()),
        "nor one of a generation that is not closed"
    );
}

#[test]
fn a_commit_that_waits_is_listed() {
    let forgotten = Violation::CommitForgotten {
        id: id(),
        branch: branch(0),
    };
    let mut watch = Watch::committed();
    assert_eq!(watch.end(settle([])), Err(forgotten));
    let mut watch = Watch::committed();
    let applied = Message::Applied {
        id: id(),
        branch: branch(0),
    };
    let said = watch.0.sent(&Peer::Session(branch(0)), &applied);
    assert_eq!(said, Ok(()));
    assert_eq!(watch.end(settle([])), Ok(()), "it waits no more");
    let mut watch = Watch::voted();
    let abort = Record::Accept {
        id: id(),
        ballot: ballot(1, 1),
        outcome: Outcome::Abort,
        unapplied: None,
    };
    for replica in [1, 2] {
        assert_eq!(watch.save(replica, abort.clone()), Ok(()));
    }
    let listed_abort = Violation::AbortListed { id: id() };
    assert_eq!(watch.end(settle([listed()])), Err(listed_abort));
}

#[test]
fn expired_is_said_by_who_has_learned_it_of_what_waits_no_more() {
    let expired = Message::Expired {
        id: id(),
        branch: None,
    };
    let mut watch = Watch::committed();
    let early = |replica| Violation::ExpiredTooEarly {
        id: id(),
        replica: ReplicaId(replica),
    };
    assert_eq!(watch.send(1, expired.clone()), Err(early(1)));
    assert_eq!(watch.end(settle([listed()])), Ok(()));
    assert_eq!(watch.send(3, expired.clone()), Err(early(3)));
    let forgotten = Violation::CommitForgotten {
        id: id(),
        branch: branch(0),
    };
    assert_eq!(watch.send(1, expired.clone()), Err(forgotten));
    // An operator lets it go.
    assert_eq!(watch.choose(3, Entry::Release { id: id() }), Ok(()));
    assert_eq!(watch.send(1, expired), Ok(()));
    assert_eq!(watch.0.listed().count(), 0);
}

#[test]
fn horizon_and_list_travel_together() {
    let mut watch = Watch::committed();
    assert_eq!(watch.end(settle([listed()])), Ok(()));
    let generations = watch.0.generations().clone();
    let state = |listed: &[Listed]| Record::State {
        generations: generations.clone(),
        listed: listed.to_vec(),
        stores: Default::default(),
    };
    let other = Violation::OtherList {
        slot: generations.slot(),
        replica: ReplicaId(3),
    };
    assert_eq!(watch.save(3, state(&[])), Err(other));
    assert_eq!(watch.save(3, state(&[listed()])), Ok(()));
    let mut wrong = generations.clone();
    wrong.apply(&open(4, [1, 2, 3]));
    let early = Violation::EntryNotChosen {
        slot: 4,
        replica: ReplicaId(3),
    };
    let state = Record::State {
        generations: wrong,
        listed: Vec::new(),
        stores: Default::default(),
    };
    assert_eq!(watch.save(3, state), Err(early));
}

#[test]
fn only_what_all_branches_have_applied_leaves_the_list() {
    let unlist = Entry::Unlist { ids: vec![id()] };
    let mut watch = Watch::committed();
    assert_eq!(watch.end(settle([listed()])), Ok(()));
    let early = Violation::CommitForgotten {
        id: id(),
        branch: branch(0),
    };
    assert_eq!(watch.choose(3, unlist), Err(early));
}
