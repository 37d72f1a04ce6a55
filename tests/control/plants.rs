//! Planted mistakes: each is found, and as what it is.

use stateright::{Checker, HasDiscoveries, Model};

use crate::bounds::{Bounds, Plant};
use crate::judge::RULES;
use crate::system::System;
use crate::{base, held, moved, one_late, second_late};

/// The rule that a fair run from every state ends well.
const ENDS: usize = 7;

/// A planted mistake breaks this rule.
fn is_found(plant: Plant, bounds: Bounds, rule: usize) {
    let bounds = Bounds {
        plant: Some(plant),
        // Runs to the end are for the rule about them.
        sample: if rule == ENDS { 8 } else { 0 },
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

/// One leader; replicas 2 and 3 crash and come back, one of them once. Both know the transaction by
/// the vote of its first branch.
fn restarts() -> Bounds {
    Bounds {
        branches: 2,
        starts: vec![second_late()],
        leads: [false, false, true, false],
        victims: vec![1, 2],
        ..base()
    }
}

#[test]
fn finds_replicas_that_do_not_freeze() {
    let bounds = Bounds {
        starts: vec![one_late()],
        ..base()
    };
    is_found(Plant::NoFreezing, bounds, 1);
}

#[test]
fn finds_a_freeze_forgotten_on_restart() {
    is_found(Plant::FreezeForgotten, restarts(), 1);
}

#[test]
fn finds_an_outcome_told_from_a_collection() {
    let bounds = Bounds {
        starts: vec![one_late()],
        ..base()
    };
    is_found(Plant::CollectionTold, bounds, 2);
}

#[test]
fn finds_a_list_that_is_made_anew() {
    let bounds = Bounds {
        starts: vec![one_late()],
        ..base()
    };
    is_found(Plant::FreshList, bounds, 0);
}

#[test]
fn finds_expired_before_the_settle_is_chosen() {
    let bounds = Bounds {
        starts: vec![one_late()],
        ..base()
    };
    is_found(Plant::ExpiredEarly, bounds, 3);
}

#[test]
fn finds_records_collected_from_the_new_configuration() {
    let bounds = Bounds {
        starts: vec![held([true, true, false])],
        ..moved()
    };
    is_found(Plant::NewConfigurationAsked, bounds, 1);
}

#[test]
fn finds_a_horizon_saved_before_the_list() {
    let bounds = Bounds {
        victims: vec![0, 1, 2],
        ..base()
    };
    is_found(Plant::HorizonBeforeList, bounds, 3);
}

#[test]
fn finds_a_replica_that_lost_its_disk() {
    is_found(Plant::LostDisk, restarts(), 1);
}

/// The judge of fair runs notices a branch that ends otherwise than was chosen before.
#[test]
fn a_fair_run_after_a_forgotten_commit_does_not_end_well() {
    let bounds = Bounds {
        starts: vec![held([true, true, false])],
        ..moved()
    };
    is_found(Plant::NewConfigurationAsked, bounds, ENDS);
}
