//! Wall clocks that jump, by libfaketime: nothing depends on them but certificates.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::harness::evidence::{Heard, Line, read_journal};
use crate::harness::{Arena, Knobs, Options};
use crate::tools::libfaketime;

const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where a process reads how far its clock is off.
fn clock(arena: &Arena, name: &str) -> PathBuf {
    arena.folder.path().join(format!("{name}.clock"))
}

/// Puts a clock so far off, from now on: `+3y`, `-20d`.
fn set(arena: &Arena, name: &str, offset: &str) {
    let (clock, draft) = (clock(arena, name), clock(arena, name).with_extension("new"));
    fs::write(&draft, format!("{offset}\n")).unwrap();
    // It is read all the time.
    fs::rename(draft, clock).unwrap();
}

/// What stands before the program's name, so that its wall clock can be changed.
fn wrap(arena: &Arena, name: &str) -> Vec<String> {
    let library = libfaketime();
    vec![
        "env".into(),
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", clock(arena, name).display()),
        "FAKETIME_NO_CACHE=1".into(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
    ]
}

async fn arena_of_clocks(knobs: &Knobs, options: Options) -> Arena {
    let options = Options {
        ledgers: 2,
        initiators: 2,
        rate: 30,
        ..options
    };
    let mut arena = Arena::build(knobs, options).await;
    for name in arena.names("") {
        set(&arena, &name, "+0");
        arena.process(&name).wrap = wrap(&arena, &name);
    }
    arena.start_all();
    arena.wait_for_commits(5).await;
    arena
}

/// The transfers for which commit was asked, and no outcome was told.
fn open(arena: &Arena) -> BTreeSet<u64> {
    let mut open = BTreeSet::new();
    for (number, outcome) in journal(arena) {
        match outcome {
            None => open.insert(number),
            Some(_) => open.remove(&number),
        };
    }
    open
}

/// What initiators wrote down: that they asked, and what they heard.
fn journal(arena: &Arena) -> Vec<(u64, Option<Heard>)> {
    let names = arena.names("initiator").into_iter();
    let lines = names.flat_map(|name| read_journal(&arena.journal(&name)));
    let of = |line| match line {
        Line::Asking { number, .. } => Some((number, None)),
        Line::Heard { number, outcome } => Some((number, Some(outcome))),
        Line::Unknown { .. } => None,
    };
    lines.filter_map(of).collect()
}

/// Waits until a process has printed a line that another time stands before.
async fn tells_another_year(arena: &mut Arena, name: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let printed = arena.process(name).printed();
        // Colours stand before it.
        let year = |line: &str| line.split('-').next()?.split('m').next_back()?.parse().ok();
        let years: BTreeSet<u32> = printed.lines().filter_map(year).collect();
        if let (Some(first), Some(last)) = (years.first(), years.last())
            && first + 15 < *last
        {
            return;
        }
        assert!(Instant::now() < deadline, "{name} knows only {years:?}");
        sleep(LOOK_EVERY).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_jump_change_nothing() {
    let knobs = Knobs::new(Duration::from_secs(6));
    let mut rng = knobs.rng();
    // What a wrong clock would bring to its end before its time.
    let options = Options {
        vote_timeout: Duration::from_secs(60),
        deadline: PATIENCE,
        ..Options::default()
    };
    let mut arena = arena_of_clocks(&knobs, options).await;
    let names = arena.names("");

    // The clocks are what the file says, in processes that run: who loses a replica logs it.
    set(&arena, "ledger-1", "+20y");
    arena.process("replica-2").kill().await;
    tells_another_year(&mut arena, "ledger-1").await;
    arena.process("replica-2").start();

    let until = Instant::now() + knobs.duration;
    let offsets = ["-1d", "+1d", "+9y", "+1h", "-1h", "+0", "+300d", "+20y"];
    let mut jumps = 0;
    while Instant::now() < until {
        let name = rng.choice(&names).unwrap();
        let offset = rng.choice(offsets).unwrap();
        set(&arena, name, offset);
        jumps += 1;
        arena.wait_for_commits(rng.usize(1..8)).await;
    }

    // Votes are waited for by another clock: what waits for one is not aborted by a year that
    // passes.
    arena.process("ledger-2").pause();
    let mut waiting = BTreeSet::new();
    let deadline = Instant::now() + PATIENCE;
    while waiting.len() < 4 {
        assert!(Instant::now() < deadline, "nobody waits for ledger-2");
        let before = open(&arena);
        sleep(Duration::from_millis(300)).await;
        waiting = before.intersection(&open(&arena)).copied().collect();
    }
    for offset in ["+1y", "-1y", "+0"] {
        for name in &names {
            set(&arena, name, offset);
        }
        sleep(Duration::from_millis(300)).await;
    }
    arena.process("ledger-2").resume();
    let deadline = Instant::now() + PATIENCE;
    while open(&arena).intersection(&waiting).count() > 0 {
        assert!(Instant::now() < deadline, "what waited does not end");
        sleep(LOOK_EVERY).await;
    }
    let heard = journal(&arena).into_iter();
    let committed = heard
        .filter(|(number, outcome)| waiting.contains(number) && *outcome == Some(Heard::Committed));
    let committed = committed.count();
    // A clock that counted would have aborted them all. (Now and then two of them want the same
    // account, and one is aborted.)
    assert!(
        committed * 2 > waiting.len(),
        "{committed} of {}",
        waiting.len()
    );
    let audit = arena.finish().await;
    println!(
        "{jumps} jumps; {committed} of {} had waited; {audit:?}",
        waiting.len()
    );
    assert_eq!(audit.late, 0, "a deadline came before its time");
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_of_its_certificates_time_a_process_says_so() {
    let knobs = Knobs::new(Duration::from_secs(1));
    let mut arena = arena_of_clocks(&knobs, Options::default()).await;
    let issue = "if it is right, issue a new certificate";
    // They are issued for the years 1975 to 4095.
    let times: [(&str, &[&str]); 3] = [
        ("+5000y", &["has expired: it was valid until 4096", issue]),
        ("-52y", &["is not valid yet: it will be from 1975", issue]),
        (
            "-60y",
            &["the clock of this machine stands before 1970", "set it"],
        ),
    ];
    for (offset, expected) in times {
        for (name, identity) in [
            ("replica-1", "paxos-commit://arena/replica/1"),
            ("ledger-1", "paxos-commit://arena/participant/ledger-1"),
            ("initiator-1", "paxos-commit://arena/initiator/initiator-1"),
        ] {
            arena.process(name).kill().await;
            set(&arena, name, offset);
            arena.process(name).start();
            let words = arena.wait_for_end(name).await;
            let line = words.lines().last().unwrap_or_default();
            for text in expected {
                assert!(line.contains(text), "expected {text:?}, got {words}");
            }
            assert!(words.contains("exit status: 1"), "{words}");
            assert!(line.contains(identity) || offset == "-60y", "{line}");
            arena.process(name).kill().await;
            set(&arena, name, "+0");
            arena.process(name).start();
            arena.wait_for_commits(3).await;
        }
    }
    // Whoever runs has proved itself; it is to others that come now that it says no.
    set(&arena, "replica-1", "+5000y");
    arena.wait_for_commits(5).await;
    arena.process("replica-2").kill().await;
    arena.process("replica-2").start();
    let deadline = Instant::now() + PATIENCE;
    let names = arena.names("");
    while !names.iter().any(|name| refuses(&mut arena, name)) {
        assert!(
            Instant::now() < deadline,
            "nobody says why replica 1 and 2 do not connect"
        );
        sleep(LOOK_EVERY).await;
    }
    arena.wait_for_commits(5).await;
    set(&arena, "replica-1", "+0");
    let audit = arena.finish().await;
    println!("{audit:?}");
}

/// Whether a process that runs has told of a certificate that is out of its time.
fn refuses(arena: &mut Arena, name: &str) -> bool {
    let printed = arena.process(name).printed();
    let mut lines = printed.lines();
    lines.any(|line| line.contains("cannot reach") && line.to_lowercase().contains("expired"))
}
