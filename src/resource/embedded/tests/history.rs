//! Random histories, against a [model](super::model).

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Done, Key, Model, apply};
use super::*;

/// A bug that the history must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    Nothing,
    /// A commit is rolled back.
    CommitRollsBack,
    /// A rollback is not heard.
    RollbackIsLost,
    /// A crash loses the last save.
    CrashLosesCommit,
    /// Work that was let go of keeps its locks.
    LetGoIsLost,
    /// The list of commits that still wait is not heard.
    ListIsLost,
    /// A failure is ignored.
    FailureIsForgotten,
}

macro_rules! expect {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}

struct History {
    rng: fastrand::Rng,
    plant: Plant,
    model: Model,
    home: Home,
    /// Always there, but for the moment of a restart.
    store: Option<Embedded>,
    /// A copy from before the last commit.
    stale: Option<Home>,
}

impl History {
    fn store(&self) -> &Embedded {
        self.store.as_ref().expect("open")
    }

    fn key(&mut self) -> Key {
        let length = self.rng.usize(1..4);
        (0..length)
            .map(|_| self.rng.choice(['a', 'b']).unwrap())
            .collect()
    }

    fn some_of(&mut self, which: fn(&Model) -> &BTreeMap<u32, Done>) -> Option<u32> {
        self.rng
            .choice(which(&self.model).keys().copied().collect::<Vec<_>>())
    }

    fn same<T: std::fmt::Debug + PartialEq>(
        &self,
        what: &str,
        may: Result<T, BTreeSet<u32>>,
        got: Result<T, WorkError>,
    ) -> Result<bool, String> {
        match (may, got) {
            (Ok(expected), Ok(got)) => {
                expect!(
                    expected == got,
                    "{what}: expected {expected:?}, got {got:?}"
                );
                Ok(true)
            }
            (
                Err(holders),
                Err(WorkError::Conflict {
                    held_by: Holder::Transaction(by),
                    ..
                }),
            ) => {
                expect!(
                    holders.contains(&by.sequence),
                    "{what}: {by} holds no lock there"
                );
                Ok(false)
            }
            (may, got) => Err(format!("{what}: expected {may:?}, got {got:?}")),
        }
    }

    fn work(&mut self) -> Result<(), String> {
        let sequence = self
            .rng
            .u32(self.model.settled + 1..self.model.settled + 12);
        let over = self.model.commits.contains(&sequence) || self.model.ends.contains(&sequence);
        if over || self.model.prepared.contains_key(&sequence) {
            return Ok(());
        }
        let mut done = self.model.working.remove(&sequence).unwrap_or_default();
        let key = self.key();
        if done.is_poisoned {
            let got = self.store().work_of(txn(sequence)).put(&key, "late");
            self.model.working.insert(sequence, done);
            expect!(
                matches!(got, Err(WorkError::Poisoned)),
                "{sequence}: {got:?}"
            );
            return Ok(());
        }
        // Most failures are part of the plan.
        let is_attempt = self.rng.u32(0..8) > 0;
        let work = match is_attempt || self.plant == Plant::FailureIsForgotten {
            true => probe(self.store(), sequence),
            false => self.store().work_of(txn(sequence)),
        };
        match self.rng.u32(0..6) {
            0 | 1 => {
                let may = if done.writes.contains_key(&key) {
                    Ok(())
                } else {
                    self.model.read(sequence, &key)
                };
                let rows = self.model.sees(&done, &key);
                let row = rows.into_iter().find(|row| row.key == key.as_bytes());
                let may = may.map(|()| row.map(|row| row.value));
                let succeeded = self.same("get", may, work.get(&key))?;
                if succeeded && !done.writes.contains_key(&key) {
                    done.reads.insert(key);
                }
                done.is_poisoned = !is_attempt && !succeeded;
            }
            2 => {
                let prefix = key[..self.rng.usize(0..=key.len())].to_owned();
                let may = self.model.scan(sequence, &prefix);
                let may = may.map(|()| self.model.sees(&done, &prefix));
                let succeeded = self.same("scan", may, work.scan(&prefix))?;
                if succeeded {
                    done.scans.insert(prefix);
                }
                done.is_poisoned = !is_attempt && !succeeded;
            }
            kind => {
                let value = (kind > 3).then(|| self.rng.u32(0..1000).to_string());
                let got = match &value {
                    Some(value) => work.put(&key, value),
                    None => work.delete(&key),
                };
                let succeeded = self.same("write", self.model.write(sequence, &key), got)?;
                if succeeded {
                    done.writes.insert(key, value);
                }
                done.is_poisoned = !is_attempt && !succeeded;
            }
        }
        self.model.working.insert(sequence, done);
        Ok(())
    }

    async fn prepare(&mut self) -> Result<(), String> {
        let Some(sequence) = self.some_of(|model| &model.working) else {
            return Ok(());
        };
        let allowed = self.rng.bool();
        let read_only = if allowed {
            ReadOnly::Allowed
        } else {
            ReadOnly::Forbidden
        };
        let vote = self
            .store()
            .prepare(&branch(sequence), None, read_only)
            .await;
        let vote = vote.map_err(|error| error.to_string())?;
        let done = self.model.working.remove(&sequence).unwrap();
        if done.is_poisoned {
            expect!(vote == Vote::Aborted, "{sequence} voted {vote:?}");
            self.model.ends.insert(sequence);
        } else if done.writes.is_empty() && allowed {
            expect!(vote == Vote::ReadOnly, "{sequence} voted {vote:?}");
            self.model.ends.insert(sequence);
        } else {
            expect!(vote == Vote::Prepared, "{sequence} voted {vote:?}");
            self.model.prepared.insert(sequence, done);
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), String> {
        let Some(sequence) = self.some_of(|model| &model.prepared) else {
            return Ok(());
        };
        if self.plant == Plant::CrashLosesCommit {
            self.stale = Some(self.home.crash());
        }
        let branch = branch(sequence);
        let committed = match self.plant {
            Plant::CommitRollsBack => self.store().rollback(&branch).await,
            _ => self.store().commit(&branch).await.map(drop),
        };
        committed.map_err(|error| error.to_string())?;
        let done = self.model.prepared.remove(&sequence).unwrap();
        apply(&mut self.model.committed, &done.writes);
        self.model.commits.insert(sequence);
        self.model.markers.insert(sequence);
        Ok(())
    }

    async fn abort(&mut self) -> Result<(), String> {
        let which = self.rng.u32(0..3);
        let found = match which {
            0 => self.some_of(|model| &model.working),
            _ => self.some_of(|model| &model.prepared),
        };
        let Some(sequence) = found else { return Ok(()) };
        let branch = branch(sequence);
        match which {
            0 if self.plant == Plant::LetGoIsLost => {}
            0 => self.store().let_go(branch.id.txn).await,
            1 if self.plant == Plant::RollbackIsLost => {}
            1 => self
                .store()
                .rollback(&branch)
                .await
                .map_err(|error| error.to_string())?,
            _ => {
                let expiry = self
                    .store()
                    .expire(&branch)
                    .await
                    .map_err(|error| error.to_string())?;
                expect!(expiry == Expiry::RolledBack, "{branch} stood prepared");
            }
        }
        self.model.working.remove(&sequence);
        self.model.prepared.remove(&sequence);
        self.model.ends.insert(sequence);
        Ok(())
    }

    /// What came to its end is told again.
    async fn repeat(&mut self) -> Result<(), String> {
        let sequence = self.rng.u32(1..self.model.settled + 12);
        let branch = branch(sequence);
        if self.model.commits.contains(&sequence) {
            let again = self.store().commit(&branch).await;
            let expected = match self.model.markers.contains(&sequence) {
                true => Proof::Found,
                false => Proof::Missing,
            };
            let is_expected = again.as_ref().is_ok_and(|proof| *proof == expected);
            expect!(
                is_expected,
                "{branch}: expected {expected:?}, got {again:?}"
            );
        }
        let known = self.model.working.contains_key(&sequence)
            || self.model.prepared.contains_key(&sequence);
        if !known && sequence > self.model.settled && !self.model.commits.contains(&sequence) {
            let wrong = self.store().commit(&branch).await;
            expect!(
                wrong.as_ref().is_ok_and(|proof| *proof == Proof::Missing),
                "{branch} was never prepared, and is told to be committed"
            );
            self.store()
                .rollback(&branch)
                .await
                .map_err(|error| error.to_string())?;
            self.model.ends.insert(sequence);
        }
        if !known {
            let expiry = self
                .store()
                .expire(&branch)
                .await
                .map_err(|error| error.to_string())?;
            expect!(
                expiry == Expiry::NotPrepared,
                "{branch} does not stand prepared"
            );
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), String> {
        let through = self.model.settled + self.rng.u32(0..4);
        let id = CommitId {
            txn: txn(through),
            roster: crate::protocol::types::RosterDigest::MAX,
        };
        let markers = self.model.markers.iter().copied();
        let listed: BTreeSet<u32> = markers.filter(|_| self.rng.bool()).collect();
        let branches: Vec<BranchId> = match self.plant {
            Plant::ListIsLost => Vec::new(),
            _ => listed.iter().map(|sequence| branch(*sequence)).collect(),
        };
        self.store()
            .settled(id, &branches)
            .await
            .map_err(|error| error.to_string())?;
        self.model.settled = through;
        let markers = &mut self.model.markers;
        markers.retain(|sequence| *sequence > through || listed.contains(sequence));
        self.model.working.retain(|sequence, _| *sequence > through);
        Ok(())
    }

    fn restart(&mut self, how: u32) {
        let next = match (self.plant, self.stale.take()) {
            (Plant::CrashLosesCommit, Some(stale)) => Some(stale),
            _ if how == 0 => Some(self.home.crash()),
            _ => None,
        };
        // The directory must be free before it is opened again.
        self.store = None;
        if let Some(next) = next {
            self.home = next;
        }
        self.store = Some(self.home.open());
        self.model.crash();
    }

    async fn check(&self) -> Result<(), String> {
        let rows = self.store().snapshot().scan("").map(Result::unwrap);
        let expected: Vec<_> = self.model.sees(&Done::default(), "");
        let got: Vec<_> = rows.collect();
        expect!(
            got == expected,
            "committed: expected {expected:?}, got {got:?}"
        );
        let found: Vec<u32> = in_doubt(self.store())
            .await
            .iter()
            .map(|found| found.id.txn.sequence)
            .collect();
        let prepared: Vec<u32> = self.model.prepared.keys().copied().collect();
        expect!(
            found == prepared,
            "in doubt: expected {prepared:?}, got {found:?}"
        );
        let mut locks = BTreeSet::new();
        for (_, done) in self.model.others(0) {
            locks.extend(
                done.reads
                    .iter()
                    .chain(done.writes.keys())
                    .map(|key| (0, key)),
            );
            locks.extend(done.scans.iter().map(|prefix| (1, prefix)));
        }
        let (expected, got) = (locks.len(), self.store().locks());
        expect!(expected == got, "expected {expected} locks, got {got}");
        Ok(())
    }
}

async fn run(seed: u64, steps: u32, plant: Plant) -> Result<(), String> {
    let home = Home::new();
    let mut history = History {
        rng: fastrand::Rng::with_seed(seed),
        plant,
        model: Model::default(),
        store: Some(home.open()),
        home,
        stale: None,
    };
    for step in 0..steps {
        let result = match history.rng.u32(0..100) {
            0..60 => history.work(),
            60..73 => history.prepare().await,
            73..83 => history.commit().await,
            83..89 => history.abort().await,
            89..95 => history.repeat().await,
            95..97 => history.settle().await,
            how => {
                history.restart(how - 97);
                Ok(())
            }
        };
        let result = match result {
            Ok(()) => history.check().await,
            error => error,
        };
        result.map_err(|error| format!("seed {seed}, step {step}: {error}"))?;
    }
    // Finish everything: nothing may be left.
    for found in in_doubt(history.store()).await {
        history
            .store()
            .rollback(&branch(found.id.txn.sequence))
            .await
            .unwrap();
    }
    for sequence in history.model.working.keys() {
        history.store().let_go(txn(*sequence)).await;
    }
    expect!(
        history.store().locks() == 0,
        "seed {seed}: a lock is held for ever"
    );
    Ok(())
}

#[tokio::test]
async fn random_histories_are_those_of_the_model() {
    for seed in 0..16 {
        assert_eq!(run(seed, 250, Plant::Nothing).await, Ok(()));
    }
}

#[tokio::test]
async fn planted_bugs_are_seen() {
    for plant in [
        Plant::CommitRollsBack,
        Plant::RollbackIsLost,
        Plant::CrashLosesCommit,
        Plant::LetGoIsLost,
        Plant::ListIsLost,
        Plant::FailureIsForgotten,
    ] {
        let mut seeds = 0..20;
        let mut seen = None;
        while let (None, Some(seed)) = (&seen, seeds.next()) {
            seen = run(seed, 300, plant).await.err();
        }
        assert!(seen.is_some(), "{plant:?} was not seen");
    }
}
