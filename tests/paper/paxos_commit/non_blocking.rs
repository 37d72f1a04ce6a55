//! Any F of 2F+1 replicas may die, and nobody waits for them.

use paxos_commit::protocol::initiator::InitiatorTimer;

use super::COMMIT;
use super::cluster::Cluster;
use super::wire::Kind;

/// Every choice of `count` of `of` replicas.
fn choices(count: u32, of: u32) -> Vec<Vec<u32>> {
    let members = |set: u32| (1..=of).filter(move |n| set & (1 << (n - 1)) != 0);
    let sets = (0..1_u32 << of).filter(|set| set.count_ones() == count);
    sets.map(|set| members(set).collect()).collect()
}

/// Abstract: it "uses 2F + 1 coordinators and makes progress if at least F + 1 of them are
/// working". In the normal case that costs nothing: the same three delays, and no ballot.
#[test]
fn any_f_replicas_may_be_dead_from_the_start() {
    for f in 1..=2 {
        for dead in choices(f, 2 * f + 1) {
            let mut cluster = Cluster::of_prepared(f, 2);
            for n in &dead {
                cluster.crash(*n);
            }
            cluster.commit_without_relay();
            cluster.run();
            let (outcome, cost) = cluster.heard.expect("decided");
            assert_eq!(
                (Some(outcome), cost.delays),
                (COMMIT, 3),
                "without {dead:?}"
            );
            assert_eq!(cluster.outcomes(), [COMMIT, COMMIT]);
            assert_eq!(cluster.sent(Kind::Phase1a), 0);
        }
    }
}

/// The same with a relay, if that lives: four delays. A relay that is dead is replaced after the
/// hedge delay, by a message to the next replica; that is no ballot either.
#[test]
fn a_dead_relay_costs_one_hedge_delay() {
    for f in 1..=2 {
        for dead in choices(f, 2 * f + 1) {
            let mut cluster = Cluster::of_prepared(f, 2);
            for n in &dead {
                cluster.crash(*n);
            }
            cluster.commit();
            cluster.run();
            let id = cluster.id;
            if dead.contains(&1) {
                assert_eq!(cluster.outcome(), None);
                cluster.time_out_client(InitiatorTimer::Hedge(id));
                cluster.run();
            }
            if dead.starts_with(&[1, 2]) {
                // The hedge was in vain too; the tick asks the one after it.
                assert_eq!(cluster.outcome(), None);
                cluster.time_out_client(InitiatorTimer::Tick);
                cluster.time_out_client(InitiatorTimer::Tick);
                cluster.run();
            }
            let (outcome, cost) = cluster.heard.expect("decided");
            assert_eq!(
                (Some(outcome), cost.delays),
                (COMMIT, 4),
                "without {dead:?}"
            );
            assert_eq!(cluster.sent(Kind::Phase1a), 0);
        }
    }
}

/// Section 3.3: non-blocking means that "the failure of a single process does not prevent the other
/// processes from deciding". Here any F fail at any step of the normal case.
#[test]
fn any_f_replicas_may_die_at_any_step() {
    for f in 1..=2 {
        for dead in choices(f, 2 * f + 1) {
            for steps in 0.. {
                let mut cluster = Cluster::of_prepared(f, 2);
                cluster.commit();
                for _ in 0..steps {
                    if let Some(envelope) = cluster.wire.pop_front() {
                        cluster.deliver(envelope);
                    }
                }
                let over = cluster.wire.is_empty();
                for n in &dead {
                    cluster.crash(*n);
                }
                cluster.run();
                cluster.pass(10);
                assert_eq!(cluster.outcome(), COMMIT, "{dead:?} after {steps} steps");
                assert_eq!(cluster.outcomes(), [COMMIT, COMMIT]);
                assert_eq!(cluster.sent(Kind::Phase1a), 0);
                if over {
                    break;
                }
            }
        }
    }
}

/// Section 4.1: "2F + 1 acceptors are needed to achieve consensus despite the failure of any F".
/// With F+1 dead nothing is decided, whoever tries; and nothing is wrong. When one of them comes
/// back, from its disk or as one that was never asked, it is.
#[test]
fn with_f_plus_1_dead_nothing_is_decided_until_one_comes_back() {
    for f in 1..=2 {
        for dead in choices(f + 1, 2 * f + 1) {
            // They die before or after they have saved the votes; no report arrives.
            for after_votes in [false, true] {
                let mut cluster = Cluster::of_prepared(f, 2);
                cluster.commit();
                cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
                if after_votes {
                    cluster.run_only(|e| e.is(Kind::Vote));
                }
                for n in &dead {
                    cluster.crash(*n);
                    cluster.take(|e| e.is_from(*n));
                }
                cluster.run();
                cluster.pass(300);
                assert_eq!(cluster.outcome(), None);
                assert_eq!(cluster.outcomes(), [None, None]);
                assert!(cluster.rms.iter().all(|rm| rm.is_in_doubt()));
                let live = (1..=2 * f + 1).filter(|n| !dead.contains(n));
                for n in live {
                    assert_eq!(cluster.decided(n), None);
                }
                assert!(!cluster.log.iter().any(|e| e.tells_outcome()));
                cluster.restart(dead[0]);
                cluster.pass(300);
                assert_eq!(cluster.outcome(), COMMIT, "{dead:?}, {after_votes}");
                assert_eq!(cluster.outcomes(), [COMMIT, COMMIT]);
            }
        }
    }
}
