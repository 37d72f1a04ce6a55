//! What a leader may propose.

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::paxos::Ballot;
use paxos_commit::protocol::types::{Outcome, Peer, Vote};

use super::cluster::Cluster;
use super::node::Will;
use super::wire::{Envelope, Kind};
use super::{ABORT, ABORTED, COMMIT, PREPARED};

/// Appendix, Phase2a: if no phase 1b message reports a value, "the leader sends the value aborted".
/// The RM that did not vote is told so when it does.
#[test]
fn free_and_a_vote_is_missing_abort() {
    let mut cluster = Cluster::new(1, &[PREPARED, Will::Wait]);
    cluster.commit();
    cluster.run();
    cluster.lose_patience(1);
    cluster.run();
    assert_eq!(cluster.outcome(), ABORT);
    assert_eq!(cluster.outcomes()[0], ABORT);
    let id = cluster.id;
    cluster.answer(2, id, Vote::Prepared);
    cluster.run();
    assert_eq!(cluster.outcomes(), [ABORT, ABORT]);
}

/// Section 4.2: for the leader, "free" is a matter of each RM's instance. It proposes prepared
/// where a vote was reported and aborted where none was: Commit iff the union of the reports is
/// complete, even if no acceptor holds all votes.
///
/// Every way in which two RMs' votes can have reached three acceptors, and every majority that can
/// answer either of its members.
#[test]
fn the_union_of_the_reported_votes_decides() {
    for second in [PREPARED, ABORTED] {
        for arrived in 0..1 << 6 {
            for (leader, absent) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
                let outcome = led(second, arrived, leader, absent);
                let reported = |rm: u32| {
                    let from = |n: &u32| arrived & vote_bit(rm, *n) != 0;
                    (1..=3).filter(|n| *n != absent).any(|n| from(&n))
                };
                let complete = second == PREPARED && reported(1) && reported(2);
                let expected = if complete { COMMIT } else { ABORT };
                assert_eq!(
                    outcome, expected,
                    "{arrived:06b}, {leader} without {absent}"
                );
            }
        }
    }
}

fn vote_bit(rm: u32, replica: u32) -> u32 {
    1 << ((rm - 1) * 3 + replica - 1)
}

/// What `leader` makes of the votes that arrived; then all the rest arrives, and nothing changes.
fn led(second: Will, arrived: u32, leader: u32, absent: u32) -> Option<Outcome> {
    let mut cluster = Cluster::new(1, &[PREPARED, second]);
    cluster.commit();
    cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
    let first = Peer::Session(cluster.rms[0].me.clone());
    let has_arrived = |e: &Envelope| {
        let rm = if e.from == first { 1 } else { 2 };
        (1..=3).any(|n| e.is_to(n) && arrived & vote_bit(rm, n) != 0)
    };
    cluster.run_only(|e| e.is(Kind::Vote) && has_arrived(e));
    let late = cluster.take(|e| e.is(Kind::Vote));
    // Only the ballot shall speak: the acceptors' own reports come later.
    let reports = cluster.take(|e| e.is(Kind::Phase2b));
    cluster.isolate(absent);
    if cluster.decided(leader).is_none() {
        cluster.lead(leader);
    }
    cluster.run();
    let decided = cluster.decided(leader);
    cluster.rejoin();
    cluster.put(late);
    cluster.put(reports);
    cluster.run();
    cluster.pass(100);
    assert_eq!(cluster.outcome(), decided);
    for n in 1..=3 {
        assert_eq!(cluster.decided(n), decided);
    }
    decided
}

/// Section 4.1: if it is not free, the leader has to propose the value of the highest ballot that
/// is reported.
///
/// Replica 1 accepts Abort at its ballot 1, then replica 3 Commit at ballot 2 of replica 2, which
/// heard of votes that replica 1 had not. Whoever hears of both confirms the higher; whoever hears
/// of one confirms that.
#[test]
fn bound_by_the_value_of_the_highest_ballot() {
    let commit_above = ([3, 1], COMMIT);
    let commit_alone = ([3, 2], COMMIT);
    let abort_alone = ([1, 2], ABORT);
    for (majority, expected) in [commit_above, commit_alone, abort_alone] {
        let mut cluster = two_values();
        let [leader, other] = majority;
        cluster.isolate(6 - leader - other);
        // Its first ballot may be refused: it has not heard of the higher one.
        while cluster.decided(leader).is_none() {
            cluster.lose_patience(leader);
            cluster.run();
        }
        assert_eq!(cluster.decided(leader), expected, "{majority:?}");
        cluster.rejoin();
        cluster.pass(200);
        assert_eq!(cluster.outcome(), expected);
        assert_eq!(cluster.outcomes(), [expected, expected]);
    }
}

/// Abort was accepted by replica 1 at a ballot of its own, Commit by replica 3 at a higher one.
fn two_values() -> Cluster {
    let mut cluster = Cluster::of_prepared(1, 2);
    cluster.commit();
    cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
    // RM 1 is heard by replica 2 only, RM 2 by replica 3 only.
    let first = Peer::Session(cluster.rms[0].me.clone());
    cluster.take(|e| e.is(Kind::Vote) && (e.is_to(1) || (e.from == first) != e.is_to(2)));
    cluster.run();
    for (leader, with, accepts) in [(1, 2, 1), (2, 3, 3)] {
        let among = |e: &Envelope| {
            let member = |n| e.is_to(n) || e.is_from(n);
            e.is_between_replicas()
                && (member(leader) || member(with))
                && !member(6 - leader - with)
        };
        cluster.lead(leader);
        cluster.run_only(|e| among(e) && (e.is(Kind::Phase1a) || e.is(Kind::Phase1b)));
        cluster.run_only(|e| e.is(Kind::Phase2a) && e.is_to(accepts));
        cluster.take(|_| true);
    }
    let report = |n: u32| {
        let mut log = cluster.log.iter();
        let sent = log.find(|e| e.is_from(n) && e.is(Kind::Phase2b));
        sent.and_then(Envelope::reports).expect("it has accepted")
    };
    assert_eq!(report(1).1, Outcome::Abort);
    assert_eq!(report(3).1, Outcome::Commit);
    assert!(Ballot::ZERO < report(1).0 && report(1).0 < report(3).0);
    cluster
}

/// Design 2.2: Abort needs no roster. Replicas that never heard of the transaction abort it for
/// whoever knows its id, and its RMs are held to that.
#[test]
fn abort_needs_no_roster() {
    let mut cluster = Cluster::of_prepared(1, 2);
    cluster.lead(2);
    cluster.run();
    for n in 1..=3 {
        assert_eq!(cluster.decided(n), ABORT);
    }
    for envelope in &cluster.log {
        if let Message::Phase1b { reports, .. } = &envelope.message {
            assert!(reports.iter().all(|report| report.roster.is_none()));
        }
    }
    cluster.commit();
    cluster.run();
    cluster.pass(50);
    assert_eq!(cluster.outcome(), ABORT);
}

/// Appendix, Phase2a: "If val is prepared, then rm must have prepared." Commit that was accepted at
/// ballot 0, even by one acceptor that answers, is never aborted.
#[test]
fn a_leader_may_not_abort_what_was_accepted() {
    for (leader, other) in [(1, 2), (2, 1), (2, 3), (3, 2)] {
        let mut cluster = Cluster::of_prepared(1, 2);
        cluster.commit();
        cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
        // Only replica 2 holds the votes.
        cluster.take(|e| e.is(Kind::Vote) && !e.is_to(2));
        cluster.run_only(|e| e.is(Kind::Vote));
        cluster.take(|_| true);
        cluster.isolate(6 - leader - other);
        cluster.lead(leader);
        cluster.run();
        assert_eq!(cluster.outcome(), COMMIT, "{leader} with {other}");
        let mut proposed = 0;
        for envelope in cluster.log.iter() {
            if let Message::Phase2a { proposals, .. } = &envelope.message {
                proposed += 1;
                assert!(proposals.iter().all(|p| p.outcome == Outcome::Commit));
            }
        }
        assert!(proposed > 0);
    }
}
