//! The list: settled commits that wait for a branch, and how the list becomes shorter.

use super::forgetting::asked;
use super::*;

#[test]
fn a_listed_commit_is_pushed_and_stays_until_the_log_takes_it_off() {
    let mut rig = closed(2, []);
    rig.connect(a());
    rig.hear(replica(1), learn(2, settle(&[1])));
    let push = (a(), finish(id(1), branch("a", 1), Commit));
    assert_eq!(rig.wait(), (4, sends([push.clone()])));
    assert_eq!(rig.wait().1, sends([push]));
    rig.hear(a(), applied(id(1), branch("a", 1)));
    let out = rig.hear(b(), applied(id(1), branch("b", 1)));
    assert_eq!(out, nothing());
    assert_eq!(rig.replica.listed().count(), 1);
    let unlist = Entry::Unlist { ids: vec![id(1)] };
    let out = rig.hear(replica(1), learn(3, unlist.clone()));
    assert_eq!(out, saves([chosen(3, unlist)]));
    assert_eq!(rig.replica.remembered(), 0);
    let told = sends([(b(), expired(1, Some(branch("b", 1))))]);
    assert_eq!(rig.hear(b(), vote(1, Prepared)), told);
    assert_eq!(rig.restart().replica.remembered(), 0);
}

/// The counter-example of [`Entry::Unlist`]: what a replica has heard does not shorten its list, so
/// a restart does not make it longer.
#[test]
fn a_restart_changes_no_list() {
    let mut rig = closed(2, []);
    rig.hear(replica(1), learn(2, settle(&[1])));
    for (from, name) in [(a(), "a"), (b(), "b")] {
        rig.hear(from, applied(id(1), branch(name, 1)));
    }
    let before: Vec<CommitId> = rig.replica.listed().copied().collect();
    let rig = rig.restart();
    let after: Vec<CommitId> = rig.replica.listed().copied().collect();
    assert_eq!((before, after), (vec![id(1)], vec![id(1)]));
}

#[test]
fn the_leader_takes_off_the_list_what_all_have_applied() {
    let mut rig = leading([]);
    asked(&mut rig);
    rig.hear(replica(3), frozen(1, &[id(1)], false));
    rig.hear(replica(2), frozen(1, &[], false));
    let known = Report {
        roster: Some(ab()),
        ..report(id(1))
    };
    rig.hear(
        replica(2),
        collected([holds(known, Some((Commit, Waits::Some)))]),
    );
    accepted(&mut rig);
    rig.hear(a(), applied(id(1), branch("a", 1)));
    rig.wait_quietly(3);
    rig.hear(b(), applied(id(1), branch("b", 1)));
    let accept = log(LogMessage::Accept {
        slot: 3,
        ballot: ballot(1, 1),
        entry: Entry::Unlist { ids: vec![id(1)] },
    });
    assert_eq!(rig.wait().1, sends(to(all(), accept)));
}

/// No word of another replica shortens the list; one that lists what this one does not is behind.
#[test]
fn another_replica_without_the_commit_is_ahead_in_the_log() {
    let mut rig = closed(2, []);
    rig.hear(replica(1), learn(2, settle(&[1])));
    let answer = sends([(replica(3), expired(9, None))]);
    let asked = decided(id(9), Commit, Some(whom(&[])));
    assert_eq!(
        rig.hear(replica(3), asked),
        answer,
        "of one it has forgotten"
    );
    let asks = sends([(replica(3), fetch(3))]);
    assert_eq!(rig.hear(replica(3), expired(1, None)), asks);
    assert_eq!(
        rig.hear(replica(3), decided(id(1), Commit, None)),
        nothing()
    );
    assert_eq!(rig.replica.listed().count(), 1);
    // One who has not learned the horizon asks for it.
    let mut rig = closed(2, [vote_record(1, 0, Prepared, Some(ab()))]);
    let out = rig.hear(replica(3), expired(1, None));
    assert_eq!(out, sends([(replica(3), fetch(2))]));
}

/// Replica 2 of the attack: it holds an `Aborted`, and the others have chosen commit.
#[test]
fn a_commit_that_is_aborted_here_is_adopted_and_its_branches_are_told_so() {
    let mut rig = closed(2, [vote_record(1, 0, Aborted, Some(ab()))]);
    rig.connect(b());
    let out = rig.hear(replica(1), learn(2, settle(&[1])));
    let notice = ReplicaNotice::Contradiction {
        id: id(1),
        against: Some(branch("a", 1)),
    };
    assert_eq!(out.notify, [notice]);
    let disputed = Record::Disputed { id: id(1) };
    assert_eq!(out.save, [chosen(2, settle(&[1])), disputed]);
    assert_eq!(rig.outcome(1), Some(Commit));
    let told = |branch| (b(), Message::Disputed { id: id(1), branch });
    assert_eq!(rig.wait().1, sends([told(branch("b", 1))]));
    let mut rig = rig.restart();
    rig.connect(b());
    assert_eq!(rig.wait().1, sends([told(branch("b", 1))]), "also later");
    // Another replica, which knows of no dispute, has told it to commit before.
    let unproven = Message::Unproven {
        id: id(1),
        branch: branch("b", 1),
    };
    assert_eq!(rig.hear(b(), unproven), sends([told(branch("b", 1))]));
    // Its answer counts as Applied.
    let contradicted = Message::Contradicted {
        id: id(1),
        branch: branch("b", 1),
    };
    let notice = |name| ReplicaNotice::Contradiction {
        id: id(1),
        against: Some(branch(name, 1)),
    };
    let out = rig.hear(b(), contradicted.clone());
    assert_eq!(out.notify, [notice("b")]);
    assert_eq!(rig.hear(b(), contradicted), nothing(), "once");
    assert_eq!(rig.wait_quietly(50), ());
}

#[test]
fn a_page_of_the_list_holds_the_branches_of_the_askers_store() {
    let config = ReplicaConfig {
        list_max: 2,
        ..config(2, 3)
    };
    let mut rig = Rig::with(config, chosen_all(&third()));
    let list = |through, after| Message::List { through, after };
    let last = Generations::last_id(1);
    assert_eq!(
        rig.hear(a(), list(last, None)),
        nothing(),
        "the log has not come to it here"
    );
    rig.hear(replica(1), learn(2, settle(&[1, 2, 3])));
    let page = |after, listed: &[u32], next| {
        let listing = ListPage {
            through: last,
            after,
            listed: listed.iter().map(|n| (id(*n), branch("a", 1))).collect(),
            next,
        };
        sends([(a(), Message::ListPage(Box::new(listing)))])
    };
    let out = rig.hear(a(), list(last, None));
    assert_eq!(out, page(None, &[1, 2], Some(id(2))), "two at a time");
    let out = rig.hear(a(), list(last, Some(id(2))));
    assert_eq!(out, page(Some(id(2)), &[3], None));
    // (Found in review: a range that begins after its end is a panic.)
    let backwards = list(id(1), Some(id(2)));
    let refused = rejected(a(), Rejection::DoesNotFollow);
    assert_eq!(rig.hear(a(), backwards), refused);
    let other = Peer::Session(Branch {
        store: StoreId::from_u128(2),
        ..branch("a", 1)
    });
    let out = rig.hear(other.clone(), list(last, Some(id(2))));
    let nothing_of_it = ListPage {
        through: last,
        after: Some(id(2)),
        listed: Vec::new(),
        next: None,
    };
    assert_eq!(
        out,
        sends([(other, Message::ListPage(Box::new(nothing_of_it)))])
    );
}

#[test]
fn a_store_without_proof_is_told_when_the_commit_is_off_the_list() {
    let unproven = || Message::Unproven {
        id: id(1),
        branch: branch("a", 1),
    };
    let mut rig = closed(2, []);
    assert_eq!(rig.hear(a(), unproven()), nothing(), "not settled");
    rig.hear(replica(1), learn(2, settle(&[1])));
    assert_eq!(rig.hear(a(), unproven()), nothing(), "listed");
    rig.hear(replica(1), learn(3, Entry::Unlist { ids: vec![id(1)] }));
    let expired = sends([(a(), expired(1, Some(branch("a", 1))))]);
    assert_eq!(rig.hear(a(), unproven()), expired);
    let other = Message::Unproven {
        id: id(1),
        branch: branch("b", 1),
    };
    let refused = rejected(a(), Rejection::NotInRoster);
    assert_eq!(rig.hear(a(), other), refused);
}
