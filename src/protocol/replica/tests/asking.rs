//! Questions, forced abort, and the directory of sessions.

use crate::protocol::replica::commit::WAITERS_MAX;
use crate::protocol::replica::front::Front;
use crate::protocol::types::{Entering, Entry, ParticipantName};

use super::*;

fn ask_for_a(voter: Voter) -> Message {
    ask(id(1), Some(branch("a", 1)), voter)
}

fn ask_plainly() -> Message {
    ask(id(1), None, Voter::Unknown)
}

#[test]
fn an_unknown_transaction_is_undecided_and_gets_a_ballot_when_its_time_is_up() {
    let mut rig = Rig::new(1);
    assert_eq!(
        rig.hear(initiator(), ask_plainly()),
        sends([(initiator(), undecided(id(1), &[], &[]))])
    );
    let (ticks, out) = rig.wait();
    assert_eq!((ticks, out), (10, starts(ballot(1, 1), &[id(1)])));
}

#[test]
fn an_undecided_transaction_is_explained() {
    let mut rig = Rig::new(1).given(a(), vote(1, Prepared));
    let missing = [branch("b", 1)];
    assert_eq!(
        rig.hear(initiator(), ask_plainly()),
        sends([(initiator(), undecided(id(1), &missing, &[]))])
    );
    rig.wait();
    rig.hear(replica(2), phase1b(ballot(1, 1), [report(id(1))]));
    assert_eq!(
        rig.hear(operator(), ask_plainly()),
        sends([(operator(), undecided(id(1), &missing, &[1, 3]))])
    );
}

#[test]
fn a_decided_one_is_answered_at_once() {
    let mut rig = Rig::new(1).given(a(), vote(1, Aborted));
    let answer = || decided(id(1), Abort, None);
    for peer in [initiator(), operator()] {
        let out = rig.hear(peer.clone(), ask_plainly());
        assert_eq!(out, sends([(peer, answer())]));
    }
    assert_eq!(
        rig.hear(session("a", 2), ask_for_a(Voter::Gone)),
        sends([(session("a", 2), finish(id(1), branch("a", 1), Abort))])
    );
}

#[test]
fn whoever_asked_is_told_once_when_it_is_decided() {
    let mut rig = Rig::new(1).given(b(), vote(1, Prepared));
    for _ in 0..2 {
        rig.hear(initiator(), ask_plainly());
        rig.hear(session("a", 2), ask_for_a(Voter::Unknown));
    }
    assert_eq!(
        rig.hear(replica(2), decided(id(1), Abort, None)),
        effects(
            [finished_record(1, Abort)],
            [
                (initiator(), decided(id(1), Abort, None)),
                (session("a", 2), finish(id(1), branch("a", 1), Abort)),
            ]
        )
    );
}

#[test]
fn askers_are_told_of_a_commit_that_the_votes_or_all_branches_show() {
    let asked = || {
        let rig = Rig::new(1).given(a(), vote(1, Prepared));
        rig.given(b(), vote(1, Prepared))
            .given(operator(), ask_plainly())
    };
    let told = (operator(), decided(id(1), Commit, None));
    let mut rig = asked();
    let one = rig.hear(a(), applied(id(1), branch("a", 1)));
    assert_eq!(one, nothing(), "the word of one branch");
    let all = rig.hear(b(), applied(id(1), branch("b", 1)));
    assert_eq!(all.send, std::slice::from_ref(&told));
    let answer = (replica(2), decided(id(1), Commit, Some(whom(&[]))));
    assert_eq!(
        asked().hear(replica(2), phase2b(id(1), Ballot::ZERO, Commit)),
        sends([told, answer])
    );
}

#[test]
fn askers_have_a_limit() {
    let mut rig = Rig::new(1);
    for asker in 0..=WAITERS_MAX as u64 {
        rig.hear(Peer::Operator(asker), ask_plainly());
    }
    let out = rig.hear(replica(2), decided(id(1), Abort, None));
    let askers = (0..WAITERS_MAX as u64).map(Peer::Operator);
    assert_eq!(out.send, to(askers, decided(id(1), Abort, None)));
}

#[test]
fn if_the_session_is_gone_and_its_vote_not_here_a_ballot_starts_at_once() {
    let mut rig = Rig::new(1).given(b(), vote(1, Prepared));
    let asker = session("a", 2);
    let mut expected = starts(ballot(1, 1), &[id(1)]);
    let explained = undecided(id(1), &[branch("a", 1)], &[1, 2, 3]);
    expected.send.push((asker.clone(), explained.clone()));
    assert_eq!(rig.hear(asker.clone(), ask_for_a(Voter::Gone)), expected);
    assert_eq!(
        rig.hear(asker.clone(), ask_for_a(Voter::Gone)),
        sends([(asker, explained)]),
        "one ballot for all who ask"
    );
    assert_eq!(rig.wait().0, 3);
}

#[test]
fn of_an_unknown_transaction_it_starts_at_once_too() {
    let out = Rig::new(1).hear(session("a", 2), ask_for_a(Voter::Gone));
    assert_eq!(out.save, [Record::Round { round: 1 }]);
}

#[test]
fn if_its_vote_is_here_or_it_may_live_the_vote_timeout_stands() {
    let mut rig = Rig::new(1).given(a(), vote(1, Prepared));
    let explained = undecided(id(1), &[branch("b", 1)], &[]);
    for voter in [Voter::Gone, Voter::Unknown] {
        let out = rig.hear(session("a", 2), ask_for_a(voter));
        assert_eq!(out, sends([(session("a", 2), explained.clone())]));
    }
    let for_b = ask(id(1), Some(branch("b", 1)), Voter::Unknown);
    let out = rig.hear(session("b", 2), for_b);
    assert_eq!(out, sends([(session("b", 2), explained)]));
    assert_eq!(rig.wait().0, 10);
}

#[test]
fn who_asks_for_no_branch_knows_of_no_session_that_is_gone() {
    for peer in [initiator(), operator()] {
        let mut rig = Rig::new(1);
        let question = ask(id(1), None, Voter::Gone);
        let out = rig.hear(peer.clone(), question);
        assert_eq!(out, sends([(peer, undecided(id(1), &[], &[]))]));
    }
}

#[test]
fn a_read_only_vote_is_a_vote_too() {
    let mut rig = Rig::new(1).given(a(), vote(1, ReadOnly));
    let out = rig.hear(session("a", 2), ask_for_a(Voter::Gone));
    assert_eq!(out.save, []);
}

#[test]
fn a_session_asks_for_branches_of_its_own_participant_in_the_roster() {
    let mut rig = Rig::new(1).given(a(), vote(1, Prepared));
    let refused = |peer: Peer| rejected(peer, Rejection::NotInRoster);
    assert_eq!(rig.hear(b(), ask_for_a(Voter::Unknown)), refused(b()));
    assert_eq!(rig.hear(b(), ask_plainly()), refused(b()));
    let not_there = ask(id(1), Some(branch("a", 2)), Voter::Unknown);
    assert_eq!(rig.hear(a(), not_there.clone()), refused(a()));
    let mut rig = Rig::new(1);
    let out = rig.hear(a(), not_there);
    assert_eq!(out, sends([(a(), undecided(id(1), &[], &[]))]), "unknown");
}

#[test]
fn initiators_and_operators_ask_for_no_branch_and_replicas_not_at_all() {
    let mut rig = Rig::new(1);
    let refused = |peer: Peer| rejected(peer, Rejection::NotFromSuchAPeer);
    for peer in [initiator(), operator(), replica(2)] {
        let out = rig.hear(peer.clone(), ask_for_a(Voter::Unknown));
        assert_eq!(out, refused(peer));
    }
    assert_eq!(rig.hear(replica(2), ask_plainly()), refused(replica(2)));
    assert_eq!(rig.replica.undecided().count(), 0);
}

#[test]
fn an_operator_forces_a_ballot() {
    let mut rig = Rig::new(1).given(a(), vote(1, Prepared));
    let missing = [branch("b", 1)];
    let mut expected = starts(ballot(1, 1), &[id(1)]);
    let explained = (operator(), undecided(id(1), &missing, &[1, 2, 3]));
    expected.send.push(explained.clone());
    let force = || Message::ForceAbort { id: id(1) };
    assert_eq!(rig.hear(operator(), force()), expected);
    assert_eq!(rig.hear(operator(), force()), sends([explained]), "again");
    let out = rig.hear(replica(2), decided(id(1), Commit, None));
    assert_eq!(out.send, [(operator(), decided(id(1), Commit, None))]);
}

#[test]
fn an_operator_that_forces_the_unknown_waits_the_shortest_vote_timeout_for_retries() {
    let mut rig = Rig::new(1);
    let out = rig.hear(operator(), Message::ForceAbort { id: id(1) });
    assert_eq!(out.save, [Record::Round { round: 1 }]);
    assert_eq!(rig.gaps(3), [3, 6, 12]);
}

#[test]
fn a_commit_that_is_chosen_cannot_be_forced() {
    let mut rig = Rig::new(1).given(replica(2), decided(id(1), Commit, Some(whom(&[]))));
    assert_eq!(
        rig.hear(operator(), Message::ForceAbort { id: id(1) }),
        sends([(operator(), decided(id(1), Commit, None))])
    );
}

#[test]
fn nor_one_that_may_have_been_chosen() {
    let mut rig = Rig::new(1)
        .given(a(), vote(1, Prepared))
        .given(b(), vote(1, Prepared));
    rig.hear(operator(), Message::ForceAbort { id: id(1) });
    rig.hear(replica(2), phase1b(ballot(1, 1), [report(id(1))]));
    let own = Report {
        accepted: Some((Ballot::ZERO, Commit)),
        held: set(&[0, 1]),
        roster: Some(ab()),
        ..report(id(1))
    };
    let proposal = decision(id(1), Commit, Some(whom(&[])));
    assert_eq!(
        rig.hear(replica(1), phase1b(ballot(1, 1), [own])),
        sends(to(all(), phase2a(ballot(1, 1), [proposal])))
    );
}

#[test]
fn an_initiator_forces_a_ballot_and_is_told_its_outcome() {
    let mut rig = Rig::new(1).given(a(), vote(1, Prepared));
    let missing = [branch("b", 1)];
    let mut expected = starts(ballot(1, 1), &[id(1)]);
    let explained = (initiator(), undecided(id(1), &missing, &[1, 2, 3]));
    expected.send.push(explained.clone());
    let force = || Message::ForceAbort { id: id(1) };
    assert_eq!(rig.hear(initiator(), force()), expected);
    assert_eq!(rig.hear(initiator(), force()), sends([explained]), "again");
    let out = rig.hear(replica(2), decided(id(1), Commit, None));
    assert!(
        out.send
            .contains(&(initiator(), decided(id(1), Commit, None)))
    );
}

#[test]
fn only_operators_and_initiators_force() {
    for peer in [a(), replica(2)] {
        let mut rig = Rig::new(1);
        let out = rig.hear(peer.clone(), Message::ForceAbort { id: id(1) });
        assert_eq!(out, rejected(peer, Rejection::NotFromSuchAPeer));
    }
}

#[test]
fn an_inquiry_lists_all_instances_of_a_transaction_and_starts_nothing() {
    let alone = CommitId::new(txn(1), &only_a());
    let inquire = || Message::Inquire { txn: txn(1) };
    let status = |instances: Vec<(CommitId, State)>| {
        let txn = txn(1);
        Message::Status { txn, instances }
    };
    let mut rig = Rig::new(1);
    assert_eq!(
        rig.hear(operator(), inquire()),
        sends([(operator(), status(Vec::new()))])
    );
    assert_eq!(rig.replica.undecided().count(), 0);

    rig.hear(a(), vote(1, Prepared));
    rig.hear(a(), cast(alone, only_a(), Aborted));
    rig.hear(a(), vote(2, Prepared));
    rig.hear(a(), vote(0, Aborted));
    let ended = State::Decided {
        outcome: Abort,
        unapplied: Vec::new(),
    };
    let listed = |state: State| {
        let mut instances = vec![(id(1), state), (alone, ended.clone())];
        instances.sort();
        sends([(initiator(), status(instances))])
    };
    let open = |silent: &[u32]| State::Undecided {
        missing: vec![branch("b", 1)],
        silent: silent.iter().copied().map(ReplicaId).collect(),
    };
    assert_eq!(rig.hear(initiator(), inquire()), listed(open(&[])));
    rig.hear(operator(), Message::ForceAbort { id: id(1) });
    assert_eq!(rig.hear(initiator(), inquire()), listed(open(&[1, 2, 3])));
    rig.hear(replica(2), decided(id(1), Commit, Some(whom(&[]))));
    rig.hear(a(), applied(id(1), branch("a", 1)));
    let unapplied = vec![branch("b", 1)];
    let state = State::Decided {
        outcome: Commit,
        unapplied,
    };
    assert_eq!(rig.hear(initiator(), inquire()), listed(state));
}

#[test]
fn the_directory_lists_the_sessions_that_are_connected() {
    let name: ParticipantName = "a".parse().unwrap();
    let resolve = || Message::Resolve {
        participant: name.clone(),
    };
    let resolved = |sessions: &[u64]| Message::Resolved {
        participant: name.clone(),
        branches: sessions.iter().map(|number| branch("a", *number)).collect(),
    };
    let mut rig = Rig::new(1);
    rig.connect(session("a", 2));
    rig.connect(session("a", 1));
    rig.connect(session("b", 3));
    rig.connect(initiator());
    let stores = vec![Entering {
        participant: name.clone(),
        store: StoreId::from_u128(1),
        opening: None,
        after: None,
    }];
    let enter = Entry::Enter { stores };
    rig.hear(replica(2), super::control::learn(0, enter));
    for number in [1, 2] {
        let (opening, after) = (None, None);
        let present = Message::Present { opening, after };
        rig.hear(session("a", number), present);
    }
    let out = rig.hear(initiator(), resolve());
    assert_eq!(out, sends([(initiator(), resolved(&[1, 2]))]));
    rig.disconnect(session("a", 1));
    rig.disconnect(session("b", 2));
    rig.disconnect(session("c", 2));
    rig.disconnect(initiator());
    let out = rig.hear(operator(), resolve());
    assert_eq!(out, sends([(operator(), resolved(&[2]))]));
    rig.disconnect(session("a", 2));
    let out = rig.hear(initiator(), resolve());
    assert_eq!(out, sends([(initiator(), resolved(&[]))]));
    rig.disconnect(session("b", 3));
    assert_eq!(rig.replica.front, Front::default());
}

#[test]
fn only_initiators_and_operators_resolve_and_no_replica_inquires() {
    let mut rig = Rig::new(1);
    for peer in [a(), replica(2)] {
        let refused = rejected(peer.clone(), Rejection::NotFromSuchAPeer);
        let participant = "a".parse().unwrap();
        assert_eq!(rig.hear(peer, Message::Resolve { participant }), refused);
    }
    let refused = rejected(replica(2), Rejection::NotFromSuchAPeer);
    assert_eq!(
        rig.hear(replica(2), Message::Inquire { txn: txn(1) }),
        refused
    );
}

/// It may be a generation behind, or this replica may be.
#[test]
fn a_session_that_inquires_is_told_what_is_known_or_which_generations_there_are() {
    let mut rig = Rig::new(1).given(b(), vote(1, Aborted));
    let out = rig.hear(a(), Message::Inquire { txn: txn(1) });
    let state = State::Decided {
        outcome: Abort,
        unapplied: Vec::new(),
    };
    let status = Message::Status {
        txn: txn(1),
        instances: vec![(id(1), state)],
    };
    assert_eq!(out, sends([(a(), status)]));
    let later = TxnId {
        generation: 9,
        ..txn(1)
    };
    // The latest generation here may be news there.
    for unknown in [later, txn(2)] {
        let out = rig.hear(a(), Message::Inquire { txn: unknown });
        let announce = Message::Announce(rig.replica.generations().clone());
        assert_eq!(out, sends([(a(), announce)]));
    }
    assert_eq!(rig.replica.undecided().count(), 0, "it starts nothing");
}

/// It could not be refused when it asked: nothing was known of the transaction.
#[test]
fn a_session_that_turns_out_to_stand_outside_the_roster_is_told_nothing() {
    let stranger = session("z", 1);
    let mut rig = Rig::new(1);
    let question = ask(id(1), Some(branch("z", 1)), Voter::Unknown);
    let out = rig.hear(stranger.clone(), question.clone());
    assert_eq!(out, sends([(stranger.clone(), undecided(id(1), &[], &[]))]));
    rig.hear(session("a", 2), ask_for_a(Voter::Unknown));
    let out = rig.hear(b(), vote(1, Aborted));
    let told: Vec<&Peer> = out.send.iter().map(|(to, _)| to).collect();
    assert!(
        told.contains(&&session("a", 2)),
        "it asked for a branch of the roster"
    );
    assert!(!told.contains(&&stranger));
    // Once the roster is known it is refused.
    let mut rig = Rig::new(1).given(a(), vote(1, Prepared));
    let refused = rejected(stranger.clone(), Rejection::NotInRoster);
    assert_eq!(rig.hear(stranger, question), refused);
}

#[test]
fn a_status_page_shows_what_an_inquiry_tells() {
    let mut rig = Rig::new(1)
        .given(a(), vote(1, Prepared))
        .given(b(), vote(2, Aborted));
    rig.connect(a());
    for n in [1, 2] {
        let out = rig.hear(operator(), Message::Inquire { txn: txn(n) });
        let state = rig.replica.state(&id(n)).unwrap();
        let (txn, instances) = (txn(n), vec![(id(n), state)]);
        assert_eq!(
            out,
            sends([(operator(), Message::Status { txn, instances })])
        );
    }
    assert_eq!(rig.replica.state(&id(3)), None);
    assert_eq!(rig.replica.log_leader(), None);
    let directory = rig.replica.directory();
    let directory = directory.map(|(name, sessions)| (name.as_str(), sessions.len()));
    assert_eq!(directory.collect::<Vec<_>>(), [("a", 1)]);
}
