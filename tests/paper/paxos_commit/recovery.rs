//! Leaders that crash, leaders that compete, and RMs that never vote.

use std::collections::BTreeSet;

use paxos_commit::protocol::participant::{InDoubt, Owner, ParticipantCommand};
use paxos_commit::protocol::types::{Branch, Outcome, Peer, Session};

use super::cluster::Cluster;
use super::node::{Disk, Rm, Will};
use super::wire::{Envelope, Kind};
use super::{ABORT, COMMIT, PREPARED};

/// Appendix, Phase1a: if it "times out without learning that a decision has been reached" about an
/// RM, the leader initiates a new ballot, here to abort. No one has to ask: the replicas do it when
/// the vote timeout has passed.
#[test]
fn an_rm_that_crashes_before_its_vote_ends_in_abort() {
    let mut cluster = Cluster::new(1, &[PREPARED, Will::Wait]);
    cluster.commit();
    cluster.run();
    cluster.rms[1].host = None;
    cluster.pass(19);
    assert_eq!(
        cluster.sent(Kind::Phase1a),
        0,
        "the vote timeout has not passed"
    );
    cluster.pass(1);
    assert_eq!(
        cluster.sent(Kind::Phase1a),
        3,
        "one leader, and the others let it"
    );
    assert_eq!((cluster.outcome(), cluster.outcomes()[0]), (ABORT, ABORT));
}

/// Section 4.2: a restarted RM learns the outcome from the acceptors. Its new session asks about
/// what the old one prepared; the vote that was never sent is in vain, and a ballot starts at once.
#[test]
fn an_rm_that_crashes_after_it_prepared_asks() {
    for voted in [false, true] {
        let mut cluster = Cluster::of_prepared(1, 2);
        cluster.commit();
        cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
        let old = cluster.rms[1].me.clone();
        if !voted {
            cluster.take(|e| e.is(Kind::Vote) && e.from == Peer::Session(old.clone()));
        }
        cluster.run_only(|e| e.is(Kind::Vote));
        cluster.take(|_| true);
        let new = Branch {
            session: Session(99),
            ..old.clone()
        };
        cluster.rms[1] = Rm::new(new, Will::Wait, &cluster.acceptors);
        cluster.run();
        let found = InDoubt {
            id: cluster.id,
            session: old.session,
            owner: Owner::Gone,
        };
        cluster.tell_rm(2, ParticipantCommand::InDoubt(vec![found]));
        cluster.run();
        cluster.pass(100);
        let expected = if voted {
            Outcome::Commit
        } else {
            Outcome::Abort
        };
        assert_eq!(cluster.outcome(), Some(expected));
        assert_eq!(cluster.rms[0].applied, [expected]);
        // To the old session's branch, as often as a replica answers; that is idempotent.
        let applied = &cluster.rms[1].applied;
        assert!(!applied.is_empty() && applied.iter().all(|outcome| *outcome == expected));
    }
}

/// Where a leader dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Its phase 1a messages have left.
    After1a,
    /// Its phase 2a messages have left and reached so many acceptors.
    After2a(usize),
    /// It has decided, and told nobody.
    Decided,
}

/// Section 4.1: if the leader fails, another is selected. Any replica can be the first leader, any
/// other one the next, wherever the first one died.
#[test]
fn when_a_leader_crashes_any_other_replica_finishes() {
    let mut deaths = vec![Death::After1a, Death::Decided];
    deaths.extend((0..=3).map(Death::After2a));
    for second in [PREPARED, Will::Wait] {
        for first_leader in 1..=3 {
            for next in (1..=3).filter(|n| *n != first_leader) {
                for death in &deaths {
                    leader_dies(second, first_leader, next, *death);
                }
            }
        }
    }
}

fn leader_dies(second: Will, leader: u32, next: u32, death: Death) {
    let mut cluster = Cluster::new(1, &[PREPARED, second]);
    cluster.commit();
    cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
    // All votes that there are have arrived at the leader's neighbours, but no report has.
    cluster.take(|e| e.is(Kind::Vote) && e.is_to(leader));
    cluster.run_only(|e| e.is(Kind::Vote));
    cluster.take(|_| true);
    cluster.lead(leader);
    match death {
        Death::After1a => {}
        Death::After2a(acceptors) => {
            cluster.run_only(|e| e.is(Kind::Phase1a) || e.is(Kind::Phase1b));
            let phase2a = cluster.take(|e| e.is(Kind::Phase2a));
            assert_eq!(phase2a.len(), 3);
            for envelope in phase2a.into_iter().take(acceptors) {
                cluster.deliver(envelope);
            }
        }
        Death::Decided => {
            cluster.run_only(|e| e.is_between_replicas() && !e.is(Kind::Decided));
            assert!(cluster.decided(leader).is_some());
        }
    }
    cluster.crash(leader);
    cluster.take(|e| !e.is(Kind::Phase1a));
    cluster.run();
    let outcome = if second == PREPARED { COMMIT } else { ABORT };
    if cluster.decided(next).is_none() {
        cluster.lose_patience(next);
    }
    cluster.run();
    let context = format!("{leader} dies {death:?}, {next} leads");
    assert_eq!(cluster.decided(next), outcome, "{context}");
    assert_eq!(cluster.outcome(), outcome, "{context}");
    assert_eq!(cluster.outcomes()[0], outcome, "{context}");
    // The dead one, should it come back and try again, confirms.
    cluster.restart(leader);
    cluster.lead(leader);
    cluster.run();
    cluster.pass(100);
    assert_eq!(cluster.decided(leader), outcome, "{context}");
}

/// Section 4.1: Paxos maintains consistency "even if multiple processes think they are the leader".
/// Two leaders, and every way to let now the one's oldest message arrive and now the other's.
#[test]
fn two_leaders_at_once_are_safe() {
    for second in [PREPARED, Will::Wait] {
        for order in 0..1_u32 << 12 {
            let mut cluster = Cluster::new(1, &[PREPARED, second]);
            cluster.commit();
            cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
            cluster.take(|e| e.is(Kind::Vote) && e.is_to(1));
            cluster.run_only(|e| e.is(Kind::Vote));
            cluster.take(|_| true);
            cluster.lead(1);
            cluster.lead(2);
            // Each bit says whose oldest message arrives next.
            for step in 0..12 {
                let leader = 1 + (order >> step & 1);
                let of =
                    |e: &Envelope| e.is_from(leader) || (e.is_to(leader) && !e.is_from(3 - leader));
                let next = cluster.wire.iter().position(of);
                if let Some(at) = next {
                    let envelope = cluster.wire.remove(at).expect("found");
                    cluster.deliver(envelope);
                }
            }
            cluster.run();
            cluster.pass(60);
            let outcome = if second == PREPARED { COMMIT } else { ABORT };
            assert_eq!(cluster.outcome(), outcome, "{order:012b}");
            assert_eq!(cluster.outcomes()[0], outcome);
        }
    }
}

/// Section 4.1: a unique leader "is needed only to ensure liveness". The lower ballot is refused,
/// its leader stands back, and the higher one decides: two leaders do not pre-empt each other for
/// ever.
#[test]
fn a_leader_that_is_refused_stands_back() {
    let mut cluster = Cluster::new(1, &[PREPARED, Will::Wait]);
    cluster.commit();
    cluster.run();
    cluster.lead(1);
    let late = cluster.take(|e| e.is(Kind::Phase1a));
    cluster.lead(2);
    cluster.run_only(|e| e.is(Kind::Phase1a));
    cluster.put(late);
    cluster.run();
    assert!(cluster.sent(Kind::Nack) > 0);
    assert_eq!(cluster.sent(Kind::Phase1a), 6, "each has tried once");
    assert_eq!(cluster.outcome(), ABORT);
}

/// Paxos By Example: a third proposer with a higher number only confirms. So does every leader
/// after an outcome was chosen, whatever it would have chosen itself, and the roles may go round.
#[test]
fn a_third_leader_confirms() {
    for second in [PREPARED, Will::Wait] {
        let mut cluster = Cluster::new(1, &[PREPARED, second]);
        cluster.commit();
        cluster.run_only(|e| !e.is(Kind::Phase2b));
        cluster.take(|_| true);
        let mut chosen = BTreeSet::new();
        for leader in [1, 2, 3, 1, 2, 3] {
            cluster.lose_patience(leader);
            cluster.run_only(|e| e.is(Kind::Phase1a) || e.is(Kind::Phase1b));
            cluster.run_only(|e| e.is(Kind::Phase2a));
            let reports = cluster.wire.iter().filter_map(Envelope::reports);
            chosen.extend(reports.map(|(_, outcome)| outcome));
            // All acceptors have accepted it, and nobody is told.
            cluster.take(|_| true);
        }
        let outcome = if second == PREPARED { COMMIT } else { ABORT };
        assert_eq!(
            chosen.iter().copied().collect::<Vec<_>>(),
            Vec::from_iter(outcome)
        );
        cluster.pass(300);
        assert_eq!(cluster.outcome(), outcome);
    }
}

/// ... even one that would have chosen otherwise. Abort is chosen by the two replicas that have
/// seen no vote; the third one holds them all, has accepted Commit at ballot 0, and leads next.
#[test]
fn a_leader_that_would_commit_confirms_an_abort() {
    for witness in [1, 2] {
        let mut cluster = Cluster::of_prepared(1, 2);
        cluster.commit();
        cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
        cluster.take(|e| e.is(Kind::Vote) && !e.is_to(3));
        cluster.run_only(|e| e.is(Kind::Vote));
        cluster.take(|_| true);
        cluster.isolate(3);
        cluster.lead(1);
        cluster.run_only(|e| !e.tells_outcome());
        assert_eq!(cluster.decided(1), ABORT);
        cluster.take(|_| true);
        cluster.rejoin();
        cluster.isolate(3 - witness);
        // It waits for votes no longer; its first ballot may be lower than the one that was used.
        while cluster.decided(3).is_none() {
            cluster.lose_patience(3);
            cluster.run();
        }
        assert_eq!(cluster.decided(3), ABORT, "as replica {witness} reports");
        cluster.rejoin();
        cluster.pass(100);
        assert_eq!(cluster.outcomes(), [ABORT, ABORT]);
    }
}

/// Appendix, Phase2a: a leader records "in stable storage the largest ballot number for which it
/// sent" a message. After a restart it uses a higher one, whether anyone has heard of the old or
/// not.
#[test]
fn a_ballot_is_never_used_twice_across_a_restart() {
    for heard in [false, true] {
        let mut cluster = Cluster::new(1, &[PREPARED, Will::Wait]);
        cluster.commit();
        cluster.run();
        let mut used = BTreeSet::new();
        for _ in 0..5 {
            cluster.lose_patience(2);
            if heard {
                cluster.run_only(|e| e.is(Kind::Phase1a));
            }
            let last = cluster.log.iter().rev().find_map(Envelope::leads);
            assert!(used.insert(last.expect("it leads")));
            cluster.take(|_| true);
            cluster.crash(2);
            cluster.restart(2);
        }
        assert!(used.iter().map(|ballot| ballot.round).eq(1..=5));
    }
}

/// ... and the record is durable before the message leaves: a ballot that may be forgotten was
/// never heard of.
#[test]
fn a_ballot_leaves_when_its_round_is_durable() {
    let mut cluster = Cluster::new(1, &[PREPARED, Will::Wait]);
    cluster.commit();
    cluster.run();
    cluster.replicas[1].speed = Disk::Slow;
    cluster.lead(2);
    assert_eq!(cluster.sent(Kind::Phase1a), 0);
    cluster.crash(2);
    cluster.restart(2);
    cluster.lead(2);
    cluster.sync(2);
    let ballots: BTreeSet<_> = cluster.log.iter().filter_map(Envelope::leads).collect();
    assert_eq!(ballots.len(), 1, "the forgotten one was free to be used");
    cluster.run();
    cluster.sync(2);
    cluster.run();
    assert_eq!(cluster.outcome(), ABORT);
}
