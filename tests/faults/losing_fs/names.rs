//! What is in which directory.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

pub(super) type Ino = u64;

pub(super) const ROOT: Ino = 1;

/// Which names survive a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metadata {
    /// As on ext4 with `data=ordered`: changes of names survive in the order in which they were
    /// made, some first part of them; and to sync a file or a directory makes all of them durable up
    /// to the last one that it had a part in.
    Ordered,
    /// As little as POSIX promises: a change of a name is there only if its directory was synced
    /// afterwards.
    StrictDirectories,
}

/// One change of the names.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Link {
        dir: Ino,
        name: OsString,
        ino: Ino,
        is_dir: bool,
    },
    Unlink {
        dir: Ino,
        name: OsString,
        ino: Ino,
    },
    Rename {
        from: (Ino, OsString),
        to: (Ino, OsString),
        ino: Ino,
    },
}

/// Who syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Synced {
    /// A file's content, and what is needed to find it again.
    Data(Ino),
    /// A file and all that is known of it.
    File(Ino),
    Directory(Ino),
}

impl Change {
    fn concerns(&self, synced: Synced) -> bool {
        match (self, synced) {
            (Change::Link { ino, .. }, Synced::Data(file)) => *ino == file,
            (Change::Unlink { .. } | Change::Rename { .. }, Synced::Data(_)) => false,
            (
                Change::Link { ino, .. } | Change::Unlink { ino, .. } | Change::Rename { ino, .. },
                Synced::File(file),
            ) => *ino == file,
            (
                Change::Link { dir, ino, .. } | Change::Unlink { dir, ino, .. },
                Synced::Directory(d),
            ) => *dir == d || *ino == d,
            (Change::Rename { from, to, ino }, Synced::Directory(d)) => {
                from.0 == d || to.0 == d || *ino == d
            }
        }
    }
}

pub(super) type Entries = BTreeMap<OsString, Ino>;

#[derive(Clone, Debug, Default)]
struct Tree(BTreeMap<Ino, Entries>);

impl Tree {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Link {
                dir,
                name,
                ino,
                is_dir,
            } => {
                if *is_dir {
                    self.0.entry(*ino).or_default();
                }
                self.entries(*dir).insert(name.clone(), *ino);
            }
            Change::Unlink { dir, name, .. } => {
                self.entries(*dir).remove(name);
            }
            Change::Rename { from, to, ino } => {
                self.entries(from.0).remove(&from.1);
                self.entries(to.0).insert(to.1.clone(), *ino);
            }
        }
    }

    fn entries(&mut self, dir: Ino) -> &mut Entries {
        self.0.entry(dir).or_default()
    }

    /// Everything that can be reached.
    fn reachable(&self, into: &mut BTreeSet<Ino>) {
        let mut next = vec![ROOT];
        while let Some(ino) = next.pop() {
            into.insert(ino);
            next.extend(self.0.get(&ino).into_iter().flat_map(Entries::values));
        }
    }
}

/// The names as they are, and as they are on the disk.
#[derive(Debug)]
pub(super) struct Names {
    metadata: Metadata,
    now: Tree,
    durable: Tree,
    /// What leads from the durable names to those now.
    changes: Vec<Change>,
}

impl Names {
    pub(super) fn new(metadata: Metadata) -> Names {
        let tree = Tree(BTreeMap::from([(ROOT, Entries::new())]));
        Names {
            metadata,
            now: tree.clone(),
            durable: tree,
            changes: Vec::new(),
        }
    }

    pub(super) fn directory(&self, ino: Ino) -> Option<&Entries> {
        self.now.0.get(&ino)
    }

    pub(super) fn find(&self, dir: Ino, name: &OsStr) -> Option<Ino> {
        self.now.0.get(&dir)?.get(name).copied()
    }

    pub(super) fn change(&mut self, change: Change) {
        self.now.apply(&change);
        self.changes.push(change);
    }

    pub(super) fn is_clean(&self, synced: Synced) -> bool {
        !self.changes.iter().any(|change| change.concerns(synced))
    }

    pub(super) fn sync(&mut self, synced: Synced) {
        match (self.metadata, synced) {
            (Metadata::Ordered, _) => {
                let last = self
                    .changes
                    .iter()
                    .rposition(|change| change.concerns(synced));
                self.commit(last.map_or(0, |last| last + 1));
            }
            (Metadata::StrictDirectories, Synced::Directory(dir)) => {
                let entries = self.now.0.get(&dir).cloned().unwrap_or_default();
                for ino in entries.values().filter(|ino| self.now.0.contains_key(ino)) {
                    self.durable.0.entry(*ino).or_default();
                }
                self.durable.0.insert(dir, entries);
                // What is left of it is only counted.
                self.changes.retain(|change| !change.concerns(synced));
            }
            (Metadata::StrictDirectories, Synced::Data(_) | Synced::File(_)) => {}
        }
    }

    fn commit(&mut self, count: usize) {
        for change in self.changes.drain(..count) {
            self.durable.apply(&change);
        }
    }

    /// The power goes, and up to `kept` of the changes that are not durable survive. Says how many
    /// did not.
    pub(super) fn cut(&mut self, kept: impl FnOnce(usize) -> usize) -> usize {
        if self.metadata == Metadata::Ordered {
            self.commit(kept(self.changes.len()));
        }
        let lost = self.changes.len();
        self.changes.clear();
        self.now = self.durable.clone();
        lost
    }

    /// What has a name, or had one that a cut could bring back.
    pub(super) fn reachable(&self) -> BTreeSet<Ino> {
        let mut reachable = BTreeSet::new();
        self.now.reachable(&mut reachable);
        self.durable.reachable(&mut reachable);
        for change in &self.changes {
            match change {
                Change::Link { ino, .. }
                | Change::Unlink { ino, .. }
                | Change::Rename { ino, .. } => reachable.insert(*ino),
            };
        }
        reachable
    }

    /// The directories that nothing leads to any more are forgotten.
    pub(super) fn forget(&mut self, gone: &BTreeSet<Ino>) {
        self.now.0.retain(|ino, _| !gone.contains(ino));
        self.durable.0.retain(|ino, _| !gone.contains(ino));
    }
}
