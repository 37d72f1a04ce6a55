//! Planted mistakes: each is found, and as what it is.

use stateright::{Checker, HasDiscoveries, Model};

use super::base;
use super::bounds::{Bounds, Knows, Plant, Second};
use super::judge::RULES;
use super::system::System;

/// One entry for each slot.
const ONE_ENTRY: usize = 0;
/// The lists are the same at every replica.
const SAME_LIST: usize = 1;
/// A commit leaves the list when every store has applied it.
const APPLIED_BY_ALL: usize = 2;
/// A marker is deleted when the log has taken its commit off the list.
const MARKER_KEPT: usize = 3;
/// A branch of the roster is said to be applied by its own store alone.
const NAMED_STORE: usize = 5;
/// A fair run ends well.
const ENDS: usize = 7;

/// A planted mistake breaks this rule.
fn is_found(plant: Plant, bounds: Bounds, rule: usize) {
    let bounds = Bounds {
        plant: Some(plant),
        // Runs to the end are for the rule about them.
        sample: u64::from(rule == ENDS),
        ..bounds
    };
    let wanted = HasDiscoveries::AllOf([RULES[rule]].into());
    let checker = System::new(bounds, &[]).checker().threads(2);
    let checker = checker.finish_when(wanted).spawn_bfs().join();
    let found: Vec<&str> = checker.discoveries().into_keys().collect();
    let states = checker.unique_state_count();
    println!("{plant:?}: {found:?} within {states} states");
    assert!(found.contains(&RULES[rule]), "{plant:?}: {found:?}");
}

#[test]
fn finds_a_marker_deleted_on_the_word_of_a_replica_that_lags() {
    is_found(Plant::AnswersBeforeHorizon, base(), MARKER_KEPT);
}

/// What follows: the commit stays listed, and its store has no proof any more.
#[test]
fn a_marker_deleted_on_the_word_of_a_replica_that_lags_is_missed_for_ever() {
    is_found(Plant::AnswersBeforeHorizon, base(), ENDS);
}

#[test]
fn finds_a_marker_deleted_by_the_memory_of_one_replica() {
    is_found(Plant::AnswersFromMemory, base(), MARKER_KEPT);
}

#[test]
fn a_marker_deleted_by_the_memory_of_one_replica_is_missed_for_ever() {
    is_found(Plant::AnswersFromMemory, base(), ENDS);
}

/// The second store is a copy of the first, with the branch prepared in it.
fn copied() -> Bounds {
    Bounds {
        second: Second::Copy,
        ..base()
    }
}

#[test]
fn finds_an_applied_of_another_store_of_the_same_name() {
    is_found(Plant::IdentityIgnored, copied(), NAMED_STORE);
}

/// What follows: the commit leaves the list, and the store that the roster names has not applied it.
#[test]
fn finds_a_commit_that_leaves_the_list_by_another_store() {
    is_found(Plant::IdentityIgnored, copied(), APPLIED_BY_ALL);
}

#[test]
fn finds_a_list_that_shrinks_outside_the_log() {
    is_found(Plant::ShrinksAlone, base(), SAME_LIST);
}

/// What follows: the marker is deleted by the rules, the replica that dropped the commit crashes, and
/// the others order the commit for ever.
#[test]
fn a_list_that_shrinks_outside_the_log_leaves_a_store_without_proof() {
    is_found(Plant::ShrinksAlone, base(), ENDS);
}

/// Two leaders compete for the slot of the Unlist: an operator asks one of them to replace a replica.
#[test]
fn finds_an_unlist_that_loses_its_slot_after_it_was_chosen() {
    let bounds = Bounds {
        knows: [Knows::Listed, Knows::Listed, Knows::Listed, Knows::Nothing],
        leads: [true, true, false, false],
        replaces: true,
        ..base()
    };
    is_found(Plant::FoundIgnored, bounds, ONE_ENTRY);
}
