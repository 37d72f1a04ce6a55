//! Two slots of the log, with or without a change of acceptors between them, in *every* schedule of
//! three replicas. A message, once sent, may arrive at any time, any number of times or never. Every
//! replica may restart at any time. It saves with its step.
//!
//! What is chosen is judged by an observer who sees what everybody has saved. *Paxos Made Simple*,
//! section 3: the acceptors of an instance are those that the instances before it specify.

mod bits;
mod explorer;
mod host;

use std::collections::BTreeSet;

use explorer::{Chosen, Violation, explore};
use host::{Bug, Scope};

use paxos_commit::protocol::paxos::Ballot;

use super::cluster::ballot;

/// Two candidates, the same three acceptors in both slots.
const STABLE: Scope = Scope {
    first: &[1, 2, 3],
    then: None,
    ballots: [1, 1, 0],
    hints: false,
    restarts: [true; 3],
    tidy: true,
};

/// Replica 3 alone makes all three acceptors; then it and replica 1 are candidates.
const GROW: Scope = Scope {
    first: &[3],
    then: Some(&[1, 2, 3]),
    ballots: [1, 0, 1],
    ..STABLE
};

/// All three make replica 2 the only acceptor.
const SHRINK: Scope = Scope {
    first: &[1, 2, 3],
    then: Some(&[2]),
    ..STABLE
};

/// An exploration that came to its end, found nothing wrong, and is as large as it was.
fn sound(scope: Scope, states: usize) -> BTreeSet<Chosen> {
    let explored = explore(scope, Bug::None);
    assert!(explored.complete, "{} states", explored.states);
    assert_eq!(explored.violations, BTreeSet::new());
    assert_eq!(explored.states, states);
    explored.chosen
}

/// What is chosen in `slot`: the ballot, the replica whose wish it was, and whether the ballot had
/// a phase 1 in that slot.
fn in_slot(slot: u64, chosen: &BTreeSet<Chosen>) -> Vec<(Ballot, u32, bool)> {
    let chosen = chosen.iter().filter(|one| one.slot == slot);
    chosen
        .map(|one| (one.ballot, one.of, one.prepared))
        .collect()
}

/// Rules 1, 2 and 4.
#[test]
fn a_stable_leader_skips_phase_1_and_at_most_one_entry_is_chosen_in_each_slot() {
    let chosen = sound(STABLE, 550_977);
    let [one, two] = [ballot(1, 1), ballot(1, 2)];
    // After a restart, a ballot of the other one may be above ballot 1.
    let [again, too] = [ballot(2, 1), ballot(2, 2)];
    let first = [
        (one, 1, true),
        // An entry found in phase 1 is chosen by way of another: once so, once so.
        (two, 1, true),
        (two, 2, true),
        (again, 1, true),
        (again, 2, true),
        (too, 1, true),
        (too, 2, true),
    ];
    assert_eq!(in_slot(0, &chosen), first);
    let second = [
        // Whoever led in slot 0 goes on without phase 1, and has its own wish.
        (one, 1, false),
        (two, 1, true),
        (two, 2, false),
        (two, 2, true),
        (again, 1, false),
        (again, 1, true),
        (again, 2, true),
        (too, 1, true),
        (too, 2, false),
        (too, 2, true),
    ];
    assert_eq!(in_slot(1, &chosen), second);
}

/// Rule 3: after a change of the acceptors phase 1 is never skipped.
#[test]
fn new_acceptors_are_asked_for_their_promise_and_choose_at_most_one_entry() {
    let chosen = sound(GROW, 119_029);
    assert_eq!(in_slot(0, &chosen), [(ballot(1, 3), 3, true)]);
    let second = [
        // The new acceptor is the first, by a ballot below the one that chose the change.
        (ballot(1, 1), 1, true),
        (ballot(2, 1), 1, true),
        (ballot(2, 3), 1, true),
        (ballot(2, 3), 3, true),
        (ballot(3, 1), 1, true),
        (ballot(3, 1), 3, true),
    ];
    assert_eq!(in_slot(1, &chosen), second);
}

#[test]
fn acceptors_that_were_removed_have_no_say() {
    let chosen = sound(SHRINK, 232_794);
    let ballots: BTreeSet<Ballot> = chosen.iter().map(|one| one.ballot).collect();
    assert_eq!(ballots.len(), 5, "{ballots:?}");
    let second = [ballot(1, 2), ballot(2, 2), ballot(3, 2)].map(|at| (at, 2, true));
    assert_eq!(in_slot(1, &chosen), second);
}

/// The same entries are chosen when refusals and signs of life arrive, too.
#[test]
fn refusals_and_signs_of_life_do_no_harm() {
    let quiet = Scope {
        restarts: [false; 3],
        ..GROW
    };
    let with_hints = Scope {
        hints: true,
        ..quiet
    };
    assert_eq!(sound(with_hints, 362_671), sound(quiet, 10_893));
}

/// What is taken out of the states is of no consequence: the same entries are chosen without that.
#[test]
fn nothing_is_overlooked_by_making_the_states_fewer() {
    let few = Scope {
        restarts: [false; 3],
        ..GROW
    };
    let many = Scope { tidy: false, ..few };
    assert_eq!(sound(few, 10_893), sound(many, 749_351));
}

/// The explorer finds each planted bug, where it can do harm.
#[test]
fn the_explorer_finds_every_planted_bug() {
    let calm = [false; 3];
    let planted = [
        (
            Bug::SkipsPhase1,
            Scope {
                restarts: calm,
                ..GROW
            },
        ),
        (
            Bug::AcceptsEarly,
            Scope {
                restarts: calm,
                ..STABLE
            },
        ),
        (Bug::ForgetsPromises, STABLE),
        (Bug::ForgetsPromises, GROW),
        (Bug::ForgetsPromises, SHRINK),
    ];
    for (bug, scope) in planted {
        let violations = explore(scope, bug).violations;
        let expected = BTreeSet::from([Violation::TwoEntriesChosen]);
        assert_eq!(violations, expected, "{bug:?} in {scope:?}");
    }
    let violations = explore(STABLE, Bug::TellsEarly).violations;
    let expected = BTreeSet::from([Violation::LearnedWhatIsNotChosen]);
    assert_eq!(violations, expected);
}
