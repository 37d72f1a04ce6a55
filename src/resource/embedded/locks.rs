//! The lock table: who may read and write which rows, and which prefixes are read.
//!
//! Strict two-phase locking without waiting: whoever cannot have a lock at once is told who holds
//! it. So there are no deadlocks, and no queue that could grow.

use std::collections::BTreeMap;
use std::ops::Bound;

use fjall::Slice;

use super::footprint::Footprint;

/// Who holds a lock: one transaction's part in this store. Numbers are never used twice in one
/// process, so a handle that outlived its transaction finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner(pub(super) u64);

/// The lock of one row.
#[derive(Debug)]
enum Row {
    Shared(Readers),
    Exclusive(Owner),
}

/// Those who share a lock; never empty.
#[derive(Debug)]
struct Readers(Vec<Owner>);

impl Readers {
    fn add(&mut self, owner: Owner) {
        if !self.0.contains(&owner) {
            self.0.push(owner);
        }
    }

    /// Anyone else.
    fn other_than(&self, owner: Owner) -> Option<Owner> {
        self.0.iter().copied().find(|reader| *reader != owner)
    }
}

/// A lock that another transaction holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The row on which two met.
    pub(super) key: Slice,
    /// The one that was there first.
    pub(super) by: Owner,
}

/// All locks of a store.
#[derive(Debug, Default)]
pub(super) struct Locks {
    rows: BTreeMap<Slice, Row>,
    /// Who has scanned what: nobody else may write a row that starts so.
    prefixes: BTreeMap<Slice, Readers>,
}

impl Locks {
    /// A shared lock of a row.
    pub(super) fn share(&mut self, owner: Owner, key: &Slice) -> Result<(), Held> {
        match self.rows.get_mut(&**key) {
            None => {
                let readers = Readers(vec![owner]);
                self.rows.insert(key.clone(), Row::Shared(readers));
                Ok(())
            }
            Some(Row::Shared(readers)) => {
                readers.add(owner);
                Ok(())
            }
            Some(Row::Exclusive(by)) if *by == owner => Ok(()),
            Some(Row::Exclusive(by)) => Err(Held {
                key: key.clone(),
                by: *by,
            }),
        }
    }

    /// An exclusive lock of a row. A shared one is upgraded if nobody else shares it.
    pub(super) fn exclude(&mut self, owner: Owner, key: &Slice) -> Result<(), Held> {
        let held = |by| Held {
            key: key.clone(),
            by,
        };
        if let Some(by) = self.scanned_by_another(owner, key) {
            return Err(held(by));
        }
        match self.rows.get_mut(&**key) {
            None => drop(self.rows.insert(key.clone(), Row::Exclusive(owner))),
            Some(Row::Exclusive(by)) if *by == owner => {}
            Some(Row::Exclusive(by)) => return Err(held(*by)),
            Some(row @ Row::Shared(_)) => {
                if let Row::Shared(readers) = row
                    && let Some(by) = readers.other_than(owner)
                {
                    return Err(held(by));
                }
                *row = Row::Exclusive(owner);
            }
        }
        Ok(())
    }

    /// A shared lock of every row, there or not, that starts with `prefix`.
    pub(super) fn share_prefix(&mut self, owner: Owner, prefix: &Slice) -> Result<(), Held> {
        let from = (Bound::Included(&**prefix), Bound::Unbounded);
        let rows = self.rows.range::<[u8], _>(from);
        for (key, row) in rows.take_while(|(key, _)| key.starts_with(prefix)) {
            if let Row::Exclusive(by) = row
                && *by != owner
            {
                return Err(Held {
                    key: key.clone(),
                    by: *by,
                });
            }
        }
        match self.prefixes.get_mut(&**prefix) {
            Some(readers) => readers.add(owner),
            None => drop(self.prefixes.insert(prefix.clone(), Readers(vec![owner]))),
        }
        Ok(())
    }

    /// Whether someone else has scanned a prefix of `key`.
    ///
    /// Every locked prefix of `key` is found without trying all lengths: the greatest entry that is
    /// not after `key` either is one, or shows by where it differs how short the next one must be.
    fn scanned_by_another(&self, owner: Owner, key: &[u8]) -> Option<Owner> {
        let mut rest = key;
        loop {
            let up_to = (Bound::Unbounded, Bound::Included(rest));
            let (prefix, readers) = self.prefixes.range::<[u8], _>(up_to).next_back()?;
            let same = prefix.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if same == prefix.len() {
                if let Some(by) = readers.other_than(owner) {
                    return Some(by);
                }
                rest = &rest[..same.checked_sub(1)?];
            } else {
                rest = &rest[..same];
            }
        }
    }

    /// Lets go of everything that `owner` locked.
    pub(super) fn let_go(&mut self, owner: Owner, of: &Footprint) {
        for key in of.writes.keys().chain(&of.reads) {
            match self.rows.get_mut(&**key) {
                Some(Row::Exclusive(by)) if *by == owner => drop(self.rows.remove(&**key)),
                Some(Row::Shared(readers)) => {
                    readers.0.retain(|reader| *reader != owner);
                    if readers.0.is_empty() {
                        self.rows.remove(&**key);
                    }
                }
                // A key that was read and then written stands in both sets.
                Some(Row::Exclusive(_)) | None => {}
            }
        }
        for prefix in &of.prefixes {
            if let Some(readers) = self.prefixes.get_mut(&**prefix) {
                readers.0.retain(|reader| *reader != owner);
                if readers.0.is_empty() {
                    self.prefixes.remove(&**prefix);
                }
            }
        }
    }

    /// A write was undone: its exclusive lock becomes the shared one of a read, or is released.
    pub(super) fn relax(&mut self, owner: Owner, key: &Slice, was_read: bool) {
        let is_mine = matches!(self.rows.get(&**key), Some(Row::Exclusive(by)) if *by == owner);
        if !is_mine {
            return;
        }
        if was_read {
            let readers = Readers(vec![owner]);
            self.rows.insert(key.clone(), Row::Shared(readers));
        } else {
            self.rows.remove(&**key);
        }
    }

    /// Takes again what a prepared branch had locked before a restart.
    pub(super) fn restore(&mut self, owner: Owner, of: &Footprint) -> Result<(), Held> {
        for key in of.writes.keys() {
            self.exclude(owner, key)?;
        }
        for key in &of.reads {
            self.share(owner, key)?;
        }
        for prefix in &of.prefixes {
            self.share_prefix(owner, prefix)?;
        }
        Ok(())
    }

    /// How many rows and prefixes are locked.
    pub(super) fn len(&self) -> usize {
        self.rows.len() + self.prefixes.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const ONE: Owner = Owner(1);
    const TWO: Owner = Owner(2);

    fn held<T>(key: &str, by: Owner) -> Result<T, Held> {
        Err(Held {
            key: key.into(),
            by,
        })
    }

    #[test]
    fn readers_share_and_writers_do_not() {
        let mut locks = Locks::default();
        let (a, b) = ("a".into(), "b".into());
        assert_eq!(locks.share(ONE, &a), Ok(()));
        assert_eq!(locks.share(TWO, &a), Ok(()));
        assert_eq!(locks.exclude(ONE, &a), held("a", TWO));
        assert_eq!(locks.exclude(ONE, &b), Ok(()));
        assert_eq!(locks.share(TWO, &b), held("b", ONE));
        assert_eq!(locks.exclude(TWO, &b), held("b", ONE));
        assert_eq!(locks.share(ONE, &b), Ok(()));
        assert_eq!(locks.exclude(ONE, &b), Ok(()));
    }

    #[test]
    fn a_sole_reader_may_write() {
        let mut locks = Locks::default();
        let a = "a".into();
        assert_eq!(locks.share(ONE, &a), Ok(()));
        assert_eq!(locks.exclude(ONE, &a), Ok(()));
        assert_eq!(locks.share(TWO, &a), held("a", ONE));
    }

    #[test]
    fn a_scan_and_the_writes_of_others_exclude_each_other() {
        let mut locks = Locks::default();
        assert_eq!(locks.share_prefix(ONE, &"ab".into()), Ok(()));
        assert_eq!(locks.exclude(TWO, &"abc".into()), held("abc", ONE));
        assert_eq!(locks.exclude(TWO, &"ab".into()), held("ab", ONE));
        assert_eq!(locks.exclude(TWO, &"a".into()), Ok(()));
        assert_eq!(locks.exclude(TWO, &"ac".into()), Ok(()));
        assert_eq!(locks.exclude(ONE, &"abz".into()), Ok(()));
        assert_eq!(locks.share_prefix(ONE, &"a".into()), held("a", TWO));
        assert_eq!(locks.share_prefix(TWO, &"".into()), held("abz", ONE));
        assert_eq!(locks.share_prefix(TWO, &"abq".into()), Ok(()));
    }

    /// The table against a list of all locks ever taken, in which one can see who is right.
    #[derive(Default)]
    struct Model {
        reads: BTreeSet<(Owner, Vec<u8>)>,
        writes: BTreeSet<(Owner, Vec<u8>)>,
        scans: BTreeSet<(Owner, Vec<u8>)>,
    }

    impl Model {
        fn may(&self, owner: Owner, what: usize, key: &[u8]) -> bool {
            let of_others = |set: &BTreeSet<(Owner, Vec<u8>)>, hit: &dyn Fn(&[u8]) -> bool| {
                set.iter().any(|(by, other)| *by != owner && hit(other))
            };
            match what {
                0 => !of_others(&self.writes, &|other| other == key),
                1 => {
                    !of_others(&self.writes, &|other| other == key)
                        && !of_others(&self.reads, &|other| other == key)
                        && !of_others(&self.scans, &|other| key.starts_with(other))
                }
                _ => !of_others(&self.writes, &|other| other.starts_with(key)),
            }
        }

        fn footprint(&self, owner: Owner) -> Footprint {
            let of = |set: &BTreeSet<(Owner, Vec<u8>)>| {
                let mine = set.iter().filter(|(by, _)| *by == owner);
                mine.map(|(_, key)| Slice::from(&**key))
                    .collect::<BTreeSet<_>>()
            };
            let writes = of(&self.writes).into_iter().map(|key| (key, None));
            Footprint {
                writes: BTreeMap::from_iter(writes),
                reads: of(&self.reads),
                prefixes: of(&self.scans),
            }
        }
    }

    #[test]
    fn random_locks_are_those_of_a_model() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut locks = Locks::default();
            let mut model = Model::default();
            for step in 0..400 {
                let owner = Owner(rng.u64(0..4));
                let key: Vec<u8> = (0..rng.usize(0..5)).map(|_| rng.u8(0..2)).collect();
                let slice = Slice::from(&*key);
                let what = rng.usize(0..12) % 4;
                if what == 3 {
                    locks.let_go(owner, &model.footprint(owner));
                    model.reads.retain(|(by, _)| *by != owner);
                    model.writes.retain(|(by, _)| *by != owner);
                    model.scans.retain(|(by, _)| *by != owner);
                    continue;
                }
                let got = match what {
                    0 => locks.share(owner, &slice),
                    1 => locks.exclude(owner, &slice),
                    _ => locks.share_prefix(owner, &slice),
                };
                let may = model.may(owner, what, &key);
                assert_eq!(got.is_ok(), may, "seed {seed}, step {step}: {got:?}");
                if may {
                    let set = match what {
                        0 => &mut model.reads,
                        1 => &mut model.writes,
                        _ => &mut model.scans,
                    };
                    set.insert((owner, key));
                }
            }
            for owner in (0..4).map(Owner) {
                locks.let_go(owner, &model.footprint(owner));
            }
            assert_eq!(locks.len(), 0, "seed {seed}: a lock is held for ever");
        }
    }
}
