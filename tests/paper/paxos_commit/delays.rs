//! Message delays, forced writes and messages of the normal case (sections 4.3 and 5).

use paxos_commit::protocol::initiator::InitiatorTimer;
use paxos_commit::protocol::types::Peer;

use super::COMMIT;
use super::cluster::Cluster;
use super::wire::{Cost, Kind};

/// Section 4.3, Faster Paxos Commit: acceptors send their phase 2b messages directly to the RMs,
/// which saves a delay. Four with a relay, whatever F and N are; the RMs know when the client does.
#[test]
fn four_message_delays_with_a_relay() {
    for f in 0..=3 {
        for n in 1..=4 {
            let mut cluster = Cluster::of_prepared(f, n);
            cluster.commit();
            cluster.run();
            let (outcome, cost) = cluster.heard.expect("decided");
            assert_eq!(
                (Some(outcome), cost.delays),
                (COMMIT, 4),
                "F = {f}, N = {n}"
            );
            for rm in &cluster.rms {
                assert_eq!(rm.heard.map(|(_, cost)| cost.delays), Some(4));
            }
        }
    }
}

/// Section 4.3: one delay less when the RMs prepare unasked, as the last step of their work.
#[test]
fn three_message_delays_without_a_relay() {
    for f in 0..=3 {
        let mut cluster = Cluster::of_prepared(f, 3);
        cluster.commit_without_relay();
        cluster.run();
        let (outcome, cost) = cluster.heard.expect("decided");
        assert_eq!((Some(outcome), cost.delays), (COMMIT, 3), "F = {f}");
    }
}

/// Section 5: both algorithms have the same stable storage write delays, "two if all RMs prepare
/// concurrently": the RM's, then the acceptor's. They do not depend on F.
#[test]
fn two_forced_writes_one_after_the_other() {
    for f in 0..=3 {
        let mut cluster = Cluster::of_prepared(f, 3);
        cluster.commit();
        cluster.run();
        let Some((_, Cost { writes, .. })) = cluster.heard else {
            panic!("decided");
        };
        assert_eq!(writes, 2, "F = {f}");
        for rm in &cluster.rms {
            assert_eq!(rm.heard.map(|(_, cost)| cost.writes), Some(2));
        }
    }
}

/// Section 4.3: no leader stands between the acceptors and the RMs. In the normal case no replica
/// sends anything to another, and the relay sends nothing but Prepare before the votes are in.
#[test]
fn no_leader_hop() {
    for f in 0..=3 {
        let mut cluster = Cluster::of_prepared(f, 3);
        cluster.commit();
        cluster.run();
        assert!(!cluster.log.iter().any(|e| e.is_between_replicas()));
        let from_replicas = cluster
            .log
            .iter()
            .filter(|e| matches!(e.from, Peer::Replica(_)));
        for envelope in from_replicas {
            assert!(envelope.is(Kind::Prepare) || envelope.is(Kind::Phase2b));
        }
    }
}

/// Abstract: the same delays as two-phase commit, "but it uses more messages": N votes to each of
/// 2F+1 acceptors, and from each of them one message to each RM and to the client.
#[test]
fn the_price_is_messages() {
    for f in 0..=3 {
        for n in 1..=4 {
            let mut cluster = Cluster::of_prepared(f, n);
            cluster.commit();
            cluster.run();
            let replicas = 2 * f as usize + 1;
            assert_eq!(cluster.sent(Kind::BeginCommit), 1);
            assert_eq!(cluster.sent(Kind::Prepare), n);
            assert_eq!(cluster.sent(Kind::Vote), n * replicas);
            assert_eq!(cluster.sent(Kind::Phase2b), (n + 1) * replicas);
            assert_eq!(cluster.sent(Kind::Applied), n * replicas);
            let all = 1 + n + (3 * n + 1) * replicas;
            assert_eq!(cluster.log.len(), all, "and nothing else");
        }
    }
}

/// Design 2.3: a second relay, asked because the first was slow, does no harm: nobody prepares or
/// votes twice differently, and the outcome is the same.
#[test]
fn two_relays_do_no_harm() {
    let mut cluster = Cluster::of_prepared(1, 2);
    cluster.commit();
    let id = cluster.id;
    cluster.time_out_client(InitiatorTimer::Hedge(id));
    cluster.run();
    assert_eq!(cluster.sent(Kind::BeginCommit), 2);
    assert_eq!(cluster.outcome(), COMMIT);
    assert_eq!(cluster.outcomes(), [COMMIT, COMMIT]);
    assert!(cluster.rms.iter().all(|rm| rm.applied.len() == 1));
}
