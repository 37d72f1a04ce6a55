//! The embedded store keeps every rule.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use paxos_commit::protocol::types::{Request, TxnId};
use paxos_commit::resource::conformance::{Applied, Failure, Processes, Status, Subject, check};
use paxos_commit::resource::embedded::{Embedded, Options, RequestError, Work};

/// A store in a directory. A crash copies what is in the files to the next one.
struct Store {
    folder: tempfile::TempDir,
    generation: Mutex<u32>,
}

impl Store {
    fn path(&self, generation: u32) -> PathBuf {
        self.folder.path().join(generation.to_string())
    }
}

fn count(text: Option<Vec<u8>>) -> Result<i64, RequestError> {
    match text {
        Some(text) => Ok(std::str::from_utf8(&text)?.parse()?),
        None => Ok(0),
    }
}

fn add(work: &Work, counter: &str, amount: i64) -> Result<(), RequestError> {
    let value = count(work.get(counter)?)? + amount;
    work.put(counter, value.to_string())?;
    Ok(())
}

fn run(work: &Work, request: &Request) -> Result<(), RequestError> {
    let text = std::str::from_utf8(&request.0)?;
    let (counter, amount) = text
        .split_once(' ')
        .ok_or("expected a counter and an amount")?;
    add(work, counter, amount.parse()?)
}

fn failure(error: RequestError) -> Failure {
    error.to_string().into()
}

impl Subject for Store {
    type Manager = Embedded;

    async fn open(&self) -> Result<Embedded, Failure> {
        let path = self.path(*self.generation.lock().unwrap());
        Ok(Embedded::open(path, Options::new().requests(run))?)
    }

    async fn kill(&self, manager: Embedded) -> Result<(), Failure> {
        let mut generation = self.generation.lock().unwrap();
        let (from, to) = (self.path(*generation), self.path(*generation + 1));
        // What the process does in its last moments happens in files that nobody reads again.
        copy(&from, &to)?;
        drop(manager);
        fs::remove_dir_all(from)?;
        *generation += 1;
        Ok(())
    }

    async fn crash_store(&self) -> Result<Applied, Failure> {
        Ok(Applied::NotApplicable("the store lives in its process"))
    }

    fn processes(&self) -> Processes {
        Processes::One
    }

    async fn add(
        &self,
        store: &Embedded,
        txn: TxnId,
        counter: &str,
        amount: i64,
    ) -> Result<(), Failure> {
        add(&store.work(txn), counter, amount).map_err(failure)
    }

    async fn look(&self, store: &Embedded, txn: TxnId, counter: &str) -> Result<i64, Failure> {
        count(store.work(txn).get(counter)?).map_err(failure)
    }

    async fn read(&self, store: &Embedded, counter: &str) -> Result<i64, Failure> {
        count(store.read(counter)?).map_err(failure)
    }

    async fn lose_connection(&self, _: &Embedded, _: TxnId) -> Result<Applied, Failure> {
        Ok(Applied::NotApplicable("the store has no connections"))
    }

    fn request(&self, counter: &str, amount: i64) -> Option<Request> {
        Some(Request(format!("{counter} {amount}").into_bytes().into()))
    }

    async fn markers(&self, _: &Embedded) -> Result<Option<u64>, Failure> {
        Ok(None)
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (from, to) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if from.is_dir() {
            copy(&from, &to)?;
        } else if from.extension().is_some_and(|end| end == "jnl") {
            copy_journal(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

/// A journal is a large file of zeros, written from the front.
fn copy_journal(from: &Path, to: &Path) -> std::io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut chunk)?;
        if chunk[..length].iter().all(|byte| *byte == 0) {
            break;
        }
        to.write_all(&chunk[..length])?;
    }
    to.set_len(from.metadata()?.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_keeps_every_rule() {
    let store = Store {
        folder: tempfile::tempdir().unwrap(),
        generation: Mutex::new(0),
    };
    let report = check(&store).await;
    assert!(report.is_passed(), "{report}");
    // What does not apply is said, and is what it should be.
    let skipped = report.findings.iter();
    let skipped = skipped.filter(|finding| matches!(finding.status, Status::NotApplicable(_)));
    assert_eq!(skipped.count(), 10, "{report}");
}
