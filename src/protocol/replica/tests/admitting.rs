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
    let mut begins = |run: u128, sequence| {
        let owner = InitiatorId::from_u128(5 << InitiatorId::RUN_BITS | run);
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

/// What one name invents and ends stays on disk until its generation is settled, and is charged to it
/// until then.
#[test]
fn what_one_name_invents_and_ends_is_charged_until_its_generation_is_settled() {
    let config = ReplicaConfig {
        unvouched_max: 3 * 16,
        ..config(1, 3)
    };
    let mut rig = Rig::with(config, Vec::new());
    let mut invents = |of: &str, sequence| {
        let roster = Roster::new([branch(of, 1)]).unwrap();
        let id = CommitId::new(txn(sequence), &roster);
        let out = rig.hear(session(of, 1), cast(id, roster, Aborted));
        !out.save.is_empty()
    };
    let taken = [1, 2, 3, 4].map(|sequence| invents("mallory", sequence));
    assert_eq!(taken, [true, true, true, false]);
    assert!(invents("a", 5), "another name");
    // What its initiator asks for is taken on by the initiator, and costs the branch nothing.
    let other = branch("mallory", 1);
    let roster = Roster::new([other, branch("a", 1)]).unwrap();
    let id = CommitId::new(txn(6), &roster);
    rig.hear(initiator(), Message::BeginCommit(begin(id, roster.clone())));
    let out = rig.hear(session("mallory", 1), cast(id, roster, Aborted));
    assert_eq!(out.save.len(), 1);
}

/// A commit that a participant does not apply keeps its place, listed or not, and the votes of a name
/// that has used all its places are answered with `Busy`.
#[test]
fn commits_that_a_name_does_not_apply_use_up_its_places() {
    let config = ReplicaConfig {
        undecided_max: 1,
        push_ticks: 1,
        ..config(1, 1)
    };
    let mut rig = Rig::with(config, Vec::new());
    let commits = |rig: &mut Rig, sequence| {
        for name in ["a", "b"] {
            let out = rig.hear(session(name, 1), vote(sequence, Prepared));
            if out.save.is_empty() {
                return false;
            }
        }
        rig.tick();
        rig.hear(b(), applied(id(sequence), branch("b", 1)));
        true
    };
    assert!(commits(&mut rig, 1) && commits(&mut rig, 2));
    assert!(!commits(&mut rig, 3), "two wait for a");
    let out = rig.hear(b(), vote(4, Prepared));
    assert_eq!(out.save.len(), 1, "none waits for b");
    rig.hear(a(), applied(id(1), branch("a", 1)));
    let out = rig.hear(a(), vote(4, Prepared));
    assert_eq!(out.save.len(), 1);
}

/// A replica that charges a name for at most so many transactions that it leaves.
fn leaving(unvouched_max: usize) -> Rig {
    let config = ReplicaConfig {
        unvouched_max,
        ..config(1, 3)
    };
    Rig::with(config, Vec::new())
}

/// Transaction `sequence` of another initiator's name.
fn of_name(name: u128, sequence: u32) -> TxnId {
    TxnId {
        initiator: InitiatorId::from_u128(name << InitiatorId::RUN_BITS),
        ..txn(sequence)
    }
}

/// Whether a vote of a/1 to abort is taken.
fn aborts(rig: &mut Rig, txn: TxnId) -> bool {
    let id = CommitId::new(txn, &only_a());
    let out = rig.hear(a(), cast(id, only_a(), Aborted));
    !out.save.is_empty()
}

/// The initiator asks another replica for votes, in transactions of which the participant knows
/// nothing: it aborts them, here on its own account. (Counter-example to one quota for all: its
/// votes in the transactions of honest initiators are answered with `Busy`, until these ask this
/// replica to be their relay.)
#[test]
fn an_initiator_uses_up_no_more_than_its_part_of_what_a_participant_may_leave() {
    let mut rig = leaving(32);
    let taken = (0..40).filter(|sequence| aborts(&mut rig, of_name(5, *sequence)));
    assert_eq!(taken.count(), 2);
    assert!(aborts(&mut rig, txn(1)), "of an honest initiator");
    // One that asks this replica is charged itself.
    let id = CommitId::new(of_name(5, 50), &only_a());
    let asks = Message::BeginCommit(begin(id, only_a()));
    rig.hear(Peer::Initiator(id.txn.initiator), asks);
    assert!(aborts(&mut rig, id.txn));
}

/// A participant can name any initiator in its votes.
#[test]
fn all_initiators_together_use_up_no_more_than_the_quota_of_a_participant() {
    let mut rig = leaving(32);
    let taken = (0..40).filter(|name| aborts(&mut rig, of_name(*name, 1)));
    assert_eq!(taken.count(), 32);
}

/// A branch that aborts every transaction in which it stands costs the others nothing.
#[test]
fn a_transaction_in_which_two_participants_have_voted_is_charged_to_none() {
    let mut rig = leaving(16);
    for sequence in 0..40 {
        let out = rig.hear(a(), vote(sequence, Prepared));
        assert_eq!(out.save.len(), 1, "{sequence}");
        rig.hear(b(), vote(sequence, Aborted));
        assert_eq!(rig.replica.outcome(&id(sequence)), Some(Abort));
    }
}
