//! An arena under attack: what that costs, and whether the others carry on.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;

use paxos_commit::cluster::ClusterFiles;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::Peer;
use paxos_commit::transport::{Identity, Issued};

use tokio::time::Instant;

use crate::harness::arena::PATIENCE;
use crate::harness::{Arena, Knobs, Options};

use super::attacker::{Attacker, Draining, identity};

/// How much more memory a replica may have taken at the worst moment of an attack. The limits that
/// bound it are those of `src/transport/shares.rs`, and what can wait for the driver.
const GROWTH_MAX: u64 = 200 * 1024 * 1024;

/// How much an attack may write to the log.
const LOG_MAX: u64 = 64 * 1024;

/// How many more commits show that the others carry on.
const MORE_COMMITS: usize = 30;

/// Enough to read what a replica says at once.
pub(crate) const WINDOW: u32 = 1024 * 1024;

/// The arena, and the replica that is attacked.
pub(crate) struct Siege {
    pub(crate) arena: Arena,
    files: ClusterFiles,
    victim: ReplicaId,
}

/// What an attack came to.
pub(crate) struct Cost {
    what: String,
    offences: usize,
    counted: BTreeMap<String, u64>,
    before: u64,
    peak: u64,
    after: u64,
    logged: u64,
}

impl Siege {
    pub(crate) async fn start(knobs: &Knobs, tuning: &str) -> Siege {
        let options = Options {
            tuning: tuning.to_owned(),
            ..Options::default()
        };
        let arena = Arena::start(knobs, options).await;
        let files = ClusterFiles::open(&arena.cluster()).unwrap();
        Siege {
            arena,
            files,
            victim: ReplicaId(1),
        }
    }

    pub(crate) fn authority(&self) -> &str {
        self.files.authority().certificate()
    }

    /// The key of the authority, in PEM: for certificates that no program of this crate issues.
    pub(crate) fn authority_key(&self) -> String {
        fs::read_to_string(self.arena.cluster().join("authority/ca.key")).unwrap()
    }

    pub(crate) fn issue(&self, part: &str) -> Issued {
        let Identity { role, .. } = identity(part);
        self.files.authority().issue(role).unwrap()
    }

    /// The address of the replica itself: no relay shall be what holds an attack off.
    pub(crate) fn target(&self, id: ReplicaId) -> (ReplicaId, SocketAddr) {
        let text = fs::read_to_string(self.files.replica_file(id)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("listen = "));
        let address = line.unwrap().trim_matches('"').parse().unwrap();
        (id, address)
    }

    /// Somebody with a right certificate, before the victim.
    pub(crate) fn attacker(&self, part: &str) -> Attacker {
        self.attacker_of(self.victim, part)
    }

    pub(crate) fn attacker_of(&self, replica: ReplicaId, part: &str) -> Attacker {
        let issued = self.issue(part);
        let target = self.target(replica);
        Attacker::new(target, self.authority(), Some(&issued), WINDOW)
    }

    /// Somebody with a right certificate, whom the victim has let in, and who reads what comes.
    pub(crate) async fn enter(&self, part: &str, peer: &Peer) -> Draining {
        self.attacker(part).enter(0, peer).await.drain()
    }

    /// Somebody who shows this before the victim, and takes so many bytes before it reads.
    pub(crate) fn attacker_with(&self, shown: Option<&Issued>, window: u32) -> Attacker {
        Attacker::new(self.target(self.victim), self.authority(), shown, window)
    }

    fn victim_name(&self) -> String {
        format!("replica-{}", self.victim)
    }

    /// The memory of the victim: now, and at the worst moment since the last call.
    fn memory(&mut self) -> (u64, u64) {
        let name = self.victim_name();
        let memory = self.memory_and_peak_of(&name);
        // The worst moment is counted anew from here.
        let id = self.process_id(&name);
        fs::write(format!("/proc/{id}/clear_refs"), "5").unwrap();
        memory
    }

    fn process_id(&mut self, name: &str) -> u32 {
        let id = self.arena.process(name).id();
        id.unwrap_or_else(|| self.arena.fail(&format!("{name} has ended")))
    }

    /// The memory of a process.
    pub(crate) fn memory_of(&mut self, name: &str) -> u64 {
        self.memory_and_peak_of(name).0
    }

    fn memory_and_peak_of(&mut self, name: &str) -> (u64, u64) {
        let id = self.process_id(name);
        let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let field = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            let kilobytes = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
            kilobytes * 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    fn logged(&mut self) -> u64 {
        let name = self.victim_name();
        self.arena.process(&name).printed().len() as u64
    }

    /// What the replicas say of themselves, when all of them say something.
    async fn status(&mut self) -> Vec<serde_json::Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let problem = match self.arena.status().await {
                Ok(status) => {
                    let replicas = status["replicas"].as_array().unwrap();
                    if replicas.iter().all(|of| of["turned_away"].is_object()) {
                        return replicas.clone();
                    }
                    status.to_string()
                }
                Err(error) => error,
            };
            if Instant::now() > deadline {
                self.arena.fail(&problem);
            }
        }
    }

    /// Whether so many transactions are undecided at each replica.
    pub(crate) async fn is_full(&mut self, limit: u64) -> bool {
        let status = self.status().await;
        let counts = status.iter().map(|replica| replica["undecided"].as_u64());
        counts.flatten().filter(|count| *count >= limit).count() == status.len()
    }

    pub(crate) async fn wait_until_full(&mut self, limit: u64) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_full(limit).await {
            if Instant::now() > deadline {
                self.arena.fail(&format!("fewer than {limit} undecided"));
            }
        }
    }

    /// What the victim has turned away.
    async fn refusals(&mut self) -> BTreeMap<String, u64> {
        let status = self.status().await;
        let own = status.iter().find(|of| of["id"] == self.victim.0).unwrap();
        let counts = own["turned_away"].as_object().unwrap().iter();
        counts
            .map(|(kind, count)| (kind.clone(), count.as_u64().unwrap()))
            .collect()
    }

    /// Runs an attack, which says how many offences it came to. Meanwhile and after it the others
    /// carry on, and memory and log stay within their bounds.
    pub(crate) async fn withstand(
        &mut self,
        what: &str,
        attack: impl AsyncFnOnce(&mut Siege) -> usize,
    ) -> Cost {
        let refused = self.refusals().await;
        let logged = self.logged();
        let (before, _) = self.memory();
        let offences = attack(self).await;
        self.arena.wait_for_commits(MORE_COMMITS).await;
        let (after, peak) = self.memory();
        let counted = self
            .refusals()
            .await
            .into_iter()
            .filter_map(|(kind, count)| {
                let more = count - refused.get(&kind).copied().unwrap_or(0);
                (more > 0).then_some((kind, more))
            });
        let counted = counted.collect();
        let logged = self.logged() - logged;
        let cost = Cost {
            what: what.to_owned(),
            offences,
            counted,
            before,
            peak,
            after,
            logged,
        };
        println!("{cost}");
        if peak > before + GROWTH_MAX {
            self.arena.fail(&format!("too much memory: {cost}"));
        }
        if logged > LOG_MAX {
            self.arena.fail(&format!("too much in the log: {cost}"));
        }
        cost
    }

    /// The arena's own verdict.
    pub(crate) async fn finish(self) {
        let audit = self.arena.finish().await;
        println!("{audit:?}");
    }
}

impl Cost {
    /// At least so many were counted under these kinds.
    pub(crate) fn counted(&self, kinds: &[&str], at_least: u64) {
        let counts = kinds.iter().filter_map(|kind| self.counted.get(*kind));
        let sum: u64 = counts.sum();
        assert!(sum >= at_least, "expected {at_least} of {kinds:?}: {self}");
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        write!(
            f,
            "{}: {} offences, counted {:?}, memory {:.0} MB before, {:.0} MB at most, {:.0} MB \
             after, {} bytes of log",
            self.what,
            self.offences,
            self.counted,
            mb(self.before),
            mb(self.peak),
            mb(self.after),
            self.logged
        )
    }
}
