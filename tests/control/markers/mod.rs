//! The shrinking list and the markers, exhaustively, over the very replicas and sessions that a user
//! runs.
//!
//! One commit of generation 1 is settled and listed. Each branch stands prepared in a store, behind a
//! session that remembers nothing of it: that session asks about it, is told to commit, and says
//! Applied; reads the list when the horizon moves; and deletes the marker when the list says so. The
//! resource manager is a few lines ([`store`]): it commits what stands prepared and writes a marker, it
//! proves a commit by the marker and by nothing else, and it deletes markers as it is told.
//!
//! The network is a set from which nothing is taken, so every message may be lost (an Applied at some
//! replicas and not at others), come late or come again: an order to commit also when the marker is
//! gone. A session's question for the list reaches all replicas, and the first answer counts: so a
//! replica that lags, crashes, or is new is asked like any other one. Save and release are one with
//! the step, and answers between replicas arrive at once or not at all, as in the models of the log.
//! Time passes only for a leader that has an Unlist to propose.
//!
//! Each model is searched to its end and pins the number of its states: a number that changes says
//! that replicas, sessions or the model do something else than before. Most of a number comes from
//! what may happen in any order: Applied at three replicas, the steps of the log, and what the session
//! has read. So each model has one more cause of disorder than [`base`], and says which.
//!
//! What each model leaves out stands at its test. All of them leave out: a second commit and with it
//! lists of several pages, branches that voted ReadOnly, the session that prepared the branch and
//! remembers it, disputed commits, releases by an operator (and that replicas note which store has no proof, which is
//! for releases alone), and the next Settle: so a marker that was listed when the list was read stays.
//!
//! In every state [`judge`] holds the rules. Some states are run to their end ([`ends`]).

mod bounds;
mod ends;
mod judge;
mod plants;
mod start;
mod state;
mod store;
mod system;
mod tables;

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use stateright::Model;

use crate::cast::REPLICAS;
use crate::state::NOBODY;

use bounds::{Bounds, Knows, News, Second};
use judge::SIGHTS;
use state::State;
use system::System;

const DELETED: usize = 0;
const KEPT: usize = 1;
const PROVED: usize = 2;
const ANSWERED: usize = 3;
const FORGOTTEN: usize = 4;
const FOUND_AGAIN: usize = 5;
const TAKEN_OVER: usize = 6;
const TAKEN_OVER_WITHOUT: usize = 7;
const REFUSED: usize = 8;
const COPY_ROLLED_BACK: usize = 9;
const COPY_COMMITTED: usize = 10;

/// No replica lags.
const ALL_KNOW: [Knows; REPLICAS] = [Knows::Listed, Knows::Listed, Knows::Listed, Knows::Absent];

/// One branch; replica 1 leads; replica 3 lags: it has not heard of the Settle.
fn base() -> Bounds {
    Bounds {
        branches: 1,
        second: Second::None,
        knows: [Knows::Listed, Knows::Listed, Knows::Commit, Knows::Absent],
        leads: [true, false, false, false],
        victims: Vec::new(),
        reopens: None,
        replaces: false,
        news: News::Entries,
        drops: true,
        sample: 16,
        plant: None,
    }
}

/// No rule is broken, each of `sights` is seen, and there are so many states.
fn holds(bounds: Bounds, sights: &[usize], states: usize) {
    let sights: Vec<_> = sights.iter().map(|sight| SIGHTS[*sight]).collect();
    crate::search_to_its_end(System::new(bounds, &sights), states);
}

/// One leader, and a replica that lags and hears of what was chosen in either way: entry by entry, and
/// by a state. That makes almost three times as many states as entries alone (9,622).
#[test]
fn one_leader() {
    let bounds = Bounds {
        news: News::Both,
        ..base()
    };
    holds(bounds, &[DELETED, KEPT, PROVED, ANSWERED], 26_456);
}

/// Two leaders: the Unlist of one may be found and proposed by the other. Each leader's steps of the
/// log may come before, between and after those of the other.
#[test]
fn two_leaders() {
    let bounds = Bounds {
        leads: [true, true, false, false],
        ..base()
    };
    let sights = [DELETED, KEPT, PROVED, ANSWERED, FOUND_AGAIN];
    holds(bounds, &sights, 143_238);
}

/// One of the replicas crashes and comes back, once, at any point: it forgets what was applied. If it
/// is the leader, no replica leads until the fair run.
#[test]
fn a_replica_restarts() {
    let bounds = Bounds {
        victims: vec![0, 1, 2],
        ..base()
    };
    let sights = [DELETED, KEPT, PROVED, ANSWERED, FORGOTTEN];
    holds(bounds, &sights, 61_200);
}

/// One of two leaders crashes and comes back, at any point, and the other one goes on. No replica
/// lags.
#[test]
fn a_leader_restarts() {
    let bounds = Bounds {
        knows: ALL_KNOW,
        leads: [true, true, false, false],
        victims: vec![0],
        ..base()
    };
    let sights = [DELETED, KEPT, PROVED, FORGOTTEN, FOUND_AGAIN];
    holds(bounds, &sights, 179_153);
}

/// The session crashes at any point. The next one is greeted by the replica that lags, so it reads
/// the list again; if that replica has caught up, the session reads no list. What the two sessions say
/// is on its way at the same time, hence the number of states.
#[test]
fn a_session_restarts() {
    let bounds = Bounds {
        reopens: Some(2),
        ..base()
    };
    holds(bounds, &[DELETED, KEPT, PROVED, ANSWERED], 218_762);
}

/// Replica 1 is down for good. It is replaced by replica 4, which takes over the list, with the commit
/// or without. The log has an entry more than in the other models, so replicas hear in both ways.
fn replaced() -> Bounds {
    Bounds {
        knows: [Knows::Absent, Knows::Listed, Knows::Listed, Knows::Nothing],
        leads: [false, true, false, false],
        replaces: true,
        news: News::Both,
        ..base()
    }
}

const REPLACED_SIGHTS: [usize; 6] = [
    DELETED,
    KEPT,
    PROVED,
    ANSWERED,
    TAKEN_OVER,
    TAKEN_OVER_WITHOUT,
];

#[test]
fn a_replica_is_replaced() {
    holds(replaced(), &REPLACED_SIGHTS, 79_260);
}

/// The same, and replica 3 lags.
#[test]
fn a_replica_is_replaced_while_another_one_lags() {
    let bounds = Bounds {
        knows: [
            Knows::Absent,
            Knows::Listed,
            Knows::Accepted,
            Knows::Nothing,
        ],
        ..replaced()
    };
    holds(bounds, &REPLACED_SIGHTS, 265_688);
}

/// Two branches in two stores, each of which does what it does in any order with the other. Left out:
/// a replica that lags, and news entry by entry; with either, there are too many states.
#[test]
fn two_branches() {
    let bounds = Bounds {
        branches: 2,
        knows: ALL_KNOW,
        news: News::States,
        ..base()
    };
    holds(bounds, &[DELETED, KEPT, PROVED, ANSWERED], 162_432);
}

/// A second store under the name of the participant, which is empty: it reads the list, is told
/// nothing, and says nothing else. (Four times the states of the base: its reading is under way or
/// over.)
#[test]
fn an_empty_second_store() {
    let bounds = Bounds {
        second: Second::Empty,
        ..base()
    };
    holds(bounds, &[DELETED, KEPT, PROVED, ANSWERED], 38_488);
}

/// A second store under the name of the participant, a copy of the first one with an identity of its
/// own. Its branch is in no roster, so a replica that knows the roster refuses its question. A replica
/// that has finished the commit and has not heard of the Settle knows the outcome alone, and tells it to
/// every session of the name: the copy is committed. When the commit is off the list, the copy is
/// rolled back. In no case does what it says count for the branch of the roster.
#[test]
fn a_copied_second_store() {
    let bounds = Bounds {
        second: Second::Copy,
        ..base()
    };
    let sights = [
        DELETED,
        KEPT,
        PROVED,
        ANSWERED,
        REFUSED,
        COPY_ROLLED_BACK,
        COPY_COMMITTED,
    ];
    holds(bounds, &sights, 221_232);
}

/// What the replicas, their disks and the stores come to in all states of a model.
fn all_states(bounds: Bounds) -> HashSet<u64> {
    let system = System::new(bounds, &[]);
    let mut seen = HashSet::new();
    let mut open: VecDeque<State> = system.init_states().into();
    while let Some(state) = open.pop_front() {
        if seen.insert(state) {
            open.extend(system.next_states(&state));
        }
    }
    println!("{} states", seen.len());
    let tables = system.tables();
    let shown = |state: &State| {
        let mut hash = DefaultHasher::new();
        for index in (0..REPLICAS).filter(|index| state.hosts[*index] != NOBODY) {
            tables.hosts.value(state.hosts[index]).hash(&mut hash);
            let mut records = tables.ledger.records(state.disks[index]);
            records.sort_by_cached_key(|record| format!("{record:?}"));
            records.hash(&mut hash);
        }
        for node in state.stores.iter().filter(|node| node.host != NOBODY) {
            tables.sessions.value(node.host).hash(&mut hash);
            (node.run, node.kept, node.unproven).hash(&mut hash);
        }
        hash.finish()
    };
    seen.iter().map(shown).collect()
}

/// The claim by which messages are dropped that change nothing any more: replicas and stores come to
/// the same with all messages kept.
#[test]
fn dropped_messages_change_nothing() {
    let everything = Bounds {
        drops: false,
        ..base()
    };
    assert!(all_states(everything) == all_states(base()));
}
