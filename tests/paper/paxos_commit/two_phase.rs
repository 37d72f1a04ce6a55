//! "The Two-Phase Commit protocol is thus the degenerate case of the Paxos Commit algorithm with a
//! single acceptor" (section 5).

use paxos_commit::protocol::types::Outcome;

use super::cluster::Cluster;
use super::node::Will;
use super::wire::{Envelope, Kind};
use super::{ABORT, ABORTED, COMMIT, PREPARED};

fn kinds(envelopes: &[Envelope]) -> Vec<Kind> {
    envelopes.iter().map(Envelope::kind).collect()
}

/// Section 3.1, figure 2: Prepare to all, their votes to the coordinator, its decision to all, and
/// nothing else. That makes 3N messages. (The paper's 3N-1 lets one RM begin; the client, and the
/// acknowledgements that let the coordinator forget, are ours.)
#[test]
fn one_replica_has_the_message_pattern_of_two_phase_commit() {
    let mut cluster = Cluster::of_prepared(0, 3);
    cluster.commit();
    cluster.run();
    let pattern = [
        vec![Kind::BeginCommit],
        [Kind::Prepare].repeat(3),
        [Kind::Vote].repeat(3),
        [Kind::Phase2b].repeat(4),
        [Kind::Applied].repeat(3),
    ];
    assert_eq!(kinds(&cluster.log), pattern.concat());
    assert_eq!(cluster.outcome(), COMMIT);
    assert_eq!(cluster.outcomes(), [COMMIT; 3]);
}

/// Section 3.1: an RM that aborts makes the coordinator abort at once.
#[test]
fn one_replica_aborts_at_the_first_aborted_vote() {
    let mut cluster = Cluster::new(0, &[ABORTED, Will::Wait]);
    cluster.commit();
    cluster.run();
    assert_eq!(cluster.outcome(), ABORT);
    assert_eq!(cluster.sent(Kind::Phase1a), 0);
}

/// Section 3.1: the coordinator's decision is made when it is in its stable storage. Here that is
/// its acceptance: one save more, and the outcome is told.
#[test]
fn its_acceptance_is_the_decision() {
    let mut cluster = Cluster::of_prepared(0, 2);
    cluster.commit();
    cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
    let last = cluster.wire.pop_back().expect("a vote");
    cluster.run();
    assert_eq!((cluster.decided(1), cluster.sent(Kind::Phase2b)), (None, 0));
    cluster.deliver(last);
    assert_eq!(cluster.decided(1), COMMIT);
    let accepted = cluster.replicas[0].disk.len();
    cluster.take(|_| true);
    cluster.crash(1);
    cluster.restart(1);
    assert_eq!(
        (cluster.decided(1), accepted),
        (COMMIT, 2),
        "from two votes on disk"
    );
}

/// Section 3.3: "the failure of the TM can cause the protocol to block until the TM is repaired".
/// If it fails when every RM has prepared, they wait; and then they learn what is on its disk.
#[test]
fn its_crash_blocks_prepared_rms_until_it_comes_back() {
    for (wills, outcome) in [
        ([PREPARED, PREPARED], Outcome::Commit),
        ([PREPARED, ABORTED], Outcome::Abort),
    ] {
        let mut cluster = Cluster::new(0, &wills);
        cluster.commit();
        cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
        cluster.run_only(|e| e.is(Kind::Vote));
        cluster.crash(1);
        cluster.take(|_| true);
        cluster.pass(1_000);
        assert_eq!((cluster.outcome(), cluster.outcomes()[0]), (None, None));
        assert!(cluster.rms[0].is_in_doubt());
        cluster.restart(1);
        assert_eq!(cluster.decided(1), Some(outcome));
        cluster.pass(100);
        assert_eq!(cluster.outcome(), Some(outcome));
        assert_eq!(cluster.rms[0].applied, [outcome]);
    }
}

/// The same when it fails earlier, and remembers nothing or one vote: the RMs go on saying what
/// they said, so the transaction still commits.
#[test]
fn a_coordinator_that_had_not_decided_hears_the_votes_again() {
    for votes in 0..2 {
        let mut cluster = Cluster::of_prepared(0, 2);
        cluster.commit();
        cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
        for _ in 0..votes {
            let vote = cluster.wire.pop_front().expect("a vote");
            cluster.deliver(vote);
        }
        cluster.crash(1);
        cluster.run();
        cluster.restart(1);
        assert_eq!(cluster.decided(1), None);
        cluster.pass(10);
        assert_eq!(cluster.outcome(), COMMIT);
        assert_eq!(cluster.outcomes(), [COMMIT, COMMIT]);
        assert_eq!(cluster.sent(Kind::Phase1a), 0);
    }
}

/// Section 3.1: a coordinator that misses a vote for too long aborts. Here it is a leader that asks
/// itself for a majority.
#[test]
fn one_replica_aborts_when_a_vote_does_not_come() {
    let mut cluster = Cluster::new(0, &[PREPARED, Will::Wait]);
    cluster.commit();
    cluster.run();
    cluster.pass(40);
    assert_eq!(cluster.outcome(), ABORT);
    assert_eq!(cluster.outcomes()[0], ABORT);
}
