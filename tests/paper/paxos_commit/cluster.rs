//! A whole system in one thread: the test says which message arrives, when, and who crashes.
//!
//! Replicas are numbered from 1 to 2F+1, RMs from 1 to N; both stand in this order in the
//! configuration and in the roster. [`Facts`] watches every save and every message, and a
//! violation ends the test at once, unless the test has planted one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::invariant::{Facts, Violation};
use paxos_commit::protocol::effects::{Effects, Host, Input};
use paxos_commit::protocol::initiator::{
    Initiator, InitiatorCommand, InitiatorConfig, InitiatorNotice, InitiatorTimer, PrepareBy,
};
use paxos_commit::protocol::message::{Message, Prepare};
use paxos_commit::protocol::participant::{
    Participant, ParticipantCommand, ParticipantNotice, ParticipantTimer,
};
use paxos_commit::protocol::paxos::{Acceptors, ReplicaId};
use paxos_commit::protocol::replica::{
    Record, Replica, ReplicaConfig, ReplicaNotice, ReplicaTimer,
};
use paxos_commit::protocol::types::{
    Branch, CommitId, InitiatorId, Outcome, Peer, ReadOnly, Roster, Session, StoreId, TxnId, Vote,
};

use super::node::{Disk, ReplicaNode, Rm, Step, Will};
use super::wire::{Cost, Envelope, Kind, replica};

/// How long the replicas wait for votes.
const VOTE_TIMEOUT: Duration = Duration::from_secs(1);

const CLIENT: InitiatorId = InitiatorId::from_u128(7);
pub(super) const OPERATOR: Peer = Peer::Operator(1);

/// Deliveries after which a run is taken for endless.
const DELIVERIES_MAX: usize = 100_000;

/// F, N, one transaction, and everything that was ever said about it.
pub(super) struct Cluster {
    pub(super) acceptors: Acceptors,
    pub(super) replicas: Vec<ReplicaNode>,
    pub(super) rms: Vec<Rm>,
    client: Initiator,
    /// What the client learned, and at what cost.
    pub(super) heard: Option<(Outcome, Cost)>,
    pub(super) txn: TxnId,
    pub(super) roster: Roster,
    pub(super) id: CommitId,
    pub(super) wire: VecDeque<Envelope>,
    /// Everything that ever left its sender.
    pub(super) log: Vec<Envelope>,
    /// Replicas that no message reaches and of which none arrives, although they live.
    isolated: Vec<u32>,
    facts: Facts,
    release: Release,
    pub(super) violations: Vec<Violation>,
}

/// When messages leave a replica whose disk is slow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    /// When their own saves and those of all earlier steps are durable.
    Fifo,
    /// The planted bug: when their own saves are durable, thus at once if there are none.
    Eager,
}

impl Cluster {
    /// 2F+1 replicas and `wills.len()` RMs, which work under a transaction.
    pub(super) fn new(f: u32, wills: &[Will]) -> Self {
        let acceptors = Acceptors::new((1..=2 * f + 1).map(ReplicaId)).expect("an odd number");
        let branch = |n: usize| Branch {
            participant: format!("rm{n:02}").parse().expect("a name"),
            session: Session(n as u64),
            store: StoreId::from_u128(1),
        };
        let rms = wills.iter().enumerate();
        let rms: Vec<Rm> = rms
            .map(|(n, will)| Rm::new(branch(n + 1), *will, &acceptors))
            .collect();
        let roster = Roster::new(rms.iter().map(|rm| rm.me.clone())).expect("a roster");
        let txn = TxnId {
            generation: 1,
            initiator: CLIENT,
            sequence: 0,
            nonce: 9,
        };
        let node = |id| ReplicaNode::new(ReplicaConfig::new(id, acceptors.clone()));
        let mut out = Effects::default();
        let mut cluster = Cluster {
            replicas: acceptors.iter().map(node).collect(),
            rms,
            client: Initiator::recover(
                InitiatorConfig::new(CLIENT, acceptors.clone()),
                [],
                &mut out,
            ),
            heard: None,
            txn,
            id: CommitId::new(txn, &roster),
            roster,
            wire: VecDeque::new(),
            log: Vec::new(),
            isolated: Vec::new(),
            facts: Facts::new(acceptors.clone()),
            release: Release::Fifo,
            violations: Vec::new(),
            acceptors,
        };
        cluster.step_client(
            Input::Command(InitiatorCommand::Begin { nonce: 9 }),
            Cost::default(),
        );
        for n in 1..=wills.len() {
            cluster.tell_rm(n, ParticipantCommand::Begin(txn));
        }
        cluster
    }

    /// N RMs, all of which prepare.
    pub(super) fn of_prepared(f: u32, n: usize) -> Self {
        Cluster::new(f, &vec![Will::Say(Vote::Prepared); n])
    }

    pub(super) fn with_release(mut self, release: Release) -> Self {
        self.release = release;
        self
    }

    /// The client asks replica 1 to get the RMs to prepare.
    pub(super) fn commit(&mut self) {
        self.ask_for_commit(PrepareBy::Relay);
    }

    /// Each RM prepares as the last step of its own work: the message that brought it that work,
    /// one delay, brought the roster too.
    pub(super) fn commit_without_relay(&mut self) {
        self.ask_for_commit(PrepareBy::Itself);
        let prepare = Prepare {
            id: self.id,
            roster: self.roster.clone(),
            request: None,
            read_only: ReadOnly::Allowed,
            floor: self.client.floor(),
            vote_timeout: VOTE_TIMEOUT,
        };
        for n in 1..=self.rms.len() {
            let command = ParticipantCommand::Prepare(prepare.clone());
            self.step_rm(n, Input::Command(command), Cost::default().one_more_delay());
        }
    }

    fn ask_for_commit(&mut self, prepare: PrepareBy) {
        let command = InitiatorCommand::Commit {
            txn: self.txn,
            branches: self.rms.iter().map(|rm| (rm.me.clone(), None)).collect(),
            prepare,
            vote_timeout: VOTE_TIMEOUT,
        };
        self.step_client(Input::Command(command), Cost::default());
    }

    /// What the client was told.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.heard.map(|(outcome, _)| outcome)
    }

    /// What each RM has learned.
    pub(super) fn outcomes(&self) -> Vec<Option<Outcome>> {
        let heard = self.rms.iter().map(|rm| rm.heard);
        heard
            .map(|heard| heard.map(|(outcome, _)| outcome))
            .collect()
    }

    /// What replica `n` knows.
    pub(super) fn decided(&self, n: u32) -> Option<Outcome> {
        self.host(n).outcome(&self.id)
    }

    pub(super) fn host(&self, n: u32) -> &Replica {
        let host = self.replicas[n as usize - 1].host.as_ref();
        host.expect("the replica lives")
    }

    /// How many votes are on the disks of all replicas.
    pub(super) fn disk_votes(&self) -> usize {
        let records = self.replicas.iter().flat_map(|node| &node.disk);
        records
            .filter(|record| matches!(record, Record::Vote { .. }))
            .count()
    }

    /// How many messages of this kind have left.
    pub(super) fn sent(&self, kind: Kind) -> usize {
        self.log.iter().filter(|envelope| envelope.is(kind)).count()
    }

    // The network.

    /// Delivers everything, and what follows from it, oldest first.
    pub(super) fn run(&mut self) {
        self.run_only(|_| true);
    }

    /// Delivers what is wanted, and what follows from it if that is wanted too.
    pub(super) fn run_only(&mut self, wanted: impl Fn(&Envelope) -> bool) {
        for _ in 0..DELIVERIES_MAX {
            let Some(at) = self.wire.iter().position(&wanted) else {
                return;
            };
            let envelope = self.wire.remove(at).expect("it was just found");
            self.deliver(envelope);
        }
        panic!("no end of messages: {:?}", self.wire);
    }

    /// Takes messages off the wire: held if they are [`put`](Self::put) back, else lost.
    pub(super) fn take(&mut self, wanted: impl Fn(&Envelope) -> bool) -> Vec<Envelope> {
        let wire = std::mem::take(&mut self.wire);
        let (taken, left) = wire.into_iter().partition(|envelope| wanted(envelope));
        self.wire = left;
        Vec::from_iter::<VecDeque<_>>(taken)
    }

    pub(super) fn put(&mut self, envelopes: Vec<Envelope>) {
        self.wire.extend(envelopes);
    }

    pub(super) fn isolate(&mut self, n: u32) {
        self.isolated.push(n);
    }

    pub(super) fn rejoin(&mut self) {
        self.isolated.clear();
    }

    pub(super) fn deliver(&mut self, envelope: Envelope) {
        let Envelope {
            from,
            to,
            message,
            cost,
        } = envelope;
        let cut = |peer: &Peer| self.isolated.iter().any(|n| *peer == replica(*n));
        if from != to && (cut(&from) || cut(&to)) {
            return;
        }
        match &to {
            Peer::Replica(id) => self.step_replica(id.0, Input::Message { from, message }, cost),
            Peer::Session(branch) => {
                if let Some(at) = self.rms.iter().position(|rm| rm.me == *branch) {
                    self.step_rm(at + 1, Input::Message { from, message }, cost);
                }
            }
            Peer::Initiator(_) => self.step_client(Input::Message { from, message }, cost),
            Peer::Operator(_) => {}
        }
    }

    // Time and faults.

    /// Lets so many ticks pass everywhere, and everything arrive in between.
    pub(super) fn pass(&mut self, ticks: u32) {
        for _ in 0..ticks {
            for n in 1..=self.acceptors.len() as u32 {
                self.tick_replica(n);
            }
            for n in 1..=self.rms.len() {
                self.tick_rm(n);
            }
            self.time_out_client(InitiatorTimer::Tick);
            self.run();
        }
    }

    pub(super) fn tick_replica(&mut self, n: u32) {
        self.step_replica(n, Input::Timeout(ReplicaTimer::Tick), Cost::default());
    }

    pub(super) fn tick_rm(&mut self, n: usize) {
        self.step_rm(n, Input::Timeout(ParticipantTimer::Tick), Cost::default());
    }

    pub(super) fn time_out_client(&mut self, timer: InitiatorTimer) {
        self.step_client(Input::Timeout(timer), Cost::default());
    }

    /// Replica `n` waits until its patience is at an end, and starts a ballot.
    pub(super) fn lose_patience(&mut self, n: u32) {
        let led = |log: &[Envelope]| {
            let mut log = log.iter();
            log.any(|envelope| envelope.is_from(n) && envelope.is(Kind::Phase1a))
        };
        let before = self.log.len();
        for _ in 0..1_000 {
            self.tick_replica(n);
            if led(&self.log[before..]) {
                return;
            }
        }
        panic!("replica {n} starts no ballot");
    }

    /// An operator has replica `n` start a ballot at once.
    pub(super) fn lead(&mut self, n: u32) {
        let id = self.id;
        self.say(OPERATOR, n, Message::ForceAbort { id });
    }

    /// `from` says this to replica `n`, whatever the protocol thinks of it.
    pub(super) fn say(&mut self, from: Peer, n: u32, message: Message) {
        self.step_replica(n, Input::Message { from, message }, Cost::default());
    }

    /// The process ends. What was not durable is lost, and so is what waited for it.
    pub(super) fn crash(&mut self, n: u32) {
        let node = &mut self.replicas[n as usize - 1];
        node.host = None;
        node.unsaved.clear();
    }

    pub(super) fn restart(&mut self, n: u32) {
        let node = &mut self.replicas[n as usize - 1];
        let mut out = Effects::default();
        node.host = Some(Replica::recover(
            node.config.clone(),
            node.disk.clone(),
            &mut out,
        ));
        assert!(out.send.is_empty() && out.save.is_empty());
    }

    /// Whatever replica `n` has saved becomes durable, and what waited for it leaves.
    pub(super) fn sync(&mut self, n: u32) {
        while let Some(step) = self.replicas[n as usize - 1].unsaved.pop_front() {
            self.save_then_send(n, step);
        }
    }

    // The cranks.

    fn step_replica(&mut self, n: u32, input: Input<Replica>, cost: Cost) {
        let (mut out, release) = (Effects::default(), self.release);
        let node = &mut self.replicas[n as usize - 1];
        let Some(host) = &mut node.host else {
            return;
        };
        host.step(input, &mut out);
        for notice in out.notify {
            match notice {
                ReplicaNotice::Rejected { reason, .. } => node.rejected.push(reason),
                ReplicaNotice::Contradiction { id, .. } => panic!("{id}: no process lies"),
                ReplicaNotice::Removed | ReplicaNotice::Dial(_) => panic!("the same replicas"),
            }
        }
        let mut after = cost.one_more_delay();
        if !out.save.is_empty() {
            after = after.one_more_write();
        }
        let step = Step {
            send: envelopes(&replica(n), out.send, after),
            save: out.save,
        };
        let waits = !node.unsaved.is_empty() && release == Release::Fifo;
        if node.speed == Disk::Fast || (step.save.is_empty() && !waits) {
            self.save_then_send(n, step);
        } else {
            node.unsaved.push_back(step);
        }
    }

    fn save_then_send(&mut self, n: u32, step: Step) {
        for record in step.save {
            let durable = self.facts.durable(ReplicaId(n), &record);
            self.judge(durable);
            self.replicas[n as usize - 1].disk.push(record);
        }
        self.send(step.send);
    }

    pub(super) fn tell_rm(&mut self, n: usize, command: ParticipantCommand) {
        self.step_rm(n, Input::Command(command), Cost::default());
    }

    /// The resource manager of RM `n`, which waited, answers.
    pub(super) fn answer(&mut self, n: usize, id: CommitId, vote: Vote) {
        self.tell_rm(n, ParticipantCommand::Prepared { id, vote });
    }

    pub(super) fn say_to_rm(&mut self, n: usize, from: Peer, message: Message) {
        self.step_rm(n, Input::Message { from, message }, Cost::default());
    }

    fn step_rm(&mut self, n: usize, input: Input<Participant>, cost: Cost) {
        let mut out = Effects::default();
        let rm = &mut self.rms[n - 1];
        let Some(host) = &mut rm.host else {
            return;
        };
        host.step(input, &mut out);
        let me = Peer::Session(rm.me.clone());
        self.send(envelopes(&me, out.send, cost.one_more_delay()));
        for notice in out.notify {
            self.on_rm_notice(n, notice, cost);
        }
    }

    /// The resource manager does what its session asks of it. To prepare is a forced write.
    fn on_rm_notice(&mut self, n: usize, notice: ParticipantNotice, cost: Cost) {
        let rm = &mut self.rms[n - 1];
        match notice {
            ParticipantNotice::Prepare { id, .. } => {
                if let Will::Say(vote) = rm.will {
                    let command = ParticipantCommand::Prepared { id, vote };
                    self.step_rm(n, Input::Command(command), cost.one_more_write());
                }
            }
            ParticipantNotice::Finish {
                id,
                branch,
                outcome,
            } => {
                rm.heard.get_or_insert((outcome, cost));
                rm.applied.push(outcome);
                // A branch that is rolled back need not know an outcome: it may have voted Aborted.
                if outcome == Outcome::Commit {
                    let told = self.facts.tell(id, outcome);
                    self.judge(told);
                }
                let command = ParticipantCommand::Finished { id, branch };
                self.step_rm(n, Input::Command(command), cost.one_more_write());
            }
            ParticipantNotice::LetGo(_) => rm.has_let_go = true,
            ParticipantNotice::Began(_) | ParticipantNotice::Unasked { .. } => {}
            ParticipantNotice::Refused { .. } => panic!("all work begins before it is prepared"),
            ParticipantNotice::Stands(_) => panic!("the session was let in"),
            ParticipantNotice::Expired { .. }
            | ParticipantNotice::Forgotten { .. }
            | ParticipantNotice::Settled { .. }
            | ParticipantNotice::Unproven { .. }
            | ParticipantNotice::Contradicted { .. } => panic!("only one generation is open"),
            ParticipantNotice::Outcome { id, outcome } => {
                let (heard, _) = *rm.heard.get_or_insert((outcome, cost));
                assert!(heard == outcome || self.release == Release::Eager);
                let told = self.facts.tell(id, outcome);
                self.judge(told);
            }
        }
    }

    fn step_client(&mut self, input: Input<Initiator>, cost: Cost) {
        let mut out = Effects::default();
        self.client.step(input, &mut out);
        let me = Peer::Initiator(CLIENT);
        self.send(envelopes(&me, out.send, cost.one_more_delay()));
        for notice in out.notify {
            match notice {
                InitiatorNotice::Begun(txn) => assert_eq!(txn, self.txn),
                InitiatorNotice::Asked(id) => assert_eq!(id, self.id),
                InitiatorNotice::Outcome { id, outcome } => {
                    assert_eq!(self.heard, None, "an outcome is told once");
                    self.heard = Some((outcome, cost));
                    let told = self.facts.tell(id, outcome);
                    self.judge(told);
                }
                InitiatorNotice::Undecided { .. } => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    fn send(&mut self, envelopes: Vec<Envelope>) {
        for envelope in envelopes {
            let sent = self.facts.sent(&envelope.from, &envelope.message);
            self.judge(sent);
            self.log.push(envelope.clone());
            self.wire.push_back(envelope);
        }
    }

    fn judge(&mut self, verdict: Result<(), Violation>) {
        if let Err(violation) = verdict {
            assert!(self.release == Release::Eager, "{violation}");
            self.violations.push(violation);
        }
    }
}

fn envelopes(from: &Peer, send: Vec<(Peer, Message)>, cost: Cost) -> Vec<Envelope> {
    let envelope = |(to, message)| Envelope {
        from: from.clone(),
        to,
        message,
        cost,
    };
    send.into_iter().map(envelope).collect()
}
