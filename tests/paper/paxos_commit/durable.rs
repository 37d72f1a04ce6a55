//! Saved before sent, in order (section 3.1, and design 2.7).

use crate::invariant::Violation;
use paxos_commit::protocol::types::Outcome;

use super::cluster::{Cluster, Release};
use super::node::{Disk, Will};
use super::wire::{Envelope, Kind};
use super::{ABORT, COMMIT, PREPARED};

/// Section 3.1: each process records its state "in stable storage before sending any message while
/// in that state". As long as no vote is durable, no acceptor reports anything.
#[test]
fn a_report_leaves_when_the_votes_are_durable() {
    let mut cluster = Cluster::of_prepared(1, 2);
    slow(&mut cluster);
    cluster.commit();
    cluster.run();
    assert_eq!(cluster.sent(Kind::Vote), 6);
    assert_eq!(cluster.sent(Kind::Phase2b), 0);
    cluster.sync(1);
    cluster.run();
    assert_eq!(cluster.sent(Kind::Phase2b), 3);
    assert_eq!(cluster.outcome(), None, "one acceptor is no majority");
    cluster.sync(2);
    cluster.run();
    assert_eq!(cluster.outcome(), COMMIT);
}

/// ... so whatever a crash takes, nobody had heard of. Here it takes all votes of all acceptors,
/// and the RMs say them again.
#[test]
fn what_a_crash_takes_nobody_has_heard_of() {
    let mut cluster = Cluster::of_prepared(1, 2);
    slow(&mut cluster);
    cluster.commit();
    cluster.run();
    for n in 1..=3 {
        cluster.crash(n);
        cluster.restart(n);
        cluster.replicas[n as usize - 1].speed = Disk::Fast;
    }
    assert_eq!(
        (cluster.outcome(), cluster.outcomes()),
        (None, vec![None, None])
    );
    cluster.pass(10);
    assert_eq!(cluster.outcome(), COMMIT);
}

/// The same for promises and for what is accepted above ballot 0.
#[test]
fn promises_and_acceptances_leave_when_they_are_durable() {
    let mut cluster = Cluster::new(1, &[PREPARED, Will::Wait]);
    cluster.commit();
    cluster.run();
    slow(&mut cluster);
    cluster.lead(1);
    cluster.sync(1);
    cluster.run();
    assert_eq!(
        (cluster.sent(Kind::Phase1a), cluster.sent(Kind::Phase1b)),
        (3, 0)
    );
    sync(&mut cluster);
    cluster.run();
    assert_eq!(
        (cluster.sent(Kind::Phase1b), cluster.sent(Kind::Phase2b)),
        (3, 0)
    );
    assert!(cluster.sent(Kind::Phase2a) > 0);
    sync(&mut cluster);
    cluster.run();
    sync(&mut cluster);
    cluster.run();
    assert_eq!(cluster.outcome(), ABORT);
}

/// Section 3.1: "Process failure and restart is equivalent to the process pausing". Any replica, at
/// any step of the normal case or of a recovery, and nothing is different in the end.
#[test]
fn to_crash_and_restart_is_to_pause() {
    for second in [PREPARED, Will::Wait] {
        for n in 1..=3 {
            for steps in 0.. {
                let mut cluster = Cluster::new(1, &[PREPARED, second]);
                cluster.commit();
                if second == Will::Wait {
                    cluster.run();
                    cluster.lead(1);
                }
                for _ in 0..steps {
                    if let Some(envelope) = cluster.wire.pop_front() {
                        cluster.deliver(envelope);
                    }
                }
                let over = cluster.wire.is_empty();
                cluster.crash(n);
                cluster.restart(n);
                cluster.run();
                cluster.pass(100);
                let outcome = if second == PREPARED { COMMIT } else { ABORT };
                assert_eq!(cluster.outcome(), outcome, "{n} after {steps} steps");
                assert_eq!(cluster.outcomes()[0], outcome);
                if over {
                    break;
                }
            }
        }
    }
}

/// Design 2.7: release is FIFO. An answer that needs no save of its own still waits for the saves
/// of the steps before it; else a commit is lost.
#[test]
fn an_answer_without_a_save_waits_for_the_saves_before_it() {
    let run = duplicate_phase_1a(Release::Eager);
    assert_eq!(run.client, COMMIT);
    assert_eq!(run.rms, [COMMIT, COMMIT]);
    assert_eq!(run.leader, ABORT, "and it tells everyone");
    let lost = |violation: &Violation| matches!(violation, Violation::TwoChosen { .. });
    assert!(run.violations.iter().any(lost), "{:?}", run.violations);

    let run = duplicate_phase_1a(Release::Fifo);
    assert_eq!(run.client, COMMIT);
    assert_eq!(run.rms, [COMMIT, COMMIT]);
    assert_eq!(run.leader, COMMIT);
    assert!(run.violations.is_empty());
}

struct Run {
    client: Option<Outcome>,
    rms: Vec<Option<Outcome>>,
    /// What the leader of the ballot takes for the outcome in the end.
    leader: Option<Outcome>,
    violations: Vec<Violation>,
}

fn duplicate_phase_1a(release: Release) -> Run {
    let mut cluster = Cluster::of_prepared(1, 2).with_release(release);
    cluster.commit();
    cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
    let votes = cluster.take(|e| e.is(Kind::Vote));
    // Replica 1 starts a ballot before any vote has arrived. Replica 2 promises; its disk is slow.
    cluster.replicas[1].speed = Disk::Slow;
    cluster.lead(1);
    let phase1a = cluster.take(|e| e.is(Kind::Phase1a) && !e.is_to(1));
    let to_2 = phase1a.into_iter().find(|e| e.is_to(2)).expect("sent");
    cluster.deliver(to_2.clone());
    assert_eq!(cluster.sent(Kind::Phase1b), 0);
    // A duplicate arrives. Nothing changes by it, so nothing is to be saved for its answer.
    cluster.deliver(to_2);
    let answered = cluster.sent(Kind::Phase1b) > 0;
    assert_eq!(answered, release == Release::Eager);
    // Replica 2 crashes, and forgets its promise.
    cluster.crash(2);
    cluster.restart(2);
    cluster.replicas[1].speed = Disk::Fast;
    // Replica 1 counts what it was answered. With two promises it is free, and proposes Abort.
    cluster.run_only(|e| e.is(Kind::Phase1a) || e.is(Kind::Phase1b));
    let phase2a = cluster.take(|e| e.is(Kind::Phase2a));
    assert_eq!(!phase2a.is_empty(), answered);
    // The votes arrive at the two that have promised nothing: Commit is chosen, told and applied.
    cluster.put(votes.into_iter().filter(|e| !e.is_to(1)).collect());
    cluster.run_only(|e| e.is(Kind::Vote) || e.is(Kind::Phase2b));
    cluster.take(|e| e.is(Kind::Applied));
    let client = cluster.outcome();
    // What replica 1 proposed arrives, there and at replica 2. Or, if there was none, it tries
    // again.
    if phase2a.is_empty() {
        cluster.lose_patience(1);
    }
    let among = |e: &Envelope| e.is_between_replicas() && !e.is_to(3) && !e.is_from(3);
    cluster.put(phase2a);
    cluster.run_only(among);
    Run {
        client,
        rms: cluster.outcomes(),
        leader: cluster.decided(1),
        violations: cluster.violations,
    }
}

fn slow(cluster: &mut Cluster) {
    for node in &mut cluster.replicas {
        node.speed = Disk::Slow;
    }
}

fn sync(cluster: &mut Cluster) {
    for n in 1..=3 {
        cluster.sync(n);
    }
}
