//! What it costs to encode and to decode the usual messages, as frames of the wire: those of the
//! normal case, and the `Decided` that a replica sends to another.
//!
//! The roster stands in some of them, so those are measured with 2 branches and with 32, the most
//! that a transaction has. An encoder's buffer is emptied and used again, as a connection's is. What
//! is decoded owns its roster and its names, and is dropped within the measured time.
//!
//! `cargo bench --bench wire`; with `-- --test` it only shows that it runs.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};

use paxos_commit::protocol::message::{BeginCommit, CastVote, Decision, Message, Prepare};
use paxos_commit::protocol::paxos::Ballot;
use paxos_commit::protocol::types::{
    Branch, BranchSet, CommitId, InitiatorId, Outcome, ROSTER_MAX, ReadOnly, Roster, Session,
    StoreId, TxnId, Unapplied, Vote,
};
use paxos_commit::wire::{Frame, decode, encode};

const VOTE_TIMEOUT: Duration = Duration::from_secs(10);

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let frames = frames();
    let mut group = criterion.benchmark_group("encode");
    for (name, frame) in &frames {
        let mut buffer = Vec::new();
        encode(frame, &mut buffer).expect("short enough");
        group.throughput(one_of(buffer.len()));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                buffer.clear();
                let encoded = encode(black_box(frame), &mut buffer);
                encoded.expect("short enough");
                black_box(buffer.len())
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("decode");
    for (name, frame) in &frames {
        let mut buffer = Vec::new();
        encode(frame, &mut buffer).expect("short enough");
        let decoded = decode(&buffer).expect("a frame").expect("a whole one");
        assert_eq!(decoded, (frame.clone(), buffer.len()), "{name}");
        group.throughput(one_of(buffer.len()));
        group.bench_function(name, |bencher| {
            bencher.iter(|| decode(black_box(&buffer)));
        });
    }
    group.finish();
    criterion.final_summary();
}

fn one_of(bytes: usize) -> Throughput {
    Throughput::ElementsAndBytes {
        elements: 1,
        bytes: bytes as u64,
    }
}

/// Each message by its name; where the roster stands in it, with the number of branches.
fn frames() -> Vec<(String, Frame)> {
    let mut messages = Vec::new();
    for branches in [2, ROSTER_MAX] {
        let with_roster = [
            ("BeginCommit", begin_commit(branches)),
            ("Prepare", prepare(branches)),
            ("Vote", vote(branches)),
            ("Decided", decided(branches)),
        ];
        let named = with_roster.map(|(name, message)| (format!("{name}/{branches}"), message));
        messages.extend(named);
    }
    messages.push(("Phase2b".into(), phase2b()));
    messages.push(("Applied".into(), applied()));
    let frames = messages.into_iter();
    frames
        .map(|(name, message)| (name, Frame::Message(message)))
        .collect()
}

fn begin_commit(branches: usize) -> Message {
    let roster = roster(branches);
    Message::BeginCommit(BeginCommit {
        id: id(&roster),
        // The services have done their work already.
        requests: vec![None; branches],
        roster,
        floor: 1_234_000,
        vote_timeout: VOTE_TIMEOUT,
    })
}

fn prepare(branches: usize) -> Message {
    let roster = roster(branches);
    Message::Prepare(Prepare {
        id: id(&roster),
        roster,
        request: None,
        read_only: ReadOnly::Allowed,
        floor: 1_234_000,
        vote_timeout: VOTE_TIMEOUT,
    })
}

fn vote(branches: usize) -> Message {
    let roster = roster(branches);
    Message::Vote(CastVote {
        id: id(&roster),
        roster,
        vote: Vote::Prepared,
        vote_timeout: VOTE_TIMEOUT,
    })
}

fn decided(branches: usize) -> Message {
    let roster = roster(branches);
    Message::Decided(Decision {
        id: id(&roster),
        outcome: Outcome::Commit,
        unapplied: Some(Unapplied {
            roster,
            read_only: BranchSet::default(),
        }),
    })
}

fn phase2b() -> Message {
    Message::Phase2b {
        id: id(&roster(2)),
        ballot: Ballot::ZERO,
        outcome: Outcome::Commit,
    }
}

fn applied() -> Message {
    Message::Applied {
        id: id(&roster(2)),
        branch: branch(0),
    }
}

// Names and numbers as they are in use.

fn branch(index: usize) -> Branch {
    let name = format!("ledger-eu-{index}");
    Branch {
        participant: name.parse().expect("a name"),
        session: Session(0x5eed_5eed_5eed_0001 + index as u64),
        store: StoreId::from_u128(1),
    }
}

fn roster(branches: usize) -> Roster {
    Roster::new((0..branches).map(branch)).expect("a roster")
}

fn id(roster: &Roster) -> CommitId {
    let txn = TxnId {
        generation: 12,
        initiator: InitiatorId::from_u128(0xc0ff_ee00_c0ff_ee07),
        sequence: 1_234_567,
        nonce: 9,
    };
    CommitId::new(txn, roster)
}
