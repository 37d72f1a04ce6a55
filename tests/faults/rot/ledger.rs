//! An embedded store. What its guard is known not to see: see `src/resource/embedded/mod.rs`.

use std::path::Path;
use std::time::Duration;

use paxos_commit::participant::{BranchId, Proof, ResourceManager};
use paxos_commit::protocol::types::{
    Branch, CommitId, InitiatorId, ReadOnly, Request, Roster, Session, StoreId, TxnId, Vote,
};
use paxos_commit::resource::embedded::{Embedded, OpenError, Options, RequestError, Work};
use tokio::runtime::Runtime;

use super::{Class, Content, Facts, Found, Refusal, Specimen, UNREADABLE, scratch};
use crate::files;
use crate::harness::Knobs;

const TRANSACTIONS: u32 = 14;

/// What becomes of a transaction.
#[derive(PartialEq)]
enum End {
    Committed,
    RolledBack,
    InDoubt,
}

fn end(sequence: u32) -> End {
    match sequence {
        4 | 9 => End::RolledBack,
        7 | 13 | 14 => End::InDoubt,
        _ => End::Committed,
    }
}

fn branch(sequence: u32) -> BranchId {
    let branch = Branch {
        participant: "ledger".parse().unwrap(),
        session: Session(5),
        store: StoreId::from_u128(1),
    };
    let txn = TxnId {
        generation: 1,
        initiator: InitiatorId::from_u128(7),
        sequence,
        nonce: 9,
    };
    let roster = Roster::new([branch.clone()]).unwrap();
    BranchId {
        id: CommitId::new(txn, &roster),
        branch,
    }
}

/// Each writes a row of its own, and one row that all but those in doubt share.
async fn prepare(store: &Embedded, sequence: u32) {
    let branch = branch(sequence);
    let request = Some(Request(sequence.to_be_bytes().into()));
    let vote = store.prepare(&branch, request, ReadOnly::Forbidden).await;
    assert_eq!(vote.unwrap(), Vote::Prepared);
}

/// The request is the sequence number.
fn transfer(work: &Work, request: &Request) -> Result<(), RequestError> {
    let sequence = u32::from_be_bytes((*request.0).try_into()?);
    work.put(format!("transfer/{sequence:03}"), "20")?;
    if end(sequence) != End::InDoubt {
        work.put("account/alice", format!("{}", 1_000 - sequence))?;
    }
    Ok(())
}

/// All that is known, or that some of it cannot be read.
async fn content(store: &Embedded) -> Found {
    let unreadable = |text: String| Refusal {
        kind: UNREADABLE,
        text,
    };
    let mut facts = Facts::new();
    for row in store.snapshot().scan("") {
        let row = row.map_err(|error| unreadable(error.to_string()))?;
        let (key, value) = (row.key.escape_ascii(), row.value.escape_ascii());
        facts.insert(format!("row {key} = {value}"));
    }
    let in_doubt = store.in_doubt().await.unwrap();
    let in_doubt: Vec<CommitId> = in_doubt.iter().map(|branch| branch.id).collect();
    for sequence in 1..=TRANSACTIONS {
        let branch = branch(sequence);
        let is_prepared = in_doubt.contains(&branch.id);
        // Proved, by a marker. (To commit what stands prepared would change it.)
        if end(sequence) == End::Committed && !is_prepared {
            match store.commit(&branch).await {
                Ok(Proof::Found) => drop(facts.insert(format!("proved {sequence}"))),
                Ok(Proof::Missing) => {}
                Err(error) => return Err(unreadable(error.to_string())),
            }
        }
    }
    facts.extend(in_doubt.iter().map(|id| format!("in doubt {id}")));
    facts.insert(format!("{} rows locked", store.locks()));
    Ok(Content { lsn: None, facts })
}

/// A closed store: what it held after each save.
async fn made(dir: &Path) -> Vec<Content> {
    let mut store = reopen(dir).unwrap();
    let mut history = vec![content(&store).await.unwrap()];
    for sequence in 1..=TRANSACTIONS {
        prepare(&store, sequence).await;
        history.push(content(&store).await.unwrap());
        match end(sequence) {
            End::Committed => {
                let proof = store.commit(&branch(sequence)).await.unwrap();
                assert_eq!(proof, Proof::Found);
            }
            End::RolledBack => store.rollback(&branch(sequence)).await.unwrap(),
            End::InDoubt => {}
        }
        history.push(content(&store).await.unwrap());
        if sequence == 6 {
            store.settled(branch(3).id, &[]).await.unwrap();
            history.push(content(&store).await.unwrap());
            drop(store);
            files::flush(&dir.join("database"));
            store = reopen(dir).unwrap();
            history.push(content(&store).await.unwrap());
        }
    }
    history
}

fn reopen(dir: &Path) -> Result<Embedded, OpenError> {
    let is_in_use = |error: &OpenError| matches!(error, OpenError::InUse { .. });
    let options = Options::new().requests(transfer);
    files::open_again(|| Embedded::open(dir, options.clone()), is_in_use)
}

fn look(dir: &Path) -> Found {
    let store = reopen(dir).map_err(refusal)?;
    let runtime = runtime();
    runtime.block_on(content(&store))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

fn refusal(error: OpenError) -> Refusal {
    let kind = match &error {
        OpenError::NotAStore { .. } => "not a store",
        OpenError::Newer { .. } => "newer format",
        OpenError::Damaged { .. } => "damaged",
        OpenError::Record { .. } => "a damaged record",
        OpenError::Database { .. } => "the database says so",
        OpenError::Io { .. } => "the system says so",
        _ => "other",
    };
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    Refusal { kind, text }
}

fn specimen(folder: &Path) -> Specimen {
    let dir = folder.join("ledger");
    let history = runtime().block_on(made(&dir));
    Specimen::new(&dir, history, look)
}

#[test]
fn a_ledger_never_opens_with_what_never_was() {
    let knobs = Knobs::new(Duration::from_secs(8));
    let mut rng = knobs.rng();
    let folder = scratch();
    let specimen = specimen(folder.path());
    let tally = specimen.run(&mut rng, knobs.duration);
    tally.print("ledger", &specimen);
    tally.refuse(&NEVER);
    assert!(tally.count(&Class::Refused("the database says so")) > 0);
}

/// Of an older state see the guard's limits: nobody knows how far a ledger had come.
const NEVER: [Class; 5] = [
    Class::Different,
    Class::Resurrected,
    Class::Unclear,
    Class::Panic,
    Class::Hang,
];

#[test]
fn a_ledger_without_any_one_of_its_files_is_refused_or_whole() {
    let folder = scratch();
    let specimen = specimen(folder.path());
    let mut whole = Vec::new();
    for name in specimen.names() {
        let (class, text) = specimen.try_without(&name);
        match class {
            Class::Refused(_) => {}
            Class::Same => whole.push(name.display().to_string()),
            other => panic!("without {}: {other:?}: {text}", name.display()),
        }
    }
    // It is made anew, and holds nothing.
    assert!(whole.contains(&"lock".to_owned()), "{whole:?}");
    let is_harmless = |name: &&String| *name != "lock" && !name.contains("/v");
    assert_eq!(whole.iter().find(is_harmless), None);
}

#[test]
fn damage_that_was_planted_in_a_ledger_is_told_apart() {
    let folder = scratch();
    let specimen = specimen(folder.path());
    let of = |damage: &dyn Fn(&Path)| specimen.try_after(damage).0;
    assert_eq!(of(&|_| {}), Class::Same);
    let older = of(&|dir| files::cut(&files::journal(&dir.join("database")), 1));
    assert_eq!(older, Class::Older);
    let changed = of(&|dir| {
        let row: (&str, &[u8], &[u8]) = ("data", b"account/alice", b"1000000");
        files::plant(&dir.join("database"), &[row]);
    });
    assert_eq!(changed, Class::Different);
    let resurrected = of(&|dir| {
        // Prepared again, although it was rolled back.
        let row: (&str, &[u8], &[u8]) = ("data", b"account/alice", b"999");
        files::plant(&dir.join("database"), &[row]);
    });
    assert_eq!(resurrected, Class::Different);
    let refused = of(&|dir| std::fs::write(dir.join("format"), "?").unwrap());
    assert_eq!(refused, Class::Refused("not a store"));
}

/// What the guard of a ledger sees of a directory that is not its own any more: nothing when it is
/// opened, and a commit of what had been prepared.
#[test]
fn a_ledger_that_lost_its_directory_commits_nothing_that_it_had_prepared() {
    let folder = scratch();
    let dir = folder.path().join("ledger");
    let before = runtime().block_on(made(&dir)).pop().unwrap();
    let older = folder.path().join("older");
    files::copy(&dir, &older);
    let proof = |dir: &Path, sequence| {
        let store = reopen(dir).unwrap();
        runtime().block_on(store.commit(&branch(sequence))).unwrap()
    };
    // One of those in doubt is committed after the copy was made.
    assert_eq!(proof(&dir, 13), Proof::Found);
    let right = folder.path().join("right");
    files::replace(&dir, &right);
    // Emptied.
    assert_eq!(proof(&dir, 14), Proof::Missing);
    // The older copy opens as it was: what it has lost is prepared again, and told again.
    files::replace(&older, &dir);
    assert_eq!(look(&dir).unwrap(), before);
    assert_eq!(proof(&dir, 13), Proof::Found);
    // Put back, the right one knows both.
    files::replace(&right, &dir);
    assert_eq!(proof(&dir, 13), Proof::Found);
    assert_eq!(proof(&dir, 14), Proof::Found);
}
