//! What is to be run.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the outcome is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Protocol {
    /// F = 0: one coordinator, the same code.
    TwoPhase,
    /// 2F+1 replicas.
    PaxosCommit,
}

/// How branches come to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Prepare {
    /// The initiator asks a replica, which asks them: four message delays.
    Relay,
    /// The application hands them the roster with their last piece of work: three.
    Spontaneous,
}

/// What takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Votes after an fdatasync of its own log, and does nothing else.
    Null,
    /// The embedded store: each branch writes one row.
    Ledger,
}

/// What is done to the cluster while it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fault {
    /// Nothing: what the machine does by itself.
    None,
    /// SIGKILL of a replica that is not the relay at 1/3 of the time, started again at 2/3.
    Kill,
    /// SIGKILL of the replica that the initiator uses as its relay, at 1/3; started again at 2/3.
    KillRelay,
    /// Each replica in turn is killed and started again.
    Rolling,
    /// Each replica in turn, one second after the one before, is killed and started again at once: do
    /// its peers notice? From 1/3 of the time on.
    RollingFast,
    /// SIGSTOP of the relay at 1/3 for two seconds.
    Pause,
    /// The relay is cut off from everybody from 1/3 to 2/3.
    Partition,
    /// One datagram in a hundred is lost from 1/3 to 2/3.
    Loss,
    /// Three regions: every process is far away from most others.
    Wan,
}

impl Fault {
    /// Whether it needs every datagram to go through relays of this program. Those cost time
    /// themselves: compare with `none` through them.
    pub(super) fn is_of_the_network(self) -> bool {
        matches!(self, Fault::Partition | Fault::Loss | Fault::Wan)
    }
}

/// How transactions come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Load {
    /// So many a second, whatever becomes of those before; latency counts from when each should
    /// have begun.
    Rate(u64),
    /// So many under way at a time: each that ends is followed by the next.
    Concurrency(u64),
    /// The highest rate at which the 99th percentile of latency stays below this.
    SearchP99(Duration),
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spec {
    pub(super) protocol: Protocol,
    /// How many replicas may crash.
    pub(super) f: u32,
    pub(super) participants: u32,
    pub(super) kind: Kind,
    pub(super) prepare: Prepare,
    pub(super) fault: Fault,
    pub(super) load: Load,
    pub(super) duration: Duration,
    /// Whether every datagram goes through a relay of this program.
    pub(super) relayed: bool,
}

impl Spec {
    pub(super) fn replicas(&self) -> u32 {
        2 * self.f + 1
    }

    /// What tells runs apart that differ in their load and fault only.
    pub(super) fn contender(&self) -> String {
        let Spec { protocol, f, .. } = self;
        let mut text = match protocol {
            Protocol::TwoPhase => "two-phase".to_owned(),
            Protocol::PaxosCommit => format!("paxos-commit F={f}"),
        };
        if self.participants != 2 {
            text += &format!(" N={}", self.participants);
        }
        if self.prepare == Prepare::Spontaneous {
            text += " spontaneous";
        }
        if self.kind == Kind::Ledger {
            text += " ledger";
        }
        text
    }

    /// The fault, and whether the network is a relayed one.
    pub(super) fn scenario(&self) -> String {
        let fault = self.fault.to_possible_value();
        let fault = fault.map_or(String::new(), |value| value.get_name().to_owned());
        match self.relayed && self.fault == Fault::None {
            true => format!("{fault} (relayed)"),
            false => fault,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Load::Rate(rate) => write!(f, "{rate}/s"),
            Load::Concurrency(count) => write!(f, "{count} at a time"),
            Load::SearchP99(bound) => write!(f, "p99 < {bound:?}"),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {}, {}",
            self.contender(),
            self.load,
            self.scenario()
        )
    }
}

/// The lists of which every combination is run.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    pub(super) protocols: Vec<Protocol>,
    pub(super) f: Vec<u32>,
    pub(super) participants: Vec<u32>,
    pub(super) kind: Kind,
    pub(super) prepares: Vec<Prepare>,
    pub(super) faults: Vec<Fault>,
    pub(super) loads: Vec<Load>,
    pub(super) duration: Duration,
}

impl Lists {
    pub(super) fn product(&self) -> Vec<Spec> {
        let mut specs = Vec::new();
        for &load in &self.loads {
            for (fault, relayed) in self.scenarios() {
                for (protocol, f) in self.contenders() {
                    for &participants in &self.participants {
                        for &prepare in &self.prepares {
                            specs.push(Spec {
                                protocol,
                                f,
                                participants,
                                kind: self.kind,
                                prepare,
                                fault,
                                load,
                                duration: self.duration,
                                relayed,
                            });
                        }
                    }
                }
            }
        }
        specs
    }

    /// Each fault, and whether it goes through relays. Those that do get a `none` to be compared
    /// with, if the others have one.
    fn scenarios(&self) -> Vec<(Fault, bool)> {
        let mut scenarios: Vec<(Fault, bool)> = Vec::new();
        let direct = self
            .faults
            .iter()
            .filter(|fault| !fault.is_of_the_network());
        scenarios.extend(direct.map(|fault| (*fault, false)));
        let far: Vec<_> = self
            .faults
            .iter()
            .filter(|fault| fault.is_of_the_network())
            .collect();
        if !far.is_empty() && self.faults.contains(&Fault::None) {
            scenarios.push((Fault::None, true));
        }
        scenarios.extend(far.into_iter().map(|fault| (*fault, true)));
        scenarios
    }

    fn contenders(&self) -> Vec<(Protocol, u32)> {
        let of = self.protocols.iter().flat_map(|protocol| match protocol {
            Protocol::TwoPhase => vec![(Protocol::TwoPhase, 0)],
            Protocol::PaxosCommit => {
                let counts = self.f.iter();
                counts.map(|f| (Protocol::PaxosCommit, *f)).collect()
            }
        });
        of.collect()
    }
}

/// What is run when nothing is asked for in particular: about six minutes.
pub(super) fn usual(kind: Kind) -> Vec<Spec> {
    let both = vec![Protocol::TwoPhase, Protocol::PaxosCommit];
    let lists = |prepares: &[Prepare], faults: &[Fault], loads: &[Load], seconds| Lists {
        protocols: both.clone(),
        f: vec![1],
        participants: vec![2],
        kind,
        prepares: prepares.to_vec(),
        faults: faults.to_vec(),
        loads: loads.to_vec(),
        duration: Duration::from_secs(seconds),
    };
    use Fault::*;
    let idle = lists(
        &[Prepare::Relay, Prepare::Spontaneous],
        &[None],
        &[Load::Concurrency(1)],
        6,
    );
    let busy = [16, 64, 256, 1_024].map(Load::Concurrency);
    let busy = lists(&[Prepare::Relay], &[None], &busy, 5);
    let at_rate = [Load::Rate(1_000)];
    let faults = [
        None,
        Kill,
        KillRelay,
        Rolling,
        RollingFast,
        Pause,
        Partition,
        Loss,
        Wan,
    ];
    let faults = lists(&[Prepare::Relay], &faults, &at_rate, 12);
    let mut specs = idle.product();
    specs.extend(busy.product());
    // With one coordinator, to kill any is to kill the relay.
    let is_twice = |spec: &Spec| {
        spec.protocol == Protocol::TwoPhase && matches!(spec.fault, Kill | Rolling | RollingFast)
    };
    specs.extend(faults.product().into_iter().filter(|spec| !is_twice(spec)));
    specs
}

/// A taste of it: about a minute.
pub(super) fn quick(kind: Kind) -> Vec<Spec> {
    let lists = |faults: &[Fault], load, seconds| Lists {
        protocols: vec![Protocol::TwoPhase, Protocol::PaxosCommit],
        f: vec![1],
        participants: vec![2],
        kind,
        prepares: vec![Prepare::Relay],
        faults: faults.to_vec(),
        loads: vec![load],
        duration: Duration::from_secs(seconds),
    };
    let mut specs = lists(&[Fault::None], Load::Concurrency(1), 2).product();
    specs.extend(lists(&[Fault::None], Load::Concurrency(256), 2).product());
    specs.extend(lists(&[Fault::None, Fault::KillRelay], Load::Rate(500), 6).product());
    specs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists() -> Lists {
        Lists {
            protocols: vec![Protocol::TwoPhase, Protocol::PaxosCommit],
            f: vec![1, 2],
            participants: vec![2, 5],
            kind: Kind::Null,
            prepares: vec![Prepare::Relay, Prepare::Spontaneous],
            faults: vec![Fault::None, Fault::Kill],
            loads: vec![Load::Rate(100)],
            duration: Duration::from_secs(1),
        }
    }

    #[test]
    fn every_combination_is_run_once() {
        let specs = lists().product();
        // Two-phase commit has one replica, whatever F is asked for.
        assert_eq!(specs.len(), 3 * 2 * 2 * 2);
        for (index, spec) in specs.iter().enumerate() {
            assert!(!specs[..index].contains(spec), "twice: {spec}");
            assert_eq!(spec.f == 0, spec.protocol == Protocol::TwoPhase);
            assert!(!spec.relayed);
        }
    }

    #[test]
    fn faults_of_the_network_are_compared_with_a_network_of_the_same_kind() {
        let mut lists = lists();
        lists.faults = vec![Fault::Loss, Fault::None];
        assert_eq!(
            lists.scenarios(),
            [
                (Fault::None, false),
                (Fault::None, true),
                (Fault::Loss, true)
            ]
        );
        lists.faults = vec![Fault::Loss];
        assert_eq!(lists.scenarios(), [(Fault::Loss, true)]);
    }
}
