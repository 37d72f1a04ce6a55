//! P2, P2a, P2b and P2c under seeded-random schedules: messages lost, doubled and overtaking each
//! other, acceptors and proposers that crash and come back from their disks. The invariants are
//! checked after every step. The tests at the end plant bugs, and see each of them caught.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use paxos_commit::protocol::paxos::{
    Acceptor, Acceptors, Ballot, Choice, Learner, Nack, Proposer, ReplicaId, Tally,
};

use super::history::{History, Violation};
use super::node::{Memory, Message, Record, Value, answer, restarted};

/// The bugs that can be planted. `None` is the code as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// A restarted acceptor has forgotten its promises.
    AcceptorForgetsPromises,
    /// A restarted acceptor has forgotten what it accepted.
    AcceptorForgetsAccepted,
    /// Answers leave before what they tell is on disk.
    AcceptorAnswersBeforeSaving,
    /// A restarted proposer has forgotten which numbers it used.
    ProposerForgetsNumbers,
    /// All proposers draw their numbers from one set.
    ProposersShareNumbers,
    /// A proposer takes its own value whatever the promises report.
    ProposerTakesItsOwn,
    /// A proposer takes the value that was reported first, not the highest-numbered one.
    ProposerTakesTheFirst,
    /// A learner counts acceptors of one value across ballots.
    LearnerCountsAcrossBallots,
}

const STEPS: usize = 400;
const PROPOSERS: u32 = 3;
/// Ballots per proposer: few enough that they meet, and enough to confirm what was chosen.
const ROUNDS_MAX: u64 = 4;

/// An acceptor whose writes take time. What it answers waits for them.
struct Node {
    id: ReplicaId,
    acceptor: Acceptor<Value>,
    saved: Vec<Record>,
    unsaved: Vec<Record>,
    held: Vec<(ReplicaId, Message)>,
}

/// A proposer and learner. Its round is on disk; the proposer itself is lost in a crash.
struct Seat {
    id: ReplicaId,
    round: u64,
    running: Option<Proposer<Value>>,
    first_report: Option<Value>,
    learner: Learner<Value>,
    miscount: BTreeMap<Value, Tally>,
}

/// How often things happen, in percent. Every run draws its own: some are stormy, some are calm.
#[derive(Clone, Copy)]
struct Odds {
    ballot: u32,
    restart: u32,
    lose: u32,
    double: u32,
}

struct World {
    random: Rng,
    odds: Odds,
    bug: Bug,
    acceptors: Acceptors,
    nodes: Vec<Node>,
    seats: Vec<Seat>,
    /// What is under way: from, to, message. Delivered in any order, perhaps twice or never.
    network: Vec<(ReplicaId, ReplicaId, Message)>,
    next_value: Value,
    history: History,
    violations: BTreeSet<Violation>,
}

impl World {
    fn new(seed: u64, replicas: u32, bug: Bug) -> Self {
        let acceptors = Acceptors::new((1..=replicas).map(ReplicaId)).expect("an odd number");
        let node = |id| Node {
            id,
            acceptor: Acceptor::default(),
            saved: Vec::new(),
            unsaved: Vec::new(),
            held: Vec::new(),
        };
        let seat = |id| Seat {
            id: ReplicaId(id),
            round: 0,
            running: None,
            first_report: None,
            learner: Learner::default(),
            miscount: BTreeMap::new(),
        };
        let mut random = Rng::with_seed(seed);
        World {
            odds: Odds {
                ballot: random.u32(1..=10),
                restart: random.u32(1..=10),
                lose: random.u32(0..=20),
                double: random.u32(0..=20),
            },
            random,
            bug,
            nodes: acceptors.iter().map(node).collect(),
            seats: (1..=PROPOSERS).map(seat).collect(),
            network: Vec::new(),
            next_value: 1,
            history: History::new(acceptors.clone()),
            violations: BTreeSet::new(),
            acceptors,
        }
    }

    fn run(mut self) -> Self {
        // Ballot 0 needs no phase 1. It belongs to nobody else, so it is issued once.
        if self.random.bool() {
            self.issue(ReplicaId(1), Ballot::ZERO, 0);
        }
        for _ in 0..STEPS {
            self.step();
            self.violations.extend(self.history.news());
        }
        self
    }

    fn step(&mut self) {
        let seat = self.random.usize(..self.seats.len());
        let node = self.random.usize(..self.nodes.len());
        let odds = self.odds;
        match self.random.u32(..100) {
            draw if draw < odds.ballot => self.start_ballot(seat),
            draw if draw < odds.ballot + odds.restart => self.restart_acceptor(node),
            0..70 => self.deliver(),
            70..99 => self.save(node),
            _ => self.restart_proposer(seat),
        }
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let index = self.random.usize(..self.network.len());
        let (from, to, message) = self.network[index];
        let fate = self.random.u32(..100);
        if fate >= self.odds.double {
            self.network.swap_remove(index);
        }
        if fate >= 100 - self.odds.lose {
            return;
        }
        match message {
            Message::Prepare(_) | Message::Accept(..) => self.on_request(from, to, message),
            Message::Promise(ballot, accepted) => self.on_promise(from, to, ballot, accepted),
            Message::Accepted(ballot, value) => self.on_accepted(from, to, ballot, value),
            Message::Nack { promised } => {
                let seat = self.seat(to);
                let running = seat.running.as_mut();
                if running.is_some_and(|proposer| proposer.on_nack(Nack { promised })) {
                    seat.running = None;
                }
            }
        }
    }

    fn on_request(&mut self, from: ReplicaId, to: ReplicaId, request: Message) {
        let node = self.nodes.iter_mut().find(|node| node.id == to);
        let node = node.expect("a request goes to an acceptor");
        let Some((record, answer)) = answer(&mut node.acceptor, request) else {
            return;
        };
        node.unsaved.extend(record);
        match answer {
            // All proposers are learners, and all are told.
            Message::Accepted(..) => {
                let learners = (1..=PROPOSERS).map(ReplicaId);
                node.held.extend(learners.map(|learner| (learner, answer)));
            }
            Message::Prepare(_)
            | Message::Promise(..)
            | Message::Accept(..)
            | Message::Nack { .. } => node.held.push((from, answer)),
        }
        if self.bug == Bug::AcceptorAnswersBeforeSaving {
            self.release(to);
        }
    }

    /// The disk of an acceptor catches up. What waited for it leaves.
    fn save(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.saved.append(&mut node.unsaved);
        let id = node.id;
        self.release(id);
    }

    /// Sends what an acceptor held back. Only now has it accepted anything, seen from outside.
    fn release(&mut self, from: ReplicaId) {
        let node = self.nodes.iter_mut().find(|node| node.id == from);
        let node = node.expect("an acceptor");
        for (to, answer) in node.held.drain(..) {
            if let Message::Accepted(ballot, value) = answer {
                self.history.accept(from, ballot, value);
            }
            self.network.push((from, to, answer));
        }
    }

    fn restart_acceptor(&mut self, index: usize) {
        let memory = match self.bug {
            Bug::AcceptorForgetsPromises => Memory::NoPromises,
            Bug::AcceptorForgetsAccepted => Memory::NoAccepted,
            _ => Memory::Everything,
        };
        let node = &mut self.nodes[index];
        node.unsaved.clear();
        node.held.clear();
        let mut records = node.saved.clone();
        self.random.shuffle(&mut records);
        node.acceptor = restarted(&records, memory);
    }

    /// Abandons whatever this proposer was doing, and begins anew with a higher number.
    fn start_ballot(&mut self, index: usize) {
        let shared = self.bug == Bug::ProposersShareNumbers;
        let seat = &mut self.seats[index];
        if seat.round == ROUNDS_MAX {
            return;
        }
        let replica = if shared { ReplicaId(1) } else { seat.id };
        let ballot = Ballot::above(seat.round, replica).expect("far from the last round");
        seat.round = ballot.round;
        seat.running = Some(Proposer::new(ballot, self.acceptors.clone()));
        seat.first_report = None;
        let id = seat.id;
        self.send_to_all(id, Message::Prepare(ballot));
    }

    fn restart_proposer(&mut self, index: usize) {
        let seat = &mut self.seats[index];
        seat.running = None;
        if self.bug == Bug::ProposerForgetsNumbers {
            seat.round = 0;
        }
    }

    fn on_promise(
        &mut self,
        from: ReplicaId,
        to: ReplicaId,
        ballot: Ballot,
        accepted: Option<(Ballot, Value)>,
    ) {
        let own = self.next_value;
        let bug = self.bug;
        let seat = self.seat(to);
        let Some(proposer) = &mut seat.running else {
            return;
        };
        if ballot == proposer.ballot() {
            seat.first_report = seat.first_report.or(accepted.map(|(_, value)| value));
        }
        let Some(choice) = proposer.on_promise(from, ballot, accepted) else {
            return;
        };
        let value = match (bug, choice) {
            (Bug::ProposerTakesItsOwn, _) | (_, Choice::Free) => own,
            (Bug::ProposerTakesTheFirst, Choice::Bound(bound)) => {
                seat.first_report.unwrap_or(bound)
            }
            (_, Choice::Bound(bound)) => bound,
        };
        // The real proposer panics when it is asked to propose against its promises.
        if !matches!(bug, Bug::ProposerTakesItsOwn | Bug::ProposerTakesTheFirst) {
            proposer.propose(value);
        }
        self.next_value += 1;
        self.issue(to, ballot, value);
    }

    fn issue(&mut self, from: ReplicaId, ballot: Ballot, value: Value) {
        self.history.issue(ballot, value);
        self.send_to_all(from, Message::Accept(ballot, value));
    }

    fn on_accepted(&mut self, from: ReplicaId, to: ReplicaId, ballot: Ballot, value: Value) {
        let acceptors = self.acceptors.clone();
        let seat = self.seat(to);
        let mut learned = seat
            .learner
            .on_accepted(&acceptors, from, ballot, value)
            .copied();
        let tally = seat.miscount.entry(value).or_default();
        tally.add(&acceptors, from);
        let miscounted = tally.is_majority(&acceptors).then_some(value);
        if self.bug == Bug::LearnerCountsAcrossBallots {
            learned = miscounted;
        }
        if let Some(value) = learned {
            self.history.learn(value);
        }
    }

    fn send_to_all(&mut self, from: ReplicaId, request: Message) {
        let to_all = self.acceptors.iter().map(|to| (from, to, request));
        self.network.extend(to_all);
    }

    fn seat(&mut self, id: ReplicaId) -> &mut Seat {
        let seat = self.seats.iter_mut().find(|seat| seat.id == id);
        seat.expect("an answer goes to a proposer")
    }
}

/// Paxos Made Simple, section 2.2: P2, P2a, P2b and P2c; section 2.3: a learner learns nothing that
/// is not chosen.
fn hold_in_every_schedule(replicas: u32) {
    const SEEDS: u64 = 4_000;
    let (mut chosen, mut confirmed) = (0, 0);
    for seed in 0..SEEDS {
        let world = World::new(seed, replicas, Bug::None).run();
        assert_eq!(
            world.violations,
            BTreeSet::new(),
            "seed {seed}: {:?}",
            world.history
        );
        let ballots = world.history.chosen().len();
        chosen += u64::from(ballots > 0);
        confirmed += u64::from(ballots > 1);
    }
    // Schedules in which nothing is chosen, or nothing is proposed thereafter, prove little.
    assert!(
        chosen * 4 > SEEDS * 3,
        "{chosen} of {SEEDS} schedules chose"
    );
    assert!(
        confirmed * 3 > SEEDS,
        "{confirmed} of {SEEDS} schedules chose again, higher"
    );
}

#[test]
fn p2_to_p2c_hold_in_every_schedule_of_3_acceptors() {
    hold_in_every_schedule(3);
}

#[test]
fn p2_to_p2c_hold_in_every_schedule_of_5_acceptors() {
    hold_in_every_schedule(5);
}

/// A checker that cannot fail proves nothing: each of these is found, down to two values chosen.
#[test]
fn the_checker_finds_every_planted_bug() {
    let planted = [
        (Bug::AcceptorForgetsPromises, Violation::P2),
        (Bug::AcceptorForgetsAccepted, Violation::P2),
        (Bug::AcceptorAnswersBeforeSaving, Violation::P2),
        (Bug::ProposerForgetsNumbers, Violation::NumberUsedTwice),
        // (It gets no further: our proposer gives a ballot up when it sees that it was used.)
        (Bug::ProposersShareNumbers, Violation::NumberUsedTwice),
        (Bug::ProposersShareNumbers, Violation::P2),
        (Bug::ProposerTakesItsOwn, Violation::P2),
        (Bug::ProposerTakesTheFirst, Violation::P2),
        (
            Bug::LearnerCountsAcrossBallots,
            Violation::LearnedWhatIsNotChosen,
        ),
    ];
    for (bug, expected) in planted {
        for replicas in [3, 5] {
            let finds = |seed: u64| {
                let world = World::new(seed, replicas, bug).run();
                world.violations.contains(&expected)
            };
            let found = (0..20_000).any(finds);
            assert!(found, "{bug:?} among {replicas} never led to {expected:?}");
        }
    }
}
