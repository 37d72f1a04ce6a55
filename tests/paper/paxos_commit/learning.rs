//! When an outcome is final.

use paxos_commit::protocol::paxos::Ballot;
use paxos_commit::protocol::types::{Outcome, Peer};

use super::cluster::Cluster;
use super::node::Will;
use super::wire::{Envelope, Kind};
use super::{ABORT, ABORTED, COMMIT, PREPARED};

fn is_to_learner(envelope: &Envelope) -> bool {
    envelope.is(Kind::Phase2b) && !matches!(envelope.to, Peer::Replica(_))
}

/// Design 2.2: Aborted at ballot 0 is final even from a single replica. (In the paper's terms: the
/// RM proposed nothing else, so its own instance can choose prepared at no ballot any more.)
#[test]
fn abort_at_ballot_0_is_final_from_a_single_replica() {
    for n in 1..=5 {
        let mut cluster = Cluster::new(2, &[ABORTED, PREPARED]);
        cluster.commit();
        cluster.run_only(|e| !is_to_learner(e));
        cluster.take(|e| !e.is_from(n));
        assert!(
            cluster
                .wire
                .iter()
                .all(|e| e.reports() == Some((Ballot::ZERO, Outcome::Abort)))
        );
        cluster.run();
        assert_eq!(cluster.outcome(), ABORT, "told by replica {n} alone");
        assert_eq!(cluster.outcomes()[1], ABORT);
    }
}

/// Section 4.1: a value is chosen when a majority has accepted it. Commit of ballot 0 from F
/// replicas is nothing; from F+1 it is the outcome.
#[test]
fn commit_at_ballot_0_takes_a_majority() {
    for f in 1..=2 {
        let mut cluster = Cluster::of_prepared(f, 2);
        cluster.commit();
        cluster.run_only(|e| !is_to_learner(e));
        for n in 1..=2 * f + 1 {
            cluster.run_only(|e| e.is_from(n));
            let expected = if n > f { COMMIT } else { None };
            assert_eq!(cluster.outcome(), expected, "{n} of {}", 2 * f + 1);
            assert_eq!(cluster.outcomes(), [expected, expected]);
        }
    }
}

/// The same above ballot 0, and there for Abort too: the reports are the same as at ballot 0, but a
/// minority's may still be outvoted.
#[test]
fn above_ballot_0_everything_takes_a_majority() {
    for (second, outcome) in [(Will::Wait, ABORT), (PREPARED, COMMIT)] {
        let mut cluster = Cluster::new(1, &[PREPARED, second]);
        cluster.commit();
        cluster.run_only(|e| !is_to_learner(e));
        cluster.take(|_| true);
        cluster.lead(3);
        cluster.run_only(|e| !is_to_learner(e) && !e.tells_outcome());
        cluster.take(|e| e.tells_outcome());
        let above = |e: &Envelope| e.reports().is_some_and(|(ballot, _)| !ballot.is_zero());
        cluster.run_only(|e| e.is_from(2) && above(e));
        assert_eq!(cluster.outcome(), None);
        assert_eq!(cluster.outcomes(), [None, None]);
        cluster.run_only(|e| e.is_from(1) && above(e));
        assert_eq!(cluster.outcome(), outcome);
        assert_eq!(cluster.outcomes()[0], outcome);
    }
}

/// Paxos Made Simple, section 2.2: reports count together only at the same ballot. Here all three
/// acceptors have accepted Abort, each at another ballot, and nobody may conclude anything.
#[test]
fn reports_of_different_ballots_do_not_add_up() {
    let mut cluster = Cluster::new(1, &[PREPARED, Will::Wait]);
    cluster.commit();
    cluster.run();
    let mut reports = Vec::new();
    for leader in 1..=3 {
        cluster.lose_patience(leader);
        cluster.run_only(|e| e.is(Kind::Phase1a) || e.is(Kind::Phase1b));
        cluster.run_only(|e| e.is(Kind::Phase2a) && e.is_to(leader));
        reports.extend(cluster.take(is_to_learner));
        cluster.take(|_| true);
    }
    let ballots: Vec<_> = reports.iter().filter_map(Envelope::reports).collect();
    assert!(
        ballots
            .iter()
            .all(|(_, outcome)| *outcome == Outcome::Abort)
    );
    assert_eq!(reports.len(), 9, "three acceptors, three learners");
    cluster.put(reports);
    cluster.run();
    assert_eq!(cluster.outcome(), None);
    assert_eq!(cluster.outcomes(), [None, None]);
}
