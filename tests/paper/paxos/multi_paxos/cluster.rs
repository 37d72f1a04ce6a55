//! A small cluster of real logs, in which nothing is left to chance: clocks tick, messages take some
//! time, links are cut. Every message between two replicas is counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;

use fastrand::Rng;
use paxos_commit::protocol::paxos::log::{Log, LogConfig, LogEffects, LogEntry, LogMessage, To};
use paxos_commit::protocol::paxos::{Acceptors, ReplicaId};

/// A command of some state machine, or other replicas for what comes after it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    Add(u32),
    Replicas(Acceptors),
}

impl LogEntry for Command {
    fn acceptors(&self) -> Option<&Acceptors> {
        match self {
            Command::Add(_) => None,
            Command::Replicas(acceptors) => Some(acceptors),
        }
    }
}

type Message = LogMessage<Command>;

/// What travels: the log's messages, and what its caller adds for those that are behind.
#[derive(Clone, Debug)]
enum Letter {
    Log(Message),
    Fetch,
    State(Vec<Command>),
}

struct Replica {
    log: Log<Command>,
    /// What it has learned: one entry per slot.
    learned: Vec<Command>,
    /// What it is to propose when it can.
    wishes: VecDeque<Command>,
}

/// Replicas with clocks of their own, and a network that takes some time for each message.
pub(super) struct Cluster {
    first: Acceptors,
    replicas: BTreeMap<u32, Replica>,
    /// What is under way, by when it arrives.
    network: BTreeMap<(u32, usize), (u32, u32, Letter)>,
    posted: usize,
    pub(super) now: u32,
    /// How long a message takes, drawn for each.
    pub(super) delay: RangeInclusive<u32>,
    random: Rng,
    /// How much time passes between two ticks of a replica, and when its first one comes. Until
    /// then it is not there.
    pub(super) clocks: BTreeMap<u32, (u32, u32)>,
    /// From whom nothing reaches whom.
    pub(super) cut: BTreeSet<(u32, u32)>,
    /// Messages between two replicas, by their kind.
    pub(super) sent: BTreeMap<&'static str, u32>,
    /// Who began to lead, and when.
    pub(super) leaders: Vec<(u32, u32)>,
    /// When each slot was first known to be chosen.
    pub(super) chosen_at: Vec<u32>,
}

/// No test takes as long.
const TIME_MAX: u32 = 100_000;

pub(super) fn acceptors(ids: &[u32]) -> Acceptors {
    Acceptors::new(ids.iter().copied().map(ReplicaId)).expect("an odd number")
}

fn kind(letter: &Letter) -> &'static str {
    match letter {
        Letter::Fetch => "fetch",
        Letter::State(_) => "state",
        Letter::Log(message) => match message {
            LogMessage::Prepare { .. } => "prepare",
            LogMessage::Promise { .. } => "promise",
            LogMessage::Accept { .. } => "accept",
            LogMessage::Accepted { .. } => "accepted",
            LogMessage::Nack { .. } => "nack",
            LogMessage::Chosen { .. } => "chosen",
            LogMessage::Lead { .. } => "lead",
            LogMessage::Following { .. } => "following",
        },
    }
}

impl Cluster {
    /// Replicas 1 to `n`, of which `first` are the first acceptors.
    pub(super) fn new(n: u32, first: &[u32]) -> Self {
        Cluster::configured(n, first, LogConfig::default())
    }

    pub(super) fn configured(n: u32, first: &[u32], config: LogConfig) -> Self {
        let first = acceptors(first);
        let replica = |id| Replica {
            log: Log::new(ReplicaId(id), config, 0, first.clone()),
            learned: Vec::new(),
            wishes: VecDeque::new(),
        };
        Cluster {
            replicas: (1..=n).map(|id| (id, replica(id))).collect(),
            first,
            network: BTreeMap::new(),
            posted: 0,
            now: 0,
            delay: 1..=1,
            random: Rng::with_seed(0),
            clocks: (1..=n).map(|id| (id, (1, 1))).collect(),
            cut: BTreeSet::new(),
            sent: BTreeMap::new(),
            leaders: Vec::new(),
            chosen_at: Vec::new(),
        }
    }

    pub(super) fn reseed(&mut self, seed: u64) {
        self.random = Rng::with_seed(seed);
    }

    /// Replicas 1, 2 and 3, of which 1 leads and has nothing to do.
    pub(super) fn led_by_1() -> Self {
        let mut cluster = Cluster::new(3, &[1, 2, 3]);
        cluster.until(|cluster| cluster.is_free(1));
        cluster.run(2);
        cluster.sent.clear();
        cluster
    }

    pub(super) fn log(&self, id: u32) -> &Log<Command> {
        &self.replicas[&id].log
    }

    pub(super) fn is_free(&self, id: u32) -> bool {
        self.log(id).is_free()
    }

    pub(super) fn learned(&self, id: u32) -> &[Command] {
        &self.replicas[&id].learned
    }

    fn ids(&self) -> Vec<u32> {
        self.replicas.keys().copied().collect()
    }

    pub(super) fn count(&self, kind: &str) -> u32 {
        self.sent.get(kind).copied().unwrap_or(0)
    }

    /// Cuts the links that start in `from` and end in `to`.
    pub(super) fn cut(&mut self, from: &[u32], to: &[u32]) {
        let pairs = from
            .iter()
            .flat_map(|from| to.iter().map(|to| (*from, *to)));
        self.cut.extend(pairs.filter(|(from, to)| from != to));
    }

    /// Cuts all links of `id`.
    pub(super) fn isolate(&mut self, id: u32) {
        let all = self.ids();
        self.cut(&[id], &all);
        self.cut(&all, &[id]);
    }

    /// Who leads, if all say so whom `of` names.
    pub(super) fn leader(&self, of: &[u32]) -> Option<u32> {
        let says: BTreeSet<_> = of.iter().map(|id| self.log(*id).leader()).collect();
        match says.len() {
            1 => says.into_iter().next().flatten().map(|leader| leader.0),
            _ => None,
        }
    }

    pub(super) fn wish(&mut self, id: u32, command: Command) {
        self.replica(id).wishes.push_back(command);
        self.settle(id, LogEffects::default());
    }

    fn is_up(&self, id: u32) -> bool {
        self.clocks[&id].1 <= self.now
    }

    fn replica(&mut self, id: u32) -> &mut Replica {
        self.replicas.get_mut(&id).expect("a replica")
    }

    /// A moment: the clocks that tick, and then every message that is due.
    fn tick(&mut self) {
        self.now += 1;
        for id in self.ids() {
            let (period, first) = self.clocks[&id];
            if self.is_up(id) && (self.now - first).is_multiple_of(period) {
                self.step(id, |log, out| log.on_tick(out));
            }
        }
        while let Some(entry) = self.network.first_entry()
            && entry.key().0 <= self.now
        {
            let (from, to, letter) = entry.remove();
            if self.is_up(to) {
                self.deliver(from, to, letter);
            }
        }
    }

    pub(super) fn run(&mut self, ticks: u32) {
        (0..ticks).for_each(|_| self.tick());
    }

    /// Lets time pass until `done`; answers with how long it took.
    pub(super) fn until(&mut self, done: impl Fn(&Cluster) -> bool) -> u32 {
        let start = self.now;
        while !done(self) {
            assert!(self.now - start < TIME_MAX, "it never comes to that");
            self.tick();
        }
        self.now - start
    }

    fn step(&mut self, id: u32, step: impl FnOnce(&mut Log<Command>, &mut LogEffects<Command>)) {
        let mut out = LogEffects::default();
        let replica = self.replica(id);
        let led = replica.log.is_leading();
        step(&mut replica.log, &mut out);
        if !led && replica.log.is_leading() {
            let now = self.now;
            self.leaders.push((now, id));
        }
        self.settle(id, out);
    }

    /// Carries out `out`, and has `id` propose if it can.
    fn settle(&mut self, id: u32, mut out: LogEffects<Command>) {
        for (slot, command) in std::mem::take(&mut out.chosen) {
            self.learn(id, slot, command);
        }
        let replica = self.replica(id);
        // What it wished for may have been chosen by way of another.
        while let Some(wish) = replica.wishes.front()
            && replica.learned.contains(wish)
        {
            replica.wishes.pop_front();
        }
        if let Some(wish) = replica.wishes.front() {
            replica.log.propose(wish.clone(), &mut out);
        }
        let mut own = Vec::new();
        for (to, message) in out.send {
            let readers = match to {
                To::One(to) => vec![to.0],
                To::All => self.ids(),
            };
            for to in readers {
                if to == id {
                    own.push(message.clone());
                } else {
                    self.post(id, to, Letter::Log(message.clone()));
                }
            }
        }
        for behind in out.behind {
            let state = Letter::State(self.learned(id).to_vec());
            self.post(id, behind.0, state);
        }
        if let Some(ahead) = out.ahead {
            self.post(id, ahead.0, Letter::Fetch);
        }
        // What a replica says to itself takes no time.
        for message in own {
            self.deliver(id, id, Letter::Log(message));
        }
    }

    fn learn(&mut self, id: u32, slot: u64, command: Command) {
        let replica = self.replica(id);
        assert_eq!(slot, replica.learned.len() as u64, "slots come in order");
        replica.learned.push(command);
        if self.chosen_at.len() as u64 == slot {
            let now = self.now;
            self.chosen_at.push(now);
        }
        self.agree();
    }

    /// Nobody has learned anything else than anybody else.
    fn agree(&self) {
        let longest = self.replicas.values().map(|one| &one.learned);
        let longest = longest.max_by_key(|learned| learned.len());
        let longest = longest.expect("there are replicas");
        for replica in self.replicas.values() {
            assert_eq!(replica.learned, longest[..replica.learned.len()]);
        }
    }

    fn post(&mut self, from: u32, to: u32, letter: Letter) {
        if let Letter::Log(LogMessage::Accept { slot, .. }) = &letter {
            let known = self.learned(from).len() as u64;
            assert_eq!(*slot, known, "slots are never pipelined");
        }
        *self.sent.entry(kind(&letter)).or_default() += 1;
        if self.cut.contains(&(from, to)) {
            return;
        }
        self.posted += 1;
        let delay = self.random.u32(self.delay.clone());
        let place = (self.now + delay, self.posted);
        self.network.insert(place, (from, to, letter));
    }

    fn deliver(&mut self, from: u32, to: u32, letter: Letter) {
        match letter {
            Letter::Log(message) => self.step(to, |log, out| {
                let taken = log.on_message(ReplicaId(from), message, out);
                taken.expect("all replicas are correct");
            }),
            Letter::Fetch => {
                let state = Letter::State(self.learned(to).to_vec());
                self.post(to, from, state);
            }
            Letter::State(learned) => self.install(to, learned),
        }
    }

    fn install(&mut self, id: u32, learned: Vec<Command>) {
        let changes = learned.iter().rev().find_map(LogEntry::acceptors);
        let acceptors = changes.unwrap_or(&self.first).clone();
        let replica = self.replica(id);
        if learned.len() > replica.learned.len() {
            replica.log.install(learned.len() as u64, acceptors);
            replica.learned = learned;
        }
        self.agree();
    }
}
