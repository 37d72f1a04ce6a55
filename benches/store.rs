//! Group commit: how long so many saves take that are asked for at once, until the last is durable.
//!
//! It is a replica's own store, as replicas use it: the committer's thread, fjall, a real disk. Each
//! save is what a replica saves of a transaction of two branches before it reports its outcome:
//! their votes. When the first save is on its way before all others have been asked for, there is a
//! second forced write; how many it took is printed.
//!
//! Beside it stands what one `fdatasync` alone takes on the same disk, of a record at the end of a
//! file that has its length from the start.
//!
//! `cargo bench --bench store`; with `-- --test` it only shows that it runs.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput};

use paxos_commit::protocol::paxos::{Acceptors, ReplicaId};
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::{
    Branch, CommitId, InitiatorId, Roster, Session, StoreId, TxnId, Vote,
};
use paxos_commit::store::{Identity, Store};

/// Saves that are asked for at once.
const AT_ONCE: [u32; 4] = [1, 8, 64, 512];

/// Long enough for steady figures; each save stays on the disk until the end.
const MEASURED: Duration = Duration::from_secs(4);

/// A record of the file beside, about as long as two votes.
const RECORD_BYTES: usize = 256;

/// How long that file is.
const FILE_BYTES: u64 = 16 * 1024 * 1024;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("store");
    group.measurement_time(MEASURED);
    for saves in AT_ONCE {
        // In the target folder, which is on a real disk; the system's temporary one may not be.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        group_commit(&mut group, &folder.path().join("replica"), saves);
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    fdatasync(&mut group, &folder.path().join("file"));
    group.finish();
    criterion.final_summary();
}

fn group_commit(group: &mut BenchmarkGroup<'_, WallTime>, dir: &Path, saves: u32) {
    let replica = ReplicaId(1);
    let configuration = Acceptors::new([1, 2, 3].map(ReplicaId)).expect("an odd number");
    let identity = Identity::new("bench", replica, Some(configuration.into()), [7; 64]);
    Store::init(dir, &identity.expect("a cluster's name")).expect("a new folder");
    let (store, _) = Store::open(dir).expect("a new store");
    let roster = roster();
    let mut sequence = 0;
    let mut groups = 0;
    let (tell, told) = channel();
    group.throughput(Throughput::Elements(u64::from(saves)));
    group.bench_function(BenchmarkId::new("at_once", saves), |bencher| {
        bencher.iter_batched(
            || {
                groups += 1;
                let votes = |_| {
                    sequence += 1;
                    votes(&roster, sequence)
                };
                (0..saves).map(votes).collect::<Vec<_>>()
            },
            |mut jobs| {
                let last = jobs.pop();
                for records in jobs {
                    store.save(records, |_| {});
                }
                let tell = tell.clone();
                store.save(last.unwrap_or_default(), move |lsn| {
                    let _ = tell.send(lsn);
                });
                told.recv().expect("a save that fails ends the process")
            },
            BatchSize::PerIteration,
        );
    });
    let stats = store.stats();
    // None, where the command line names other benchmarks.
    if groups > 0 {
        println!(
            "store: {saves} at once took {:.2} forced writes, {:.1} KB",
            stats.saves as f64 / f64::from(groups),
            stats.bytes as f64 / f64::from(groups) / 1e3,
        );
    }
}

fn fdatasync(group: &mut BenchmarkGroup<'_, WallTime>, path: &Path) {
    let mut file = File::create(path).expect("a file");
    file.set_len(FILE_BYTES).expect("space");
    file.sync_all().expect("synced");
    let mut end = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("fdatasync", |bencher| {
        bencher.iter(|| {
            if end + RECORD_BYTES as u64 > FILE_BYTES {
                end = file.seek(SeekFrom::Start(0)).expect("the start");
            }
            end += RECORD_BYTES as u64;
            file.write_all(&[7; RECORD_BYTES]).expect("written");
            file.sync_data().expect("synced");
        });
    });
}

/// What a replica saves of one transaction before it reports.
fn votes(roster: &Roster, sequence: u32) -> Vec<Record> {
    let txn = TxnId {
        generation: 1,
        initiator: InitiatorId::from_u128(7),
        sequence,
        nonce: 9,
    };
    let id = CommitId::new(txn, roster);
    let vote = |index| Record::Vote {
        id,
        index,
        vote: Vote::Prepared,
        roster: (index == 0).then(|| roster.clone()),
    };
    vec![vote(0), vote(1)]
}

fn roster() -> Roster {
    let branch = |(name, session): (&str, u64)| Branch {
        participant: name.parse().expect("a name"),
        session: Session(session),
        store: StoreId::from_u128(1),
    };
    let branches = [("ledger-eu-1", 0x5eed_0001), ("stock-eu-1", 0x5eed_0002)];
    Roster::new(branches.map(branch)).expect("a roster")
}
