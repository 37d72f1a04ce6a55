//! The embedded store keeps every rule of the conformance kit. (The kit works by transaction ids,
//! without a session, which is why this test stands inside the library.)

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::protocol::types::Request;
use crate::resource::conformance::{Applied, Failure, Processes, Status, Subject, check};

/// A store in a directory. A crash copies what is in the files to the next one.
struct Directory {
    folder: tempfile::TempDir,
    generation: Mutex<u32>,
    others: Mutex<u32>,
}

impl Directory {
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

impl Subject for Directory {
    type Manager = Embedded;

    async fn open(&self) -> Result<Embedded, Failure> {
        let path = self.path(*self.generation.lock().unwrap());
        Ok(Embedded::open(path, Options::new().requests(run))?)
    }

    async fn kill(&self, manager: Embedded) -> Result<(), Failure> {
        let mut generation = self.generation.lock().unwrap();
        let (from, to) = (self.path(*generation), self.path(*generation + 1));
        // What the process does in its last moments happens in files that nobody reads again.
        copy(&from, &to);
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
        add(&store.work_of(txn), counter, amount).map_err(failure)
    }

    async fn look(&self, store: &Embedded, txn: TxnId, counter: &str) -> Result<i64, Failure> {
        count(store.work_of(txn).get(counter)?).map_err(failure)
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

    async fn open_copy(&self) -> Result<Option<Embedded>, Failure> {
        let from = self.path(*self.generation.lock().unwrap());
        let mut others = self.others.lock().unwrap();
        *others += 1;
        let to = self.folder.path().join(format!("other-{others}"));
        copy(&from, &to);
        Ok(Some(Embedded::open(to, Options::new().requests(run))?))
    }

    async fn open_another(&self) -> Result<Option<Embedded>, Failure> {
        let mut others = self.others.lock().unwrap();
        *others += 1;
        let path = self.folder.path().join(format!("other-{others}"));
        Ok(Some(Embedded::open(path, Options::new().requests(run))?))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_keeps_every_rule() {
    let store = Directory {
        folder: tempfile::tempdir().unwrap(),
        generation: Mutex::new(0),
        others: Mutex::new(0),
    };
    let report = check(&store).await;
    assert!(report.is_passed(), "{report}");
    // What does not apply is said, and is what it should be.
    let skipped = report.findings.iter();
    let skipped = skipped.filter(|finding| matches!(finding.status, Status::NotApplicable(_)));
    assert_eq!(skipped.count(), 9, "{report}");
}
