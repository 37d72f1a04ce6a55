//! Single flipped bits, wherever a small store has bytes: it is refused, or opens with exactly what
//! it had, or with less in a way that others notice; never with anything else.
//!
//! ```text
//! FAULT_SECONDS=3600 cargo test --release --test faults rot -- --nocapture    # every bit
//! ```

mod ledger;
mod replica;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::files;

/// How long it may take to open a small store.
const OPENED_WITHIN: Duration = Duration::from_secs(60);

/// The thread that opens stores.
const LOOKING: &str = "looking";

/// What is known of a store: facts, each of them true or not.
pub(super) type Facts = BTreeSet<String>;

/// The kind of refusal of a store that was opened.
pub(super) const UNREADABLE: &str = "cannot be read";

/// What was found in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// The number of its last save, for a store that counts them.
    pub(super) lsn: Option<u64>,
    pub(super) facts: Facts,
}

/// What came of opening it.
pub(super) type Found = Result<Content, Refusal>;

/// Why it was not opened.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// The name of the error.
    pub(super) kind: &'static str,
    pub(super) text: String,
}

/// A store whose bytes are flipped.
pub(super) struct Specimen {
    /// Where it is opened.
    dir: PathBuf,
    files: BTreeMap<PathBuf, Vec<u8>>,
    folders: BTreeSet<PathBuf>,
    /// What it holds, after each save; the last is what it must hold.
    pub(super) history: Vec<Content>,
    look: fn(&Path) -> Found,
    patience: Duration,
}

/// One bit.
#[derive(Clone, Debug)]
pub(super) struct Flip {
    file: PathBuf,
    at: usize,
    bit: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Refused, with a message.
    Refused(&'static str),
    /// It opens, and to read what was damaged is an error: no transaction is done on it.
    Unreadable,
    /// Everything is there.
    Same,
    /// What an earlier save left, and its number says so: the others know of a higher one.
    NoticedByPeers,
    /// What an earlier save left, and nobody can know.
    Older,
    /// Everything is there, and something that had been dropped.
    Resurrected,
    /// What never was: some of an earlier state with some of a later one, or a value that nobody
    /// wrote.
    Different,
    /// Refused without saying what is wrong and what to do.
    Unclear,
    Panic,
    Hang,
}

impl Specimen {
    /// What is in `template` now is what will be damaged.
    pub(super) fn new(template: &Path, history: Vec<Content>, look: fn(&Path) -> Found) -> Self {
        let mut bytes = BTreeMap::new();
        let mut folders = BTreeSet::new();
        for name in files::all(template) {
            let mut content = fs::read(template.join(&name)).unwrap();
            // The journal is preallocated.
            if name.extension().is_some_and(|it| it == "jnl") {
                let used = content.iter().rposition(|byte| *byte != 0);
                content.truncate(used.map_or(0, |last| last + 1));
            }
            folders.extend(name.parent().map(Path::to_owned));
            bytes.insert(name, content);
        }
        folders.extend(empty_folders(template));
        let dir = template.with_extension("damaged");
        Specimen {
            dir,
            files: bytes,
            folders,
            history,
            look,
            patience: OPENED_WITHIN,
        }
    }

    /// How many bytes of it are used.
    pub(super) fn len(&self) -> usize {
        let used = |(file, bytes): (&PathBuf, &Vec<u8>)| {
            (0..bytes.len()).filter(|at| is_used(file, *at)).count()
        };
        self.files.iter().map(used).sum()
    }

    fn write(&self, flip: Option<&Flip>) {
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir).unwrap();
        }
        for folder in &self.folders {
            fs::create_dir_all(self.dir.join(folder)).unwrap();
        }
        for (name, bytes) in &self.files {
            let path = self.dir.join(name);
            fs::write(&path, bytes).unwrap();
            if let Some(flip) = flip.filter(|flip| flip.file == *name) {
                let file = File::options().write(true).open(path).unwrap();
                let byte = bytes[flip.at] ^ 1 << flip.bit;
                file.write_all_at(&[byte], flip.at as u64).unwrap();
            }
        }
    }

    /// Puts other bytes in the place of a file.
    pub(super) fn set(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.insert(name.into(), bytes);
    }

    pub(super) fn names(&self) -> Vec<PathBuf> {
        self.files.keys().cloned().collect()
    }

    /// Opens it with one bit flipped, or none.
    pub(super) fn try_with(&self, flip: Option<&Flip>) -> (Class, String) {
        self.write(flip);
        self.look()
    }

    /// Opens it without one of its files.
    pub(super) fn try_without(&self, name: &Path) -> (Class, String) {
        self.try_after(&|dir| fs::remove_file(dir.join(name)).unwrap())
    }

    /// Opens it with other damage.
    pub(super) fn try_after(&self, damage: &dyn Fn(&Path)) -> (Class, String) {
        self.write(None);
        damage(&self.dir);
        self.look()
    }

    fn look(&self) -> (Class, String) {
        be_quiet();
        let (send, receive) = channel();
        let (look, dir) = (self.look, self.dir.clone());
        let looking = thread::Builder::new().name(LOOKING.into());
        looking.spawn(move || drop(send.send(look(&dir)))).unwrap();
        match receive.recv_timeout(self.patience) {
            Ok(found) => self.classify(&found),
            Err(RecvTimeoutError::Timeout) => (Class::Hang, String::new()),
            // It ended without an answer.
            Err(RecvTimeoutError::Disconnected) => (Class::Panic, String::new()),
        }
    }

    pub(super) fn classify(&self, found: &Found) -> (Class, String) {
        let content = match found {
            Ok(content) => content,
            Err(Refusal { kind, text }) => {
                let is_clear = text.contains(&*self.dir.to_string_lossy()) && says_what_to_do(text);
                let class = match is_clear {
                    _ if *kind == UNREADABLE => Class::Unreadable,
                    true => Class::Refused(kind),
                    false => Class::Unclear,
                };
                return (class, text.clone());
            }
        };
        let last = self.history.last().unwrap();
        if content == last {
            return (Class::Same, String::new());
        }
        let missing: Vec<_> = last.facts.difference(&content.facts).collect();
        let added: Vec<_> = content.facts.difference(&last.facts).collect();
        let text = format!(
            "missing {missing:?}, added {added:?}, save {:?}",
            content.lsn
        );
        if content.lsn < last.lsn {
            let class = match self.history.contains(content) {
                true => Class::NoticedByPeers,
                false => Class::Different,
            };
            return (class, text);
        }
        if self.history.contains(content) {
            return (Class::Older, text);
        }
        let was_true = |fact: &&String| self.history.iter().any(|then| then.facts.contains(*fact));
        let class = match missing.is_empty() && added.iter().all(was_true) {
            true => Class::Resurrected,
            false => Class::Different,
        };
        (class, text)
    }

    /// Every bit of every byte: first one of each, in no order, then another one of each, ...
    fn flips(&self, rng: &mut Rng) -> Vec<Flip> {
        let mut places: Vec<(PathBuf, usize, u8)> = Vec::new();
        for (file, bytes) in &self.files {
            let used = (0..bytes.len()).filter(|at| is_used(file, *at));
            places.extend(used.map(|at| (file.clone(), at, rng.u8(0..8))));
        }
        let mut flips = Vec::new();
        for round in 0..8 {
            rng.shuffle(&mut places);
            let flip = |(file, at, first): &(PathBuf, usize, u8)| Flip {
                file: file.clone(),
                at: *at,
                bit: (first + round) % 8,
            };
            flips.extend(places.iter().map(flip));
        }
        flips.retain(|flip| !self.asks_for_too_much(flip));
        flips
    }

    /// The highest bits of how many sections a table has. sfa 1.0.0 asks for room for that many
    /// before it looks at the checksum of their list: for tens of gigabytes, which aborts the process.
    /// (Nothing is served then; but this process should go on.)
    fn asks_for_too_much(&self, flip: &Flip) -> bool {
        let before = &self.files[&flip.file][..flip.at];
        before.len() > 7 && before[before.len() - 7..].starts_with(b"TOC!")
    }

    /// Flips one bit after the other until the time is up; counts what comes of it.
    pub(super) fn run(&self, rng: &mut Rng, duration: Duration) -> Tally {
        let until = Instant::now() + duration;
        let mut tally = Tally::default();
        assert_eq!(self.try_with(None).0, Class::Same, "without damage");
        for flip in self.flips(rng) {
            if Instant::now() > until {
                break;
            }
            let (class, text) = self.try_with(Some(&flip));
            tally.add(&flip, class, text);
        }
        tally
    }
}

/// What came of all flips.
#[derive(Default)]
pub(super) struct Tally {
    tried: usize,
    places: BTreeSet<(PathBuf, usize)>,
    classes: BTreeMap<Class, usize>,
    /// By file, too.
    files: BTreeMap<(String, Class), usize>,
    /// Those of each class that stand for what must not be, or is hardly known: the first few.
    examples: BTreeMap<Class, Vec<String>>,
}

impl Tally {
    fn add(&mut self, flip: &Flip, class: Class, text: String) {
        self.tried += 1;
        self.places.insert((flip.file.clone(), flip.at));
        let file = flip.file.display().to_string();
        *self.files.entry((file, class.clone())).or_default() += 1;
        *self.classes.entry(class.clone()).or_default() += 1;
        let examples = self.examples.entry(class).or_default();
        if examples.len() < 5 {
            examples.push(format!("{flip:?}: {text}"));
        }
    }

    pub(super) fn count(&self, class: &Class) -> usize {
        self.classes.get(class).copied().unwrap_or_default()
    }

    pub(super) fn print(&self, what: &str, of: &Specimen) {
        let (tried, places, bytes) = (self.tried, self.places.len(), of.len());
        println!("{what}: {tried} bits flipped, in {places} of {bytes} bytes");
        for (class, count) in &self.classes {
            println!("  {count:>8}  {class:?}");
        }
        for ((file, class), count) in &self.files {
            println!("  {file:<32} {count:>8}  {class:?}");
        }
        for (class, examples) in &self.examples {
            for example in examples.iter().take(2) {
                println!("  {class:?}: {example}");
            }
        }
    }

    /// Fails if one of these occurred.
    pub(super) fn refuse(&self, classes: &[Class]) {
        for class in classes {
            let examples = self.examples.get(class);
            assert!(examples.is_none(), "{class:?}: {examples:#?}");
        }
    }
}

/// Of the high-water sector's slots only the beginning is used.
fn is_used(file: &Path, at: usize) -> bool {
    file != Path::new("highwater") || at % 4096 < 28
}

/// A refusal tells an operator how to go on.
fn says_what_to_do(text: &str) -> bool {
    [
        "eplace",
        "run the newer",
        "run the version of the program",
        "find out what happened",
        "use the newer",
        "give the store a directory of its own",
    ]
    .iter()
    .any(|words| text.contains(words))
}

fn empty_folders(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut left = vec![dir.to_owned()];
    while let Some(folder) = left.pop() {
        found.insert(folder.strip_prefix(dir).unwrap().to_owned());
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        left.extend(entries.filter(|path| path.is_dir()));
    }
    found
}

/// What fjall panics about is expected; a thousand stack traces help nobody.
fn be_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            if thread::current().name() != Some(LOOKING) {
                usual(what);
            }
        }));
    });
}

/// In memory, where there is such a file system: what a disk does is not asked here.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

#[test]
fn a_panic_and_a_hang_are_told() {
    let folder = scratch();
    let template = folder.path().join("template");
    fs::create_dir(&template).unwrap();
    let of = |look| Specimen::new(&template, vec![Content::default()], look);
    assert_eq!(of(|_| Ok(Content::default())).try_with(None).0, Class::Same);
    let panics = of(|_| panic!("planted"));
    assert_eq!(panics.try_with(None).0, Class::Panic);
    let mut hangs = of(|_| {
        loop {
            thread::park();
        }
    });
    hangs.patience = Duration::from_millis(100);
    assert_eq!(hangs.try_with(None).0, Class::Hang);
    let unclear = of(|_| {
        let text = "error 17".into();
        Err(Refusal { kind: "Io", text })
    });
    assert_eq!(unclear.try_with(None).0, Class::Unclear);
}
