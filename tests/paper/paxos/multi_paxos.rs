//! Multi-Paxos, counted in messages and round trips: *Paxos Made Simple*, section 3, and what the
//! two guides say of it. Then what the rules of the log's clocks are worth.

mod cluster;

use std::collections::BTreeMap;

use cluster::{Cluster, Command, acceptors};
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::paxos::log::{Log, LogConfig, LogEffects, LogMessage};

fn commands(range: std::ops::Range<u32>) -> Vec<Command> {
    range.map(Command::Add).collect()
}

fn counts(cluster: &Cluster) -> Vec<(&'static str, u32)> {
    let counts = cluster.sent.iter();
    counts.map(|(kind, count)| (*kind, *count)).collect()
}

/// The Paxos guide: Multi-Paxos is to "elect a stable leader", and "only need one round-trip in the
/// common case". Without a leader, the first command takes two: phase 1 and phase 2.
#[test]
fn a_command_takes_one_round_trip_the_first_one_two() {
    for delay in [1, 3, 7] {
        let mut cluster = Cluster::new(3, &[1, 2, 3]);
        cluster.delay = delay..=delay;
        cluster.wish(1, Command::Add(0));
        cluster.until(|cluster| cluster.count("prepare") > 0);
        let start = cluster.now;
        cluster.until(|cluster| cluster.learned(1).len() == 1);
        assert_eq!(cluster.now - start, 4 * delay, "phase 1 and phase 2");
        for slot in 1..10 {
            cluster.wish(1, Command::Add(slot));
            let took = cluster.until(|cluster| cluster.learned(1).len() as u32 == slot + 1);
            assert_eq!(took, 2 * delay, "phase 2");
        }
        assert_eq!(cluster.leaders.len(), 1);
    }
}

/// The same, in messages: a request to each other replica, its answer, and the news.
#[test]
fn a_command_takes_three_messages_for_each_other_replica() {
    for n in [3, 5, 7] {
        let all: Vec<u32> = (1..=n).collect();
        let mut cluster = Cluster::new(n, &all);
        cluster.until(|cluster| cluster.is_free(1));
        cluster.run(2);
        cluster.sent.clear();
        for command in commands(0..100) {
            cluster.wish(1, command);
            cluster.until(|cluster| cluster.is_free(1));
        }
        cluster.run(1);
        let each = 100 * (n - 1);
        let expected = [("accept", each), ("accepted", each), ("chosen", each)];
        assert_eq!(counts(&cluster), expected);
        for id in all {
            assert_eq!(cluster.learned(id), commands(0..100));
        }
    }
}

/// Paxos Made Simple, section 3: a new leader executes phase 1 for infinitely many instances by "a
/// single reasonably short message" to each. The guide: a "leader skips phase 1 for subsequent
/// values".
#[test]
fn phase_1_is_executed_once_for_all_slots() {
    let mut cluster = Cluster::new(3, &[1, 2, 3]);
    for command in commands(0..50) {
        cluster.wish(1, command);
    }
    cluster.until(|cluster| cluster.learned(3).len() == 50);
    let phase_1 = (cluster.count("prepare"), cluster.count("promise"));
    assert_eq!(phase_1, (2, 2));
    assert_eq!(cluster.count("accept"), 2 * 50);
}

/// A stable leader: nothing but signs of life goes to and fro while there is nothing to decide.
#[test]
fn an_idle_leader_stays() {
    let mut cluster = Cluster::led_by_1();
    cluster.run(4000);
    assert_eq!(counts(&cluster), [("following", 2000), ("lead", 2000)]);
    assert_eq!(cluster.leaders, [(22, 1)]);
    assert_eq!(cluster.leader(&[1, 2, 3]), Some(1));
}

/// Section 3: "since failure of the leader and election of a new one should be rare events".
#[test]
fn a_lost_sign_of_life_moves_nothing() {
    for lost in 1..=4 {
        let mut cluster = Cluster::led_by_1();
        cluster.cut(&[1], &[2, 3]);
        cluster.run(lost * 4);
        cluster.cut.clear();
        cluster.run(1000);
        assert_eq!(cluster.leaders, [(22, 1)], "{lost} lost");
        assert_eq!(cluster.count("prepare"), 0);
    }
}

/// The same for the answers to them.
#[test]
fn a_lost_answer_moves_nothing() {
    for lost in 1..=4 {
        let mut cluster = Cluster::led_by_1();
        cluster.cut(&[2, 3], &[1]);
        cluster.run(lost * 4);
        cluster.cut.clear();
        cluster.run(1000);
        assert_eq!(cluster.leaders, [(22, 1)], "{lost} lost");
    }
}

/// The first follower takes over, after its patience and a round trip; the old leader has stepped
/// down by then.
#[test]
fn leadership_moves_when_the_leader_is_silent() {
    let mut cluster = Cluster::led_by_1();
    cluster.isolate(1);
    let silent = cluster.now;
    cluster.wish(2, Command::Add(1));
    cluster.until(|cluster| cluster.log(2).is_leading());
    assert!(!cluster.log(1).is_leading());
    assert_eq!(cluster.leaders[1..], [(cluster.now, 2)]);
    // It last heard of the leader at most a heartbeat ago; it waits 20 ticks, and 8 for its
    // position; it takes a round trip.
    let took = cluster.now - silent;
    assert!((28 - 4..=28 + 2).contains(&took), "{took}");
    cluster.until(|cluster| cluster.learned(3).len() == 1);
    cluster.run(1000);
    assert_eq!(cluster.leader(&[2, 3]), Some(2));
    assert_eq!(cluster.leaders.len(), 2, "and it stays");
}

/// Section 3: a new leader finds what the old one has left, and completes it before its own.
#[test]
fn a_new_leader_completes_what_the_old_one_began() {
    let mut cluster = Cluster::led_by_1();
    cluster.cut(&[1], &[3]);
    cluster.wish(2, Command::Add(2));
    cluster.wish(1, Command::Add(1));
    cluster.run(1);
    assert_eq!(cluster.count("accepted"), 1, "replica 2 has accepted it");
    cluster.isolate(1);
    cluster.until(|cluster| cluster.learned(3).len() == 2);
    assert_eq!(cluster.learned(3), commands(1..3));
    // Each took one phase 2, and one phase 1 came before both.
    assert_eq!(cluster.count("prepare"), 2);
}

/// Section 3: "If multiple servers think they are leaders", no more than progress is at stake.
#[test]
fn two_leaders_at_once_agree() {
    let mut cluster = Cluster::led_by_1();
    // Its clock is slow, so it does not notice that nobody answers.
    cluster.clocks.insert(1, (3, 1));
    cluster.isolate(1);
    cluster.until(|cluster| cluster.log(2).is_leading());
    assert!(cluster.log(1).is_leading());
    cluster.cut.clear();
    for id in [1, 2, 3] {
        cluster.wish(id, Command::Add(id));
    }
    assert_eq!(cluster.count("accept"), 4, "both propose in the same slot");
    cluster.until(|cluster| cluster.learned(2).len() == 1);
    assert_eq!(cluster.learned(2), [Command::Add(2)]);
    cluster.run(2000);
    let last = cluster.leader(&[1, 2, 3]).expect("they agree on one");
    assert!(cluster.learned(1).contains(&Command::Add(last)));
    assert_eq!(cluster.learned(1), cluster.learned(2));
    assert_eq!(cluster.learned(1), cluster.learned(3));
}

/// Section 3 lets a leader propose up to α commands ahead. Here α is 1: the slots come strictly one
/// after the other, and what it costs is a round trip for each.
#[test]
fn slots_are_never_pipelined() {
    let mut cluster = Cluster::led_by_1();
    cluster.delay = 7..=7;
    for command in commands(0..20) {
        cluster.wish(1, command);
    }
    let took = cluster.until(|cluster| cluster.learned(1).len() == 20);
    assert_eq!(took, 20 * 2 * 7);
    // The cluster itself asserts that nobody asks about a slot before it learned all before.
    let gaps = cluster.chosen_at.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.into_iter().all(|gap| gap == 2 * 7));
}

/// Section 3: the servers of an instance are those that the state before it specifies; α is 1. A
/// leader that stays executes phase 1 once more, among them.
#[test]
fn other_acceptors_decide_after_another_phase_1() {
    let mut cluster = Cluster::new(5, &[1, 2, 3]);
    cluster.until(|cluster| cluster.is_free(1));
    cluster.run(2);
    cluster.sent.clear();
    cluster.wish(1, Command::Replicas(acceptors(&[1, 4, 5])));
    cluster.wish(1, Command::Add(1));
    let took = cluster.until(|cluster| cluster.learned(1).len() == 2);
    assert_eq!(took, 2 + 2 + 2, "phase 2, phase 1, phase 2");
    assert_eq!(cluster.count("prepare"), 4, "to all that there are");
    assert_eq!(cluster.count("promise"), 2, "by those that decide now");
    cluster.run(1000);
    assert_eq!(cluster.leader(&[1, 4, 5]), Some(1));
    // The old acceptors have no say any more: without the new ones nothing is decided.
    cluster.isolate(4);
    cluster.isolate(5);
    cluster.wish(1, Command::Add(2));
    cluster.run(1000);
    assert_eq!(cluster.learned(1).len(), 2);
}

/// A leader that is removed makes room at once, and one of those who decide now takes over.
#[test]
fn a_leader_that_is_removed_makes_room() {
    let mut cluster = Cluster::new(4, &[1, 2, 3]);
    cluster.until(|cluster| cluster.is_free(1));
    cluster.wish(1, Command::Replicas(acceptors(&[2, 3, 4])));
    for id in [2, 3, 4] {
        cluster.wish(id, Command::Add(id));
    }
    let took = cluster.until(|cluster| cluster.learned(4).len() == 2);
    assert!(took <= 40, "{took}");
    assert!(!cluster.log(1).is_leading());
    cluster.run(1000);
    let leader = cluster.leader(&[2, 3, 4]).expect("they agree on one");
    assert_eq!(cluster.learned(4)[1], Command::Add(leader));
    assert_eq!(cluster.leaders.len(), 2);
    assert_eq!(
        cluster.learned(1),
        cluster.learned(4),
        "it is told what comes"
    );
}

/// Those who have just become acceptors wait by their new positions, not all as long as each other.
#[test]
fn new_members_are_staggered() {
    let waits = [4, 5, 6].map(|me| {
        let mut log = Log::new(
            ReplicaId(me),
            LogConfig::default(),
            0,
            acceptors(&[1, 2, 3]),
        );
        let entry = Command::Replicas(acceptors(&[4, 5, 6]));
        let mut out = LogEffects::default();
        let news = LogMessage::Chosen { slot: 0, entry };
        log.on_message(ReplicaId(1), news, &mut out)
            .expect("a correct replica sends it");
        let mut ticks = 0;
        while out.save.is_empty() {
            log.on_tick(&mut out);
            ticks += 1;
        }
        ticks
    });
    assert_eq!(waits, [20, 28, 36]);
}

/// It is the leader that tells what was chosen, and it goes on to lead.
#[test]
fn a_follower_still_knows_its_leader_when_an_entry_was_chosen() {
    let mut cluster = Cluster::led_by_1();
    cluster.wish(1, Command::Add(1));
    cluster.until(|cluster| cluster.learned(2).len() == 1);
    assert_eq!(cluster.leader(&[1, 2, 3]), Some(1));
}

/// A replica that was away for a moment asks for the state at the first sign of life.
#[test]
fn one_that_was_away_asks_for_the_state() {
    let mut cluster = Cluster::led_by_1();
    cluster.isolate(3);
    for command in commands(0..5) {
        cluster.wish(1, command);
    }
    cluster.until(|cluster| cluster.learned(1).len() == 5);
    cluster.cut.clear();
    assert_eq!(cluster.learned(3).len(), 0);
    let took = cluster.until(|cluster| cluster.learned(3).len() == 5);
    assert!(took <= 4 + 3, "a heartbeat, and three messages: {took}");
    assert_eq!((cluster.count("fetch"), cluster.count("state")), (1, 1));
    cluster.run(1000);
    assert_eq!(cluster.leaders, [(22, 1)]);
}

/// One that lost patience meanwhile shows by its ballot where it is, and is sent the state.
#[test]
fn one_that_asks_about_the_past_is_sent_the_state() {
    let mut cluster = Cluster::led_by_1();
    cluster.isolate(3);
    for command in commands(0..5) {
        cluster.wish(1, command);
    }
    cluster.until(|cluster| cluster.log(3).leader().is_none());
    // Now only what it sends arrives.
    cluster.cut(&[1, 2], &[3]);
    cluster.cut.retain(|(from, _)| *from != 3);
    cluster.sent.clear();
    cluster.until(|cluster| cluster.count("state") > 0);
    assert_eq!(cluster.count("promise"), 0, "nobody promises in the past");
    cluster.cut.clear();
    cluster.until(|cluster| cluster.learned(3) == commands(0..5));
    cluster.run(1000);
    assert!(cluster.leader(&[1, 2, 3]).is_some());
}

/// A leader that sends and does not hear steps down, so that another can get something done.
#[test]
fn a_deaf_leader_steps_down() {
    for delay in [1, 2, 4, 6] {
        let mut cluster = Cluster::led_by_1();
        cluster.delay = delay..=delay;
        cluster.cut(&[2, 3], &[1]);
        let took = cluster.until(|cluster| !cluster.log(1).is_leading());
        assert!((20..=20 + 2 * 4).contains(&took), "{took}");
        cluster.wish(2, Command::Add(2));
        let took = cluster.until(|cluster| cluster.learned(3).len() == 1);
        assert!(took <= 80, "{took}");
    }
}

/// Its ballots get in the way from time to time, whoever it is; ever more rarely, and a leader is
/// soon there again.
#[test]
fn a_deaf_replica_does_not_stop_the_others() {
    for delay in [1, 2, 4, 6] {
        for deaf in [1, 2, 3] {
            let mut cluster = Cluster::led_by_1();
            cluster.delay = delay..=delay;
            cluster.cut(&[1, 2, 3], &[deaf]);
            let mut led = 0;
            for _ in 0..5000 {
                cluster.run(1);
                let mut others = [1, 2, 3].into_iter().filter(|id| *id != deaf);
                led += u32::from(others.any(|id| cluster.log(id).is_leading()));
            }
            assert!(cluster.leaders.len() <= 15, "{:?}", cluster.leaders);
            assert!(
                led >= 4200,
                "deaf {deaf}, delay {delay}: {led} of 5000 ticks"
            );
        }
    }
}

/// How often leadership changes after `away` comes back from `ticks` of isolation, and how long it
/// takes to settle.
fn changes_after_return(away: u32, ticks: u32, delay: u32) -> (usize, u32) {
    let mut cluster = Cluster::led_by_1();
    cluster.delay = delay..=delay;
    cluster.isolate(away);
    cluster.run(ticks);
    cluster.cut.clear();
    let (before, start) = (cluster.leaders.len(), cluster.now);
    cluster.run(800);
    let since = &cluster.leaders[before..];
    let settled = since.last().map_or(0, |(at, _)| at - start);
    assert!(cluster.leader(&[1, 2, 3]).is_some());
    (since.len(), settled)
}

/// Its high ballot costs the leader its lead. An old leader that comes back: once at most.
#[test]
fn an_old_leader_that_comes_back_causes_one_change_at_most() {
    let mut seen = BTreeMap::new();
    for delay in [1, 2, 4, 6] {
        for ticks in (1..1000).step_by(7) {
            let (changes, settled) = changes_after_return(1, ticks, delay);
            assert!(settled <= 150, "{ticks}, {delay}: {settled}");
            *seen.entry(changes).or_insert(0) += 1;
        }
    }
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [0, 1]);
}

/// A follower: twice at most. One that heard nothing of the high ballot may try below it first.
#[test]
fn a_follower_that_comes_back_causes_two_changes_at_most() {
    let mut seen = BTreeMap::new();
    for delay in [1, 2, 4, 6] {
        for (away, ticks) in (1..1000)
            .step_by(7)
            .flat_map(|ticks| [(2, ticks), (3, ticks)])
        {
            let (changes, settled) = changes_after_return(away, ticks, delay);
            assert!(settled <= 110, "{away}, {ticks}, {delay}: {settled}");
            assert!(changes <= 2, "{away}, {ticks}, {delay}: {changes}");
            *seen.entry(changes).or_insert(0) += 1;
        }
    }
    assert!(seen.contains_key(&0) && seen.len() > 1, "{seen:?}");
}

/// How many of its own ticks it takes from when all are there until something is chosen.
fn rivalry(cluster: &mut Cluster, alive: &[u32]) -> u32 {
    for id in alive {
        cluster.wish(*id, Command::Add(*id));
    }
    let all_there = alive.iter().map(|id| cluster.clocks[id].1).max();
    cluster.until(|cluster| !cluster.chosen_at.is_empty());
    cluster.now.saturating_sub(all_there.expect("somebody"))
}

/// Section 2.4: "two proposers each keep issuing a sequence of proposals with increasing numbers,
/// none of which are ever chosen". Not here: whenever the one starts, and the other, and however long
/// messages take.
#[test]
fn two_rivals_do_not_thrash_for_ever() {
    for delay in 1..=9 {
        for second in 0..=40 {
            for third in (0..=40).step_by(3) {
                let mut cluster = Cluster::new(3, &[1, 2, 3]);
                cluster.delay = delay..=delay;
                cluster.clocks =
                    BTreeMap::from([(1, (1, u32::MAX)), (2, (1, second)), (3, (1, third))]);
                let ticks = rivalry(&mut cluster, &[2, 3]);
                assert!(ticks <= 80, "{delay}, {second}, {third}: {ticks}");
            }
        }
    }
}

/// Nothing tells them apart but their jitter: they start in the same tick, after the same time, and
/// a message takes as long as they are patient, or nearly.
#[test]
fn not_even_when_they_start_together() {
    let config = LogConfig {
        stagger_ticks: 0,
        ..LogConfig::default()
    };
    let mut refused = 0;
    for n in [3, 5, 7] {
        for longest in 1..=12 {
            for seed in 0..30 {
                let all: Vec<u32> = (1..=n).collect();
                let mut cluster = Cluster::configured(n, &all, config);
                cluster.delay = 1..=longest;
                cluster.reseed(seed);
                let ticks = rivalry(&mut cluster, &all);
                assert!(ticks <= 300, "{n}, {longest}, {seed}: {ticks}");
                refused += cluster.count("nack");
            }
        }
    }
    assert!(
        refused > 1000,
        "they did get in each other's way: {refused}"
    );
}

/// Clocks that run at different speeds, and messages that overtake each other.
#[test]
fn not_even_by_clocks_of_their_own() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut cluster = Cluster::new(5, &[1, 2, 3, 4, 5]);
        // A tick is about ten moments, and a message takes up to eight ticks.
        cluster.delay = 1..=random.u32(1..=80);
        cluster.reseed(seed);
        for clock in cluster.clocks.values_mut() {
            *clock = (random.u32(8..=12), random.u32(1..=300));
        }
        let moments = rivalry(&mut cluster, &[1, 2, 3, 4, 5]);
        assert!(moments <= 100 * 10, "{seed}: {moments}");
        cluster.run(20_000);
        let leader = cluster.leader(&[1, 2, 3, 4, 5]);
        assert!(leader.is_some(), "{seed}: {:?}", cluster.leaders);
    }
}
