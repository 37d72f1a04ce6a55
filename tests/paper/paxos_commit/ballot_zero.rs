//! Ballot 0 belongs to the RMs, and all of its instances travel together.

use paxos_commit::protocol::message::{CastVote, Decision, Message};
use paxos_commit::protocol::paxos::{Ballot, ReplicaId};
use paxos_commit::protocol::replica::Rejection;
use paxos_commit::protocol::types::{Branch, InitiatorId, Outcome, Peer, Session, StoreId, Vote};

use super::cluster::{Cluster, OPERATOR};
use super::node::Will;
use super::wire::{Kind, replica};
use super::{ABORT, ABORTED, COMMIT, PREPARED};

/// Appendix, RMPrepare: an RM "prepares by sending a phase 2a message for ballot number 0 with
/// value prepared". It sends it itself, to every acceptor, and no leader has a hand in it.
#[test]
fn the_rm_itself_sends_the_phase_2a_message_of_ballot_0() {
    for (will, said, outcome) in [
        (PREPARED, Vote::Prepared, COMMIT),
        (ABORTED, Vote::Aborted, ABORT),
    ] {
        let mut cluster = Cluster::new(1, &[will]);
        cluster.commit();
        cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
        let me = Peer::Session(cluster.rms[0].me.clone());
        for n in 1..=3 {
            let sent = cluster.wire.iter().find(|e| e.from == me && e.is_to(n));
            let Some(Message::Vote(cast)) = sent.map(|e| &e.message) else {
                panic!("replica {n} is sent a vote");
            };
            assert_eq!((cast.id, cast.vote), (cluster.id, said));
        }
        assert!(cluster.replicas.iter().all(|node| node.disk.is_empty()));
        // The votes are all that the outcome takes.
        cluster.run();
        assert_eq!(cluster.outcome(), outcome);
        assert!(cluster.log.iter().all(|e| e.leads().is_none()));
    }
}

/// Appendix, RMPrepare: before it is sent, the branch is prepared; the resource manager has
/// answered, and what it answers is what is sent.
#[test]
fn nothing_is_sent_before_the_resource_manager_has_answered() {
    let mut cluster = Cluster::new(1, &[Will::Wait]);
    cluster.commit();
    cluster.run();
    cluster.pass(5);
    assert_eq!(cluster.sent(Kind::Vote), 0);
}

/// Section 4.2: of the instance of an RM, that RM is the only process that may send a phase 2a
/// message of ballot 0. Not its neighbours, not its own next session, not a leader.
#[test]
fn nobody_else_votes_for_an_rm() {
    let mut cluster = Cluster::of_prepared(1, 2);
    let vote = Message::Vote(CastVote {
        id: cluster.id,
        roster: cluster.roster.clone(),
        vote: Vote::Prepared,
        vote_timeout: std::time::Duration::ZERO,
    });
    let me = cluster.rms[0].me.clone();
    let stranger = Branch {
        participant: "rm99".parse().unwrap(),
        session: me.session,
        store: StoreId::from_u128(1),
    };
    let restarted = Branch {
        session: Session(99),
        ..me
    };
    for (from, reason) in [
        (Peer::Session(stranger), Rejection::NotInRoster),
        (Peer::Session(restarted), Rejection::NotInRoster),
        (replica(2), Rejection::NotFromSuchAPeer),
        (
            Peer::Initiator(InitiatorId::from_u128(7)),
            Rejection::NotFromSuchAPeer,
        ),
        (OPERATOR, Rejection::NotFromSuchAPeer),
    ] {
        cluster.say(from, 1, vote.clone());
        assert_eq!(cluster.replicas[0].rejected.pop(), Some(reason));
    }
    assert!(cluster.replicas[0].disk.is_empty());
    assert!(cluster.wire.is_empty());
}

/// Section 4.2: an acceptor can bundle its phase 2b messages of all instances into one. Here one
/// message of ballot 0 to each learner stands for the votes of all N, and none leaves before.
#[test]
fn acceptors_bundle_the_phase_2b_messages_of_ballot_0() {
    for n in 1..=5 {
        let mut cluster = Cluster::of_prepared(1, n);
        cluster.commit();
        cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
        let last = Peer::Session(cluster.rms[n - 1].me.clone());
        cluster.run_only(|e| e.is(Kind::Vote) && e.from != last);
        assert_eq!(cluster.sent(Kind::Phase2b), 0, "a vote is missing");
        cluster.run_only(|e| e.is(Kind::Vote));
        assert_eq!(cluster.sent(Kind::Phase2b), 3 * (n + 1));
        for envelope in cluster.log.iter().filter(|e| e.is(Kind::Phase2b)) {
            let all = Some((Ballot::ZERO, Outcome::Commit));
            assert_eq!(envelope.reports(), all);
        }
    }
}

/// Appendix, Message: a leader's phase 1a message has a ballot of `Ballot \ {0}`. One of ballot 0,
/// and one of another replica's ballot, is refused; nothing is promised, accepted, saved or said.
#[test]
fn a_leaders_message_of_ballot_0_is_refused() {
    let others = Ballot {
        round: 1,
        replica: ReplicaId(3),
    };
    let own_zero = Ballot {
        round: 0,
        replica: ReplicaId(2),
    };
    for ballot in [Ballot::ZERO, own_zero, others] {
        let mut cluster = Cluster::of_prepared(1, 1);
        let phase1a = Message::Phase1a {
            ballot,
            ids: vec![cluster.id],
        };
        let abort = Decision {
            id: cluster.id,
            outcome: Outcome::Abort,
            unapplied: None,
        };
        let phase2a = Message::Phase2a {
            ballot,
            proposals: vec![abort],
        };
        for message in [phase1a, phase2a] {
            cluster.say(replica(2), 1, message);
            let rejected = cluster.replicas[0].rejected.pop();
            assert_eq!(rejected, Some(Rejection::NotItsBallot), "{ballot}");
        }
        assert!(cluster.replicas[0].disk.is_empty() && cluster.wire.is_empty());
        // No promise was made: ballot 0 is still open to the votes.
        cluster.commit();
        cluster.run();
        assert_eq!(cluster.outcome(), COMMIT);
        assert!(cluster.log.iter().all(|e| e.leads().is_none()));
    }
}

/// Section 4.1: ballot numbers are partitioned among the possible leaders. Whoever leads, and
/// however often, each uses ballots of its own, above 0.
#[test]
fn leaders_use_ballots_of_their_own_above_0() {
    let mut cluster = Cluster::new(1, &[PREPARED, Will::Wait]);
    cluster.commit();
    cluster.run();
    for n in [2, 1, 3, 3, 2, 1] {
        cluster.lose_patience(n);
        cluster.take(|_| true);
    }
    cluster.pass(200);
    let mut leaders = 0;
    for envelope in &cluster.log {
        if let Some(ballot) = envelope.leads() {
            leaders += 1;
            assert!(ballot.round > 0 && envelope.from == Peer::Replica(ballot.replica));
        }
    }
    assert!(leaders > 18, "six phases 1a to three replicas, and more");
    assert_eq!(cluster.outcome(), ABORT);
}

/// Section 4.1: an acceptor that has promised a higher ballot ignores a phase 2a message of ballot
/// 0. The late vote is not counted, not even towards a report to a later leader.
#[test]
fn a_vote_after_a_promise_does_not_count() {
    let mut cluster = Cluster::of_prepared(1, 2);
    cluster.commit();
    cluster.run_only(|e| e.is(Kind::BeginCommit) || e.is(Kind::Prepare));
    let late = Peer::Session(cluster.rms[1].me.clone());
    cluster.run_only(|e| e.is(Kind::Vote) && e.from != late);
    cluster.lead(1);
    cluster.run_only(|e| e.is(Kind::Phase1a));
    let votes = cluster.disk_votes();
    cluster.run_only(|e| e.is(Kind::Vote));
    assert_eq!(cluster.disk_votes(), votes);
    assert_eq!(
        cluster.sent(Kind::Phase2b),
        0,
        "no acceptor takes ballot 0 for complete"
    );
    // The ballot is lost, and the next one still finds the late vote nowhere.
    cluster.take(|_| true);
    cluster.lose_patience(2);
    cluster.run();
    assert_eq!(cluster.outcome(), ABORT);
    cluster.pass(50);
    assert_eq!(cluster.outcomes(), [ABORT, ABORT]);
}
