//! A commit of which the store has no proof; and which markers the store must keep.

use super::*;
use crate::protocol::message::ListPage;

/// Replica 2 has a log in which the commit is off the list, and a marker may be deleted then. The
/// order to commit came from a replica that is behind.
#[test]
fn an_order_that_came_too_late_is_no_error() {
    let mut rig = Rig::new();
    rig.hear(1, finish(id(1), branch("a", 2), Commit));
    let out = rig.not_proven(id(1), 2);
    assert_eq!(out, sends(to_all(tells_unproven(id(1), 2))), "a question");
    let expired = Message::Expired {
        id: id(1),
        branch: Some(branch("a", 2)),
    };
    assert_eq!(rig.hear(2, expired), nothing(), "and no Applied");
    assert!(rig.participant.is_idle());
    rig.wait_quietly(50);
}

#[test]
fn what_is_not_proven_is_told_until_the_commit_is_off_the_list() {
    let mut rig = Rig::voted(Prepared);
    rig.hear(1, finish(id(1), me(), Commit));
    let out = rig.not_proven(id(1), 1);
    let tells = to_all(tells_unproven(id(1), 1));
    let forgotten = ParticipantNotice::Forgotten { id: id(1) };
    assert_eq!(out, effects(tells.clone(), [forgotten]));
    assert!(!rig.participant.is_idle());
    // No replica says that it is off the list.
    let error = effects(tells.clone(), [unproven(id(1), 1)]);
    assert_eq!(rig.wait(), (3, error));
    assert_eq!(rig.wait(), (6, sends(tells)), "again");
    // The store is asked again when a replica tells it to commit.
    let asks = notifies([asks_to_finish(id(1), 1, Commit)]);
    assert_eq!(rig.hear(2, finish(id(1), me(), Commit)), asks);
    rig.not_proven(id(1), 1);
    let back = Input::Connected(replica(3));
    let tells = sends([presents(3), (replica(3), tells_unproven(id(1), 1))]);
    assert_eq!(rig.step(back), tells);
    assert_eq!(rig.wait().1.notify, [unproven(id(1), 1)], "the error stays");
    let expired = Message::Expired {
        id: id(1),
        branch: Some(me()),
    };
    assert_eq!(rig.hear(2, expired), nothing(), "and no Applied");
    assert!(rig.participant.is_idle());
}

#[test]
fn a_slow_prepare_that_becomes_visible_is_committed() {
    let mut rig = Rig::new();
    rig.hear(1, finish(id(1), branch("a", 2), Commit));
    rig.not_proven(id(1), 2);
    let out = rig.found([found(id(1), 2)]);
    assert_eq!(out, notifies([asks_to_finish(id(1), 2, Commit)]));
    let out = rig.finished(id(1), 2);
    assert_eq!(out, sends(to_all(applied(id(1), branch("a", 2)))));
}

#[test]
fn the_branch_of_another_store_is_not_finished_here() {
    let mut rig = Rig::new();
    let other = Branch {
        store: StoreId::from_u128(2),
        ..branch("a", 2)
    };
    assert_eq!(rig.hear(1, finish(id(1), other.clone(), Commit)), nothing());
    let disputed = Message::Disputed {
        id: id(1),
        branch: other,
    };
    assert_eq!(rig.hear(1, disputed), nothing());
}

#[test]
fn a_branch_that_rolled_back_what_is_committed_says_so() {
    let mut rig = Rig::voted(Prepared);
    rig.hear(2, phase2b(id(1), Ballot::ZERO, Abort));
    rig.finished(id(1), 1);
    assert_eq!(rig.hear(1, finish(id(1), me(), Commit)), nothing());
    let (id, branch) = (id(1), me());
    let disputed = || Message::Disputed { id, branch: me() };
    let tells = to_all(Message::Contradicted { id, branch });
    let notice = || ParticipantNotice::Contradicted { id, branch: me() };
    let out = rig.hear(2, disputed());
    assert_eq!(out, effects(tells.clone(), [notice()]));
    // The next session asks its store.
    let mut rig = Rig::new();
    let out = rig.hear(2, disputed());
    assert_eq!(out, notifies([asks_to_finish(id, 1, Commit)]));
    assert_eq!(rig.not_proven(id, 1), effects(tells, [notice()]));
    let mut rig = Rig::new();
    rig.hear(2, disputed());
    let out = rig.finished(id, 1);
    assert_eq!(out, sends(to_all(applied(id, me()))), "with a proof");
}

fn settled_second() -> Message {
    super::generations::announce_settled()
}

fn list(after: Option<CommitId>) -> Message {
    let through = super::generations::through();
    Message::List { through, after }
}

fn page(after: Option<CommitId>, sequence: u32, next: Option<CommitId>) -> Message {
    Message::ListPage(Box::new(ListPage {
        through: super::generations::through(),
        after,
        listed: vec![(id(sequence), me())],
        next,
    }))
}

#[test]
fn the_list_is_read_page_by_page_before_markers_are_deleted() {
    let mut rig = Rig::new();
    let out = rig.hear(2, settled_second());
    assert_eq!(out, sends([(replica(2), list(None))]));
    // The fourth is new, and is asked whether it lets the session in.
    let (slot, admission) = (9, crate::protocol::message::Admission::Entered);
    rig.hear(4, Message::Admission { slot, admission });
    let out = rig.hear(2, page(None, 1, Some(id(5))));
    assert_eq!(out, sends([(replica(2), list(Some(id(5))))]));
    assert_eq!(rig.hear(2, page(None, 9, None)), nothing(), "late");
    // One that does not answer is passed over.
    assert_eq!(rig.wait().1, sends([(replica(3), list(Some(id(5))))]));
    let out = rig.hear(3, page(Some(id(5)), 7, None));
    let settled = ParticipantNotice::Settled {
        through: super::generations::through(),
        listed: vec![(id(1), me()), (id(7), me())],
    };
    assert_eq!(out, notifies([settled]));
    assert_eq!(rig.hear(3, page(Some(id(5)), 7, None)), nothing());
}
