//! One commit from end to end on an idle cluster, everything in this process: real QUIC between all
//! parts, real stores that force what they save to a real disk. `floor` tells how much of it any
//! such protocol takes on the same machine.
//!
//! Measured is the time from asking for commit to the outcome; that the branches apply it is waited
//! for and not measured. With one replica it is two-phase commit. `relay`: a replica asks the
//! branches to prepare. `itself`: they prepare as the last step of their own work, when they have
//! the plan; the call that brings it is the application's own, and none is made here.
//!
//! `cargo bench --bench commit`; with `-- --test` it only shows that it runs.

mod support;

use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use tokio::runtime::Runtime;

use paxos_commit::initiator::Outcome;
use support::Cluster;

/// How the branches come to prepare.
#[derive(Clone, Copy)]
enum By {
    Relay,
    Itself,
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("commit");
    for (replicas, services, by) in [
        (1, 2, By::Relay),
        (3, 2, By::Relay),
        (5, 2, By::Relay),
        (3, 2, By::Itself),
        (3, 1, By::Relay),
        (3, 8, By::Relay),
    ] {
        commits(&mut group, replicas, services, by);
    }
    group.finish();
    criterion.final_summary();
}

fn commits(group: &mut BenchmarkGroup<'_, WallTime>, replicas: u32, services: usize, by: By) {
    let by_name = match by {
        By::Relay => "relay",
        By::Itself => "itself",
    };
    let name = format!("{by_name}/replicas_{replicas}_services_{services}");
    let runtime = Runtime::new().expect("a runtime");
    // In the target folder, which is on a real disk; the system's temporary one may not be.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    // Started by the first that is measured: the command line may name other benchmarks.
    let mut cluster = None;
    let mut number = 0;
    group.bench_function(name, |bencher| {
        let cluster = cluster.get_or_insert_with(|| {
            let start = Cluster::start(folder.path(), replicas, services);
            runtime.block_on(start)
        });
        bencher.iter_custom(|iterations| {
            runtime.block_on(async {
                let mut took = Duration::ZERO;
                for _ in 0..iterations {
                    number += 1;
                    took += match by {
                        By::Relay => cluster.commit(number).await,
                        By::Itself => by_themselves(cluster, number).await,
                    };
                    cluster.wait_until_applied(number).await;
                }
                took
            })
        });
    });
    drop(cluster);
    runtime.shutdown_timeout(Duration::from_secs(1));
}

async fn by_themselves(cluster: &Cluster, number: u32) -> Duration {
    let (mut txn, branches) = cluster.work(number).await;
    let plan = txn.plan().await.expect("branches are enlisted");
    let start = Instant::now();
    for branch in branches {
        tokio::spawn(branch.prepare(plan.clone()));
    }
    let outcome = txn.commit_prepared().await;
    let took = start.elapsed();
    assert_eq!(outcome, Ok(Outcome::Committed));
    took
}
