//! A crash at every `fdatasync`, `fsync` and send: strace kills the process on entering the Nth.
//!
//! ```text
//! FAULT_SECONDS=3000 cargo test --release --features fault-injection --test faults syscalls -- --nocapture
//! ```
//!
//! strace counts for each thread. All of a process's sends come from one: it is given one worker. In
//! less than [`ALL_FROM`] seconds some are drawn; from there on every one is tried in turn, until
//! one is not reached.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use fastrand::Rng;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::harness::process::Process;
use crate::harness::{Arena, Knobs, Options};
use crate::tools::expect_program;

/// With this much time, every call is tried in turn.
const ALL_FROM: Duration = Duration::from_secs(300);

/// Up to which call is drawn.
const DRAWN_MAX: u32 = 12;

const PATIENCE: Duration = Duration::from_secs(60);

const SYNCS: &str = "fdatasync,fsync";

const SENDS: &str = "sendmsg,sendmmsg,sendto";

/// Where in its life a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// From its first instruction on.
    Start,
    /// From the moment before a transaction on.
    Commit,
}

/// A process, a stage, and a kind of calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    process: &'static str,
    stage: Stage,
    calls: &'static str,
}

/// All of them. (An initiator forces nothing to disk.)
fn all() -> Vec<Series> {
    let mut all = Vec::new();
    for process in ["replica-1", "ledger-1", "initiator-1"] {
        for stage in [Stage::Start, Stage::Commit] {
            for calls in [SYNCS, SENDS] {
                if process != "initiator-1" || calls != SYNCS {
                    all.push(Series {
                        process,
                        stage,
                        calls,
                    });
                }
            }
        }
    }
    all
}

/// The words that make strace kill what it watches on entering call `number`.
fn strace(calls: &str, number: u32) -> Vec<String> {
    let words = format!(
        "strace -f -qq -o /dev/null -e trace={calls} -e inject={calls}:signal=SIGKILL:when={number}"
    );
    words.split(' ').map(str::to_owned).collect()
}

/// Waits until strace watches all threads of a process, or has killed it already: then it lies there
/// as a zombie, which nobody watches any more.
async fn is_watched(process: &mut Process) {
    let deadline = Instant::now() + PATIENCE;
    while process.ended().is_none() {
        let id = process.id().unwrap();
        let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
        let all = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")));
        let is_watched = |status: &String| !status.contains("TracerPid:\t0\n");
        // One that has ended meanwhile is no thread of it.
        if all.flatten().all(|status| is_watched(&status)) {
            return;
        }
        assert!(Instant::now() < deadline, "strace does not attach");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn who_was_killed_before_anybody_looked_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::new("killed", Vec::new(), folder.path());
    process.wrap = ["sh", "-c", "kill -KILL $$"].map(String::from).to_vec();
    process.start();
    // Nobody has asked for its end so far, so it stays a zombie.
    let stat = format!("/proc/{}/stat", process.id().unwrap());
    while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
        sleep(Duration::from_millis(5)).await;
    }
    is_watched(&mut process).await;
    assert!(process.ended().unwrap().contains("signal: 9"));
}

/// How many transfers it takes until a process has taken part in one for sure. The others do not
/// wait for a replica.
fn enough(process: &str) -> usize {
    if process.starts_with("replica") {
        return 15;
    }
    3
}

/// How often a replica has said that it serves.
fn served(arena: &mut Arena, name: &str) -> usize {
    arena.process(name).printed().matches("serving").count()
}

/// Starts a process, and waits until it takes part.
async fn start(arena: &mut Arena, name: &str) {
    if arena.process(name).id().is_some() {
        // It was not killed.
        return;
    }
    let before = served(arena, name);
    arena.process(name).start();
    let deadline = Instant::now() + PATIENCE;
    while name.starts_with("replica") && served(arena, name) == before {
        if Instant::now() > deadline {
            arena.fail(&format!("{name} does not serve"));
        }
        sleep(Duration::from_millis(5)).await;
    }
    arena.wait_for_commits(enough(name)).await;
}

/// Waits until the process is dead, or `more` transfers were committed since.
async fn dies(arena: &mut Arena, name: &str, more: usize) -> bool {
    let wanted = arena.commits() + more;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if arena.process(name).ended().is_some() {
            return true;
        }
        if arena.commits() >= wanted {
            return false;
        }
        if Instant::now() > deadline {
            arena.fail(&format!("{name} neither dies nor commits"));
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Whether the call was reached. Everything is up again after it.
async fn crash(arena: &mut Arena, series: &Series, number: u32) -> bool {
    let Series {
        process,
        stage,
        calls,
    } = series;
    match stage {
        Stage::Start => {
            arena.process(process).kill().await;
            let usual = std::mem::take(&mut arena.process(process).wrap);
            let mut wrap = strace(calls, number);
            wrap.extend(usual.iter().cloned());
            arena.process(process).wrap = wrap;
            arena.process(process).start();
            let died = dies(arena, process, 2 * enough(process)).await;
            // Its child goes on without strace; it must end before another one starts.
            let _ = arena.process(process).stop().await;
            arena.process(process).wrap = usual;
            died
        }
        Stage::Commit => {
            let id = arena.process(process).id().unwrap();
            let words = strace(calls, number);
            let mut watching: Child = Command::new(&words[0])
                .args(&words[1..])
                .args(["-p", &id.to_string()])
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            is_watched(arena.process(process)).await;
            dies(arena, process, enough(process)).await;
            watching.kill().await.unwrap();
            // It may have reached the call at the last moment; the signal takes effect in the next.
            sleep(Duration::from_millis(50)).await;
            let died = arena.process(process).ended().is_some();
            arena.process(process).bury();
            died
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_may_crash_at_every_sync_and_send() {
    expect_program("strace", "strace");
    let knobs = Knobs::new(Duration::from_secs(20));
    let options = Options {
        ledgers: 2,
        initiators: 1,
        rate: 20,
        ..Options::default()
    };
    let mut arena = Arena::build(&knobs, options).await;
    for name in arena.names("") {
        arena.process(&name).wrap = vec!["env".into(), "TOKIO_WORKER_THREADS=1".into()];
    }
    arena.start_all();
    arena.wait_for_commits(3).await;
    let mut rng = knobs.rng();
    let until = Instant::now() + knobs.duration;
    let reached = match knobs.duration < ALL_FROM {
        true => some(&mut arena, &mut rng, until).await,
        false => every(&mut arena, until).await,
    };
    let audit = arena.finish().await;
    for (series, numbers) in &reached {
        println!("{series:?}: killed at {numbers:?}");
    }
    let crashes: usize = reached.values().map(Vec::len).sum();
    println!("{crashes} crashes; {audit:?}");
    assert!(crashes > 0);
}

type Reached = BTreeMap<Series, Vec<u32>>;

async fn some(arena: &mut Arena, rng: &mut Rng, until: Instant) -> Reached {
    let mut reached = Reached::new();
    let all = all();
    while Instant::now() < until {
        let series = rng.choice(&all).unwrap();
        let number = rng.u32(1..=DRAWN_MAX);
        attempt(arena, series, number, &mut reached).await;
    }
    reached
}

async fn every(arena: &mut Arena, until: Instant) -> Reached {
    let mut reached = Reached::new();
    for series in all() {
        let mut number = 1;
        while attempt(arena, &series, number, &mut reached).await {
            assert!(Instant::now() < until, "more time is needed: {reached:?}");
            number += 1;
        }
        println!("{series:?}: call {number} is not reached");
    }
    reached
}

async fn attempt(arena: &mut Arena, series: &Series, number: u32, reached: &mut Reached) -> bool {
    let died = crash(arena, series, number).await;
    if died {
        reached.entry(series.clone()).or_default().push(number);
    }
    start(arena, series.process).await;
    died
}
