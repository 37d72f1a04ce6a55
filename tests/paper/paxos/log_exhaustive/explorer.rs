//! The search: every state of three hosts and a network that is a set, nearest first; and the
//! observer who judges it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use paxos_commit::protocol::paxos::log::{LogEntry, LogMessage, To};
use paxos_commit::protocol::paxos::{Acceptors, Ballot};

use super::bits::Bits;
use super::host::{Bug, Entry, Fact, Host, Message, SLOTS, Scope};

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Violation {
    TwoEntriesChosen,
    LearnedWhatIsNotChosen,
}

/// An entry chosen: accepted by a majority of those who decide its slot, at one ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chosen {
    pub(super) slot: u64,
    pub(super) ballot: Ballot,
    /// The replica whose wish it was.
    pub(super) of: u32,
    /// Whether the ballot had a phase 1 in this very slot.
    pub(super) prepared: bool,
}

/// What all schedules together lead to.
#[derive(Debug)]
pub(super) struct Explored {
    /// Whether it came to an end by itself.
    pub(super) complete: bool,
    pub(super) states: usize,
    pub(super) violations: BTreeSet<Violation>,
    pub(super) chosen: BTreeSet<Chosen>,
}

const REPLICAS: usize = 3;
const STATES_MAX: usize = 2_000_000;

/// A message under way: from whom, to whom if not to all, and what.
type Letter = (u32, Option<u32>, Message);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    /// By their number in [`Explorer::hosts`].
    hosts: [u32; REPLICAS],
    /// Which of [`Explorer::letters`] were sent, and may still be news to somebody.
    sent: Bits,
    /// Which of [`Explorer::facts`] the observer knows, of slots that are still being decided.
    facts: Bits,
}

impl State {
    fn with(mut self, at: usize, (becomes, sends): Step) -> State {
        self.hosts[at] = becomes;
        self.sent = self.sent | sends;
        self
    }
}

/// Which host a host becomes, and what it sends.
type Step = (u32, Bits);

/// A hash of a few words, as fast as the search needs it.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let mixed = self.0.rotate_left(29) ^ u64::from_le_bytes(word);
            self.0 = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }
}

/// A host, and what the search has found out about it.
struct Known {
    host: Host,
    /// The facts that it vouches for.
    facts: Bits,
    /// What it does with each letter.
    steps: Vec<Option<Step>>,
    /// The letters that it has been asked about, and those that will never matter to it.
    asked: Bits,
    deaf_to: Bits,
}

struct Explorer {
    scope: Scope,
    bug: Bug,
    hosts: Vec<Known>,
    numbers: HashMap<Host, u32>,
    facts: Vec<Fact>,
    /// The facts of each slot that something was prepared or accepted.
    undecided: [Bits; SLOTS as usize],
    letters: Vec<Letter>,
    /// The letters to each replica alone, and those to all.
    to_one: [Bits; REPLICAS],
    to_all: Bits,
}

/// The position of `one` among `all`, to which it is added if need be.
fn position<T: PartialEq>(all: &mut Vec<T>, one: T) -> usize {
    let known = all.iter().position(|held| *held == one);
    known.unwrap_or_else(|| {
        all.push(one);
        all.len() - 1
    })
}

impl Explorer {
    fn new(scope: Scope, bug: Bug) -> Self {
        Explorer {
            scope,
            bug,
            hosts: Vec::new(),
            numbers: HashMap::new(),
            facts: Vec::new(),
            undecided: Default::default(),
            letters: Vec::new(),
            to_one: Default::default(),
            to_all: Bits::default(),
        }
    }

    fn first(&mut self) -> State {
        let scope = self.scope;
        let hosts = [1, 2, 3].map(|me| self.number(Host::new(me, &scope)));
        State {
            hosts,
            sent: Bits::default(),
            facts: Bits::default(),
        }
    }

    fn number(&mut self, host: Host) -> u32 {
        if let Some(number) = self.numbers.get(&host) {
            return *number;
        }
        let mut facts = Bits::default();
        for fact in host.facts() {
            let undecided_in = match &fact {
                Fact::Accepted { slot, .. } | Fact::Prepared { slot, .. } => Some(*slot as usize),
                Fact::Learned { .. } => None,
            };
            let bit = Bits::one(position(&mut self.facts, fact));
            facts = facts | bit;
            if let Some(slot) = undecided_in {
                self.undecided[slot] = self.undecided[slot] | bit;
            }
        }
        let number = self.hosts.len() as u32;
        self.hosts.push(Known {
            host: host.clone(),
            facts,
            steps: Vec::new(),
            asked: Bits::default(),
            deaf_to: Bits::default(),
        });
        self.numbers.insert(host, number);
        number
    }

    fn send(&mut self, from: u32, sends: Vec<(To, Message)>) -> Bits {
        let mut all = Bits::default();
        for (to, message) in sends {
            // What comes after the last slot is of no interest.
            if message.slot() >= SLOTS || (is_hint(&message) && !self.scope.hints) {
                continue;
            }
            let to = match to {
                To::All => None,
                To::One(to) => Some(to.0),
            };
            let bit = Bits::one(position(&mut self.letters, (from, to, message)));
            let readers = match to {
                None => &mut self.to_all,
                Some(to) => &mut self.to_one[to as usize - 1],
            };
            *readers = *readers | bit;
            all = all | bit;
        }
        all
    }

    /// Collects the states that can follow, this one perhaps among them.
    fn next(&mut self, state: &State, next: &mut Vec<State>) {
        for at in 0..REPLICAS {
            let number = state.hosts[at];
            for letter in (state.sent & (self.to_all | self.to_one[at])).iter() {
                next.push(state.with(at, self.step(number, letter)));
            }
            next.extend(self.tick(state, at));
            if self.scope.restarts[at] {
                next.push(self.restart(state, at));
            }
        }
    }

    /// What a host does with a letter.
    fn step(&mut self, number: u32, letter: usize) -> Step {
        let known = &self.hosts[number as usize];
        if let Some(Some(step)) = known.steps.get(letter) {
            return *step;
        }
        let (from, _, message) = self.letters[letter].clone();
        let mut host = known.host.clone();
        let me = host.me();
        let sends = host.on_message(&self.scope, self.bug, from, message);
        let step = (self.number(host), self.send(me, sends));
        let steps = &mut self.hosts[number as usize].steps;
        steps.resize(steps.len().max(letter + 1), None);
        steps[letter] = Some(step);
        step
    }

    fn tick(&mut self, state: &State, at: usize) -> Option<State> {
        let mut host = self.hosts[state.hosts[at] as usize].host.clone();
        let sends = host.on_tick(&self.scope)?;
        let sends = self.send(host.me(), sends);
        Some(state.with(at, (self.number(host), sends)))
    }

    fn restart(&mut self, state: &State, at: usize) -> State {
        let known = &self.hosts[state.hosts[at] as usize];
        let host = known.host.restarted(&self.scope, self.bug);
        let becomes = self.number(host);
        state.with(at, (becomes, Bits::default()))
    }

    /// Adds what the hosts vouch for.
    fn observe(&self, state: &mut State) {
        for number in state.hosts {
            state.facts = state.facts | self.hosts[number as usize].facts;
        }
    }

    /// Whether everybody has learned `slot`.
    fn is_known(&self, state: &State, slot: u64) -> bool {
        let mut hosts = state.hosts.iter();
        hosts.all(|number| self.hosts[*number as usize].host.slot() > slot)
    }

    fn known_slots(&self, state: &State) -> usize {
        let known = (0..SLOTS).filter(|slot| self.is_known(state, *slot));
        known.count()
    }

    /// Takes away what changes nothing any more: letters that matter to nobody, and what was
    /// accepted in slots that everybody knows.
    fn tidy(&mut self, state: &mut State) {
        let mut deaf_all = self.to_all;
        for at in 0..REPLICAS {
            let deaf = self.deaf_to(
                state.hosts[at],
                state.sent & (self.to_all | self.to_one[at]),
            );
            state.sent = state.sent & !(deaf & self.to_one[at]);
            deaf_all = deaf_all & deaf;
        }
        state.sent = state.sent & !deaf_all;
        for (slot, undecided) in (0..).zip(self.undecided) {
            if self.is_known(state, slot) {
                state.facts = state.facts & !undecided;
            }
        }
    }

    /// Which of `letters` do nothing to a host, nor to the one that it is after a restart. They never
    /// will: a promise only rises, a ballot that was left is never used again, an answer counts
    /// once. But a slot that the host has not come to may come, and a follower may become one that
    /// a sign of life is news to.
    fn deaf_to(&mut self, number: u32, letters: Bits) -> Bits {
        let known = &self.hosts[number as usize];
        let slot = known.host.slot();
        let unasked = letters & !known.asked;
        if !unasked.is_empty() {
            let restarted = known.host.restarted(&self.scope, self.bug);
            let lives = [number, self.number(restarted)];
            for letter in unasked.iter() {
                let message = &self.letters[letter].2;
                let matters = message.slot() > slot
                    || message.slot() == slot && matches!(message, LogMessage::Lead { .. });
                let mut steps = lives
                    .map(|life| self.step(life, letter))
                    .into_iter()
                    .zip(lives);
                let is_deaf = !matters && steps.all(|(step, life)| step == (life, Bits::default()));
                let bit = Bits::one(letter);
                let known = &mut self.hosts[number as usize];
                known.asked = known.asked | bit;
                if is_deaf {
                    known.deaf_to = known.deaf_to | bit;
                }
            }
        }
        self.hosts[number as usize].deaf_to
    }

    /// The entries chosen, and what is wrong with them.
    fn judge(&self, state: &State) -> (Vec<Chosen>, BTreeSet<Violation>) {
        let facts: Vec<&Fact> = state.facts.iter().map(|place| &self.facts[place]).collect();
        let mut acceptors = self.scope.first_acceptors();
        let (mut all, mut violations) = (Vec::new(), BTreeSet::new());
        for slot in 0..SLOTS {
            let chosen = chosen_by(&acceptors, slot, &facts);
            let entries: BTreeSet<&Entry> = chosen.iter().map(|(_, entry)| *entry).collect();
            if entries.len() > 1 {
                violations.insert(Violation::TwoEntriesChosen);
            }
            let learned = facts.iter().filter_map(|fact| match fact {
                Fact::Learned { slot: at, entry } if *at == slot => Some(entry),
                Fact::Learned { .. } | Fact::Prepared { .. } | Fact::Accepted { .. } => None,
            });
            let learned: BTreeSet<&Entry> = learned.collect();
            let mut accepted = facts
                .iter()
                .filter(|fact| matches!(fact, Fact::Accepted { slot: at, .. } if *at == slot));
            if self.is_known(state, slot) && accepted.next().is_none() {
                // It was judged when the last one learned it.
                let Some(entry) = learned.first() else {
                    break;
                };
                acceptors = entry.acceptors().unwrap_or(&acceptors).clone();
                continue;
            }
            if !learned.is_subset(&entries) {
                violations.insert(Violation::LearnedWhatIsNotChosen);
            }
            all.extend(chosen.iter().map(|(ballot, entry)| Chosen {
                slot,
                ballot: *ballot,
                of: entry.of,
                prepared: facts.contains(&&Fact::Prepared {
                    slot,
                    ballot: *ballot,
                }),
            }));
            let Some(entry) = entries.first() else {
                break;
            };
            acceptors = entry.acceptors().unwrap_or(&acceptors).clone();
        }
        (all, violations)
    }
}

/// Whether it only makes others give up, or not give up.
fn is_hint(message: &Message) -> bool {
    match message {
        LogMessage::Nack { .. } | LogMessage::Lead { .. } | LogMessage::Following { .. } => true,
        LogMessage::Prepare { .. }
        | LogMessage::Promise { .. }
        | LogMessage::Accept { .. }
        | LogMessage::Accepted { .. }
        | LogMessage::Chosen { .. } => false,
    }
}

/// What a majority of `acceptors` accepted in `slot`, with the ballots at which it did.
fn chosen_by<'f>(acceptors: &Acceptors, slot: u64, facts: &[&'f Fact]) -> Vec<(Ballot, &'f Entry)> {
    let mut by: BTreeMap<(Ballot, &Entry), usize> = BTreeMap::new();
    for fact in facts {
        if let Fact::Accepted {
            by: replica,
            slot: at,
            ballot,
            entry,
        } = fact
            && *at == slot
            && acceptors.iter().any(|one| one.0 == *replica)
        {
            *by.entry((*ballot, entry)).or_default() += 1;
        }
    }
    let chosen = by.into_iter().filter(|(_, n)| *n >= acceptors.majority());
    chosen.map(|(proposal, _)| proposal).collect()
}

/// Visits every state that can be reached, nearest first. Stops at one that violates something.
pub(super) fn explore(scope: Scope, bug: Bug) -> Explored {
    let mut explorer = Explorer::new(scope, bug);
    let mut violations = BTreeSet::new();
    let mut chosen = BTreeSet::new();
    let first = explorer.first();
    let mut seen: HashSet<State, BuildHasherDefault<Quick>> = HashSet::default();
    seen.insert(first);
    let mut histories = HashSet::new();
    let mut open = VecDeque::from([first]);
    let mut next = Vec::new();
    while seen.len() <= STATES_MAX
        && violations.is_empty()
        && let Some(state) = open.pop_front()
    {
        explorer.next(&state, &mut next);
        for mut next in next.drain(..).filter(|next| *next != state) {
            explorer.observe(&mut next);
            if histories.insert((next.facts, explorer.known_slots(&next))) {
                let (entries, violated) = explorer.judge(&next);
                chosen.extend(entries);
                violations.extend(violated);
            }
            if explorer.scope.tidy {
                explorer.tidy(&mut next);
            }
            if seen.insert(next) {
                open.push_back(next);
            }
        }
    }
    Explored {
        complete: open.is_empty(),
        states: seen.len(),
        violations,
        chosen,
    }
}
