//! Branches that changed nothing (design 2.3; two-phase commit has the same optimisation).

use paxos_commit::protocol::types::Peer;

use super::cluster::Cluster;
use super::node::Will;
use super::wire::{Envelope, Kind};
use super::{ABORT, COMMIT, PREPARED, READ_ONLY};

/// A ReadOnly branch needs no outcome: it is done when it has voted, and no report is sent to it.
/// The others commit, and nobody waits for an Applied of it.
#[test]
fn a_read_only_branch_is_done_when_it_has_voted() {
    let mut cluster = Cluster::new(1, &[PREPARED, READ_ONLY, PREPARED]);
    cluster.commit();
    cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
    assert!(cluster.rms[1].is_idle());
    cluster.run();
    assert_eq!(cluster.outcome(), COMMIT);
    assert_eq!(cluster.outcomes(), [COMMIT, None, COMMIT]);
    let me = Peer::Session(cluster.rms[1].me.clone());
    let to_it: Vec<Kind> = cluster
        .log
        .iter()
        .filter(|e| e.to == me)
        .map(|e| e.kind())
        .collect();
    assert_eq!(to_it, [Kind::Prepare]);
    for n in 1..=3 {
        assert_eq!(
            cluster.host(n).unapplied().count(),
            0,
            "finished at replica {n}"
        );
    }
}

/// If all branches are, nothing is to be applied. The replicas, to which nobody says Applied, tell
/// each other when the vote timeout has passed; that takes no ballot.
#[test]
fn all_read_only_is_finished_without_a_ballot() {
    let mut cluster = Cluster::new(1, &[READ_ONLY, READ_ONLY]);
    cluster.commit();
    cluster.run();
    assert_eq!(cluster.outcome(), COMMIT);
    assert_eq!(
        cluster.sent(Kind::Phase2b),
        3,
        "to the client, from each replica"
    );
    cluster.pass(30);
    for n in 1..=3 {
        assert_eq!(cluster.decided(n), COMMIT);
        assert_eq!(cluster.host(n).unapplied().count(), 0);
    }
    assert_eq!(
        (cluster.sent(Kind::Applied), cluster.sent(Kind::Phase1a)),
        (0, 0)
    );
}

/// For the outcome it is as good as prepared, also for a leader that counts votes; and a commit
/// that was chosen in a ballot is not pushed to it either.
#[test]
fn read_only_counts_as_prepared_for_a_leader() {
    for (second, outcome) in [(PREPARED, COMMIT), (Will::Wait, ABORT)] {
        let mut cluster = Cluster::new(1, &[READ_ONLY, second]);
        cluster.commit();
        cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
        cluster.take(|e| e.is(Kind::Vote) && e.is_to(1));
        cluster.run_only(|e| e.is(Kind::Vote));
        cluster.take(|_| true);
        cluster.crash(2);
        cluster.lead(1);
        cluster.run();
        assert_eq!(cluster.outcome(), outcome);
        cluster.restart(2);
        cluster.pass(300);
        assert!(cluster.rms[0].applied.is_empty());
        let me = Peer::Session(cluster.rms[0].me.clone());
        let pushes = |e: &&Envelope| e.to == me && e.tells_outcome();
        if outcome == COMMIT {
            assert_eq!(cluster.log.iter().filter(pushes).count(), 0);
            assert_eq!(cluster.rms[1].applied.len(), 1);
        }
    }
}
