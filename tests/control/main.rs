//! The control log, exhaustively, over the very hosts that a user runs: forgetting, and changes of
//! the membership.
//!
//! A state holds every host with its disk, and the network, a set from which nothing is taken: so
//! loss, duplication and reordering come free, and so does a replica that crashes for good. Branches
//! are deterministic leaves: they have voted Prepared, say so again, learn, and apply. Save and
//! release are one with the step (`tests/model` takes them apart). Leaders start their ballots before
//! anything else happens; messages that can change nothing any more are dropped.
//!
//! One model that holds everything does not fit, so there are several; each is searched to its end,
//! asserts that it was, and pins the number of its states. What each leaves out stands at its test;
//! what all of them leave out: more than one transaction, more than one ballot of a replica in the
//! log and one in the transaction, refusals and signs of life, and time but for what a leader needs.
//!
//! In every state [`judge`] holds the invariants. From every state, and from the same with each
//! replica down for good, a fair run must bring every branch to its outcome and leave nothing behind
//! ([`finish`]).
//!
//! The models of the list and of the markers stand by themselves: [`markers`].

mod bounds;
mod cast;
mod finish;
#[path = "../model/intern.rs"]
mod intern;
#[path = "../invariant/facts/mod.rs"]
#[allow(dead_code, reason = "each judge asks for a part of it")]
mod invariant;
mod judge;
mod ledger;
mod markers;
mod plants;
mod scripts;
mod stage;
mod state;
mod summary;
mod system;
mod tables;
mod turn;

use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, Model};

use bounds::{Answers, Bounds, Known, Start};
use judge::SIGHTS;
use system::System;

const FOUND_AGAIN: usize = 0;
const BY_SETTLE: usize = 1;
const ABORTED: usize = 2;
const VOTES_LISTED: usize = 3;
const BALLOT_LISTED: usize = 4;
const EXPIRED: usize = 5;
const LATE: usize = 6;
const FORGOTTEN: usize = 7;
const BALLOT_ABORTED: usize = 8;

/// One branch; these replicas hold its vote, and the others know of it.
fn held(held: [bool; 3]) -> Start {
    Start {
        voted: [true; 2],
        held: held.map(|held| [held; 2]),
        late: [true; 3],
        relays: [true; 3],
    }
}

/// The vote is held by replica 1, on its way to replica 2, and lost to replica 3.
fn one_late() -> Start {
    Start {
        late: [false, true, false],
        ..held([true, false, false])
    }
}

/// Two branches: the first one's vote is held by all, the second one's by replica 1; it is on its
/// way to replica 2, and lost to replica 3.
fn second_late() -> Start {
    Start {
        held: [[true, true], [true, false], [true, false]],
        relays: [false; 3],
        ..one_late()
    }
}

/// Two branches, of which the second never votes.
fn never_complete() -> Start {
    Start {
        voted: [true, false],
        held: [[true, false], [true, false], [false, false]],
        late: [false, false, true],
        relays: [false, false, true],
    }
}

/// Three replicas that know that generation 3 is open, two leaders, one branch.
fn base() -> Bounds {
    Bounds {
        branches: 1,
        starts: vec![held([true; 3])],
        known: [Known::Third, Known::Third, Known::Third, Known::Absent],
        leads: [true, true, false, false],
        forced: [false; 4],
        applies: false,
        victims: Vec::new(),
        moves: false,
        answers: Answers::AtOnce,
        news: true,
        sample: 1,
        plant: None,
    }
}

/// Generations 2 and 3 run on replicas 2, 3 and 4. Replica 1 does not know that it was removed, and
/// replica 4 knows nothing.
fn moved() -> Bounds {
    Bounds {
        known: [Known::Nothing, Known::Third, Known::Third, Known::Nothing],
        leads: [false, true, false, false],
        moves: true,
        ..base()
    }
}

/// No rule is broken, each of `sights` is seen, and there are so many states.
fn holds(bounds: Bounds, sights: &[usize], states: usize) {
    let sights: Vec<_> = sights.iter().map(|sight| SIGHTS[*sight]).collect();
    search_to_its_end(System::new(bounds, &sights), states);
}

/// No property of the model is broken, and it has so many states.
fn search_to_its_end<M>(model: M, states: usize)
where
    M: Model<State: Debug + Hash + Send + Sync, Action: Debug + PartialEq> + Send + Sync + 'static,
    M::State: Clone + PartialEq,
    M::Action: Clone,
{
    let checker = model.checker().threads(2);
    // Neither a time-out nor a number of states ends the search, and a rule that holds keeps it
    // going; so it is done only when every state was visited.
    let checker = checker.spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
    assert!(checker.is_done());
    assert_eq!(checker.unique_state_count(), states);
}

/// Two leaders, every message at any time. All replicas hold the vote.
#[test]
fn two_leaders() {
    let bounds = Bounds {
        answers: Answers::Anytime,
        ..base()
    };
    holds(bounds, &[FOUND_AGAIN, VOTES_LISTED], 40_992);
}

/// What a model with three leaders leaves out: answers that come late, promises that nobody counts,
/// a leader that does not accept its own proposal before others do, and that replicas hear from
/// others what was chosen.
fn three_leaders() -> Bounds {
    Bounds {
        starts: vec![one_late()],
        leads: [true, true, true, false],
        answers: Answers::Straight,
        news: false,
        ..base()
    }
}

/// Three leaders, and a late vote.
#[test]
fn three_leaders_and_a_late_vote() {
    let sights = [FOUND_AGAIN, BY_SETTLE, ABORTED, VOTES_LISTED, EXPIRED, LATE];
    holds(three_leaders(), &sights, 22_310);
}

/// Three leaders, a late vote, and a ballot about the transaction by replica 3, which does not hold
/// the vote.
#[test]
fn three_leaders_a_late_vote_and_a_ballot() {
    let bounds = Bounds {
        forced: [false, false, true, false],
        ..three_leaders()
    };
    let sights = [
        FOUND_AGAIN,
        BY_SETTLE,
        ABORTED,
        VOTES_LISTED,
        BALLOT_LISTED,
        BALLOT_ABORTED,
        EXPIRED,
        LATE,
    ];
    holds(bounds, &sights, 676_401);
}

/// The same with a ballot by replica 1, which holds the vote; replica 3 has never heard of the
/// transaction.
#[test]
fn three_leaders_a_late_vote_and_a_ballot_by_its_holder() {
    let start = Start {
        relays: [false, true, false],
        ..one_late()
    };
    let bounds = Bounds {
        starts: vec![start],
        forced: [true, false, false, false],
        ..three_leaders()
    };
    let sights = [FOUND_AGAIN, BY_SETTLE, BALLOT_LISTED, EXPIRED, LATE];
    holds(bounds, &sights, 238_149);
}

/// Two leaders, a late vote, and a ballot by replica 3; everyone hears what was chosen. Left out:
/// answers that come late.
#[test]
fn two_leaders_a_late_vote_and_a_ballot() {
    let bounds = Bounds {
        leads: [true, true, false, false],
        forced: [false, false, true, false],
        news: true,
        ..three_leaders()
    };
    let sights = [FOUND_AGAIN, BALLOT_LISTED, BALLOT_ABORTED, EXPIRED, LATE];
    holds(bounds, &sights, 788_946);
}

/// One leader, while the branch applies the commit and says so; each Applied may be lost. (The list
/// becomes shorter by an entry of the log, `Unlist`, which is a slot more than before.)
#[test]
fn one_leader_while_the_branch_applies() {
    let bounds = Bounds {
        starts: vec![held([true; 3]), one_late()],
        leads: [true, false, false, false],
        applies: true,
        ..base()
    };
    holds(bounds, &[VOTES_LISTED, EXPIRED, FORGOTTEN], 80_485);
}

/// One leader, and a ballot about the transaction by a replica that missed the opening of generation
/// 3: to it, generation 1 is open still.
#[test]
fn one_leader_and_a_ballot_of_one_that_missed_everything() {
    let bounds = Bounds {
        starts: vec![held([true, true, false])],
        known: [Known::Third, Known::Third, Known::Second, Known::Absent],
        leads: [true, false, false, false],
        forced: [false, false, true, false],
        ..base()
    };
    holds(bounds, &[VOTES_LISTED, BALLOT_LISTED, LATE], 598_775);
}

/// Two leaders and two branches; the vote of the second is late, or it never votes. Left out:
/// promises that nobody counts, and answers that come late.
#[test]
fn two_leaders_and_two_branches() {
    let bounds = Bounds {
        branches: 2,
        starts: vec![second_late(), never_complete()],
        answers: Answers::Straight,
        ..base()
    };
    let sights = [FOUND_AGAIN, BY_SETTLE, ABORTED, VOTES_LISTED, EXPIRED, LATE];
    holds(bounds, &sights, 15_500);
}

/// Two leaders, and one of them crashes and comes back, at any point.
#[test]
fn two_leaders_and_a_restart() {
    let bounds = Bounds {
        starts: vec![one_late()],
        victims: vec![0, 1],
        ..base()
    };
    let sights = [FOUND_AGAIN, BY_SETTLE, ABORTED, VOTES_LISTED, EXPIRED, LATE];
    holds(bounds, &sights, 106_088);
}

/// The membership has changed; an undecided transaction of generation 1 is settled: collected from
/// replicas 1, 2 and 3, decided by replicas 2, 3 and 4.
#[test]
fn settled_by_other_replicas() {
    let bounds = Bounds {
        starts: vec![held([true, true, false]), held([true, false, false])],
        ..moved()
    };
    let sights = [BY_SETTLE, ABORTED, VOTES_LISTED, EXPIRED, LATE];
    holds(bounds, &sights, 69_003);
}

/// The same, and the replica that does not know that it was removed leads a ballot about the
/// transaction. No vote is late. Left out: promises that nobody counts, and answers that come late.
#[test]
fn settled_while_a_removed_replica_leads_a_ballot() {
    let start = Start {
        late: [false; 3],
        ..held([true, true, false])
    };
    let bounds = Bounds {
        starts: vec![start],
        forced: [true, false, false, false],
        answers: Answers::Straight,
        ..moved()
    };
    holds(bounds, &[VOTES_LISTED, BALLOT_LISTED], 245_618);
}

/// The opening of generation 3 is still being chosen: replica 2 has accepted it, and replica 4 has
/// joined. Left out: promises that nobody counts, and answers that come late.
#[test]
fn settled_when_the_next_generation_is_open() {
    let start = Start {
        late: [false, false, true],
        ..held([true, false, false])
    };
    let bounds = Bounds {
        starts: vec![start],
        known: [
            Known::Second,
            Known::ThirdAccepted,
            Known::Second,
            Known::Second,
        ],
        answers: Answers::Straight,
        ..moved()
    };
    holds(bounds, &[BY_SETTLE, ABORTED, EXPIRED], 625_952);
}
