//! One host with its simulated disk and timers.
//!
//! The disk has two halves: what is durable, and what is on its way. A crash keeps the first half
//! and loses the second, all of it or from some record on (a torn batch).

use std::collections::BTreeMap;

use paxos_commit::protocol::types::{CommitId, Peer};
use paxos_commit::protocol::{Effects, Host};

/// A host in its process.
pub struct Node<H: Host> {
    pub me: Peer,
    pub config: H::Config,
    /// `None` while the process is down.
    pub host: Option<H>,
    /// Counts restarts; what belongs to an earlier life is ignored.
    pub life: u32,
    pub durable: Vec<H::Record>,
    /// Steps whose save has begun.
    pub saving: Vec<Effects<H>>,
    /// Steps that wait for the save under way.
    pub waiting: Vec<Effects<H>>,
    /// Of a replica: what is finished and durable when the save under way is.
    pub leaving: Vec<CommitId>,
    /// Whether `waiting` will be saved at the latest when it has lingered.
    pub lingering: bool,
    /// The timers that run, each with the token of its last setting.
    pub timers: BTreeMap<H::Timer, u64>,
    /// Percentage of true time at which its clock runs.
    pub clock: u64,
    /// Empty effects whose memory is used again.
    pub spare: Vec<Effects<H>>,
}

impl<H: Host> Node<H> {
    pub fn new(me: Peer, config: H::Config, clock: u64) -> Self {
        Node {
            me,
            config,
            host: None,
            life: 0,
            durable: Vec::new(),
            saving: Vec::new(),
            waiting: Vec::new(),
            leaving: Vec::new(),
            lingering: false,
            timers: BTreeMap::new(),
            clock,
            spare: Vec::new(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.host.is_some()
    }

    /// Whether everything that was ever saved is durable and released.
    pub fn is_settled(&self) -> bool {
        self.saving.is_empty() && self.waiting.is_empty()
    }

    /// The process dies. `survivors` records of the save under way reach the disk.
    pub fn crash(&mut self, survivors: usize) -> Vec<H::Record> {
        self.host = None;
        self.life += 1;
        self.timers.clear();
        self.lingering = false;
        self.leaving.clear();
        self.waiting.clear();
        let saving = std::mem::take(&mut self.saving);
        let records = saving.into_iter().flat_map(|effects| effects.save);
        let kept: Vec<H::Record> = records.take(survivors).collect();
        self.durable.extend(kept.iter().cloned());
        kept
    }

    /// How many records the save under way holds.
    pub fn unsaved(&self) -> usize {
        self.saving.iter().map(|effects| effects.save.len()).sum()
    }
}
