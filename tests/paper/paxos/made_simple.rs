//! *Paxos Made Simple*, sections 2.2 to 2.5.

use std::collections::BTreeSet;

use paxos_commit::protocol::paxos::{
    Acceptor, Acceptors, Ballot, Choice, Learner, Proposer, Refusal, ReplicaId,
};

use super::cluster::{Cluster, ballot};
use super::history::{Violation, majorities};
use super::node::Value;
use super::{NO_VIOLATION, NOBODY, NOTHING};

/// P1. "An acceptor must accept the first proposal that it receives."
#[test]
fn p1_an_acceptor_accepts_the_first_proposal() {
    for first in some_ballots() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.accept(first, 8), Ok(()));
        assert_eq!(acceptor.accepted(), Some(&(first, 8)));
    }
}

/// P1a. "An acceptor can accept a proposal numbered n iff it has not responded to a prepare request
/// having a number greater than n." For every sequence of three prepare requests.
#[test]
fn p1a_an_acceptor_accepts_unless_it_responded_to_a_greater_prepare_request() {
    let ballots = some_ballots();
    for (first, second, third, n) in quadruples(&ballots) {
        let mut acceptor = Acceptor::default();
        let mut responded_to = Vec::new();
        for prepare in [first, second, third] {
            if acceptor.promise(prepare).is_ok() {
                responded_to.push(prepare);
            }
        }
        let can_accept = !responded_to.iter().any(|prepare| *prepare > n);
        assert_eq!(
            acceptor.accept(n, 8).is_ok(),
            can_accept,
            "{responded_to:?}, {n}"
        );
    }
}

/// Section 2.2: an acceptor may ignore any request without harm to safety. Ours does in one case
/// more than P1a asks for: it accepts nothing below what it has accepted, prepared or not.
#[test]
fn an_acceptor_accepts_nothing_below_what_it_accepted() {
    for high in some_ballots() {
        for low in some_ballots().into_iter().filter(|low| *low < high) {
            let mut acceptor = Acceptor::default();
            acceptor.accept(high, 8).unwrap();
            assert!(acceptor.accept(low, 5).is_err());
            assert_eq!(acceptor.accepted(), Some(&(high, 8)));
        }
    }
}

/// P2. "If a proposal with value v is chosen, then every higher-numbered proposal that is chosen has
/// value v." Through every majority, and again through every other.
#[test]
fn p2_every_higher_numbered_proposal_that_is_chosen_has_its_value() {
    for (one, two) in pairs_of_majorities(5) {
        let mut cluster = Cluster::new(5);
        cluster.choose(2, 1, 8, &[1, 3, 5]);
        cluster.choose(4, 2, 5, &one);
        cluster.choose(6, 3, 7, &two);
        assert_eq!(cluster.chosen(), [8]);
    }
}

/// P2a. "... then every higher-numbered proposal accepted by any acceptor has value v." The paper's
/// case: an acceptor that has received nothing yet, and a new proposer with another value.
#[test]
fn p2a_an_acceptor_that_heard_of_nothing_accepts_the_chosen_value() {
    let mut cluster = Cluster::new(3);
    cluster.choose(2, 1, 8, &[1, 2]);
    assert_eq!(cluster.acceptor(3), &Acceptor::default());
    cluster.choose(4, 2, 5, &[2, 3]);
    assert_eq!(cluster.acceptor(3).accepted(), Some(&(ballot(4, 2), 8)));
}

/// P2b. "... then every higher-numbered proposal issued by any proposer has value v." Whichever
/// majority chose, and whichever majority answers the proposer.
#[test]
fn p2b_a_higher_numbered_proposer_is_bound_to_the_chosen_value() {
    for n in [3, 5] {
        for (chose, answers) in pairs_of_majorities(n) {
            let mut cluster = Cluster::new(n as u32);
            cluster.choose(2, 1, 8, &chose);
            let mut later = cluster.proposer(4, 2);
            let choice = cluster.prepare(&mut later, &answers);
            assert_eq!(choice, Some(Choice::Bound(8)), "{chose:?}, {answers:?}");
        }
    }
}

/// P2b again: to issue anything else is a bug, and the proposer stops it.
#[test]
#[should_panic(expected = "the promises bind this ballot to a value")]
fn p2b_no_other_value_can_be_issued() {
    let mut cluster = Cluster::new(3);
    cluster.choose(2, 1, 8, &[1, 2]);
    let mut later = cluster.proposer(4, 2);
    cluster.prepare(&mut later, &[2, 3]);
    later.propose(5);
}

/// P2c. A proposal [n, v] is issued only if in some majority S (a) no acceptor has accepted anything
/// numbered less than n, or (b) v is the value of the highest-numbered proposal among those.
///
/// For every mix of what five acceptors may have accepted, and every majority S of them.
#[test]
fn p2c_free_if_the_majority_accepted_nothing_else_bound_to_the_highest() {
    let acceptors = Acceptors::new((1..=5).map(ReplicaId)).unwrap();
    let reports = [
        None,
        Some((Ballot::ZERO, 6)),
        Some((ballot(1, 2), 7)),
        Some((ballot(2, 1), 8)),
    ];
    for mix in 0..reports.len().pow(5) {
        let report =
            |member: usize| reports[mix / reports.len().pow(member as u32) % reports.len()];
        for majority in majorities(5) {
            let mut proposer = Proposer::new(ballot(3, 1), acceptors.clone());
            let mut choice = None;
            for member in &majority {
                let from = ReplicaId(*member as u32 + 1);
                choice = proposer.on_promise(from, ballot(3, 1), report(*member));
            }
            let expected = match majority.iter().filter_map(|member| report(*member)).max() {
                Some((_, value)) => Choice::Bound(value),
                None => Choice::Free,
            };
            assert_eq!(choice, Some(expected), "{mix}, {majority:?}");
        }
    }
}

/// Section 2.2: "an acceptor needs to remember only the highest-numbered proposal that it has ever
/// accepted and the number of the highest-numbered prepare request to which it has responded".
///
/// An acceptor rebuilt from these two after every request answers every next request alike.
#[test]
fn an_acceptor_needs_to_remember_only_two_things() {
    let mut random = fastrand::Rng::with_seed(1);
    let ballots = some_ballots();
    for _ in 0..2_000 {
        let mut whole = Acceptor::default();
        for _ in 0..8 {
            let mut rebuilt = Acceptor::default();
            rebuilt.restore_promise(whole.promised());
            if let Some((at, value)) = whole.accepted() {
                rebuilt.restore_accept(*at, *value);
            }
            let ballot = ballots[random.usize(..ballots.len())];
            if random.bool() {
                assert_eq!(whole.promise(ballot), rebuilt.promise(ballot));
            } else {
                let value = random.u64(..3);
                assert_eq!(whole.accept(ballot, value), rebuilt.accept(ballot, value));
            }
        }
    }
}

/// Section 2.2: a proposer "can abandon a proposal in the middle of the protocol at any time".
///
/// A is abandoned after each of its messages in turn. B then always gets a value chosen: A's, where
/// A's may have been chosen already.
#[test]
fn a_proposer_can_abandon_a_proposal_at_any_time() {
    for sent in 0..=6_usize {
        let mut cluster = Cluster::new(3);
        let mut a = cluster.proposer(2, 1);
        let everybody = [1, 2, 3];
        cluster.prepare(&mut a, &everybody[..sent.min(3)]);
        if let Some(accept_requests) = sent.checked_sub(3) {
            cluster.propose(&mut a, 8, &everybody[..accept_requests]);
        }
        drop(a);
        cluster.choose(4, 2, 5, &[1, 2, 3]);
        let expected = if sent > 3 { 8 } else { 5 };
        assert_eq!(
            cluster.chosen(),
            [expected],
            "abandoned after {sent} messages"
        );
    }
}

/// Section 2.2: it is a good idea "to abandon a proposal if some proposer has begun trying to issue
/// a higher-numbered one". Hence the nack, which tells the number to go above.
#[test]
fn a_nack_tells_the_higher_number_and_the_proposal_is_abandoned() {
    let mut cluster = Cluster::new(3);
    let (mut a, mut b) = (cluster.proposer(2, 1), cluster.proposer(4, 2));
    cluster.prepare(&mut b, &[1]);
    assert_eq!(
        cluster.prepare(&mut a, &[1, 2, 3]),
        None,
        "A gave up at the first nack"
    );
    let nack = cluster.acceptor(1).clone().promise(a.ballot()).unwrap_err();
    assert_eq!(nack.promised, b.ballot());
    assert!(a.on_nack(nack), "A gave up");
    assert!(!b.on_nack(nack), "B's own number is no reason to give up");

    let again = Ballot::above(nack.promised.round, ReplicaId(1)).unwrap();
    assert!(again > b.ballot());
    let mut a = cluster.proposer(again.round, 1);
    assert_eq!(cluster.prepare(&mut a, &[1, 2, 3]), Some(Choice::Free));
}

/// Section 2.3: a learner must find out that a proposal was accepted by a majority: *one* proposal.
/// Acceptors of one value at different numbers have chosen nothing.
#[test]
fn a_learner_learns_by_a_majority_of_one_proposal() {
    let acceptors = Acceptors::new((1..=3).map(ReplicaId)).unwrap();
    let mut learner = Learner::default();
    let mut hear = |from, number| {
        let from = ReplicaId(from);
        learner.on_accepted(&acceptors, from, number, 8).copied()
    };
    assert_eq!(hear(1, ballot(1, 1)), None);
    assert_eq!(hear(2, ballot(2, 2)), None, "another proposal");
    assert_eq!(hear(3, ballot(3, 3)), None, "a third one");
    assert_eq!(hear(3, ballot(3, 3)), None, "the same acceptor again");
    assert_eq!(hear(4, ballot(3, 3)), None, "no acceptor");
    assert_eq!(hear(1, ballot(3, 3)), Some(8));
}

/// Section 2.3: messages may be lost, so that a value is chosen and no learner knows. A learner that
/// wants to know has a proposer issue a proposal.
#[test]
fn a_new_proposal_tells_a_learner_what_was_chosen_unnoticed() {
    let mut cluster = Cluster::new(3);
    cluster.choose(2, 1, 8, &[1, 2]);
    let mut asker = cluster.proposer(3, 3);
    let mut learner = Learner::default();
    assert_eq!(cluster.prepare(&mut asker, &[2, 3]), Some(Choice::Bound(8)));
    for from in cluster.propose(&mut asker, 8, &[2, 3]) {
        learner.on_accepted(&cluster.acceptors, ReplicaId(from), asker.ballot(), 8);
    }
    assert_eq!(learner.chosen(), Some(&8));
}

/// Section 2.4: two proposers that keep outbidding each other issue proposals for ever, "none of
/// which are ever chosen". Nothing bad happens, and as soon as one stands back the other succeeds.
#[test]
fn dueling_proposers_make_no_progress_and_stay_safe() {
    let mut cluster = Cluster::new(3);
    let everybody = [1, 2, 3];
    let mut before: Option<Proposer<Value>> = None;
    for round in 1..=100 {
        let mut next = cluster.proposer(round, round as u32 % 2 + 1);
        assert_eq!(cluster.prepare(&mut next, &everybody), Some(Choice::Free));
        if let Some(mut outbid) = before.replace(next) {
            assert_eq!(cluster.propose(&mut outbid, round, &everybody), NOBODY);
        }
    }
    assert_eq!(cluster.chosen(), NOTHING);
    let mut last = before.unwrap();
    assert_eq!(cluster.propose(&mut last, 5, &everybody), everybody);
    assert_eq!(
        (cluster.chosen(), cluster.violations()),
        (vec![5], NO_VIOLATION)
    );
}

/// Section 2.5: "different proposers choose their numbers from disjoint sets".
#[test]
fn numbers_of_different_proposers_are_disjoint_and_ordered() {
    let of = |replica| -> BTreeSet<Ballot> {
        let above = |round| Ballot::above(round, ReplicaId(replica)).unwrap();
        (0..50).map(above).collect()
    };
    let all: BTreeSet<Ballot> = (0..5).flat_map(of).collect();
    assert_eq!(all.len(), 5 * 50);
    assert!(!all.contains(&Ballot::ZERO), "ballot 0 is nobody's");
}

/// ... because two proposals with one number leave nothing to tell which of them came later. Hence
/// also: a proposer remembers the highest number that it used, and begins with a higher one.
///
/// A and B, or A before and after it forgot, both use 2. B's 5 is chosen by Y and Z, and C, who hears
/// [2, 8] from X first, takes 8.
#[test]
fn one_number_for_two_proposals_lets_two_values_be_chosen() {
    let run = |number_of_b| {
        let mut cluster = Cluster::new(3);
        let (mut a, mut b) = (cluster.proposer(2, 1), cluster.proposer(2, number_of_b));
        cluster.prepare(&mut a, &[1, 2]);
        cluster.prepare(&mut b, &[2, 3]);
        cluster.propose(&mut a, 8, &[1]);
        cluster.propose(&mut b, 5, &[2, 3]);
        cluster.choose(4, 3, 7, &[1, 2, 3]);
        (cluster.chosen(), cluster.violations())
    };
    let (chosen, violations) = run(1);
    assert_eq!(chosen, [5, 8]);
    assert!(violations.contains(&Violation::NumberUsedTwice));
    assert_eq!(run(2), (vec![5], NO_VIOLATION));
}

/// The last fence against it: an acceptor that is asked to accept both refuses the second.
#[test]
fn an_acceptor_accepts_one_value_per_number() {
    let mut acceptor = Acceptor::default();
    assert_eq!(acceptor.accept(ballot(2, 1), 8), Ok(()));
    assert_eq!(acceptor.accept(ballot(2, 1), 5), Err(Refusal::Conflict));
    assert_eq!(acceptor.accepted(), Some(&(ballot(2, 1), 8)));
}

/// Ballots that differ in the round, in the replica, and in both.
fn some_ballots() -> Vec<Ballot> {
    vec![
        Ballot::ZERO,
        ballot(1, 1),
        ballot(1, 2),
        ballot(2, 1),
        ballot(3, 2),
    ]
}

fn quadruples(ballots: &[Ballot]) -> impl Iterator<Item = (Ballot, Ballot, Ballot, Ballot)> {
    let n = ballots.len();
    (0..n.pow(4)).map(move |index| {
        let at = |place: u32| ballots[index / n.pow(place) % n];
        (at(0), at(1), at(2), at(3))
    })
}

/// Every pair of majorities of the acceptors 1 to `n`.
fn pairs_of_majorities(n: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
    let named = |majority: Vec<usize>| majority.iter().map(|member| *member as u32 + 1).collect();
    let all: Vec<Vec<u32>> = majorities(n).map(named).collect();
    let with_each =
        |one: &Vec<u32>| -> Vec<_> { all.iter().map(|two| (one.clone(), two.clone())).collect() };
    all.iter().flat_map(with_each).collect()
}
