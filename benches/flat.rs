//! Does a replica's memory stay flat, and does its disk level off? Many transactions over replicas
//! in processes of their own; their resident memory and data directories are looked at as they go.
//!
//! `cargo bench --bench flat`: a million transactions, generations of 100,000. With `-- --test` only
//! a few thousand, to show that it runs.

#[path = "support/nothing.rs"]
mod nothing;
#[path = "support/processes.rs"]
mod processes;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use paxos_commit::initiator::Outcome;
use paxos_commit::protocol::paxos::ReplicaId;
use tokio::task::JoinSet;

/// Transactions under way at a time.
const CONCURRENT: u64 = 256;

/// Resident memory of a process, in megabytes.
fn resident_mb(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let pages = text.split_whitespace().nth(1);
    let pages: f64 = pages.and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4_096.0 / 1e6
}

/// What lies below a folder, in megabytes.
fn disk_mb(folder: &Path) -> f64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0.0;
    };
    let sizes = entries.flatten().map(|entry| {
        let path = entry.path();
        match entry.metadata() {
            Ok(of) if of.is_dir() => disk_mb(&path),
            // What is allocated: a journal has its length from the start.
            Ok(of) => std::os::unix::fs::MetadataExt::blocks(&of) as f64 * 512.0 / 1e6,
            Err(_) => 0.0,
        }
    });
    sizes.sum()
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let (total, generation) = if is_test {
        (4_000, 1_000)
    } else {
        (1_000_000, 100_000)
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let mut cluster = processes::cluster(folder.path(), "flat");
        for id in cluster.replicas() {
            let path = cluster.files().replica_file(id);
            let mut file = OpenOptions::new()
                .append(true)
                .open(path)
                .expect("settings");
            let tuning =
                format!("[tuning]\ngeneration_transactions_max = {generation}\ngrace_s = 1\n");
            file.write_all(tuning.as_bytes()).expect("written");
        }
        cluster.start_all().expect("replicas");
        let participants = processes::participants(&cluster).await;
        let initiator = processes::initiator(&cluster, "flat").connect().await;
        let initiator = initiator.expect("an initiator");

        println!("transactions   per s   resident memory of the replicas (MB)   disk (MB)");
        let (start, mut since) = (Instant::now(), Instant::now());
        let mut tasks = JoinSet::new();
        let step = total / 10;
        for number in 1..=total {
            if tasks.len() as u64 >= CONCURRENT {
                tasks.join_next().await;
            }
            let (initiator, participants) = (initiator.clone(), participants.clone());
            tasks.spawn(async move {
                let mut txn = initiator.begin().await.expect("begun");
                for participant in &participants {
                    let branch = participant.branch(txn.id()).await.expect("a branch");
                    txn.enlist(branch.ticket()).expect("enlisted");
                }
                assert_eq!(txn.commit().await, Ok(Outcome::Committed));
            });
            if number % step == 0 {
                let rate = step as f64 / since.elapsed().as_secs_f64();
                since = Instant::now();
                let replicas = cluster.replicas();
                let memory = |id: &ReplicaId| cluster.process_id(*id).map_or(0.0, resident_mb);
                let memory: Vec<String> = replicas
                    .iter()
                    .map(|id| format!("{:.1}", memory(id)))
                    .collect();
                let disk: Vec<String> = replicas
                    .iter()
                    .map(|id| folder.path().join(format!("cluster/replica-{id}/data")))
                    .map(|data| format!("{:.0}", disk_mb(&data)))
                    .collect();
                println!(
                    "{number:>12} {rate:>7.0}   {:<36}   {}",
                    memory.join(" "),
                    disk.join(" ")
                );
            }
        }
        tasks.join_all().await;
        println!("{total} transactions in {:?}", start.elapsed());
        cluster.stop().await.expect("stopped in order");
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
}
