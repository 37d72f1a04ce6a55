//! A cluster, ledgers and initiators, each a process of the program, with a relay before each
//! replica.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use paxos_commit::cluster::{ClusterFiles, Passed, Relay};
use paxos_commit::config::load_access;
use paxos_commit::initiator::{Initiator, Known};
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::{CommitId, Member};
use paxos_commit::transport::Role;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::adversary::Adversary;
use super::audit::{Audit, audit};
use super::evidence::{Evidence, Heard, Line, read_journal, read_ledger};
use super::gauges::Gauges;
use super::knobs::Knobs;
use super::network::{self, Trouble};
use super::process::Process;

/// How long anything may take before it counts as blocked.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The pause between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many transfers are asked about once more at the end.
const ASKED_MAX: usize = 200;

/// One arena at a time: two of them would starve each other on a small machine.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What an arena is made of.
pub(crate) struct Options {
    pub(crate) replicas: u32,
    pub(crate) ledgers: u32,
    pub(crate) initiators: u32,
    /// Transfers per second of each initiator.
    pub(crate) rate: u32,
    /// The lines of `[tuning]` of each replica.
    pub(crate) tuning: String,
    pub(crate) vote_timeout: Duration,
    pub(crate) deadline: Duration,
    /// Where the data directories of named processes are, if not in the arena's own folder: new or
    /// empty folders.
    pub(crate) data: BTreeMap<String, PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            replicas: 3,
            ledgers: 3,
            initiators: 2,
            rate: 60,
            tuning: String::new(),
            vote_timeout: Duration::from_secs(1),
            deadline: Duration::from_secs(3),
            data: BTreeMap::new(),
        }
    }
}

/// The arena.
pub(crate) struct Arena {
    pub(crate) knobs: Knobs,
    pub(crate) folder: TempDir,
    pub(crate) relays: BTreeMap<String, Relay>,
    /// What is wrong with the network. [`apply`](Self::apply_troubles) after a change.
    pub(crate) troubles: Vec<Trouble>,
    /// Replicas that were removed, and end by themselves when they may; the adversary leaves them
    /// alone.
    pub(crate) leaving: BTreeSet<String>,
    /// Memory and disk, looked at while the adversary is at work.
    pub(crate) gauges: Gauges,
    processes: BTreeMap<String, Process>,
    data: BTreeMap<String, PathBuf>,
    tuning: String,
    pub(super) operator: PathBuf,
    /// A network of this machine that nobody else uses.
    network: [u8; 2],
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

impl Arena {
    /// Starts everything, and waits for the first commits.
    pub(crate) async fn start(knobs: &Knobs, options: Options) -> Arena {
        let mut arena = Arena::build(knobs, options).await;
        arena.start_all();
        arena.wait_for_commits(5).await;
        arena
    }

    /// Makes all files, and starts nothing.
    pub(crate) async fn build(knobs: &Knobs, options: Options) -> Arena {
        let turn = ONE_AT_A_TIME.lock().await;
        let folder = tempfile::Builder::new().prefix("arena").tempdir().unwrap();
        let mut rng = fastrand::Rng::new();
        let mut arena = Arena {
            knobs: knobs.clone(),
            folder,
            relays: BTreeMap::new(),
            troubles: Vec::new(),
            leaving: BTreeSet::new(),
            gauges: Gauges::new(),
            processes: BTreeMap::new(),
            data: options.data,
            tuning: options.tuning,
            operator: PathBuf::new(),
            network: [rng.u8(1..255), rng.u8(..)],
            _turn: turn,
        };
        let mut members = Vec::new();
        for id in (1..=options.replicas).map(ReplicaId) {
            let address = arena.relay(id).await.to_string();
            members.push(Member {
                id,
                address: address.parse().unwrap(),
            });
        }
        let cluster = arena.cluster();
        let name = "arena".parse().unwrap();
        let files = ClusterFiles::create(&cluster, name, members.clone()).unwrap();
        let admin = Role::Operator("admin".parse().unwrap());
        arena.operator = files.issue(admin).unwrap();
        for member in &members {
            arena.add_replica(member.id);
        }
        let ledgers: Vec<String> = (1..=options.ledgers)
            .map(|index| format!("ledger-{index}"))
            .collect();
        for name in &ledgers {
            let role = Role::Participant(name.parse().unwrap());
            let access = files.issue(role).unwrap();
            let data = arena.data(name);
            let options = [("--access", text(&access)), ("--data", text(&data))];
            arena.add(name, &["demo-ledger"], &options);
        }
        for index in 1..=options.initiators {
            let name = format!("initiator-{index}");
            let role = Role::Initiator(name.parse().unwrap());
            let access = files.issue(role).unwrap();
            let number = |number: u128| number.to_string();
            let journal = arena.journal(&name);
            let settings = [
                ("--access", text(&access)),
                ("--journal", text(&journal)),
                ("--ledgers", &ledgers.join(",")),
                ("--rate", &number(options.rate.into())),
                ("--seed", &number((knobs.seed ^ u64::from(index)).into())),
                ("--first-number", &number(u128::from(index) << 32)),
                (
                    "--vote-timeout-ms",
                    &number(options.vote_timeout.as_millis()),
                ),
                ("--deadline-ms", &number(options.deadline.as_millis())),
            ];
            arena.add(&name, &["demo-initiator"], &settings);
        }
        arena
    }

    fn add(&mut self, name: &str, words: &[&str], options: &[(&str, &str)]) {
        let options = options.iter().flat_map(|(option, value)| [*option, *value]);
        let arguments = words.iter().copied().chain(options).map(str::to_owned);
        let process = Process::new(name, arguments.collect(), self.folder.path());
        self.processes.insert(name.to_owned(), process);
    }

    /// Puts a relay before a replica that is to come; returns the relay's address.
    pub(crate) async fn relay(&mut self, id: ReplicaId) -> SocketAddr {
        let relay = Relay::start(self.listen(id)).await.unwrap();
        let address = relay.address();
        self.relays.insert(replica(id), relay);
        address
    }

    /// The relay stands before this replica from now on.
    pub(crate) fn set_relay(&mut self, id: ReplicaId, relay: Relay) {
        relay.set_target(self.listen(id));
        self.relays.insert(replica(id), relay);
    }

    /// Where a replica listens: an address of its own, so that no port is taken from anybody.
    fn listen(&self, id: ReplicaId) -> SocketAddr {
        let [a, b] = self.network;
        SocketAddr::from(([127, a, b, id.0 as u8], 7_401))
    }

    /// A replica whose files are made: it listens behind its relay from now on.
    pub(crate) fn add_replica(&mut self, id: ReplicaId) {
        let name = replica(id);
        let file = self.cluster().join(&name).join("replica.toml");
        let text_before = fs::read_to_string(&file).unwrap();
        let lines = text_before.lines().map(|line| match line {
            line if line.starts_with("listen = ") => {
                format!("listen = \"{}\"\n", self.listen(id))
            }
            line if line.starts_with("data = ") => match self.data.get(&name) {
                Some(data) => format!("data = \"{}\"\n", data.display()),
                None => format!("{line}\n"),
            },
            line => format!("{line}\n"),
        });
        let lines: String = lines.collect();
        // One that was made like another one has its settings.
        let tuning = match lines.contains("[tuning]") {
            true => String::new(),
            false => format!("\n[tuning]\n{}\n", self.tuning),
        };
        fs::write(&file, lines + &tuning).unwrap();
        if let Some(data) = self.data.get(&name) {
            let made = self.cluster().join(&name).join("data");
            copy_durably(&made, data);
        }
        self.add(
            &name,
            &["replica", "--with-parent"],
            &[("--config", text(&file))],
        );
    }

    /// The folder with the cluster's files.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    /// The data directory of a process.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        if let Some(data) = self.data.get(name) {
            return data.clone();
        }
        match name.starts_with("replica") {
            true => self.cluster().join(name).join("data"),
            false => self.folder.path().join(name),
        }
    }

    pub(crate) fn journal(&self, initiator: &str) -> PathBuf {
        self.folder.path().join(format!("{initiator}.journal"))
    }

    /// All processes whose names begin so, in order.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let names = self.processes.keys();
        let names = names.filter(|name| name.starts_with(prefix));
        names.cloned().collect()
    }

    pub(crate) fn process(&mut self, name: &str) -> &mut Process {
        let process = self.processes.get_mut(name);
        process.unwrap_or_else(|| panic!("{name} is no process of this arena"))
    }

    /// Does it, if the process is there.
    pub(crate) fn with(&mut self, name: &str, act: impl FnOnce(&mut Process)) {
        if let Some(process) = self.processes.get_mut(name) {
            act(process);
        }
    }

    /// Takes a replica out that nobody needs any more: it was killed, or has ended by itself.
    pub(crate) fn dismiss(&mut self, name: &str) {
        self.processes.remove(name);
        self.relays.remove(name);
        self.leaving.remove(name);
    }

    pub(crate) fn start_all(&mut self) {
        for process in self.processes.values_mut() {
            process.start();
        }
    }

    /// Makes the relays what the troubles say. To be called now and then: processes that start
    /// again send from elsewhere.
    pub(crate) fn apply_troubles(&self) {
        let senders = self.processes.iter().map(|(name, process)| {
            let addresses = process.id().map(network::udp_addresses);
            (name.clone(), addresses.unwrap_or_default())
        });
        let senders: BTreeMap<String, BTreeSet<SocketAddr>> = senders.collect();
        network::apply(&self.relays, &self.troubles, &senders);
    }

    /// Looks at memory and disk, if it is time.
    pub(crate) fn look(&mut self) {
        if !self.gauges.is_due() {
            return;
        }
        for name in self.names("") {
            let (id, data) = (self.process(&name).id(), self.data(&name));
            if let Some(id) = id {
                self.gauges.look(&name, id, &data);
            }
        }
    }

    /// All that is wrong ends: the network is good, who is dead starts, who stands goes on.
    pub(crate) fn heal(&mut self) {
        self.troubles.clear();
        self.apply_troubles();
        for process in self.processes.values_mut() {
            process.resume();
            process.start();
        }
    }

    /// How many commits the initiators were told until now.
    pub(crate) fn commits(&self) -> usize {
        let journals = self.names("initiator").into_iter();
        let texts = journals.map(|name| fs::read_to_string(self.journal(&name)));
        let counts = texts
            .flatten()
            .map(|text| text.matches("\"committed\"").count());
        counts.sum()
    }

    /// Waits for so many more commits: the others carry on.
    pub(crate) async fn wait_for_commits(&mut self, more: usize) {
        let wanted = self.commits() + more;
        let deadline = Instant::now() + PATIENCE;
        while self.commits() < wanted {
            if Instant::now() > deadline {
                self.fail(&format!("fewer than {more} commits within {PATIENCE:?}"));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a process ends by itself; what it said last.
    #[cfg(feature = "fault-injection")]
    pub(crate) async fn wait_for_end(&mut self, name: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(words) = self.process(name).ended() {
                return words;
            }
            if Instant::now() > deadline {
                self.fail(&format!("{name} did not end within {PATIENCE:?}"));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Heals everything, lets everything come to its end, stops everything in order, and audits.
    /// Panics if anything is wrong.
    pub(crate) async fn finish(mut self) -> Audit {
        let audit = self.judge().await;
        if !audit.violations.is_empty() {
            self.fail(&audit.violations.join("\n"));
        }
        audit
    }

    /// As [`finish`](Self::finish), and leaves it to the caller to say what is wrong.
    pub(crate) async fn judge(&mut self) -> Audit {
        self.heal();
        let mut evidence = Evidence::default();
        let mut failed = Vec::new();
        let adversary = Adversary::new(self.knobs.rng(), &[]);
        for name in self.names("initiator") {
            let stopped = timeout(PATIENCE, self.process(&name).stop()).await;
            let stopped = stopped.unwrap_or_else(|_| Err("blocked, it does not stop".into()));
            failed.extend(stopped.err().map(|error| format!("{name}: {error}")));
            let journal = read_journal(&self.journal(&name));
            evidence.journals.insert(name, journal);
        }
        evidence.asked = self.ask_again(&evidence).await;
        evidence.listed = self.settle().await;
        adversary.look_for_the_fallen(self);
        for name in self.names("ledger") {
            let stopped = self.process(&name).stop().await;
            failed.extend(stopped.err().map(|error| format!("{name}: {error}")));
            let ledger = read_ledger(&self.data(&name)).await;
            evidence.ledgers.insert(name, ledger);
        }
        for name in self.names("replica") {
            let stopped = self.process(&name).stop().await;
            failed.extend(stopped.err().map(|error| format!("{name}: {error}")));
        }
        let mut audit = audit(&evidence);
        audit.violations.extend(failed);
        audit
    }

    /// Asks for outcomes as another process of the same name would.
    async fn ask_again(&self, evidence: &Evidence) -> Vec<(u64, Heard)> {
        let mut asked = Vec::new();
        for (name, journal) in &evidence.journals {
            let file = format!("initiator-{name}/access.toml");
            let access = load_access(&self.cluster().join(file)).unwrap();
            let initiator = Initiator::builder(access).deadline(PATIENCE);
            let initiator = initiator.connect().await.unwrap();
            let asking = journal.iter().rev().filter_map(|line| match line {
                Line::Asking { number, id, .. } => Some((*number, id.parse().unwrap())),
                Line::Heard { .. } | Line::Unknown { .. } => None,
            });
            for (number, id) in asking.take(ASKED_MAX) {
                let heard = match initiator.outcome(id).await {
                    Ok(Known::Committed) => Heard::Committed,
                    Ok(Known::Aborted) => Heard::Aborted,
                    Ok(Known::Forgotten) => Heard::Forgotten,
                    Err(error) => panic!("{name}: nobody answers for {number}: {error}"),
                };
                asked.push((number, heard));
            }
            initiator.shutdown(PATIENCE).await;
        }
        asked
    }

    /// The ids that an initiator has asked to commit, as its journal tells.
    pub(crate) fn asked_ids(&self, initiator: &str) -> Vec<CommitId> {
        let journal = read_journal(&self.journal(initiator));
        let asking = journal.iter().filter_map(|line| match line {
            Line::Asking { id, .. } => Some(id.parse().unwrap()),
            Line::Heard { .. } | Line::Unknown { .. } => None,
        });
        asking.collect()
    }

    /// What became of all datagrams.
    pub(crate) fn datagrams(&self) -> Passed {
        let mut sum = Passed::default();
        for relay in self.relays.values() {
            let one = relay.passed();
            sum.passed += one.passed;
            sum.lost += one.lost;
            sum.cut += one.cut;
            sum.doubled += one.doubled;
        }
        sum
    }

    /// Fails the test, and says what can help.
    pub(crate) fn fail(&mut self, what: &str) -> ! {
        let mut text = format!("{what}\n\nrepeat: {}\n", self.knobs.replay());
        for (name, process) in &mut self.processes {
            let state = match (process.ended(), process.id()) {
                (Some(words), _) => format!("ended, {words}"),
                (None, Some(id)) => format!("runs as {id}"),
                (None, None) => "not running".to_owned(),
            };
            text.push_str(&format!("\n{name}: {state}\n"));
            let printed = process.printed();
            let lines: Vec<&str> = printed.lines().collect();
            // The first panic says what was wrong; a backtrace, and others, may come after it.
            let panicked = lines.iter().position(|line| line.contains("panicked at"));
            let begin = panicked.unwrap_or(0);
            let end = panicked.map_or(0, |at| lines.len().min(at + 60));
            let first = &lines[begin..end];
            let last = &lines[lines.len().saturating_sub(8).max(end)..];
            text.push_str(&[first, last].concat().join("\n"));
        }
        if std::env::var_os("FAULT_KEEP").is_some() {
            self.folder.disable_cleanup(true);
            text.push_str(&format!("\nkept: {}\n", self.folder.path().display()));
        }
        panic!("{text}");
    }
}

/// The name of a replica's process.
pub(crate) fn replica(id: ReplicaId) -> String {
    format!("replica-{id}")
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder's name is text")
}

/// Copies a folder, and syncs all of it.
pub(crate) fn copy_durably(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_durably(&entry.path(), &target),
            false => {
                fs::copy(entry.path(), &target).unwrap();
                fs::File::open(&target).unwrap().sync_all().unwrap();
            }
        }
    }
    fs::File::open(to).unwrap().sync_all().unwrap();
}
