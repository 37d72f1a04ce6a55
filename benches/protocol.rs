//! What the three hosts cost in the normal case of a two-branch transaction: time, allocations and
//! memory, without network, disk and encoding.
//!
//! Every message owns its roster and its names, as one that was decoded does. `in_flight` is how
//! many transactions are under way at a time; the order of messages is what makes the difference.

use std::hint::black_box;
use std::time::Duration;

use allocation_counter::measure;
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput};

use paxos_commit::protocol::initiator::{Initiator, InitiatorCommand, InitiatorConfig, PrepareBy};
use paxos_commit::protocol::message::{CastVote, Message, Prepare};
use paxos_commit::protocol::participant::{Participant, ParticipantCommand, ParticipantConfig};
use paxos_commit::protocol::paxos::log::LogConfig;
use paxos_commit::protocol::paxos::{Acceptors, Ballot, ReplicaId};
use paxos_commit::protocol::replica::{
    Record, Records, Replica, ReplicaCommand, ReplicaConfig, ReplicaTimer,
};
use paxos_commit::protocol::types::{
    Branch, CommitId, InitiatorId, Outcome, Peer, ReadOnly, Roster, Session, StoreId, TxnId, Vote,
};
use paxos_commit::protocol::{Effects, Host, Input};

/// Transactions per measured batch; each batch has a fresh host.
const BATCH: u32 = 10_000;
/// Transactions under way at a time.
const IN_FLIGHT: [u32; 2] = [1, 1_000];
/// Undecided transactions whose memory is measured.
const UNDECIDED: u32 = 100_000;
/// What one of them may take.
const UNDECIDED_BYTES_MAX: f64 = 1_024.0;

/// Generations, and transactions of each, whose forgetting is measured.
const GENERATIONS: u32 = 10;
const GENERATION: u32 = 100_000;

const VOTE_TIMEOUT: Duration = Duration::from_secs(10);

fn main() {
    report_memory();
    report_allocations();
    report_forgetting();
    let mut criterion = Criterion::default().configure_from_args();
    bench(
        &mut criterion,
        "replica_normal_case",
        replica,
        replica_inputs,
    );
    bench(
        &mut criterion,
        "participant_normal_case",
        participant,
        participant_inputs,
    );
    bench(
        &mut criterion,
        "initiator_normal_case",
        initiator,
        initiator_inputs,
    );
    criterion.final_summary();
}

/// Steps a fresh host through a batch of transactions. Neither the building of the messages nor the
/// end of the host is measured.
fn bench<H: Host>(
    criterion: &mut Criterion,
    name: &str,
    host: fn() -> H,
    inputs: fn(Script) -> Vec<Input<H>>,
) {
    let mut group: BenchmarkGroup<WallTime> = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    for in_flight in IN_FLIGHT {
        let script = Script {
            transactions: BATCH,
            in_flight,
        };
        let id = BenchmarkId::new("in_flight", in_flight);
        group.bench_function(id, |bencher| {
            let mut effects = Effects::default();
            bencher.iter_batched(
                || (host(), inputs(script)),
                |(mut host, inputs)| {
                    run(&mut host, inputs, &mut effects);
                    host
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// As the driver does: one `Effects`, emptied after each step.
fn run<H: Host>(host: &mut H, inputs: Vec<Input<H>>, effects: &mut Effects<H>) {
    for input in inputs {
        host.step(input, effects);
        black_box(&mut *effects).clear();
    }
}

/// Memory per undecided transaction, whose messages came from the wire: what of them is kept
/// counts.
fn report_memory() {
    for (votes, what) in [(1, "one vote held"), (2, "both votes held")] {
        let mut held = replica();
        let mut effects = Effects::default();
        let used = measure(|| {
            for n in 0..UNDECIDED {
                for index in 0..votes {
                    held.step(vote(n, index), &mut effects);
                    effects.clear();
                }
            }
        });
        assert_eq!(held.undecided().count(), UNDECIDED as usize);
        let bytes = used.bytes_current as f64 / f64::from(UNDECIDED);
        let allocations = used.count_current as f64 / f64::from(UNDECIDED);
        println!(
            "replica: {bytes:.0} bytes in {allocations:.1} allocations per undecided two-branch \
             transaction, {what}"
        );
        assert!(bytes <= UNDECIDED_BYTES_MAX, "{bytes} bytes, {what}");
    }
}

/// Allocations of the steps alone, per transaction of the normal case.
fn report_allocations() {
    fn count<H: Host>(name: &str, host: fn() -> H, inputs: fn(Script) -> Vec<Input<H>>) {
        for in_flight in IN_FLIGHT {
            let script = Script {
                transactions: BATCH,
                in_flight,
            };
            let (mut host, inputs) = (host(), inputs(script));
            let mut effects = Effects::default();
            let used = measure(|| run(&mut host, inputs, &mut effects));
            println!(
                "{name}: {:.1} allocations, {:.0} bytes in all, per transaction, {in_flight} in \
                 flight",
                used.count_total as f64 / f64::from(BATCH),
                used.bytes_total as f64 / f64::from(BATCH),
            );
        }
    }
    count("replica", replica, replica_inputs);
    count("participant", participant, participant_inputs);
    count("initiator", initiator, initiator_inputs);
}

/// A million finished transactions over ten generations: what a store keeps levels off at two
/// generations' worth; what a replica has in memory does not depend on it.
fn report_forgetting() {
    let mut cluster = Alone::new();
    let mut bytes = 0;
    let mut kept = Vec::new();
    for generation in 1..=GENERATIONS {
        bytes += measure(|| cluster.generation(generation)).bytes_current;
        let (transactions, records) = cluster.remembers();
        kept.push(bytes);
        println!(
            "replica: after {} finished transactions it has {transactions} in memory, its store \
             keeps {records} records, {:.1} MB in all",
            generation * GENERATION,
            bytes as f64 / 1e6
        );
    }
    let (third, last) = (kept[2], kept[kept.len() - 1]);
    assert!(
        last as f64 <= 1.1 * third as f64,
        "{third} bytes grew to {last}"
    );
}

/// A cluster of one replica, which sends to itself what it says to its cluster.
struct Alone {
    replica: Replica,
    store: Records,
    effects: Effects<Replica>,
}

impl Alone {
    fn new() -> Self {
        let config = ReplicaConfig {
            generation_transactions_max: u64::from(GENERATION),
            log: LogConfig {
                silence_ticks: 1,
                ..LogConfig::default()
            },
            ..ReplicaConfig::new(ReplicaId(1), alone())
        };
        let store = Records::new(config.genesis.clone());
        let replica = Replica::recover(config, [], &mut Effects::default());
        Alone {
            replica,
            store,
            effects: Effects::default(),
        }
    }

    /// One step, and all that the replica says to itself in it. What it consults and has evicted is
    /// recalled before; what is finished after it is durable at once, and evicted.
    fn step(&mut self, input: Input<Replica>) {
        if let Input::Message { message, .. } = &input {
            let unknown = self.replica.unknown(message).into_iter();
            let found = unknown.flat_map(|lookup| self.store.look_up(lookup));
            let found: Vec<Record> = found.collect();
            if !found.is_empty() {
                self.command(ReplicaCommand::Recall(found));
            }
        }
        self.replica.step(input, &mut self.effects);
        for record in self.effects.save.drain(..) {
            self.store.apply(record);
        }
        let finished: Vec<CommitId> = self.replica.finished().copied().collect();
        if !finished.is_empty() {
            self.command(ReplicaCommand::Evict(finished));
        }
        let sent: Vec<_> = self.effects.send.drain(..).collect();
        self.effects.clear();
        for (to, message) in sent {
            let from = Peer::Replica(ReplicaId(1));
            if to == from {
                self.step(Input::Message { from, message });
            }
        }
    }

    fn command(&mut self, command: ReplicaCommand) {
        self.replica
            .step(Input::Command(command), &mut self.effects);
    }

    /// A generation's transactions, each to its end; then ticks until the next one is open.
    fn generation(&mut self, generation: u32) {
        assert_eq!(self.replica.generations().latest(), generation);
        let of = |input| in_generation(input, generation);
        for n in 0..GENERATION {
            for input in [vote(n, 0), vote(n, 1), applied(n, 0), applied(n, 1)] {
                self.step(of(input));
            }
        }
        while self.replica.generations().latest() == generation {
            self.step(Input::Timeout(ReplicaTimer::Tick));
        }
        for _ in 0..10 {
            self.step(Input::Timeout(ReplicaTimer::Tick));
        }
    }

    fn remembers(&self) -> (usize, usize) {
        (self.replica.remembered(), self.store.transactions())
    }
}

/// The same input about the transaction of another generation.
fn in_generation(input: Input<Replica>, generation: u32) -> Input<Replica> {
    let of = |id: CommitId| CommitId {
        txn: TxnId {
            generation,
            ..id.txn
        },
        ..id
    };
    match input {
        Input::Message {
            from,
            message: Message::Vote(mut cast),
        } => {
            cast.id = of(cast.id);
            let message = Message::Vote(cast);
            Input::Message { from, message }
        }
        Input::Message {
            from,
            message: Message::Applied { id, branch },
        } => {
            let message = Message::Applied { id: of(id), branch };
            Input::Message { from, message }
        }
        other => other,
    }
}

fn alone() -> Acceptors {
    Acceptors::new([ReplicaId(1)]).expect("an odd number")
}

/// The order in which the steps of many transactions fall.
#[derive(Clone, Copy)]
struct Script {
    transactions: u32,
    in_flight: u32,
}

impl Script {
    /// The inputs of all transactions, as a stream: while one takes its first step, one that began
    /// a little earlier takes its second, and so on. A step is given its transaction, and the
    /// oldest one that has not ended: the initiator's floor.
    fn inputs<H: Host>(self, steps: &[fn(u32, u32) -> Input<H>]) -> Vec<Input<H>> {
        let gap = self.in_flight / steps.len() as u32;
        let life = gap * (steps.len() as u32 - 1);
        let mut inputs = Vec::with_capacity(self.transactions as usize * steps.len());
        for now in 0..self.transactions + life {
            for (step, ago) in steps.iter().zip((0..).map(|step| step * gap)) {
                match now.checked_sub(ago) {
                    Some(n) if n < self.transactions => {
                        inputs.push(step(n, now.saturating_sub(life)));
                    }
                    Some(_) | None => {}
                }
            }
        }
        inputs
    }
}

// The replica: two votes in and reports out, then two `Applied` in.

fn replica() -> Replica {
    let config = ReplicaConfig::new(ReplicaId(1), acceptors());
    Replica::recover(config, [], &mut Effects::default())
}

fn replica_inputs(script: Script) -> Vec<Input<Replica>> {
    script.inputs(&[
        |n, _| vote(n, 0),
        |n, _| vote(n, 1),
        |n, _| applied(n, 0),
        |n, _| applied(n, 1),
    ])
}

fn vote(n: u32, index: usize) -> Input<Replica> {
    let roster = roster();
    let message = Message::Vote(CastVote {
        id: CommitId::new(txn(n), &roster),
        roster,
        vote: Vote::Prepared,
        vote_timeout: VOTE_TIMEOUT,
    });
    let from = Peer::Session(branch(index));
    Input::Message { from, message }
}

fn applied(n: u32, index: usize) -> Input<Replica> {
    let branch = branch(index);
    Input::Message {
        from: Peer::Session(branch.clone()),
        message: Message::Applied { id: id(n), branch },
    }
}

// The participant: begins, is asked to prepare, votes, learns from two of three replicas, applies.

fn participant() -> Participant {
    let config = ParticipantConfig::new(branch(0), acceptors());
    Participant::entered(config)
}

fn participant_inputs(script: Script) -> Vec<Input<Participant>> {
    script.inputs(&[
        |n, _| Input::Command(ParticipantCommand::Begin(txn(n))),
        prepare,
        |n, _| {
            let (id, vote) = (id(n), Vote::Prepared);
            Input::Command(ParticipantCommand::Prepared { id, vote })
        },
        |n, _| phase2b(n, 1),
        |n, _| phase2b(n, 2),
        |n, _| phase2b(n, 3),
        |n, _| {
            let (id, branch) = (id(n), branch(0));
            Input::Command(ParticipantCommand::Finished { id, branch })
        },
    ])
}

fn prepare(n: u32, floor: u32) -> Input<Participant> {
    let roster = roster();
    let prepare = Prepare {
        id: CommitId::new(txn(n), &roster),
        roster,
        request: None,
        read_only: ReadOnly::Allowed,
        floor,
        vote_timeout: VOTE_TIMEOUT,
    };
    Input::Message {
        from: Peer::Replica(ReplicaId(1)),
        message: Message::Prepare(prepare),
    }
}

fn phase2b<H: Host>(n: u32, replica: u32) -> Input<H> {
    Input::Message {
        from: Peer::Replica(ReplicaId(replica)),
        message: Message::Phase2b {
            id: id(n),
            ballot: Ballot::ZERO,
            outcome: Outcome::Commit,
        },
    }
}

// The initiator: begins, asks for commit, learns from two of three replicas.

fn initiator() -> Initiator {
    let config = InitiatorConfig::new(InitiatorId::from_u128(7), acceptors());
    Initiator::recover(config, [], &mut Effects::default())
}

fn initiator_inputs(script: Script) -> Vec<Input<Initiator>> {
    script.inputs(&[
        |_, _| Input::Command(InitiatorCommand::Begin { nonce: 9 }),
        |n, _| {
            Input::Command(InitiatorCommand::Commit {
                txn: txn(n),
                branches: vec![(branch(0), None), (branch(1), None)],
                prepare: PrepareBy::Relay,
                vote_timeout: VOTE_TIMEOUT,
            })
        },
        |n, _| phase2b(n, 1),
        |n, _| phase2b(n, 2),
        |n, _| phase2b(n, 3),
    ])
}

// Names as they are in use.

fn acceptors() -> Acceptors {
    Acceptors::new([1, 2, 3].map(ReplicaId)).expect("an odd number")
}

fn branch(index: usize) -> Branch {
    let name = ["ledger-eu-1", "stock-eu-1"][index];
    Branch {
        participant: name.parse().expect("a name"),
        session: Session(0x5eed_0000_0000_0001 + index as u64),
        store: StoreId::from_u128(1),
    }
}

fn roster() -> Roster {
    Roster::new([branch(0), branch(1)]).expect("a roster")
}

fn txn(n: u32) -> TxnId {
    TxnId {
        generation: 1,
        initiator: InitiatorId::from_u128(7),
        sequence: n,
        nonce: 9,
    }
}

fn id(n: u32) -> CommitId {
    CommitId::new(txn(n), &roster())
}
