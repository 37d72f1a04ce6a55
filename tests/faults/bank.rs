//! Replicas in processes of their own, two ledgers in this one, and transfers that stand in both or
//! in none.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use paxos_commit::cluster::ProcessCluster;
use paxos_commit::initiator::{Initiator, Outcome};
use paxos_commit::operator::Operator;
use paxos_commit::participant::Participant;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::resource::embedded::{Embedded, Options};
use paxos_commit::transport::Role;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// How many transfers a load has under way.
const LOADERS: usize = 4;

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks again and again until there is something.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// What came of starting a replica.
#[derive(Debug)]
pub(crate) enum Started {
    Serves,
    /// Its exit status, and its last words.
    Ended(String),
}

/// One service.
#[derive(Clone)]
pub(crate) struct Ledger {
    pub(crate) store: Embedded,
    pub(crate) participant: Participant,
}

/// A cluster of three and what uses it.
pub(crate) struct Bank {
    pub(crate) cluster: ProcessCluster,
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) shop: Initiator,
    /// How many transfers were acknowledged.
    moved: u64,
    folder: TempDir,
}

pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_paxos-commit"))
}

impl Bank {
    pub(crate) async fn open() -> Bank {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("cluster");
        let mut cluster =
            ProcessCluster::create(program(), &dir, "bank".parse().unwrap(), 3).unwrap();
        cluster.start_all().unwrap();
        let mut ledgers = Vec::new();
        for name in ["ledger-a", "ledger-b"] {
            let store = Embedded::open(folder.path().join(name), Options::new()).unwrap();
            let (_, access) = cluster
                .issue(Role::Participant(name.parse().unwrap()))
                .unwrap();
            let connecting = Participant::builder(access).connect(store.clone());
            ledgers.push(Ledger {
                participant: connecting.await.unwrap(),
                store,
            });
        }
        let (_, access) = cluster
            .issue(Role::Initiator("shop".parse().unwrap()))
            .unwrap();
        cluster
            .issue(Role::Operator("admin".parse().unwrap()))
            .unwrap();
        let shop = Initiator::builder(access).connect().await.unwrap();
        let mut bank = Bank {
            cluster,
            ledgers,
            shop,
            moved: 0,
            folder,
        };
        for id in 1..=3 {
            bank.serves(id).await;
        }
        bank
    }

    /// The folder of the cluster's files.
    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    /// A place for copies.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The data directory of a replica.
    pub(crate) fn data(&self, id: u32) -> PathBuf {
        let file = self.cluster.files().replica_file(ReplicaId(id));
        file.with_file_name("data")
    }

    /// One more transfer, which must be committed.
    pub(crate) async fn transfer(&mut self) {
        transfer(&self.shop, &self.ledgers, self.moved).await;
        self.moved += 1;
    }

    /// Transfers, some at a time, until [`unload`](Self::unload).
    pub(crate) fn load(&self) -> Load {
        let (next, stop) = (Arc::new(AtomicU64::new(self.moved)), Arc::default());
        let tasks = (0..LOADERS).map(|_| {
            let (shop, ledgers) = (self.shop.clone(), self.ledgers.clone());
            let (next, stop): (Arc<AtomicU64>, Arc<AtomicBool>) = (next.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    transfer(&shop, &ledgers, next.fetch_add(1, Relaxed)).await;
                }
            })
        });
        let tasks = tasks.collect();
        Load { next, stop, tasks }
    }

    /// Ends the load. Each of its transfers must have been committed.
    pub(crate) async fn unload(&mut self, load: Load) {
        load.stop.store(true, Relaxed);
        for task in load.tasks {
            let ended = tokio::time::timeout(PATIENCE, task).await;
            ended.expect("the load ends").unwrap();
        }
        self.moved = load.next.load(Relaxed);
    }

    /// Waits until both ledgers are connected to each of these replicas.
    pub(crate) async fn ledgers_are_connected(&self, replicas: &[u32]) {
        let mut operator = self.operator().await;
        until("both ledgers are connected to each replica", async || {
            let status = operator.status().await;
            let is_well = |id: &u32| {
                let said = status.get(&ReplicaId(*id))?.as_ref().ok()?;
                (said.participants.len() == self.ledgers.len()).then_some(())
            };
            replicas.iter().map(is_well).collect::<Option<()>>()
        })
        .await;
    }

    /// Every acknowledged transfer is in both ledgers, nothing else is, and nothing is in doubt.
    pub(crate) async fn audit(&self) {
        let expected: Vec<String> = (0..self.moved)
            .map(|number| format!("transfer/{number:06}"))
            .collect();
        for ledger in &self.ledgers {
            until("every branch is released", async || {
                (ledger.store.locks() == 0).then_some(())
            })
            .await;
            let rows = ledger.store.snapshot();
            let keys = rows.scan("").map(|row| row.unwrap().key);
            let found: Vec<String> = keys.map(|key| String::from_utf8(key).unwrap()).collect();
            assert_eq!(found, expected);
        }
    }

    /// The same, and all the replicas agree: nothing is under way, and each is connected to all the
    /// others.
    pub(crate) async fn audit_all(&self, replicas: &[u32]) {
        self.audit().await;
        let mut operator = self.operator().await;
        until("all is quiet", async || {
            let status = operator.status().await;
            let is_well = |id: &u32| {
                let said = status.get(&ReplicaId(*id))?.as_ref().ok()?;
                let quiet = said.undecided == 0 && said.unapplied == 0;
                let others = replicas.iter().filter(|other| *other != id);
                let all = others.map(|id| ReplicaId(*id)).collect::<Vec<_>>();
                let connected = all.iter().all(|other| said.connected.contains(other));
                (quiet && connected).then_some(())
            };
            replicas.iter().map(is_well).collect::<Option<()>>()
        })
        .await;
    }

    pub(crate) async fn operator(&self) -> Operator {
        let file = self.dir().join("operator-admin/access.toml");
        let access = paxos_commit::config::load_access(&file).unwrap();
        Operator::connect(access, PATIENCE).await.unwrap()
    }

    fn log(&self, id: u32) -> PathBuf {
        self.dir().join(format!("replica-{id}.log"))
    }

    /// Waits until the replica serves, or has ended.
    async fn serves(&mut self, id: u32) -> Started {
        let what = format!("replica {id} serves, or says why not");
        let log = self.log(id);
        let cluster = &mut self.cluster;
        until(&what, async || {
            let fallen = cluster.fallen();
            let ended = fallen.into_iter().find(|(of, _)| *of == ReplicaId(id));
            if let Some((_, words)) = ended {
                return Some(Started::Ended(words));
            }
            let text = fs::read_to_string(&log).unwrap_or_default();
            text.contains("serving").then_some(Started::Serves)
        })
        .await
    }

    /// Starts a replica with a new log.
    pub(crate) fn launch(&mut self, id: u32) {
        let _ = fs::remove_file(self.log(id));
        self.cluster.start(ReplicaId(id)).unwrap();
    }

    /// Starts a replica, and waits until it serves or has ended.
    pub(crate) async fn start(&mut self, id: u32) -> Started {
        self.launch(id);
        self.serves(id).await
    }

    /// Starts a replica, which must come to its end, even if it has served for a moment: another
    /// one may have to tell it that it has lost something.
    pub(crate) async fn start_refused(&mut self, id: u32) -> String {
        self.launch(id);
        let words = self.ends(id).await;
        self.kill(id).await;
        words
    }

    /// Waits until a replica has ended by itself: its exit status, and its last words.
    pub(crate) async fn ends(&mut self, id: u32) -> String {
        let what = format!("replica {id} ends");
        let cluster = &mut self.cluster;
        until(&what, async || {
            let fallen = cluster.fallen();
            let ended = fallen.into_iter().find(|(of, _)| *of == ReplicaId(id));
            ended.map(|(_, words)| words)
        })
        .await
    }

    pub(crate) async fn start_well(&mut self, id: u32) {
        match self.start(id).await {
            Started::Serves => {}
            Started::Ended(words) => panic!("replica {id} has ended: {words}"),
        }
    }

    pub(crate) async fn kill(&mut self, id: u32) {
        self.cluster.kill(ReplicaId(id)).await.unwrap();
    }

    /// Runs the tool.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Command::new(program()).args(arguments).output().unwrap()
    }

    /// Runs the tool, which must succeed; answers with what it printed.
    pub(crate) fn tool(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a new replica by the tool, starts it, and lets it take the place of the old one.
    pub(crate) async fn replace(&mut self, old: u32, new: u32) {
        let (dir, address) = (self.dir(), free_address());
        let access = dir.join("operator-admin/access.toml");
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let old = old.to_string();
        let words = |wait: &'static str| {
            let place = ["cluster", "replace", "--wait", wait, "--dir"];
            let words = place.map(str::to_owned).into_iter();
            let rest = [&text(&dir), "--access", &text(&access), &old, &address];
            words.chain(rest.map(str::to_owned)).collect::<Vec<_>>()
        };
        let refused = self.run(&borrowed(&words("0")));
        let error = String::from_utf8_lossy(&refused.stderr);
        assert!(
            error.contains("not heard: replica ") && error.contains(&new.to_string()),
            "{error}"
        );
        self.start_well(new).await;
        self.tool(&borrowed(&words("60")));
    }

    /// Ends everything without ceremony. No replica may have ended by itself.
    pub(crate) fn close(mut self) {
        let fallen = self.cluster.fallen();
        assert!(fallen.is_empty(), "{fallen:?}");
    }
}

/// Transfers under way.
pub(crate) struct Load {
    /// The number of the next one.
    next: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

/// One transfer, which must be committed.
async fn transfer(shop: &Initiator, ledgers: &[Ledger], number: u64) {
    let (key, value) = (format!("transfer/{number:06}"), "1");
    let mut txn = shop.begin().await.unwrap();
    for ledger in ledgers {
        let branch = ledger.participant.branch(txn.id()).await.unwrap();
        ledger.store.work(&branch).put(&key, value).unwrap();
        txn.enlist(branch.ticket()).unwrap();
    }
    assert_eq!(txn.commit().await, Ok(Outcome::Committed), "{key}");
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

pub(crate) fn free_address() -> String {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.local_addr().unwrap().to_string()
}
