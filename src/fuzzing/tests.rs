//! Every target, over real encodings, over the corpus, and over what a seed makes of both.
//!
//! ```text
//! FAULT_SEED=7 FAULT_SECONDS=600 cargo test --release --lib fuzzing -- --nocapture
//! FUZZ_SEEDS=DIR cargo test --lib fuzzing::tests::every_seed    # writes them, for tests/fuzz
//! ```

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{TARGETS, Target, memory_max, seeds};

/// How many mutations of each target are tried if no time is given.
const MUTATIONS: u64 = 20_000;

/// The longest input that mutations come to.
const INPUT_MAX: usize = 4 * 1024;

/// What may be committed.
const FILES_MAX: usize = 300;
const BYTES_MAX: u64 = 200 * 1024;

/// Whether a value came out; or what is wrong.
fn check(target: Target, input: &[u8]) -> Result<bool, String> {
    let mut came = Ok(false);
    let held = allocation_counter::measure(|| {
        came = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    });
    let wrong = match came {
        Err(_) => "it panics".into(),
        Ok(_) if held.bytes_max > memory_max(input.len()) => {
            format!("it takes {} bytes of memory", held.bytes_max)
        }
        Ok(came) => return Ok(came),
    };
    Err(format!("{}: {wrong}, at {}", target.name, hex(input)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The inputs that are committed for a target.
fn committed(target: Target) -> Vec<Vec<u8>> {
    let folder = corpus().join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn every_seed_is_a_value() {
    let written = std::env::var_os("FUZZ_SEEDS");
    for target in TARGETS {
        let seeds = seeds::of(target.name);
        assert!(!seeds.is_empty(), "{}", target.name);
        for (number, seed) in seeds.iter().enumerate() {
            assert_eq!(check(target, seed), Ok(true), "{}", hex(seed));
            let kept = fs::read(corpus().join(target.name).join(format!("seed-{number}")));
            // (Of certificates the keys are drawn anew each time.)
            if let (Ok(kept), None, true) = (kept, &written, target.name != "certificate") {
                let what = "the corpus is of another format: write it with FUZZ_SEEDS";
                assert_eq!(
                    hex(&kept),
                    hex(seed),
                    "{}, seed {number}: {what}",
                    target.name
                );
            }
            if let Some(folder) = &written {
                let folder = Path::new(folder).join(target.name);
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
            }
        }
    }
}

#[test]
fn the_corpus_breaks_nothing() {
    let (mut files, mut bytes) = (0, 0);
    for target in TARGETS {
        let inputs = committed(target);
        let mut values = 0;
        for input in &inputs {
            values += u32::from(check(target, input).unwrap());
        }
        // It goes deep, and not only that far.
        assert!(values > 0, "{}: nothing is a value", target.name);
        println!("{}: {} inputs, {values} values", target.name, inputs.len());
        files += inputs.len();
        bytes += inputs.iter().map(|input| input.len() as u64).sum::<u64>();
    }
    assert!(files <= FILES_MAX && bytes <= BYTES_MAX, "{files}, {bytes}");
    let folders = fs::read_dir(corpus()).unwrap().count();
    assert_eq!(folders, TARGETS.len(), "a folder is no target's");
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{name}: {error}")),
    )
}

#[test]
fn mutations_break_nothing() {
    let seed = setting("FAULT_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let time = setting("FAULT_SECONDS").map(Duration::from_secs);
    println!("FAULT_SEED={seed} cargo test --lib fuzzing::tests::mutations -- --nocapture");
    let time = time.map(|time| time / TARGETS.len() as u32);
    for target in TARGETS {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut inputs = committed(target);
        // Of certificates the keys are drawn anew each time: a seed could not repeat that.
        if target.name != "certificate" {
            inputs.extend(seeds::of(target.name));
        }
        let start = Instant::now();
        let (mut count, mut values) = (0, 0_u64);
        while time.map_or(count < MUTATIONS, |time| start.elapsed() < time) {
            let input = mutated(&inputs, &mut random);
            let came = check(target, &input);
            let came = came.unwrap_or_else(|wrong| panic!("seed {seed}, input {count}: {wrong}"));
            values += u64::from(came);
            count += 1;
        }
        println!("{}: {count} mutations, {values} values", target.name);
    }
}

/// One of the inputs, changed in a few places.
fn mutated(inputs: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    /// Lengths and numbers at the edges of their encodings.
    const EDGES: [&[u8]; 6] = [
        &[0],
        &[0x7f],
        &[0x80, 0x01],
        &[0xff; 4],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    ];
    let mut bytes = inputs[random.usize(..inputs.len())].clone();
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(..=bytes.len());
        let end = random.usize(at..=bytes.len());
        match random.u8(..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u32(..8),
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 => drop(bytes.splice(at..at, EDGES[random.usize(..EDGES.len())].iter().copied())),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.truncate(at),
            5 => {
                let piece = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            _ => {
                let other = &inputs[random.usize(..inputs.len())];
                let from = random.usize(..=other.len());
                drop(bytes.splice(at..end, other[from..].iter().copied()));
            }
        }
        bytes.truncate(INPUT_MAX);
    }
    bytes
}

#[test]
fn a_decoder_that_panics_or_believes_a_length_is_noticed() {
    fn panics(bytes: &[u8]) -> bool {
        bytes[0] == bytes[1]
    }
    fn believes(bytes: &[u8]) -> bool {
        let length = bytes.first().map_or(0, |byte| usize::from(*byte));
        let mut room: Vec<u8> = Vec::with_capacity(length * 1024 * 1024);
        room.extend(bytes);
        room.len() == length
    }
    let panics = super::of("panics", panics);
    assert_eq!(check(panics, b"xx"), Ok(true));
    assert!(check(panics, b"x").unwrap_err().contains("panics"));
    let believes = super::of("believes", believes);
    assert_eq!(check(believes, b"\x01"), Ok(true));
    assert!(check(believes, b"\xff").unwrap_err().contains("memory"));
}

/// Frames of nearly the greatest length, that are all list.
fn full_frames() -> Vec<(&'static str, Vec<u8>)> {
    use crate::protocol::message::{BeginCommit, Message};
    use crate::protocol::types::{Branch, CommitId, Roster, Session, StoreId, Vote};
    use crate::wire::{Frame, encode};

    let txn = "00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef"
        .parse()
        .unwrap();
    let branch = |session| Branch {
        participant: "a".parse().unwrap(),
        session: Session(session),
        store: StoreId::from_u128(1),
    };
    let roster = Roster::new([branch(1)]).unwrap();
    let id = CommitId::new(txn, &roster);
    let vote_timeout = Duration::from_secs(1);
    let framed = |message| {
        let mut bytes = Vec::new();
        encode(&Frame::Message(message), &mut bytes).unwrap();
        bytes
    };
    let begin = Message::BeginCommit(BeginCommit {
        id,
        roster,
        requests: vec![None; 4_000_000],
        floor: 0,
        vote_timeout,
    });
    let branches: Vec<Branch> = (0..180_000).map(branch).collect();
    // A vote, with a list in the place of its roster.
    let vote = (3_u8, 8_u8, id, &branches, Vote::Prepared, vote_timeout);
    let vote = postcard::to_stdvec(&vote).unwrap();
    let vote = [&(vote.len() as u32).to_le_bytes()[..], &vote].concat();
    let rollback = Message::Rollback {
        txn,
        branches,
        floor: 0,
    };
    vec![
        ("BeginCommit", framed(begin)),
        ("Vote", vote),
        ("Rollback", framed(rollback)),
    ]
}

#[test]
fn what_clients_say_takes_no_more_memory_than_it_is_long() {
    for (name, frame) in full_frames() {
        assert!(frame.len() > 3_000_000, "{name}: {}", frame.len());
        let held = allocation_counter::measure(|| {
            crate::wire::decode(&frame).unwrap_err();
        });
        assert!(held.bytes_max < 64 * 1024, "{name}: {}", held.bytes_max);
    }
}
