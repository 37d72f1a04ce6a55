//! Commit iff all are prepared; once decided it never changes; nobody learns anything else.

use paxos_commit::protocol::initiator::InitiatorTimer;
use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::participant::ParticipantCommand;
use paxos_commit::protocol::types::{Outcome, Vote};

use super::cluster::Cluster;
use super::node::Will;
use super::wire::{Kind, replica};
use super::{ABORT, ABORTED, COMMIT, PREPARED, READ_ONLY};

/// Section 4.2: the transaction is committed iff the instance of every RM chooses prepared, and
/// aborted otherwise. All answers that three RMs can give.
#[test]
fn commit_iff_all_are_prepared() {
    let answers = [PREPARED, READ_ONLY, ABORTED];
    for case in 0..27 {
        let wills = [answers[case % 3], answers[case / 3 % 3], answers[case / 9]];
        let expected = if wills.contains(&ABORTED) {
            ABORT
        } else {
            COMMIT
        };
        let mut cluster = Cluster::new(1, &wills);
        cluster.commit();
        cluster.run();
        assert_eq!(cluster.outcome(), expected, "{wills:?}");
        cluster.pass(50);
        for (rm, will) in cluster.rms.iter().zip(wills) {
            let applied: Vec<Outcome> = match will {
                PREPARED => expected.into_iter().collect(),
                Will::Say(_) | Will::Wait => Vec::new(),
            };
            assert_eq!(rm.applied, applied, "{wills:?}");
            assert_eq!(rm.has_let_go, will == ABORTED);
            assert!(rm.is_idle());
        }
    }
}

/// Section 2: if any RM aborts, the transaction is aborted. One vote suffices, at one acceptor;
/// nobody waits for the other RMs, and no leader is needed.
#[test]
fn one_aborted_vote_suffices() {
    let mut cluster = Cluster::new(2, &[ABORTED, Will::Wait, Will::Wait]);
    cluster.commit();
    cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
    cluster.take(|e| e.is(Kind::Vote) && !e.is_to(4));
    cluster.run();
    assert_eq!(cluster.outcome(), ABORT);
    assert!(cluster.log.iter().all(|e| e.leads().is_none()));
}

/// Section 2: once prepared, an RM cannot know whether to commit or abort, and waits. Whatever its
/// service, its relay or the time that passes make of it.
#[test]
fn a_prepared_rm_never_aborts_by_itself() {
    let mut cluster = Cluster::of_prepared(1, 2);
    cluster.commit();
    cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
    for n in 1..=3 {
        cluster.crash(n);
    }
    cluster.run();
    let txn = cluster.txn;
    cluster.tell_rm(1, ParticipantCommand::Rollback(txn));
    cluster.tell_rm(1, ParticipantCommand::Poison(txn));
    let let_go = Message::LetGo { txn, floor: 0 };
    cluster.say_to_rm(1, replica(1), let_go);
    for _ in 0..10_000 {
        cluster.tick_rm(1);
        cluster.run();
    }
    let rm = &cluster.rms[0];
    assert!(rm.is_in_doubt() && !rm.has_let_go && rm.applied.is_empty());
    assert!(rm.heard.is_none());
    // It has kept saying one thing: its vote. And it still can.
    assert!(cluster.sent(Kind::Vote) > 100);
    for n in 1..=3 {
        cluster.restart(n);
    }
    cluster.pass(100);
    assert_eq!(cluster.outcomes(), [COMMIT, COMMIT]);
}

/// Appendix, RMChooseToAbort: a working RM "spontaneously decides to abort", at any time before it
/// has voted, and for any reason.
#[test]
fn a_working_rm_may_abort_at_any_time() {
    type Change = fn(&mut Cluster);
    let its_service_gives_up: Change = |cluster| {
        let txn = cluster.txn;
        cluster.tell_rm(1, ParticipantCommand::Rollback(txn));
    };
    let its_connection_breaks: Change = |cluster| {
        let txn = cluster.txn;
        cluster.tell_rm(1, ParticipantCommand::Poison(txn));
    };
    let nobody_asks: Change = |cluster| {
        for _ in 0..1_200 {
            cluster.tick_rm(1);
        }
    };
    for change in [its_service_gives_up, its_connection_breaks, nobody_asks] {
        let mut cluster = Cluster::of_prepared(1, 2);
        change(&mut cluster);
        cluster.commit();
        cluster.run();
        assert_eq!(cluster.outcome(), ABORT);
        assert!(cluster.rms[0].has_let_go && cluster.rms[0].applied.is_empty());
    }
    // Even while it prepares; what it has prepared it rolls back.
    for change in [its_service_gives_up, its_connection_breaks] {
        let mut cluster = Cluster::new(1, &[Will::Wait, PREPARED]);
        cluster.commit();
        cluster.run();
        change(&mut cluster);
        let id = cluster.id;
        cluster.answer(1, id, Vote::Prepared);
        cluster.run();
        assert_eq!(cluster.outcome(), ABORT);
        assert_eq!(cluster.rms[0].applied, [Outcome::Abort]);
    }
}

/// Section 2, stability: an RM that has committed or aborted stays so for ever. Neither ballots,
/// nor restarts, nor every message over again change anything.
#[test]
fn what_is_decided_never_changes() {
    for (wills, outcome) in [
        ([PREPARED, PREPARED], COMMIT),
        ([PREPARED, READ_ONLY], COMMIT),
        ([PREPARED, ABORTED], ABORT),
        ([PREPARED, Will::Wait], ABORT),
    ] {
        let mut cluster = Cluster::new(1, &wills);
        cluster.commit();
        cluster.run();
        cluster.pass(100);
        assert_eq!(cluster.outcome(), outcome);
        let (heard, applied) = (cluster.outcomes(), cluster.rms[0].applied.clone());
        let everything: Vec<_> = cluster.log.iter().rev().cloned().collect();
        for n in [1, 2, 3, 1] {
            cluster.crash(n);
            cluster.restart(n);
            cluster.lead(n);
            cluster.run();
            cluster.put(everything.clone());
            cluster.run();
            cluster.time_out_client(InitiatorTimer::Tick);
            assert_eq!(cluster.decided(n), outcome);
        }
        cluster.pass(100);
        assert_eq!(cluster.outcome(), outcome);
        assert_eq!(cluster.outcomes(), heard);
        assert_eq!(cluster.rms[0].applied, applied, "applied once");
    }
}

/// Section 2, consistency: no RM is in the committed state while another is in the aborted state.
///
/// In any order of arrival, with losses, duplicates, restarts and ballots at any time. At the end
/// everything arrives, and all know one outcome.
#[test]
fn no_two_learn_different_outcomes() {
    let (mut commits, mut aborts) = (0, 0);
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let second = [PREPARED, PREPARED, PREPARED, ABORTED, Will::Wait][random.usize(..5)];
        let mut cluster = Cluster::new(1, &[PREPARED, second]);
        cluster.commit();
        for _ in 0..random.usize(20..120) {
            let n = random.u32(1..=3);
            match random.u32(..20) {
                0 => {
                    cluster.crash(n);
                    cluster.restart(n);
                }
                1 => cluster.lead(n),
                2 => cluster.tick_replica(n),
                3 => cluster.tick_rm(random.usize(1..=2)),
                4 => cluster.time_out_client(InitiatorTimer::Tick),
                _ => {
                    if cluster.wire.is_empty() {
                        continue;
                    }
                    let at = random.usize(..cluster.wire.len());
                    let envelope = cluster.wire.remove(at).unwrap();
                    if random.u32(..10) == 0 {
                        cluster.wire.push_back(envelope.clone());
                    }
                    if random.u32(..10) != 0 {
                        cluster.deliver(envelope);
                    }
                }
            }
        }
        cluster.run();
        cluster.pass(300);
        let outcome = cluster.outcome();
        match outcome.expect("decided in the end") {
            Outcome::Commit => commits += 1,
            Outcome::Abort => aborts += 1,
        }
        // An RM that was never asked to prepare may not know; it is not in doubt.
        for (rm, heard) in cluster.rms.iter().zip(cluster.outcomes()) {
            assert!(
                !rm.is_in_doubt() && [None, outcome].contains(&heard),
                "seed {seed}"
            );
        }
        for n in 1..=3 {
            assert!([None, outcome].contains(&cluster.decided(n)), "seed {seed}");
        }
    }
    assert!(commits > 30 && aborts > 30, "{commits} and {aborts}");
}
