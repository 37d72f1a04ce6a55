//! The simulator as a judge: it passes a fixed number of seeds, sees everything that it must see,
//! and finds every planted bug.
//!
//! `SIMULATOR_SEEDS` sets the number of seeds; by hand, `cargo run --release --example simulate`
//! runs as many as you like.

mod growth;
mod hostile;
#[path = "../invariant/facts/mod.rs"]
#[allow(dead_code, reason = "each judge asks for a part of it")]
mod invariant;
mod sim;

use sim::count::{By, count};
use sim::plan::{Plan, Weather};
use sim::plant::Plant;
use sim::stats::{Sometimes, Stats};
use sim::{Failure, Options, run, run_plan};

/// What every test run goes through.
const SEEDS: u64 = 2_000;

fn seeds() -> u64 {
    seeds_or(SEEDS)
}

fn seeds_or(usual: u64) -> u64 {
    match std::env::var("SIMULATOR_SEEDS") {
        Ok(text) => text.parse().expect("SIMULATOR_SEEDS is a number"),
        Err(_) => usual,
    }
}

#[test]
fn swarm_finds_nothing_and_sees_everything() {
    let mut total = Stats::default();
    for seed in 0..seeds() {
        match run(seed, Weather::Swarm, Options::default()) {
            Ok(stats) => total.add(&stats),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{total}");
    // A handful of seeds, as a mutation test runs them, cannot see everything.
    if seeds() >= 1_000 {
        assert_eq!(total.never_seen(), Vec::<String>::new());
    }
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    let text = |seed| {
        let stats = run(seed, Weather::Swarm, Options::default());
        stats.map(|stats| stats.to_string())
    };
    for seed in 0..10 {
        assert_eq!(text(seed), text(seed));
    }
}

/// Each seed here once failed; what it found is fixed.
#[test]
fn seeds_that_found_bugs() {
    let seeds = [
        // A late copy of a ReadOnly vote drew an answer that a forgetful session passed on to its
        // resource manager, which had nothing to commit.
        8, // A replica that lacked a ReadOnly vote pushed the commit to that branch.
        1,
    ];
    for seed in seeds {
        if let Err(failure) = run(seed, Weather::Swarm, Options::default()) {
            panic!("{failure}");
        }
    }
}

/// The first failure of a planted bug, and after how many seeds it showed.
fn find(options: Options, plant: Plant, seeds_max: u64) -> (Failure, u64) {
    for seed in 0..seeds_max {
        let options = Options {
            plant: Some(plant),
            ..options
        };
        if let Err(failure) = run(seed, Weather::Swarm, options) {
            println!("{failure}");
            return (failure, seed + 1);
        }
    }
    panic!("{plant:?} was not found within {seeds_max} seeds");
}

/// Asserts that a planted bug shows within so many seeds, as one of these violations.
fn is_found(plant: Plant, seeds_max: u64, as_one_of: &[&str]) {
    is_found_by(Options::default(), plant, seeds_max, as_one_of);
}

/// The same, in runs of a certain kind.
fn is_found_by(options: Options, plant: Plant, seeds_max: u64, as_one_of: &[&str]) {
    let (failure, _) = find(options, plant, seeds_max);
    assert!(
        as_one_of.iter().any(|text| failure.what.contains(text)),
        "{plant:?} showed as something else: {failure}"
    );
}

const NOT_DURABLE: &str = "what is not on its disk";
const TWO_VOTES: &str = "voted twice, differently";
const WENT_BACK: &str = "went back behind a promise";
const BALLOT_TWICE: &str = "twice";
const NOT_CHOSEN: &str = "is not chosen";
const TWO_OUTCOMES: &str = "one was told commit, another abort";
const TWO_CHOSEN: &str = "two values were chosen";
const RAN_TWICE: &str = "ran twice";
const STUCK: &str = "not finished in time";

#[test]
fn finds_send_before_save() {
    is_found(
        Plant::SendBeforeSave,
        20,
        &[NOT_DURABLE, "before its round"],
    );
}

#[test]
fn finds_release_that_is_not_fifo() {
    let shown = [NOT_DURABLE, NOT_CHOSEN, "has not learned"];
    is_found(Plant::ReleaseNotFifo, 200, &shown);
}

#[test]
fn finds_an_acceptor_that_forgets_its_promises() {
    is_found(Plant::ForgetsPromises, 200, &[WENT_BACK, TWO_CHOSEN]);
}

#[test]
fn finds_an_acceptor_that_forgets_its_votes() {
    is_found(Plant::ForgetsVotes, 200, &[NOT_DURABLE, TWO_CHOSEN]);
}

#[test]
fn finds_a_promise_that_hides_votes() {
    is_found(Plant::PromiseHidesVotes, 200, &[NOT_DURABLE, TWO_CHOSEN]);
}

#[test]
fn finds_a_ballot_used_twice() {
    is_found(Plant::BallotTwice, 200, &[BALLOT_TWICE, NOT_DURABLE]);
}

#[test]
fn finds_a_participant_that_votes_again_after_restart() {
    let shown = [TWO_VOTES, RAN_TWICE, TWO_OUTCOMES, STUCK];
    is_found(Plant::VotesAgain, 200, &shown);
}

#[test]
fn finds_a_session_that_forgets_what_it_voted() {
    is_found(
        Plant::SessionForgets,
        200,
        &[TWO_VOTES, RAN_TWICE, TWO_OUTCOMES],
    );
}

#[test]
fn finds_a_learner_that_counts_reports_of_different_ballots() {
    is_found(Plant::MixesBallots, 5_000, &[NOT_CHOSEN, TWO_OUTCOMES]);
}

#[test]
fn finds_a_learner_that_believes_one_abort() {
    is_found(Plant::BelievesOneAbort, 200, &[NOT_CHOSEN, TWO_OUTCOMES]);
}

/// To abort although all have voted is safe, so no invariant breaks; what shows is that a ballot
/// never again commits on the union of votes.
#[test]
fn finds_the_union_rule_left_out() {
    let mut total = Stats::default();
    let options = Options {
        plant: Some(Plant::NoUnion),
        ..Options::default()
    };
    for seed in 0..500 {
        total.add(&run(seed, Weather::Swarm, options).expect("it is safe"));
    }
    let name = format!("{:?}", Sometimes::RecoveryCommitsUnion);
    assert!(total.never_seen().contains(&name));
    let mut sound = Stats::default();
    for seed in 0..500 {
        sound.add(&run(seed, Weather::Swarm, Options::default()).expect("it passes"));
    }
    assert!(
        !sound.never_seen().contains(&name),
        "500 seeds suffice to see it"
    );
}

const FROZEN_TOUCHED: &str = "after it had frozen its generation";
const FORGOTTEN: &str = "has not applied was forgotten";
const TOO_EARLY: &str = "has not learned so";
const TWO_ENTRIES: &str = "two entries were chosen";
const ABORT_LISTED: &str = "aborted, and settled as a commit";
const ANNOUNCED: &str = "told of generations that it has not learned";
const SLOT_WENT_BACK: &str = "went back behind a promise";
const SLOT_SKIPPED: &str = "before it had learned the slot before";

#[test]
fn finds_a_generation_that_is_not_frozen() {
    is_found(Plant::NoFreezing, 200, &[FROZEN_TOUCHED]);
}

#[test]
fn finds_a_freeze_that_is_forgotten_at_restart() {
    is_found(Plant::FreezeForgotten, 500, &[FROZEN_TOUCHED]);
}

#[test]
fn finds_an_outcome_that_is_told_from_a_collection() {
    is_found(Plant::OutcomeFromCollection, 2_000, &[NOT_CHOSEN]);
}

#[test]
fn finds_a_settle_that_is_replaced_by_a_fresh_list() {
    is_found(Plant::FreshList, 5_000, &[TWO_ENTRIES]);
}

#[test]
fn finds_expired_before_the_settle_is_chosen() {
    is_found(Plant::ExpiredEarly, 200, &[TOO_EARLY]);
}

#[test]
fn finds_records_collected_from_the_new_configuration() {
    is_found(Plant::CollectsFromNew, 5_000, &[FORGOTTEN, ABORT_LISTED]);
}

#[test]
fn finds_a_horizon_that_is_saved_before_the_list() {
    let shown = [FORGOTTEN, "remembers", "another list"];
    is_found(Plant::HorizonBeforeList, 2_000, &shown);
}

#[test]
fn finds_a_generation_that_is_handed_out_before_it_is_chosen() {
    is_found(Plant::OpenHandedOutEarly, 200, &[ANNOUNCED]);
}

#[test]
fn finds_a_lost_disk_that_comes_back_under_its_name() {
    let shown = [
        WENT_BACK,
        SLOT_WENT_BACK,
        SLOT_SKIPPED,
        NOT_DURABLE,
        BALLOT_TWICE,
    ];
    is_found(Plant::LostDiskComesBack, 200, &shown);
}

#[test]
fn finds_a_recall_that_is_left_out() {
    let shown = [WENT_BACK, NOT_CHOSEN, TWO_CHOSEN, TWO_OUTCOMES, NOT_DURABLE];
    is_found(Plant::ForgetsToRecall, 200, &shown);
}

#[test]
fn finds_a_restart_that_does_not_tell_what_the_store_holds() {
    let shown = [WENT_BACK, NOT_CHOSEN, TWO_CHOSEN, TWO_OUTCOMES, NOT_DURABLE];
    is_found(Plant::ForgetsStored, 200, &shown);
}

/// (That the process dies in between does no harm: nobody was told what was not durable. The harm
/// is done by going on from the records of before.)
#[test]
fn finds_an_eviction_before_it_is_durable() {
    let shown = [WENT_BACK, NOT_CHOSEN, TWO_CHOSEN, TWO_OUTCOMES, NOT_DURABLE];
    is_found(Plant::EvictsBeforeSaved, 200, &shown);
}

/// A replica that evicts, and recalls what it is asked for, does exactly what one does that keeps
/// everything in memory: whole runs are the same, message by message.
#[test]
fn evicting_and_recalling_changes_nothing() {
    let run_with = |seed, keep_finished| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let plan = Plan {
            keep_finished,
            ..Plan::swarm(&mut rng)
        };
        let mut stats = run_plan(seed, rng, plan, Options::default()).expect("it passes");
        let recalls = [
            Sometimes::Recalled,
            Sometimes::RecalledForBallot,
            Sometimes::RecalledForInquiry,
            Sometimes::RecalledForCollect,
            Sometimes::RecalledForList,
        ];
        let recalled = recalls.map(|of| stats.sometimes.remove(&of).unwrap_or(0));
        stats.memory.clear();
        (format!("{stats:?}"), recalled.iter().sum::<u64>())
    };
    let mut recalled = 0;
    for seed in 0..seeds() / 4 {
        let (kept, none) = run_with(seed, usize::MAX);
        assert_eq!(none, 0, "there is nothing to recall");
        for keep_finished in [0, 5] {
            let (evicted, some) = run_with(seed, keep_finished);
            assert!(kept == evicted, "seed {seed}: {kept} {evicted}");
            recalled += some;
        }
    }
    assert!(recalled > 0);
}

/// Gray & Lamport, sections 3.2 and 5: two-phase commit with separate processes takes 4 message
/// delays, 3N-1 messages, and two forced writes in sequence, N+1 in all.
///
/// Counted here, with its differences: F = 0. The initiator is a process of its own, so it sends
/// one message to the coordinator where the first resource manager's vote does that in the paper,
/// N-1 becomes N prepares and votes; and it is a learner, so it gets a report. 3N-1 of the paper
/// (1 begin, N-1 prepares, N-1 votes, N reports) become 3N+2: one more of each kind.
#[test]
fn f_0_takes_what_two_phase_commit_takes() {
    for n in 1..=32 {
        let counted = count(0, n as usize, By::Relay);
        println!("{counted:?}");
        let paper = 3 * n - 1;
        assert_eq!(counted.messages(), paper + 3);
        assert_eq!((counted.delays, counted.writes_in_sequence), (4, 2));
        assert_eq!(counted.writes, n + 1);
    }
}

/// Gray & Lamport, sections 4.3 and 5: Faster Paxos Commit takes 4 message delays and
/// N(2F+3)-1 messages, with F+1 acceptors in the normal case.
///
/// Counted here: all 2F+1 replicas take part, so that no failure of F of them costs anything, and
/// the initiator is a learner of its own. With R replicas the paper's count is
/// (N-1) prepares + N R votes + N R reports; ours adds 1 begin, 1 prepare (the initiator is no
/// resource manager) and R reports to the initiator. After the outcome, N R `Applied` let the
/// replicas forget; the paper has no such messages.
#[test]
fn paxos_commit_takes_what_the_paper_says() {
    for f in 0..=3 {
        for n in 1..=32 {
            let counted = count(f as u32, n as usize, By::Relay);
            println!("{counted:?}");
            let formula = |acceptors: u64| (n - 1) + 2 * n * acceptors;
            assert_eq!(formula(f + 1), n * (2 * f + 3) - 1, "the paper's own sum");
            let replicas = 2 * f + 1;
            assert_eq!(counted.messages(), formula(replicas) + 1 + 1 + replicas);
            assert_eq!((counted.begin, counted.prepare), (1, n));
            assert_eq!(counted.vote, n * replicas);
            assert_eq!(counted.report, (n + 1) * replicas);
            assert_eq!(counted.applied, n * replicas);
            assert_eq!(counted.other, 0);
            assert_eq!((counted.delays, counted.writes_in_sequence), (4, 2));
            assert_eq!(counted.writes, n + replicas);
        }
    }
}

/// Without a relay the branches prepare as the last step of their own work: one delay less, and
/// neither a begin nor a prepare.
#[test]
fn prepared_by_themselves_takes_one_delay_less() {
    for f in 0..=3 {
        for n in 1..=32 {
            let counted = count(f as u32, n as usize, By::Itself);
            println!("{counted:?}");
            let replicas = 2 * f + 1;
            assert_eq!((counted.delays, counted.writes_in_sequence), (3, 2));
            assert_eq!((counted.begin, counted.prepare), (0, 0));
            assert_eq!(counted.messages(), 2 * n * replicas + replicas);
            assert_eq!(counted.writes, n + replicas);
        }
    }
}

/// One initiator, two branches each, generations of so many transactions, without faults.
fn turning(transactions: usize, generation: u64, stuck: usize) -> Stats {
    let plan = Plan {
        generation_transactions_max: generation,
        grace_ticks: 0,
        stuck,
        // About 1,600 transactions per second of virtual time.
        think_max: 20_000,
        ..Plan::fair(1, 2, transactions)
    };
    let options = Options::default();
    run_plan(0, fastrand::Rng::with_seed(0), plan, options).expect("it passes")
}

/// What is on disk levels off: from the third generation on it is what two generations hold. What
/// is in memory does not depend on that: it is what is under way.
#[test]
fn memory_and_records_level_off() {
    let stats = turning(40_000, 4_000, 0);
    println!("{:#?}", stats.memory);
    assert!(stats.memory.len() >= 8, "about ten generations were opened");
    for at in &stats.memory {
        let two_generations = 2 * 4_000 + 400;
        assert!(at.transactions < 400, "{at:?}");
        assert!(at.records < two_generations, "{at:?}");
        assert!(at.branches < 400, "{at:?}");
    }
}

/// What a settlement of `finished` and 100 unfinished transactions takes: all messages about it.
fn messages_to_settle(finished: u64) -> u64 {
    let generation = finished + 100;
    // The third generation closes the first, and the load goes on for a while.
    let stats = turning(5 * generation as usize / 2, generation, 100);
    let listed = stats.sometimes.get(&Sometimes::SettleLists).copied();
    assert_eq!(listed, Some(3), "each replica learned one list");
    let of = |name| stats.messages_of(name);
    of("Freeze") + of("Frozen") + of("Collect") + of("Collected")
}

#[test]
fn settling_takes_no_more_messages_for_more_finished_transactions() {
    let few = messages_to_settle(1_000);
    let many = messages_to_settle(100_000);
    assert_eq!(few, many);
    assert_eq!(few, 4 * 3, "two questions to each replica, two answers");
}

/// No commit waits for a settlement: the mean latency is the same, and the longest is longer by one
/// save at most, which all saves can be behind.
#[test]
fn no_commit_waits_for_a_settlement() {
    let (still, moving) = (turning(20_000, u64::MAX, 0), turning(20_000, 4_000, 100));
    let mean = |stats: &Stats| stats.latency_us as f64 / stats.outcomes as f64;
    let (still_max, moving_max) = (still.latency_max_us, moving.latency_max_us);
    println!(
        "{} {} {still_max} {moving_max}",
        mean(&still),
        mean(&moving)
    );
    assert!(moving.sometimes.contains_key(&Sometimes::GenerationSettled));
    assert!((mean(&moving) / mean(&still) - 1.0).abs() < 0.01);
    assert!(moving_max <= still_max + Plan::fair(1, 2, 1).save_max);
}
