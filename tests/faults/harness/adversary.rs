//! Who does the harm: draws from a menu what to do next, undoes it after a while, and counts.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use paxos_commit::cluster::Weather;
use tokio::time::{Instant, sleep};

use super::arena::Arena;
use super::audit::Audit;
use super::network::Trouble;
use super::process::Process;

/// The most things that are wrong at a time.
const AT_A_TIME: usize = 3;

/// The pause between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a replica says that was removed and may go.
const NOT_NEEDED: &str = "Nobody needs it any more";

/// One kind of harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Harm {
    KillReplica,
    KillLedger,
    KillInitiator,
    KillEverything,
    PauseReplica,
    PauseLedger,
    PauseInitiator,
    Loss,
    Reordering,
    Duplication,
    DelaySpike,
    OneWay,
    Unheard,
    Isolate,
    Halves,
    LedgerSeesSome,
    InitiatorSeesMinority,
    ChangeAddresses,
    ReplaceReplica,
    ReplaceLostDisk,
    AddTwoReplicas,
    RemoveTwoReplicas,
}

/// What takes processes away.
pub(crate) const PROCESSES: &[Harm] = &[
    Harm::KillReplica,
    Harm::KillReplica,
    Harm::KillLedger,
    Harm::KillLedger,
    Harm::KillInitiator,
    Harm::KillEverything,
    Harm::PauseReplica,
    Harm::PauseLedger,
    Harm::PauseInitiator,
];

/// What is wrong with networks.
pub(crate) const NETWORK: &[Harm] = &[
    Harm::Loss,
    Harm::Reordering,
    Harm::Duplication,
    Harm::DelaySpike,
    Harm::OneWay,
    Harm::Unheard,
    Harm::Isolate,
    Harm::Halves,
    Harm::LedgerSeesSome,
    Harm::InitiatorSeesMinority,
    Harm::ChangeAddresses,
];

/// How a harm is undone.
enum Undo {
    Start(String),
    StartAll,
    Resume(String),
    Trouble(Trouble),
}

/// Does harm for a while.
pub(crate) struct Adversary {
    rng: Rng,
    menu: Vec<Harm>,
    /// What was not done yet.
    first: Vec<Harm>,
    /// The pause between two harms, in milliseconds.
    pause_ms: Range<u64>,
    /// When the next harm is due.
    next: Instant,
    undo: Vec<(Instant, Undo)>,
    done: BTreeMap<Harm, u64>,
}

impl Adversary {
    pub(crate) fn new(mut rng: Rng, menu: &[Harm]) -> Adversary {
        let mut first = menu.to_vec();
        first.sort();
        first.dedup();
        rng.shuffle(&mut first);
        Adversary {
            rng,
            menu: menu.to_vec(),
            first,
            pause_ms: 0..300,
            next: Instant::now(),
            undo: Vec::new(),
            done: BTreeMap::new(),
        }
    }

    /// Leaves so much time between two harms.
    pub(crate) fn pausing(mut self, pause_ms: Range<u64>) -> Adversary {
        self.pause_ms = pause_ms;
        self
    }

    /// Each kind once, then whatever is drawn, until the time is up; then undoes all of it.
    pub(crate) async fn run(&mut self, arena: &mut Arena, duration: Duration) {
        let end = Instant::now() + duration;
        while Instant::now() < end || !self.first.is_empty() {
            self.step(arena).await;
        }
        self.stop(arena).await;
    }

    /// Undoes what is due, does one more thing if there is room, and rests a moment.
    pub(crate) async fn step(&mut self, arena: &mut Arena) {
        let now = Instant::now();
        let (due, rest) = std::mem::take(&mut self.undo)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.undo = rest;
        self.undo_all(arena, due);
        self.look_for_the_fallen(arena);
        if self.undo.len() < AT_A_TIME && self.next <= now {
            self.next = now + Duration::from_millis(self.rng.u64(self.pause_ms.clone()));
            let harm = self
                .first
                .pop()
                .or_else(|| self.rng.choice(self.menu.clone()));
            if let Some(harm) = harm {
                self.inflict(arena, harm).await;
            }
        }
        arena.apply_troubles();
        arena.look();
        sleep(LOOK_EVERY).await;
    }

    /// Whatever is still wrong is undone.
    pub(crate) async fn stop(&mut self, arena: &mut Arena) {
        let due = std::mem::take(&mut self.undo);
        self.undo_all(arena, due);
        arena.apply_troubles();
    }

    fn undo_all(&mut self, arena: &mut Arena, due: Vec<(Instant, Undo)>) {
        for (_, undo) in due {
            match undo {
                // Who was removed meanwhile does not come back.
                Undo::Start(name) => arena.with(&name, Process::start),
                Undo::StartAll => arena.start_all(),
                Undo::Resume(name) => arena.with(&name, Process::resume),
                Undo::Trouble(trouble) => {
                    let position = arena.troubles.iter().position(|one| *one == trouble);
                    if let Some(position) = position {
                        arena.troubles.remove(position);
                    }
                }
            }
        }
    }

    /// Nobody ends who was not killed.
    pub(crate) fn look_for_the_fallen(&self, arena: &mut Arena) {
        for name in arena.names("") {
            let Some(words) = arena.process(&name).ended() else {
                continue;
            };
            if words.contains(NOT_NEEDED) {
                arena.dismiss(&name);
            } else {
                arena.fail(&format!("{name} has ended by itself: {words}"));
            }
        }
    }

    /// Does one thing.
    pub(crate) async fn inflict(&mut self, arena: &mut Arena, harm: Harm) {
        let millis = |rng: &mut Rng, range| Duration::from_millis(rng.u64(range));
        let short = millis(&mut self.rng, 0..800);
        let long = millis(&mut self.rng, 500..3_000);
        match harm {
            Harm::KillReplica => self.kill(arena, "replica", short).await,
            Harm::KillLedger => self.kill(arena, "ledger", short).await,
            Harm::KillInitiator => self.kill(arena, "initiator", short).await,
            Harm::KillEverything => {
                // At once, as well as it can be done: first all stand, then all die.
                for name in arena.names("") {
                    arena.process(&name).pause();
                }
                for name in arena.names("") {
                    arena.process(&name).kill().await;
                }
                self.later(short, Undo::StartAll);
            }
            Harm::PauseReplica => self.pause(arena, "replica", long),
            Harm::PauseLedger => self.pause(arena, "ledger", long),
            Harm::PauseInitiator => self.pause(arena, "initiator", long),
            Harm::Loss
            | Harm::Reordering
            | Harm::Duplication
            | Harm::DelaySpike
            | Harm::OneWay
            | Harm::Unheard
            | Harm::Isolate
            | Harm::Halves
            | Harm::LedgerSeesSome
            | Harm::InitiatorSeesMinority => {
                let trouble = self.trouble(arena, harm);
                arena.troubles.push(trouble.clone());
                self.later(long, Undo::Trouble(trouble));
            }
            Harm::ChangeAddresses => {
                for relay in arena.relays.values() {
                    relay.rebind();
                }
            }
            Harm::ReplaceReplica
            | Harm::ReplaceLostDisk
            | Harm::AddTwoReplicas
            | Harm::RemoveTwoReplicas => unreachable!("an operator does that"),
        }
        *self.done.entry(harm).or_default() += 1;
    }

    fn trouble(&mut self, arena: &Arena, harm: Harm) -> Trouble {
        let replica = self.one(arena, "replica");
        let weather = |weather| Trouble::Weather {
            replica: replica.clone(),
            weather,
        };
        match harm {
            Harm::Loss => weather(Weather {
                loss: self.rng.f64() * 0.3,
                ..Weather::default()
            }),
            Harm::Reordering => weather(Weather {
                jitter: Duration::from_millis(self.rng.u64(5..50)),
                ..Weather::default()
            }),
            Harm::Duplication => weather(Weather {
                duplication: 0.5,
                jitter: Duration::from_millis(5),
                ..Weather::default()
            }),
            Harm::DelaySpike => weather(Weather {
                delay: Duration::from_millis(self.rng.u64(100..800)),
                ..Weather::default()
            }),
            Harm::OneWay => Trouble::OneWay {
                from: self.one(arena, ""),
                to: replica,
            },
            Harm::Unheard => Trouble::Unheard {
                from: self.one(arena, ""),
                to: replica,
            },
            Harm::Isolate => Trouble::Isolated {
                name: self.one(arena, ""),
            },
            Harm::Halves => {
                let names = arena.names("").into_iter();
                Trouble::Halves {
                    one: names.filter(|_| self.rng.bool()).collect(),
                }
            }
            Harm::LedgerSeesSome => {
                let mut replicas = arena.names("replica");
                self.rng.shuffle(&mut replicas);
                let count = self.rng.usize(1..replicas.len());
                Trouble::Sees {
                    name: self.one(arena, "ledger"),
                    replicas: replicas.into_iter().take(count).collect(),
                }
            }
            Harm::InitiatorSeesMinority => Trouble::Sees {
                name: self.one(arena, "initiator"),
                replicas: [replica].into(),
            },
            other => unreachable!("{other:?} is no trouble of the network"),
        }
    }

    /// One of those whose names begin so.
    fn one(&mut self, arena: &Arena, prefix: &str) -> String {
        let names = arena.names(prefix).into_iter();
        let names: Vec<String> = names.filter(|name| !arena.leaving.contains(name)).collect();
        self.rng.choice(names).expect("somebody is not leaving")
    }

    async fn kill(&mut self, arena: &mut Arena, prefix: &str, restart: Duration) {
        let name = self.one(arena, prefix);
        if arena.process(&name).kill().await {
            self.later(restart, Undo::Start(name));
        }
    }

    fn pause(&mut self, arena: &mut Arena, prefix: &str, resume: Duration) {
        let name = self.one(arena, prefix);
        if arena.process(&name).pause() {
            self.later(resume, Undo::Resume(name));
        }
    }

    fn later(&mut self, after: Duration, undo: Undo) {
        self.undo.push((Instant::now() + after, undo));
    }

    /// Undoes everything, and does nothing any more.
    pub(crate) async fn rest(&mut self, arena: &mut Arena) {
        self.stop(arena).await;
        self.menu.clear();
        self.first.clear();
    }

    /// How often each was done.
    pub(crate) fn done(&self) -> &BTreeMap<Harm, u64> {
        &self.done
    }

    /// Counts what was done elsewhere.
    pub(crate) fn count(&mut self, harm: Harm) {
        *self.done.entry(harm).or_default() += 1;
    }
}

/// The figures of a run, for people.
pub(crate) fn summary(done: &BTreeMap<impl fmt::Debug, u64>, audit: &Audit) -> String {
    let done: Vec<String> = done
        .iter()
        .map(|(harm, count)| format!("{harm:?} {count}"))
        .collect();
    format!(
        "faults: {}; transfers {}, committed {}, aborted {}, late {}, forgotten {}; violations {}",
        done.join(", "),
        audit.transfers,
        audit.committed,
        audit.aborted,
        audit.late,
        audit.forgotten,
        audit.violations.len()
    )
}
