//! One name alone does not fill a replica.

use super::*;

/// A share is two of them.
const MAX: usize = 128;

fn rig() -> Rig {
    let config = ReplicaConfig {
        undecided_max: MAX,
        ..config(1, 3)
    };
    Rig::with(config, Vec::new())
}

/// An instance with a branch that never votes, besides this one.
fn invented(of: &str, sequence: u32) -> (CommitId, Roster) {
    let roster = Roster::new([branch(of, 1), branch("ghost", 1)]).unwrap();
    (CommitId::new(txn(sequence), &roster), roster)
}

/// Whether a vote of this participant is taken.
fn votes(rig: &mut Rig, of: &str, sequence: u32) -> bool {
    let (id, roster) = invented(of, sequence);
    let out = rig.hear(session(of, 1), cast(id, roster, Prepared));
    let busy = sends([(session(of, 1), Message::Busy { id })]);
    assert!(out == busy || out.save.len() == 1);
    out != busy
}

fn full(of: &str) -> Rig {
    let mut rig = rig();
    for sequence in 0..MAX as u32 {
        assert!(votes(&mut rig, of, sequence));
    }
    assert!(!votes(&mut rig, of, MAX as u32), "it has them all");
    rig
}

#[test]
fn a_participant_that_invents_transactions_keeps_nobody_else_out() {
    let mut rig = full("mallory");
    assert!(votes(&mut rig, "a", 500) && votes(&mut rig, "a", 501));
    assert!(!votes(&mut rig, "a", 502), "a has its share");
    assert!(votes(&mut rig, "b", 503), "b has its own");
    assert_eq!(rig.hear(initiator(), begun(1)).send.len(), 2);
    // What has a place goes on.
    let (id, roster) = invented("a", 500);
    let out = rig.hear(session("ghost", 1), cast(id, roster, Aborted));
    assert_eq!(rig.replica.outcome(&id), Some(Abort));
    assert!(!out.send.is_empty());
    assert!(votes(&mut rig, "a", 504), "its end makes room");
    assert!(!votes(&mut rig, "a", 505));
}

#[test]
fn all_runs_of_an_initiator_share_its_places() {
    let mut rig = full("mallory");
    let mut begins = |run: u64, sequence| {
        let owner = InitiatorId(5 << InitiatorId::RUN_BITS | run);
        let txn = TxnId {
            initiator: owner,
            ..txn(sequence)
        };
        let id = CommitId::new(txn, &ab());
        let out = rig.hear(
            Peer::Initiator(owner),
            Message::BeginCommit(begin(id, ab())),
        );
        out.send.len() == 2
    };
    assert!(begins(1, 1) && begins(2, 1));
    assert!(!begins(3, 1) && !begins(1, 2));
    assert!(begins(1, 1), "what is known goes on");
}

/// A commit of these branches, all of which vote in this order.
fn commits(rig: &mut Rig, of: &[&str], sequence: u32) -> bool {
    let roster = Roster::new(of.iter().map(|name| branch(name, 1))).unwrap();
    let id = CommitId::new(txn(sequence), &roster);
    for name in of {
        rig.hear(session(name, 1), cast(id, roster.clone(), Prepared));
    }
    rig.hear(replica(2), phase2b(id, Ballot::ZERO, Commit));
    rig.replica.outcome(&id) == Some(Commit)
}

/// So long that everything that waits is told again.
fn pushes(rig: &mut Rig) {
    for _ in 0..200 {
        rig.tick();
    }
}

#[test]
fn commits_that_are_never_applied_are_places_too() {
    let mut rig = rig();
    for sequence in 0..2 * MAX as u32 {
        assert!(commits(&mut rig, &["a"], sequence), "{sequence}");
    }
    pushes(&mut rig);
    assert!(!commits(&mut rig, &["a"], 1_000), "no name holds more");
    let only_a = Roster::new([branch("a", 1)]).unwrap();
    let first = CommitId::new(txn(0), &only_a);
    rig.hear(session("a", 1), applied(first, branch("a", 1)));
    assert!(votes(&mut rig, "a", 1_001));
}

/// The counter-example to places that last until the commit is applied everywhere: the other
/// participant votes, and never says that it has applied.
#[test]
fn who_has_applied_has_no_place_for_who_has_not() {
    let mut rig = rig();
    for sequence in 0..2 * MAX as u32 {
        assert!(commits(&mut rig, &["a", "mallory"], sequence));
        let roster = Roster::new([branch("a", 1), branch("mallory", 1)]).unwrap();
        let id = CommitId::new(txn(sequence), &roster);
        rig.hear(session("a", 1), applied(id, branch("a", 1)));
    }
    pushes(&mut rig);
    assert!(votes(&mut rig, "a", 1_000), "a has done its part");
    assert!(!votes(&mut rig, "mallory", 1_001));
}

#[test]
fn a_branch_that_says_something_else_is_rejected() {
    let mut rig = Rig::new(1).given(a(), vote(1, Prepared));
    for other in [Aborted, ReadOnly] {
        let refused = rejected(a(), Rejection::VotesOtherwise);
        assert_eq!(rig.hear(a(), vote(1, other)), refused);
    }
    assert_eq!(rig.hear(a(), vote(1, Prepared)), nothing());
}
