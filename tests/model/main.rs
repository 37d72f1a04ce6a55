//! The model checker: every interleaving of small clusters, over the very hosts that a user runs.
//!
//! A state holds every host with its disk and the effects that it has not let go yet, and the
//! network, a set from which nothing is taken: so loss, duplication and reordering come free. One
//! model that holds everything does not fit, so there are several; each is searched to its end,
//! asserts that it was, and pins the number of its states. What each leaves out stands at its test;
//! what all of them leave out: more than one transaction, more than three replicas and two branches,
//! more than two ballots of a replica, and lost disks. The simulator draws those.
//!
//! Two rules show in the numbers. That a single branch has applied a commit decides nothing: it takes
//! all branches of the roster, so there are fewer states in (c) and (d). And a replica remembers whether
//! the initiator stands behind a transaction: so there are more where relays are asked, in (f).
//!
//! In every state [`judge`] holds invariants 1 to 4 and compares with PaxosCommit.tla.

mod bounds;
mod cast;
mod disk;
mod intern;
#[path = "../invariant/facts/mod.rs"]
#[allow(dead_code, reason = "each judge asks for a part of it")]
mod invariant;
mod judge;
mod leaf;
mod network;
mod plant;
mod refine;
mod sessions;
mod start;
mod state;
mod system;
mod tables;

use std::collections::{HashSet, VecDeque};

use paxos_commit::protocol::types::Vote::{self, Aborted, Prepared, ReadOnly};
use stateright::{Checker, HasDiscoveries, Model};

use bounds::{Begin, Bounds, Keep, Lag, Plant, Sessions, Victim};
use state::{NOTHING, State};
use system::System;

const COMMIT: &str = "commit";
const ABORT: &str = "abort";
const RECOVERY_COMMITS: &str = "a recovery ballot commits";
const RECOVERY_ABORTS: &str = "a recovery ballot aborts";
const REPLICA_DOWN: &str = "commit with a replica down throughout";
const AFTER_CRASH: &str = "commit after a crash";

const BOTH: [Vote; 2] = [Prepared, Aborted];

/// Three replicas, two branches that prepare by themselves, one ballot of replica 1.
fn base() -> Bounds {
    Bounds {
        replicas: 3,
        votes: vec![vec![Prepared], BOTH.to_vec()],
        ballots: [1, 0, 0],
        leads: [true, false, false],
        forced: [false; 3],
        ticks: [0; 3],
        lag: Lag::Victim,
        victims: Vec::new(),
        sessions: Sessions::Leaves,
        begin: Begin::Itself,
        network: Keep::Useful,
        plant: None,
    }
}

/// Searches the model to its end: no rule is broken, each of `sights` is seen, and there are so many
/// states.
fn holds(bounds: Bounds, sights: &[&'static str], states: usize) {
    let checker = System::new(bounds, sights).checker().threads(2);
    // Neither a time-out nor a number of states ends the search, and a rule that holds keeps it
    // going; so it is done only when every state was visited.
    let checker = checker.spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
    assert!(checker.is_done());
    assert_eq!(checker.unique_state_count(), states);
}

/// (a) One recovery ballot; step, save and release are apart at the leader and at one follower. (The
/// other follower's lag is left out: it is to the first as the first is to it, and lag commutes with
/// network delay where nobody crashes.)
#[test]
fn a_one_ballot_with_save_and_release_apart() {
    let bounds = Bounds {
        lag: Lag::Apart([true, true, false]),
        ..base()
    };
    let sights = [
        COMMIT,
        ABORT,
        RECOVERY_COMMITS,
        RECOVERY_ABORTS,
        REPLICA_DOWN,
    ];
    holds(bounds, &sights, 3_362_913);
}

/// (b) Two replicas compete, with a ballot each; both branches are prepared, and their votes may be
/// late or lost. Save and release are one with the step, which leaves out nothing: nobody crashes.
#[test]
fn b_two_ballots_compete() {
    let bounds = Bounds {
        votes: vec![vec![Prepared]; 2],
        ballots: [1, 1, 0],
        leads: [true, true, false],
        ..base()
    };
    let sights = [COMMIT, ABORT, RECOVERY_COMMITS, RECOVERY_ABORTS];
    holds(bounds, &sights, 2_463_511);
}

/// (b) Two ballots and one branch, which may vote Aborted.
#[test]
fn b_two_ballots_compete_about_one_branch() {
    let bounds = Bounds {
        votes: vec![BOTH.to_vec()],
        ballots: [1, 1, 0],
        leads: [true, true, false],
        ..base()
    };
    holds(bounds, &[COMMIT, ABORT, RECOVERY_ABORTS], 1_015_401);
}

/// (c) The leader crashes once, at any point, and comes back; until then its step, save and release
/// are apart. One ballot.
#[test]
fn c_the_leader_crashes() {
    let bounds = Bounds {
        victims: vec![Victim::Replica(0)],
        ..base()
    };
    let sights = [COMMIT, ABORT, RECOVERY_ABORTS, AFTER_CRASH];
    holds(bounds, &sights, 1_018_075);
}

/// (c) A follower crashes once; until then its step, save and release are apart. (The third replica
/// is to the second as the second is to it.)
#[test]
fn c_a_follower_crashes() {
    let bounds = Bounds {
        victims: vec![Victim::Replica(1)],
        ..base()
    };
    let sights = [COMMIT, ABORT, RECOVERY_ABORTS, AFTER_CRASH];
    holds(bounds, &sights, 523_094);
}

/// (c) The leader, or a follower, crashes once, and the leader may start two ballots, before and
/// after: a ballot is never used twice. One branch.
#[test]
fn c_a_crash_between_two_ballots_of_one_leader() {
    let bounds = Bounds {
        votes: vec![BOTH.to_vec()],
        leads: [false; 3],
        forced: [true, false, false],
        ballots: [2, 0, 0],
        victims: vec![Victim::Replica(0), Victim::Replica(1)],
        ..base()
    };
    holds(bounds, &[COMMIT, ABORT, AFTER_CRASH], 1_090_877);
}

/// (d) One replica: two-phase commit. It, or the session of the first branch, crashes once. Resource
/// managers apply what they are told, and the replica finishes.
#[test]
fn d_f_0_is_two_phase_commit() {
    let bounds = Bounds {
        replicas: 1,
        ballots: [1, 0, 0],
        ticks: [1, 0, 0],
        leads: [false; 3],
        forced: [true; 3],
        sessions: Sessions::Apply,
        victims: vec![Victim::Replica(0), Victim::Session(0)],
        ..base()
    };
    holds(
        bounds,
        &[COMMIT, ABORT, RECOVERY_ABORTS, AFTER_CRASH],
        141_843,
    );
}

/// (d) One replica, one branch, two ballots.
#[test]
fn d_f_0_with_two_ballots() {
    let bounds = Bounds {
        replicas: 1,
        votes: vec![BOTH.to_vec()],
        ballots: [2, 0, 0],
        ticks: [1, 0, 0],
        leads: [false; 3],
        forced: [true; 3],
        sessions: Sessions::Apply,
        victims: vec![Victim::Replica(0), Victim::Session(0)],
        ..base()
    };
    holds(
        bounds,
        &[COMMIT, ABORT, RECOVERY_ABORTS, AFTER_CRASH],
        103_274,
    );
}

/// (e) The session of the first branch crashes at any point, between the resource manager's work and
/// its answer too; its successor finds the prepared branch, if there is one, and asks.
#[test]
fn e_a_branch_restarts_and_asks() {
    let bounds = Bounds {
        votes: vec![BOTH.to_vec(); 2],
        leads: [false; 3],
        victims: vec![Victim::Session(0)],
        ..base()
    };
    holds(bounds, &[COMMIT, ABORT, AFTER_CRASH], 103_193);
}

/// The initiator and its relays: one branch, which may be read-only, asked by up to two relays, and
/// a ballot. The work was done before.
#[test]
fn f_through_relays() {
    let bounds = Bounds {
        votes: vec![vec![Prepared, Aborted, ReadOnly]],
        leads: [false; 3],
        forced: [true; 3],
        sessions: Sessions::Silent,
        begin: Begin::Relay { hedges: 1 },
        ..base()
    };
    holds(bounds, &[COMMIT, ABORT, RECOVERY_ABORTS], 635_610);
}

/// The same with the work travelling in the question: it runs at most once.
#[test]
fn f_through_relays_with_a_request() {
    let bounds = Bounds {
        votes: vec![BOTH.to_vec()],
        leads: [false; 3],
        forced: [true; 3],
        sessions: Sessions::Silent,
        begin: Begin::RelayWithRequest { hedges: 1 },
        ..base()
    };
    holds(bounds, &[COMMIT, ABORT, RECOVERY_ABORTS], 161_184);
}

/// Timers instead of an operator: the exchange of reports of ballot 0, then a ballot of replica 1.
#[test]
fn g_ticks() {
    let bounds = Bounds {
        votes: vec![vec![Prepared]; 2],
        leads: [false; 3],
        ticks: [2, 1, 1],
        ..base()
    };
    holds(bounds, &[COMMIT, ABORT, RECOVERY_ABORTS], 605_580);
}

/// All states of a model.
fn all_states(system: &System) -> HashSet<State> {
    let mut seen = HashSet::new();
    let mut open: VecDeque<State> = system.init_states().into();
    while let Some(state) = open.pop_front() {
        if seen.insert(state.clone()) {
            open.extend(system.next_states(&state));
        }
    }
    seen
}

/// The claim by which models without a crash save and release with the step: what can be reached
/// with everything saved and released is the same, whether that lags or not.
#[test]
fn lag_commutes_with_delay() {
    let prompt = Bounds {
        votes: vec![vec![Prepared]],
        network: Keep::Everything,
        ..base()
    };
    let lagging = Bounds {
        lag: Lag::Apart([true, false, false]),
        ..prompt.clone()
    };
    let prompt = System::new(prompt, &[]);
    let lagging = System::with_tables(lagging, &[], prompt.share_tables());
    let is_settled = |state: &State| {
        let mut nodes = state.replicas.iter();
        nodes.all(|node| node.is_saved() && node.outbox == NOTHING)
    };
    let mut settled = all_states(&lagging);
    let all = settled.len();
    settled.retain(is_settled);
    assert!(settled.len() < all, "something lagged");
    assert!(settled == all_states(&prompt));
}

/// The claim by which models drop messages that nobody will heed: the hosts, their disks and what is
/// told are the same with all messages kept.
#[test]
fn useless_messages_change_nothing() {
    let keep = |network| Bounds {
        votes: vec![BOTH.to_vec()],
        network,
        ..base()
    };
    let everything = System::new(keep(Keep::Everything), &[]);
    let useful = System::with_tables(keep(Keep::Useful), &[], everything.share_tables());
    let hosts = |system: &System| -> HashSet<_> {
        let states = all_states(system).into_iter();
        states
            .map(|state| (state.replicas, state.sessions))
            .collect()
    };
    assert!(hosts(&everything) == hosts(&useful));
}

/// A planted mistake breaks one of `rules`.
fn is_found(plant: Plant, bounds: Bounds, rules: &[&str]) {
    let bounds = Bounds {
        plant: Some(plant),
        ..bounds
    };
    let checker = System::new(bounds, &[]).checker().threads(2);
    let checker = checker.finish_when(HasDiscoveries::Any).spawn_bfs().join();
    let found: Vec<&str> = checker.discoveries().into_keys().collect();
    let states = checker.unique_state_count();
    println!("{plant:?}: {found:?} within {states} states");
    assert!(!found.is_empty(), "{plant:?} was not found");
    let expected = |name: &&str| rules.iter().any(|rule| name.starts_with(rule));
    assert!(found.iter().any(expected), "{plant:?}: {found:?}");
}

/// This replica crashes once; replica 1 leads a ballot.
fn crash(replica: usize) -> Bounds {
    Bounds {
        victims: vec![Victim::Replica(replica)],
        ..base()
    }
}

#[test]
fn finds_send_before_save() {
    is_found(Plant::SendBeforeSave, crash(1), &["3", "4", "Paxos"]);
}

#[test]
fn finds_release_that_is_not_fifo() {
    is_found(Plant::ReleaseNotFifo, crash(1), &["3", "4", "Paxos"]);
}

#[test]
fn finds_an_acceptor_that_forgets_on_restart() {
    is_found(Plant::Amnesia, crash(1), &["1", "3", "4", "Paxos"]);
}

#[test]
fn finds_a_promise_that_hides_votes_on_load() {
    let rules = ["1", "3", "4", "Paxos"];
    is_found(Plant::PromiseHidesVotes, crash(1), &rules);
}

#[test]
fn finds_a_session_that_votes_again_after_restart() {
    let bounds = Bounds {
        votes: vec![BOTH.to_vec(); 2],
        leads: [false; 3],
        victims: vec![Victim::Session(0)],
        ..base()
    };
    is_found(Plant::SessionVotesAgain, bounds, &["1", "2", "3", "Paxos"]);
}

#[test]
fn finds_one_abort_believed_at_any_ballot() {
    is_found(Plant::AbortBelievedAlone, base(), &["1", "3", "Paxos"]);
}

#[test]
fn finds_reports_of_different_ballots_counted_together() {
    let bounds = Bounds {
        votes: vec![vec![Prepared]],
        ballots: [1, 1, 0],
        leads: [true, true, false],
        ..base()
    };
    let rules = ["1", "3", "Paxos"];
    is_found(Plant::BallotsCountedTogether, bounds, &rules);
}

#[test]
fn finds_a_ballot_used_twice() {
    let bounds = Bounds {
        leads: [false; 3],
        forced: [true, false, false],
        ballots: [2, 0, 0],
        ..crash(0)
    };
    is_found(Plant::RoundsForgotten, bounds, &["3", "4", "Paxos"]);
}
