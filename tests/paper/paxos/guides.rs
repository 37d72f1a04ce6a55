//! The two guides: "Paxos By Example" and the Paxos guide.
//!
//! In the runs of the article X, Y, Z are the acceptors 1, 2, 3, and A, B, C the proposers 4, 5, 6.

use paxos_commit::protocol::paxos::{
    Acceptor, Acceptors, Ballot, Choice, Learner, Nack, Refusal, ReplicaId,
};

use super::cluster::{Cluster, ballot};
use super::history::Violation;
use super::node::{Memory, Value};
use super::{NO_VIOLATION, NOBODY, NOTHING};
use crate::paxos_by_example::{self as article, Rule};

/// Paxos By Example, the whole run: A's 8 is chosen by way of B, whose own value was 5, and C, whose
/// own value is 7, confirms it.
#[test]
fn the_article_chooses_8() {
    let learned = article::nothing_accepted_in_time(Rule::WhenFree);
    assert_eq!(learned, [('B', 8), ('C', 8)]);
}

/// The same run by the book: nothing was accepted, so B is free, and its own 5 is as good.
#[test]
fn by_the_book_the_same_run_chooses_5() {
    let learned = article::nothing_accepted_in_time(Rule::Ignored);
    assert_eq!(learned, [('B', 5), ('C', 5)]);
}

/// Once X has accepted [2, 8], B is bound to 8, whatever it makes of acknowledged proposals.
#[test]
fn one_accepted_proposal_binds_b() {
    for rule in [Rule::Ignored, Rule::WhenFree] {
        let learned = article::accepted_by_one_in_time(rule);
        assert_eq!(learned, [('B', 8), ('C', 8)]);
    }
}

/// An acknowledged proposal that outranks an accepted one lets two values be chosen. The crate's
/// `Proposer` in the same run does not.
#[test]
fn an_acknowledged_proposal_must_not_outrank_an_accepted_one() {
    let mistaken = article::acknowledged_above_accepted(Rule::LikeAccepted);
    assert_eq!(mistaken, [('A', 8), ('C', 5)]);
    for rule in [Rule::Ignored, Rule::WhenFree] {
        let correct = article::acknowledged_above_accepted(rule);
        assert_eq!(correct, [('A', 8), ('C', 8)]);
    }
}

/// Paxos By Example, its first steps: an acceptor answers the first prepare request with "no
/// previous", ignores a lower one thereafter, and promises again to a higher one.
#[test]
fn prepare_requests_of_the_article() {
    let mut acceptor: Acceptor<Value> = Acceptor::default();
    assert_eq!(acceptor.promise(ballot(2, 4)), Ok(None), "A at X");
    assert_eq!(acceptor.promise(ballot(4, 5)), Ok(None), "B at X");
    let mut z: Acceptor<Value> = Acceptor::default();
    assert_eq!(z.promise(ballot(4, 5)), Ok(None), "B at Z");
    let nack = Nack {
        promised: ballot(4, 5),
    };
    assert_eq!(z.promise(ballot(2, 4)), Err(nack), "A at Z");
}

/// Paxos By Example, its middle: all three have promised 4, so A's accept requests [2, 8] are
/// ignored everywhere, and nothing is chosen by them.
#[test]
fn accept_requests_of_the_article() {
    let mut cluster = Cluster::new(3);
    let (mut a, mut b) = (cluster.proposer(2, 4), cluster.proposer(4, 5));
    assert_eq!(cluster.prepare(&mut a, &[1, 2]), Some(Choice::Free));
    assert_eq!(cluster.prepare(&mut b, &[3, 1, 2]), Some(Choice::Free));
    assert_eq!(cluster.propose(&mut a, 8, &[1, 2, 3]), NOBODY);
    assert_eq!(cluster.propose(&mut b, 8, &[1, 2, 3]), [1, 2, 3]);
    assert_eq!(cluster.chosen(), [8]);
}

/// Paxos By Example: "a third proposer with a higher number only confirms it". Whichever majority
/// answers it.
#[test]
fn a_third_proposer_with_a_higher_number_only_confirms() {
    for majority in [[1, 2], [1, 3], [2, 3]] {
        let mut cluster = Cluster::new(3);
        cluster.choose(2, 4, 8, &[1, 2]);
        let mut c = cluster.proposer(6, 6);
        assert_eq!(cluster.prepare(&mut c, &majority), Some(Choice::Bound(8)));
        assert_eq!(cluster.propose(&mut c, 8, &majority), majority);
        assert_eq!(cluster.chosen(), [8]);
    }
}

/// Paxos By Example: "a value is chosen when a majority of acceptors accepted it", and no sooner.
#[test]
fn a_value_is_chosen_when_a_majority_accepted_it() {
    for n in [1, 3, 5, 7] {
        let acceptors = Acceptors::new((1..=n).map(ReplicaId)).unwrap();
        let mut learner = Learner::default();
        for id in 1..=n {
            let by_majority = id > n / 2;
            let learned = learner.on_accepted(&acceptors, ReplicaId(id), ballot(1, 1), 8);
            assert_eq!(learned, by_majority.then_some(&8), "{id} of {n}");
        }
    }
}

/// ... and no sooner: what a minority accepted may still lose.
#[test]
fn a_value_accepted_by_a_minority_is_not_chosen() {
    let mut cluster = Cluster::new(5);
    let mut a = cluster.proposer(2, 1);
    assert_eq!(cluster.prepare(&mut a, &[1, 2, 3]), Some(Choice::Free));
    assert_eq!(cluster.propose(&mut a, 8, &[1, 2]), [1, 2]);
    assert_eq!(cluster.chosen(), NOTHING);
    cluster.choose(4, 2, 5, &[3, 4, 5]);
    assert_eq!(cluster.chosen(), [5]);
}

/// The Paxos guide: "acceptors must persist their state before responding", here a promise.
///
/// Y promises 4 to B and restarts. If it has forgotten, A's 8 is accepted by X and Y, B's 5 by Y and
/// Z: two values are chosen.
#[test]
fn acceptors_persist_their_promises() {
    let run = |memory| {
        let mut cluster = Cluster::new(3);
        let (mut a, mut b) = (cluster.proposer(2, 4), cluster.proposer(4, 5));
        cluster.prepare(&mut a, &[1, 2]);
        cluster.prepare(&mut b, &[2, 3]);
        cluster.restart(2, memory);
        cluster.propose(&mut a, 8, &[1, 2]);
        cluster.propose(&mut b, 5, &[2, 3]);
        (cluster.chosen(), cluster.violations())
    };
    let (chosen, violations) = run(Memory::NoPromises);
    assert_eq!(chosen, [5, 8]);
    assert!(violations.contains(&Violation::P2));
    assert_eq!(run(Memory::Everything), (vec![5], NO_VIOLATION));
}

/// The same, here what was accepted.
///
/// 8 is chosen by X and Y, and Y restarts. If it has forgotten, it lets B believe that it is free.
#[test]
fn acceptors_persist_what_they_accepted() {
    let run = |memory| {
        let mut cluster = Cluster::new(3);
        cluster.choose(2, 4, 8, &[1, 2]);
        cluster.restart(2, memory);
        let mut b = cluster.proposer(4, 5);
        let value = match cluster.prepare(&mut b, &[2, 3]) {
            Some(Choice::Bound(value)) => value,
            Some(Choice::Free) => 5,
            None => panic!("two promises are a majority"),
        };
        cluster.propose(&mut b, value, &[2, 3]);
        (cluster.chosen(), cluster.violations())
    };
    let (chosen, violations) = run(Memory::NoAccepted);
    assert_eq!(chosen, [5, 8]);
    assert!(violations.contains(&Violation::P2));
    assert_eq!(run(Memory::Everything), (vec![8], NO_VIOLATION));
}

/// The Paxos guide: "the proposal for such a request is numbered 0, so that it will be ignored if
/// any higher numbered requests have been received". Such a request comes without phase 1.
#[test]
fn a_proposal_numbered_0_needs_no_phase_1_and_is_ignored_after_any_higher_request() {
    let mut untouched = Acceptor::default();
    assert_eq!(untouched.accept(Ballot::ZERO, 8), Ok(()));

    let nack = Refusal::Nack(Nack {
        promised: ballot(1, 1),
    });
    let mut prepared = Acceptor::default();
    assert_eq!(prepared.promise(ballot(1, 1)), Ok(None));
    assert_eq!(prepared.accept(Ballot::ZERO, 8), Err(nack));
    let mut accepted = Acceptor::default();
    assert_eq!(accepted.accept(ballot(1, 1), 5), Ok(()));
    assert_eq!(accepted.accept(Ballot::ZERO, 8), Err(nack));
}

/// The other side of it: what was accepted at 0 binds every higher number, like any proposal.
#[test]
fn a_proposal_numbered_0_binds_whoever_comes_later() {
    let mut cluster = Cluster::new(3);
    assert_eq!(cluster.accept(Ballot::ZERO, 8, &[1, 2]), [1, 2]);
    assert_eq!(cluster.chosen(), [8]);
    let mut later = cluster.proposer(1, 3);
    assert_eq!(cluster.prepare(&mut later, &[2, 3]), Some(Choice::Bound(8)));
}
