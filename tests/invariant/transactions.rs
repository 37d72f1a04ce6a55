//! The observer sees each violation, and nothing else.

use std::time::Duration;

use crate::facts::{Facts, Violation};
use paxos_commit::protocol::message::{CastVote, Decision, Message, Report, Unapplied};
use paxos_commit::protocol::paxos::{Acceptors, Ballot, ReplicaId};
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::{
    Branch, BranchSet, CommitId, InitiatorId, Outcome, Peer, Roster, Session, StoreId, TxnId, Vote,
};

fn branch(session: u64) -> Branch {
    Branch {
        participant: "p".parse().unwrap(),
        session: Session(session),
        store: StoreId::from_u128(1),
    }
}

fn roster() -> Roster {
    Roster::new([branch(0), branch(1)]).unwrap()
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

fn ballot(round: u64, replica: u32) -> Ballot {
    Ballot {
        round,
        replica: ReplicaId(replica),
    }
}

fn facts() -> Facts {
    Facts::new(Acceptors::new((1..=3).map(ReplicaId)).unwrap())
}

fn cast(facts: &mut Facts, session: u64, vote: Vote) -> Result<(), Violation> {
    let message = Message::Vote(CastVote {
        id: id(),
        roster: roster(),
        vote,
        vote_timeout: Duration::ZERO,
    });
    facts.sent(&Peer::Session(branch(session)), &message)
}

fn hold(facts: &mut Facts, replica: u32, index: u8, vote: Vote) -> Result<(), Violation> {
    let record = Record::Vote {
        id: id(),
        index,
        vote,
        roster: (index == 0).then(roster),
    };
    facts.durable(ReplicaId(replica), &record)
}

fn promise(facts: &mut Facts, replica: u32, ballot: Ballot) -> Result<(), Violation> {
    facts.durable(ReplicaId(replica), &Record::Promise { id: id(), ballot })
}

fn accept(
    facts: &mut Facts,
    replica: u32,
    ballot: Ballot,
    outcome: Outcome,
) -> Result<(), Violation> {
    let record = Record::Accept {
        id: id(),
        ballot,
        outcome,
        unapplied: None,
    };
    facts.durable(ReplicaId(replica), &record)
}

fn send(facts: &mut Facts, replica: u32, message: Message) -> Result<(), Violation> {
    facts.sent(&Peer::Replica(ReplicaId(replica)), &message)
}

fn report(accepted: Option<(Ballot, Outcome)>, held: BranchSet) -> Message {
    Message::Phase1b {
        ballot: ballot(1, 1),
        reports: vec![Report {
            id: id(),
            accepted,
            held,
            read_only: BranchSet::default(),
            roster: None,
        }],
    }
}

fn phase2a(ballot: Ballot, outcome: Outcome) -> Message {
    let unapplied = (outcome == Outcome::Commit).then(|| Unapplied {
        roster: roster(),
        read_only: BranchSet::default(),
    });
    Message::Phase2a {
        ballot,
        proposals: vec![Decision {
            id: id(),
            outcome,
            unapplied,
        }],
    }
}

fn phase2b(ballot: Ballot, outcome: Outcome) -> Message {
    Message::Phase2b {
        id: id(),
        ballot,
        outcome,
    }
}

/// Both branches are prepared, and so many replicas hold both votes.
fn voted(replicas: u32) -> Facts {
    let mut facts = facts();
    for session in [0, 1] {
        cast(&mut facts, session, Vote::Prepared).unwrap();
    }
    for replica in 1..=replicas {
        hold(&mut facts, replica, 0, Vote::Prepared).unwrap();
        hold(&mut facts, replica, 1, Vote::Prepared).unwrap();
    }
    facts
}

#[test]
fn commit_is_chosen_by_a_majority_of_complete_votes() {
    let mut facts = voted(1);
    assert_eq!(facts.chosen(&id()), None);
    let not_chosen = Violation::NotChosen {
        id: id(),
        outcome: Outcome::Commit,
    };
    assert_eq!(facts.tell(id(), Outcome::Commit), Err(not_chosen));
    hold(&mut facts, 3, 0, Vote::Prepared).unwrap();
    assert_eq!(facts.chosen(&id()), None, "one vote is missing there");
    hold(&mut facts, 3, 1, Vote::Prepared).unwrap();
    assert_eq!(facts.chosen(&id()), Some(Outcome::Commit));
    assert_eq!(facts.told(&id()), None);
    assert_eq!(facts.tell(id(), Outcome::Commit), Ok(()));
    assert_eq!(facts.tell(id(), Outcome::Commit), Ok(()));
    assert_eq!(facts.told(&id()), Some(Outcome::Commit));
    let two = Violation::TwoOutcomes { id: id() };
    assert_eq!(facts.tell(id(), Outcome::Abort), Err(two));
    assert_eq!(facts.prepared(&id()), [branch(0), branch(1)]);
    assert_eq!(facts.instances().count(), 1);
    facts.forget(&id());
    assert_eq!(facts.instances().count(), 0);
}

#[test]
fn every_message_that_tells_an_outcome_is_judged() {
    let decided = |outcome| {
        Message::Decided(Decision {
            id: id(),
            outcome,
            unapplied: None,
        })
    };
    let finish = |outcome| Message::Finish {
        id: id(),
        branch: branch(0),
        outcome,
    };
    let applied = Message::Applied {
        id: id(),
        branch: branch(0),
    };
    for message in [decided(Outcome::Commit), finish(Outcome::Commit), applied] {
        assert!(send(&mut voted(1), 1, message.clone()).is_err());
        assert_eq!(send(&mut voted(2), 1, message), Ok(()));
    }
    for message in [decided(Outcome::Abort), finish(Outcome::Abort)] {
        assert!(send(&mut voted(2), 1, message).is_err());
    }
}

#[test]
fn one_aborted_vote_on_one_disk_is_abort() {
    let mut facts = facts();
    cast(&mut facts, 0, Vote::Aborted).unwrap();
    hold(&mut facts, 2, 0, Vote::Aborted).unwrap();
    assert_eq!(facts.chosen(&id()), Some(Outcome::Abort));
    assert_eq!(facts.tell(id(), Outcome::Abort), Ok(()));
    assert!(facts.prepared(&id()).is_empty());
}

#[test]
fn above_ballot_0_it_takes_a_majority_at_the_same_ballot() {
    let mut facts = facts();
    accept(&mut facts, 1, ballot(1, 1), Outcome::Abort).unwrap();
    accept(&mut facts, 2, ballot(2, 1), Outcome::Abort).unwrap();
    assert_eq!(facts.chosen(&id()), None);
    accept(&mut facts, 3, ballot(2, 1), Outcome::Abort).unwrap();
    assert_eq!(facts.chosen(&id()), Some(Outcome::Abort));
}

#[test]
fn two_values_chosen() {
    let mut facts = voted(2);
    accept(&mut facts, 2, ballot(1, 1), Outcome::Abort).unwrap();
    let two = Violation::TwoChosen { id: id() };
    let third = accept(&mut facts, 3, ballot(1, 1), Outcome::Abort);
    assert_eq!(third, Err(two));
}

#[test]
fn commit_without_votes() {
    let mut facts = facts();
    let missing = Err(Violation::CommitWithoutVotes { id: id() });
    cast(&mut facts, 0, Vote::Prepared).unwrap();
    let proposal = phase2a(ballot(1, 1), Outcome::Commit);
    assert_eq!(send(&mut facts, 1, proposal.clone()), missing);
    cast(&mut facts, 1, Vote::Aborted).unwrap();
    assert_eq!(send(&mut facts, 1, proposal.clone()), missing);
    assert_eq!(send(&mut voted(0), 1, proposal), Ok(()));

    let mut silent = super::transactions::facts();
    for replica in [1, 2] {
        accept(&mut silent, replica, ballot(1, 1), Outcome::Commit).unwrap();
    }
    assert_eq!(silent.tell(id(), Outcome::Commit), missing);
}

#[test]
fn a_branch_says_one_thing() {
    let mut facts = facts();
    cast(&mut facts, 0, Vote::Prepared).unwrap();
    cast(&mut facts, 1, Vote::ReadOnly).unwrap();
    assert_eq!(cast(&mut facts, 0, Vote::Prepared), Ok(()));
    let twice = Violation::TwoVotes {
        id: id(),
        branch: branch(0),
    };
    assert_eq!(cast(&mut facts, 0, Vote::ReadOnly), Err(twice));
    assert_eq!(facts.prepared(&id()), [branch(0)]);
}

#[test]
fn a_request_runs_once() {
    let mut facts = facts();
    assert_eq!(facts.request_ran(id(), &branch(0)), Ok(()));
    assert_eq!(facts.request_ran(id(), &branch(1)), Ok(()));
    let twice = Violation::RequestRanTwice {
        id: id(),
        branch: branch(0),
    };
    assert_eq!(facts.request_ran(id(), &branch(0)), Err(twice));
}

#[test]
fn one_ballot_proposes_one_value() {
    let mut facts = voted(0);
    send(&mut facts, 1, phase2a(ballot(1, 1), Outcome::Abort)).unwrap();
    send(&mut facts, 1, phase2a(ballot(1, 1), Outcome::Abort)).unwrap();
    send(&mut facts, 2, phase2a(ballot(1, 2), Outcome::Commit)).unwrap();
    let two = Violation::TwoProposals {
        id: id(),
        ballot: ballot(1, 1),
    };
    let other = send(&mut facts, 1, phase2a(ballot(1, 1), Outcome::Commit));
    assert_eq!(other, Err(two));
}

#[test]
fn promises_and_accepts_never_go_back() {
    let back = Err(Violation::WentBack {
        id: id(),
        replica: ReplicaId(1),
    });
    let mut facts = facts();
    promise(&mut facts, 1, ballot(2, 1)).unwrap();
    promise(&mut facts, 1, ballot(2, 1)).unwrap();
    assert_eq!(promise(&mut facts, 1, ballot(1, 1)), back);
    assert_eq!(accept(&mut facts, 1, ballot(1, 1), Outcome::Abort), back);
    assert_eq!(hold(&mut facts, 1, 0, Vote::Prepared), back);
    assert_eq!(accept(&mut facts, 1, ballot(2, 1), Outcome::Abort), Ok(()));
    assert_eq!(accept(&mut facts, 1, ballot(3, 1), Outcome::Abort), Ok(()));
    assert_eq!(promise(&mut facts, 1, ballot(2, 1)), back);
    assert_eq!(hold(&mut facts, 2, 0, Vote::Prepared), Ok(()));
}

#[test]
fn a_report_shows_what_is_on_disk() {
    let unsaved = Err(Violation::NotDurable {
        id: id(),
        replica: ReplicaId(1),
    });
    let none = BranchSet::default();
    let mut facts = voted(0);
    assert_eq!(
        send(&mut facts, 1, report(None, none)),
        unsaved,
        "no promise"
    );
    hold(&mut facts, 1, 0, Vote::Prepared).unwrap();
    promise(&mut facts, 1, ballot(1, 1)).unwrap();
    assert_eq!(send(&mut facts, 1, report(None, none)), unsaved, "hidden");
    assert_eq!(send(&mut facts, 1, report(None, BranchSet::of(0))), Ok(()));
    let more = report(None, roster().all());
    assert_eq!(send(&mut facts, 1, more), unsaved, "a vote");
    let one = BranchSet::of(0);
    let at = |round, outcome| Some((ballot(round, 1), outcome));
    let abort = report(at(1, Outcome::Abort), one);
    assert_eq!(send(&mut facts, 1, abort.clone()), unsaved, "an accept");
    accept(&mut facts, 1, ballot(1, 1), Outcome::Abort).unwrap();
    assert_eq!(send(&mut facts, 1, abort), Ok(()));
    let mut bound = super::transactions::facts();
    let low = Some((ballot(0, 2), Outcome::Abort));
    accept(&mut bound, 1, ballot(0, 2), Outcome::Abort).unwrap();
    promise(&mut bound, 1, ballot(1, 1)).unwrap();
    assert_eq!(send(&mut bound, 1, report(None, none)), unsaved, "hidden");
    assert_eq!(send(&mut bound, 1, report(low, none)), Ok(()));
    accept(&mut bound, 1, ballot(1, 1), Outcome::Abort).unwrap();
    assert_eq!(send(&mut bound, 1, report(low, none)), Ok(()), "as it was");
    assert_eq!(send(&mut bound, 1, report(None, none)), unsaved);
    let other = report(at(1, Outcome::Commit), one);
    assert_eq!(send(&mut facts, 1, other), unsaved, "another value");
    let votes = Some((Ballot::ZERO, Outcome::Commit));
    assert!(send(&mut facts, 2, report(votes, none)).is_err());
    let mut blank = super::transactions::facts();
    promise(&mut blank, 1, ballot(1, 1)).unwrap();
    assert_eq!(send(&mut blank, 1, report(votes, none)), unsaved);
    promise(&mut blank, 3, ballot(2, 1)).unwrap();
    assert_eq!(
        send(&mut blank, 3, report(None, none)),
        Ok(()),
        "a later one"
    );
}

#[test]
fn an_acceptance_is_on_disk_before_it_is_told() {
    let zero = |outcome| phase2b(Ballot::ZERO, outcome);
    let mut facts = voted(0);
    assert!(send(&mut facts, 1, zero(Outcome::Commit)).is_err());
    hold(&mut facts, 1, 0, Vote::Prepared).unwrap();
    assert!(send(&mut facts, 1, zero(Outcome::Commit)).is_err());
    assert!(send(&mut facts, 1, zero(Outcome::Abort)).is_err());
    hold(&mut facts, 1, 1, Vote::Prepared).unwrap();
    assert_eq!(send(&mut facts, 1, zero(Outcome::Commit)), Ok(()));
    let first = phase2b(ballot(1, 2), Outcome::Commit);
    assert!(send(&mut facts, 1, first.clone()).is_err());
    accept(&mut facts, 1, ballot(1, 2), Outcome::Commit).unwrap();
    assert_eq!(send(&mut facts, 1, first), Ok(()));
    let second = phase2b(ballot(2, 2), Outcome::Commit);
    assert!(send(&mut facts, 1, second).is_err());
    let mut aborted = super::transactions::facts();
    hold(&mut aborted, 1, 0, Vote::Aborted).unwrap();
    assert_eq!(send(&mut aborted, 1, zero(Outcome::Abort)), Ok(()));
}

#[test]
fn a_round_is_on_disk_before_its_ballot_leaves_and_used_once() {
    let mut facts = facts();
    let phase1a = |round| Message::Phase1a {
        ballot: ballot(round, 1),
        ids: vec![id()],
    };
    let early = Violation::RoundNotDurable {
        ballot: ballot(1, 1),
    };
    assert_eq!(send(&mut facts, 1, phase1a(1)), Err(early));
    let round = |round| Record::Round { round };
    facts.durable(ReplicaId(1), &round(1)).unwrap();
    assert_eq!(send(&mut facts, 1, phase1a(1)), Ok(()));
    facts.durable(ReplicaId(1), &round(3)).unwrap();
    facts.durable(ReplicaId(2), &round(3)).unwrap();
    let twice = Violation::BallotUsedTwice {
        replica: ReplicaId(1),
        round: 3,
    };
    assert_eq!(facts.durable(ReplicaId(1), &round(3)), Err(twice));
    assert!(facts.durable(ReplicaId(1), &round(2)).is_err());
}

#[test]
fn strangers_decide_nothing() {
    let mut facts = facts();
    let stranger = Violation::Stranger {
        id: id(),
        replica: ReplicaId(9),
    };
    assert_eq!(promise(&mut facts, 9, ballot(1, 9)), Err(stranger.clone()));
    assert_eq!(hold(&mut facts, 9, 0, Vote::Aborted), Err(stranger));
    assert_eq!(facts.chosen(&id()), None);
    let told = Message::LetGo {
        txn: id().txn,
        floor: 0,
    };
    assert_eq!(send(&mut facts, 1, told), Ok(()));
}

#[test]
fn what_is_settled_was_chosen() {
    let unapplied = Unapplied {
        roster: roster(),
        read_only: BranchSet::default(),
    };
    let committed = Record::Committed {
        id: id(),
        unapplied,
    };
    let finished = |outcome| Record::Finished { id: id(), outcome };
    for record in [committed.clone(), finished(Outcome::Commit)] {
        assert!(voted(1).durable(ReplicaId(1), &record).is_err());
        assert_eq!(voted(2).durable(ReplicaId(1), &record), Ok(()));
    }
    let aborted = finished(Outcome::Abort);
    assert!(voted(2).durable(ReplicaId(1), &aborted).is_err());
}

#[test]
fn a_branch_votes_and_runs_its_request_in_one_instance() {
    let mut facts = facts();
    let alone = Roster::new([branch(0)]).unwrap();
    let other = CommitId::new(id().txn, &alone);
    cast(&mut facts, 0, Vote::Prepared).unwrap();
    facts.request_ran(id(), &branch(0)).unwrap();
    let vote = Message::Vote(CastVote {
        id: other,
        roster: alone,
        vote: Vote::Prepared,
        vote_timeout: Duration::ZERO,
    });
    let twice = Violation::TwoVotes {
        id: other,
        branch: branch(0),
    };
    let me = Peer::Session(branch(0));
    assert_eq!(facts.sent(&me, &vote), Err(twice));
    assert!(facts.request_ran(other, &branch(0)).is_err());
    assert_eq!(facts.request_ran(other, &branch(1)), Ok(()));
}

#[test]
fn one_disk_holds_one_vote_of_a_branch() {
    let mut facts = facts();
    hold(&mut facts, 1, 0, Vote::Prepared).unwrap();
    let two = Violation::TwoVotesHeld {
        id: id(),
        replica: ReplicaId(1),
    };
    assert_eq!(hold(&mut facts.clone(), 1, 1, Vote::Aborted), Ok(()));
    assert_eq!(hold(&mut facts, 1, 0, Vote::Aborted), Err(two));
}
