//! A cluster in child processes: killed with SIGKILL, started again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::config::{ConfigError, load_access};
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::Member;
use crate::transport::{Access, Name, Role};

use super::address;
use super::files::{ClusterFiles, FilesError};
use super::relay::{Relay, isolate};

/// A child process that does not outlive this one, in whatever way this one ends: it holds the other
/// end of its standard input, and stops when that is closed. Dropping it kills it.
pub struct ChildProcess {
    child: Child,
    log: PathBuf,
}

impl ChildProcess {
    /// Starts a program; what it prints goes to the end of `log`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(program: &Path, arguments: &[&str], log: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let output = options.create(true).append(true).open(log)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true);
        // A Ctrl-C on the terminal is this process's affair; it ends its children in order.
        #[cfg(unix)]
        command.process_group(0);
        Ok(ChildProcess {
            child: command.spawn()?,
            log: log.to_owned(),
        })
    }

    /// Kills it: SIGKILL. Returns when it is gone.
    ///
    /// # Errors
    /// When the system says no.
    pub async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Stops it where it stands: SIGSTOP. It does not notice; everybody else may.
    ///
    /// # Errors
    /// When it has ended, or the system says no.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on: SIGCONT.
    ///
    /// # Errors
    /// When it has ended, or the system says no.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        // Until it has been waited for, its id is nobody else's.
        let id = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        let id = id.ok_or_else(|| io::Error::other("the process has ended"))?;
        Ok(kill_process(id, signal)?)
    }

    /// Tells it to stop, by closing its standard input, and waits.
    ///
    /// # Errors
    /// When it fails; the text holds the last words of its log.
    pub async fn stop(mut self) -> io::Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait().await?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("{status}: {}", self.last_words())))
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// When the system says no.
    pub fn has_ended(&mut self) -> io::Result<Option<std::process::ExitStatus>> {
        self.child.try_wait()
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The last lines of its log.
    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

/// Replicas as child processes of this one, on loopback, each with its own data directory.
pub struct ProcessCluster {
    program: PathBuf,
    folder: PathBuf,
    files: ClusterFiles,
    running: BTreeMap<ReplicaId, ChildProcess>,
    /// Where each listens.
    listening: BTreeMap<ReplicaId, SocketAddr>,
    /// What stands before each; empty if nothing does.
    relays: BTreeMap<ReplicaId, Relay>,
    partitioned: BTreeSet<ReplicaId>,
}

/// Why a cluster of processes failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// A file, a port or a process.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The cluster's files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl ProcessCluster {
    /// Makes the files of a cluster in `folder`, which must be new or empty. `program` is the
    /// `paxos-commit` binary.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn create(
        program: PathBuf,
        folder: &Path,
        name: Name,
        replicas: u32,
    ) -> Result<Self, ProcessError> {
        let listening = places(replicas)?;
        Self::make(program, folder, name, listening, BTreeMap::new())
    }

    /// As [`create`](Self::create), with a [`Relay`] of this process before each replica: nobody
    /// reaches it in any other way.
    ///
    /// # Errors
    /// When something cannot be made.
    pub async fn create_behind_relays(
        program: PathBuf,
        folder: &Path,
        name: Name,
        replicas: u32,
    ) -> Result<Self, ProcessError> {
        let listening = places(replicas)?;
        let mut relays = BTreeMap::new();
        for (id, place) in &listening {
            relays.insert(*id, Relay::start(*place).await?);
        }
        Self::make(program, folder, name, listening, relays)
    }

    /// The files: members have the addresses of their relays, where there are any.
    fn make(
        program: PathBuf,
        folder: &Path,
        name: Name,
        listening: BTreeMap<ReplicaId, SocketAddr>,
        relays: BTreeMap<ReplicaId, Relay>,
    ) -> Result<Self, ProcessError> {
        let members = listening.iter().map(|(id, place)| Member {
            id: *id,
            address: address(relays.get(id).map_or(*place, Relay::address)),
        });
        let files = ClusterFiles::create(folder, name, members.collect())?;
        for id in relays.keys() {
            files.set_listen(*id, listening[id])?;
        }
        Ok(ProcessCluster {
            program,
            folder: folder.to_owned(),
            files,
            running: BTreeMap::new(),
            listening,
            relays,
            partitioned: BTreeSet::new(),
        })
    }

    /// Where a replica listens, and what it dials from.
    pub fn listening(&self, id: ReplicaId) -> Option<SocketAddr> {
        self.listening.get(&id).copied()
    }

    /// The relay before a replica.
    pub fn relay(&self, id: ReplicaId) -> Option<&Relay> {
        self.relays.get(&id)
    }

    /// The replica hears nobody, and nobody hears it. It must stand behind a relay.
    pub fn partition(&mut self, id: ReplicaId) {
        self.partitioned.insert(id);
        self.cut();
    }

    /// The replica hears and is heard again.
    pub fn heal(&mut self, id: ReplicaId) {
        self.partitioned.remove(&id);
        self.cut();
    }

    fn cut(&self) {
        let cut = self.partitioned.iter();
        let cut = cut.filter_map(|id| self.listening(*id)).collect();
        isolate(&self.relays, &self.partitioned, &cut);
    }

    /// The files of the cluster.
    pub fn files(&self) -> &ClusterFiles {
        &self.files
    }

    /// The ids of its replicas.
    pub fn replicas(&self) -> Vec<ReplicaId> {
        self.files
            .members()
            .iter()
            .map(|member| member.id)
            .collect()
    }

    /// Starts one replica.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(&mut self, id: ReplicaId) -> Result<(), ProcessError> {
        let config = self.files.replica_file(id);
        let log = self.folder.join(format!("replica-{id}.log"));
        let config = config.to_string_lossy();
        let arguments = [
            "--log",
            "info",
            "replica",
            "--with-parent",
            "--config",
            &config,
        ];
        let child = ChildProcess::start(&self.program, &arguments, &log)?;
        self.running.insert(id, child);
        Ok(())
    }

    /// Starts all that do not run.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start_all(&mut self) -> Result<(), ProcessError> {
        for id in self.replicas() {
            if !self.running.contains_key(&id) {
                self.start(id)?;
            }
        }
        Ok(())
    }

    /// Kills one replica: SIGKILL.
    ///
    /// # Errors
    /// When the system says no.
    pub async fn kill(&mut self, id: ReplicaId) -> Result<(), ProcessError> {
        if let Some(child) = self.running.remove(&id) {
            child.kill().await?;
        }
        Ok(())
    }

    /// Stops one replica where it stands: SIGSTOP.
    ///
    /// # Errors
    /// When it does not run, or the system says no.
    pub fn pause(&self, id: ReplicaId) -> Result<(), ProcessError> {
        Ok(self.child(id)?.pause()?)
    }

    /// Lets one replica go on: SIGCONT.
    ///
    /// # Errors
    /// When it does not run, or the system says no.
    pub fn resume(&self, id: ReplicaId) -> Result<(), ProcessError> {
        Ok(self.child(id)?.resume()?)
    }

    fn child(&self, id: ReplicaId) -> io::Result<&ChildProcess> {
        let child = self.running.get(&id);
        child.ok_or_else(|| io::Error::other(format!("replica {id} does not run")))
    }

    /// Stops all, in order.
    ///
    /// # Errors
    /// When one fails; the others are stopped all the same.
    pub async fn stop(&mut self) -> Result<(), ProcessError> {
        let mut result = Ok(());
        for (_, child) in std::mem::take(&mut self.running) {
            let stopped = child.stop().await;
            result = result.and(stopped);
        }
        Ok(result?)
    }

    /// The replicas that have ended although nobody wanted that, each with its last words.
    pub fn fallen(&mut self) -> Vec<(ReplicaId, String)> {
        let mut fallen = Vec::new();
        for (id, child) in &mut self.running {
            if let Ok(Some(status)) = child.has_ended() {
                fallen.push((*id, format!("{status}: {}", child.last_words())));
            }
        }
        fallen
    }

    /// The process id of a replica that runs.
    pub fn process_id(&self, id: ReplicaId) -> Option<u32> {
        self.running.get(&id)?.id()
    }

    /// Issues an identity, and returns its `access.toml` and what that holds.
    ///
    /// # Errors
    /// When it is there already.
    pub fn issue(&self, role: Role) -> Result<(PathBuf, Access), ProcessError> {
        let path = self.files.issue(role)?;
        let access = load_access(&path)?;
        Ok((path, access))
    }
}

/// Where so many replicas can listen: ports of this machine that are free now.
fn places(replicas: u32) -> io::Result<BTreeMap<ReplicaId, SocketAddr>> {
    let sockets = (0..replicas).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
    let sockets: Vec<UdpSocket> = sockets.collect::<io::Result<_>>()?;
    let places = (1..).map(ReplicaId).zip(&sockets);
    let places = places.map(|(id, socket)| Ok((id, socket.local_addr()?)));
    places.collect()
}
