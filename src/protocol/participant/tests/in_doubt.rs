//! Branches that stand prepared in the resource manager: asked about, never guessed.

use super::*;

#[test]
fn a_branch_of_another_session_is_asked_about_until_it_is_finished() {
    let mut rig = Rig::new();
    assert_eq!(
        rig.found([found(id(1), 2)]),
        sends(to_all(question(id(1), 2, Voter::Unknown)))
    );
    assert!(!rig.participant.is_idle());
    assert_eq!(rig.in_doubt(), [], "not of this session");
    assert_eq!(rig.found([found(id(1), 2)]), nothing(), "asked already");
    assert_eq!(rig.finished(id(1), 2), nothing(), "nothing was to finish");
    assert!(!rig.participant.is_idle());
    assert_eq!(
        rig.hear(1, finish(id(1), branch("a", 2), Commit)),
        notifies([asks_to_finish(id(1), 2, Commit)])
    );
    assert_eq!(rig.found([found(id(1), 2)]), nothing(), "being finished");
    assert_eq!(
        rig.finished(id(1), 2),
        sends(to_all(applied(id(1), branch("a", 2))))
    );
    assert!(rig.participant.is_idle());
}

#[test]
fn the_question_tells_if_its_session_is_certainly_gone() {
    let gone = InDoubt {
        owner: Owner::Gone,
        ..found(id(1), 2)
    };
    let mut rig = Rig::new();
    let expected = || to_all(question(id(1), 2, Voter::Gone));
    assert_eq!(rig.found([gone]), sends(expected()));
    assert_eq!(rig.wait(), (3, sends(expected())));
}

#[test]
fn all_that_are_found_are_asked_about() {
    let mut rig = Rig::new();
    let mut expected = to_all(question(id(1), 2, Voter::Unknown));
    expected.extend(to_all(question(id(1), 3, Voter::Unknown)));
    expected.extend(to_all(question(alone(1), 2, Voter::Unknown)));
    let all = [found(id(1), 2), found(id(1), 3), found(alone(1), 2)];
    assert_eq!(rig.found(all), sends(expected));
    // Busy about one instance, of two branches; the third is asked about again in time.
    rig.hear(1, Message::Busy { id: id(1) });
    let third = to_all(question(alone(1), 2, Voter::Unknown));
    assert_eq!(rig.wait(), (3, sends(third)));
    let mut both = to_all(question(id(1), 2, Voter::Unknown));
    both.extend(to_all(question(id(1), 3, Voter::Unknown)));
    assert_eq!(rig.wait(), (3, sends(both)));
}

#[test]
fn its_own_branches_on_their_way_are_known() {
    let mut applying = Rig::voted(Prepared);
    applying.hear(1, finish(id(1), me(), Commit));
    let on_their_way = [
        Rig::preparing(),
        Rig::voted(Prepared),
        Rig::voted(ReadOnly),
        applying,
    ];
    for mut rig in on_their_way {
        let before = rig.participant.clone();
        assert_eq!(rig.found([found(id(1), 1)]), nothing());
        assert_eq!(rig.participant, before);
    }
}

#[test]
fn its_own_branch_that_is_done_is_finished_again() {
    let mut rig = Rig::committed();
    assert_eq!(
        rig.found([found(id(1), 1)]),
        notifies([asks_to_finish(id(1), 1, Commit)])
    );
    assert_eq!(rig.finished(id(1), 1), sends(to_all(applied(id(1), me()))));
    let mut aborted = Rig::voted(Prepared);
    aborted.hear(1, finish(id(1), me(), Abort));
    aborted.finished(id(1), 1);
    assert_eq!(
        aborted.found([found(id(1), 1)]),
        notifies([asks_to_finish(id(1), 1, Abort)])
    );
}

#[test]
fn its_own_branch_that_never_voted_prepared_is_rolled_back() {
    let mut let_go = Rig::working();
    let_go.rollback(1);
    for mut rig in [Rig::voted(Aborted), let_go] {
        assert_eq!(
            rig.found([found(id(1), 1)]),
            notifies([asks_to_finish(id(1), 1, Abort)])
        );
    }
    for mut rig in [Rig::voted(Prepared), Rig::committed()] {
        assert_eq!(
            rig.found([found(alone(1), 1)]),
            notifies([asks_to_finish(alone(1), 1, Abort)]),
            "in another instance it never will"
        );
    }
}

#[test]
fn its_own_branch_that_it_does_not_know_is_asked_about() {
    for mut rig in [Rig::new(), Rig::working()] {
        assert_eq!(
            rig.found([found(id(1), 1)]),
            sends(to_all(question(id(1), 1, Voter::Unknown)))
        );
    }
    let mut rig = Rig::new();
    rig.found([found(id(1), 1)]);
    assert_eq!(
        rig.hear(2, finish(id(1), me(), Abort)),
        notifies([asks_to_finish(id(1), 1, Abort)])
    );
    assert_eq!(rig.finished(id(1), 1), nothing());
    assert!(rig.participant.is_idle());
}

#[test]
fn another_sessions_branch_is_another_matter_than_its_own_of_the_same_transaction() {
    let mut rig = Rig::voted(Prepared);
    assert_eq!(
        rig.found([found(id(1), 2)]),
        sends(to_all(question(id(1), 2, Voter::Unknown)))
    );
}
