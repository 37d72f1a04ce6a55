//! Between a replica's core and its store and network.
//!
//! What a turn sends leaves when its records, and those of all earlier turns, are durable: the
//! store completes saves in order, and sends from its own thread. A turn that saves nothing leaves
//! at once if nothing is under way.
//!
//! Finished transactions leave memory when their records are durable, and come back from disk when
//! a message names them.

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use crate::driver::{Other, Shell};
use crate::protocol::message::Message;
use crate::protocol::paxos::ReplicaId;
use crate::protocol::replica::{Lookup, Record, ReplicaCommand, ReplicaNotice};
use crate::protocol::types::{CommitId, Generations, Peer};
use crate::protocol::{Effects, Host, Input, Replica as Core};
use crate::store::Store;
use crate::transport::Links;
use crate::wire::{Answer, Frame, LISTING_MAX, Listing, Query, Report};

use super::metering::Meters;
use super::saying::{Said, say_generations};

/// How long records that nobody waits for may wait for a save that somebody does.
const LINGER: Duration = Duration::from_millis(20);

/// How many such records wait at most.
const LINGER_MAX: usize = 4_096;

/// How often gauges are set.
const GAUGES_EVERY: Duration = Duration::from_secs(1);

/// What can be asked of a running replica.
pub(super) enum Call {
    /// Look at it.
    Inspect(Box<dyn FnOnce(&Core) + Send>),
}

/// Surrounds a replica.
pub(super) struct ReplicaShell {
    me: ReplicaId,
    store: Arc<Store>,
    exit: Exit,
    meters: Meters,
    saving: Saving,
    oldest: Oldest,
    said: Said,
}

impl ReplicaShell {
    pub(super) fn new(me: ReplicaId, store: Arc<Store>, exit: Exit) -> Self {
        ReplicaShell {
            me,
            store,
            exit,
            meters: Meters::new(),
            saving: Saving::default(),
            oldest: Oldest::default(),
            said: Said::default(),
        }
    }
}

/// What waits to be saved, or was saved and waits to be durable.
#[derive(Default)]
struct Saving {
    /// Records that nobody waits for.
    late: Vec<Record>,
    late_since: Option<Instant>,
    /// Answers to operators, of this turn.
    answers: Vec<(Peer, Frame)>,
    /// Counts the turns that were released.
    turns: u64,
    /// What may leave memory when that turn is durable.
    leaving: Option<(u64, Vec<CommitId>)>,
}

/// The oldest transaction that is undecided, and since when it has been the oldest.
#[derive(Default)]
struct Oldest {
    id: Option<(CommitId, Instant)>,
    looked: Option<Instant>,
}

impl Shell for ReplicaShell {
    type Host = Core;
    type Call = Call;

    fn before(&mut self, host: &mut Core, message: &Message, out: &mut Effects<Core>) {
        let unknown = host.unknown(message);
        if unknown.is_empty() {
            return;
        }
        let mut records = Vec::new();
        for lookup in unknown {
            records.extend(self.look_up(lookup));
        }
        if !records.is_empty() {
            host.step(Input::Command(ReplicaCommand::Recall(records)), out);
        }
    }

    fn call(&mut self, host: &mut Core, call: Call, _: &mut Effects<Core>) {
        match call {
            Call::Inspect(look) => look(host),
        }
    }

    fn other(&mut self, host: &Core, inbound: Other) {
        match inbound {
            Other::Lsn { replica, lsn } => self.store.remember(replica, lsn),
            Other::Query { from, query } => {
                let answer = match query {
                    Query::Status => Answer::Status(Box::new(self.report(host))),
                    Query::List { after } => Answer::List(list(host, after)),
                    Query::Refusals => Answer::Refusals(self.exit.links.refusals.counts()),
                };
                self.saving.answers.push((from, Frame::Answer(answer)));
            }
        }
    }

    fn release(
        &mut self,
        host: &mut Core,
        out: &mut Effects<Core>,
        rooms: Vec<OwnedSemaphorePermit>,
    ) {
        self.evict(host, out);
        self.set_gauges(host);
        self.said.leader(host.log_leader());
        for record in &out.save {
            self.meters.count_record(record);
        }
        for (to, message) in &out.send {
            self.meters.count_message(&self.exit.me, to, message);
        }
        let links = &self.exit.links;
        let news = (links.generations().borrow().slot() < host.generations().slot())
            .then(|| host.generations().clone());
        let nobody_waits = out.send.is_empty()
            && out.notify.is_empty()
            && self.saving.answers.is_empty()
            && news.is_none();
        let saving = &mut self.saving;
        if nobody_waits {
            // DESIGN 2.7 as the core has it: nobody is told, so it may be saved with the next.
            if saving.late.is_empty() && !out.save.is_empty() {
                saving.late_since = Some(Instant::now());
            }
            saving.late.append(&mut out.save);
            let due = saving.late.len() >= LINGER_MAX
                || saving
                    .late_since
                    .is_some_and(|since| since.elapsed() >= LINGER);
            if !due {
                return;
            }
        }
        // Exactly as much as there is, and the list keeps its memory: what is handed to the saver's
        // thread is freed there.
        let mut records = Vec::with_capacity(saving.late.len() + out.save.len());
        records.append(&mut saving.late);
        records.append(&mut out.save);
        saving.late_since = None;
        saving.turns += 1;
        let leaving = Leaving {
            turn: saving.turns,
            send: std::mem::replace(&mut out.send, self.exit.spare()),
            answers: std::mem::take(&mut saving.answers),
            notices: std::mem::take(&mut out.notify),
            news,
            _rooms: rooms,
        };
        if saving.leaving.is_none() {
            let finished: Vec<CommitId> = host.finished().copied().collect();
            saving.leaving = (!finished.is_empty()).then_some((saving.turns, finished));
        }
        let exit = self.exit.clone();
        if records.is_empty() && self.store.pending() == 0 {
            exit.leave(leaving, self.store.lsn());
        } else {
            self.store
                .save(records, move |lsn| exit.leave(leaving, lsn));
        }
    }
}

impl ReplicaShell {
    /// What was finished when a turn began that is durable now leaves memory: the store has it.
    fn evict(&mut self, host: &mut Core, out: &mut Effects<Core>) {
        let durable = self.exit.durable.load(Ordering::Acquire);
        let leaving = self.saving.leaving.take_if(|(turn, _)| *turn <= durable);
        if let Some((_, ids)) = leaving {
            host.step(Input::Command(ReplicaCommand::Evict(ids)), out);
        }
    }

    /// What the store holds of what a message names.
    fn look_up(&self, lookup: Lookup) -> Vec<Record> {
        let found = match lookup {
            Lookup::Instance(id) => self.store.recall(&id),
            Lookup::Transaction(txn) => self.store.recall_txn(txn),
        };
        found.unwrap_or_else(|error| {
            // To go on without it would be to forget what was promised.
            tracing::error!(%error, "the store cannot be read: this replica stops here");
            eprintln!("paxos-commit: the store cannot be read, this replica stops here: {error}");
            std::process::abort()
        })
    }

    fn disk_bytes(&self) -> u64 {
        self.store.disk_bytes().unwrap_or(0)
    }

    fn set_gauges(&mut self, host: &Core) {
        let now = Instant::now();
        let looked = self.oldest.looked;
        if looked.is_some_and(|looked| now - looked < GAUGES_EVERY) {
            return;
        }
        self.oldest.looked = Some(now);
        let id = host.undecided().next().copied();
        let before = self.oldest.id.filter(|(before, _)| Some(*before) == id);
        self.oldest.id = before.or_else(|| Some((id?, now)));
        let age = self
            .oldest
            .id
            .map_or(Duration::ZERO, |(_, since)| now - since);
        let meters = &self.meters;
        meters.oldest.set(age.as_secs_f64());
        meters.undecided.set(host.undecided().count() as f64);
        meters.unapplied.set(host.unapplied().count() as f64);
        meters.remembered.set(host.remembered() as f64);
        meters
            .generation
            .set(f64::from(host.generations().latest()));
        meters.disk.set(self.disk_bytes() as f64);
    }

    fn report(&self, host: &Core) -> Report {
        let oldest = host.undecided().next().copied();
        let since = |id: CommitId| match self.oldest.id {
            Some((before, since)) if before == id => since.elapsed(),
            Some(_) | None => Duration::ZERO,
        };
        let participants = host.directory();
        let participants =
            participants.map(|(name, sessions)| (name.clone(), sessions.len() as u32));
        let replicas = self.exit.links.connected().into_iter();
        let replicas = replicas.filter_map(|peer| match peer {
            Peer::Replica(id) => Some(id),
            Peer::Session(_) | Peer::Initiator(_) | Peer::Operator(_) => None,
        });
        Report {
            replica: self.me,
            program: env!("CARGO_PKG_VERSION").into(),
            lsn: self.store.lsn(),
            disk_bytes: self.disk_bytes(),
            generations: host.generations().clone(),
            leader: host.log_leader(),
            undecided: host.undecided().count() as u64,
            oldest: oldest.map(|id| (id, since(id).as_millis() as u64)),
            unapplied: host.unapplied().count() as u64,
            remembered: host.remembered() as u64,
            participants: participants.collect(),
            connected: replicas.collect(),
            sent: self.exit.links.sent(),
            saves: self.store.stats().saves,
        }
    }
}

/// A page of what is undecided or not yet applied.
fn list(host: &Core, after: Option<CommitId>) -> Listing {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut found = host.under_way((start, Bound::Unbounded));
    let transactions = found.by_ref().take(LISTING_MAX).collect();
    Listing {
        transactions,
        more: found.next().is_some(),
    }
}

/// What leaves when a turn is durable.
struct Leaving {
    turn: u64,
    send: Sending,
    answers: Vec<(Peer, Frame)>,
    notices: Vec<ReplicaNotice>,
    news: Option<Generations>,
    /// What this turn sends holds requests that came with its messages.
    _rooms: Vec<OwnedSemaphorePermit>,
}

/// The way out; taken by the saver's thread too.
#[derive(Clone)]
pub(super) struct Exit {
    pub(super) me: Peer,
    pub(super) links: Arc<Links>,
    pub(super) back: mpsc::UnboundedSender<Input<Core>>,
    /// Set when nobody needs this replica any more.
    pub(super) removed: Arc<watch::Sender<bool>>,
    /// The last turn that is durable.
    pub(super) durable: Arc<AtomicU64>,
    /// Lists whose messages have left, for the next turns: they go back and forth between two
    /// threads, and are too large to be made anew each time.
    pub(super) spares: Arc<Mutex<Vec<Sending>>>,
}

/// Messages, in order.
type Sending = Vec<(Peer, Message)>;

/// The most lists that are kept, and the most messages of one that is.
const SPARES_MAX: usize = 4;
const SPARE_LENGTH_MAX: usize = 8 * 1024;

impl Exit {
    /// An empty list.
    fn spare(&self) -> Sending {
        self.spares().pop().unwrap_or_default()
    }

    fn give_back(&self, mut list: Sending) {
        list.clear();
        let mut spares = self.spares();
        if spares.len() < SPARES_MAX && list.capacity() <= SPARE_LENGTH_MAX {
            spares.push(list);
        }
    }

    fn spares(&self) -> MutexGuard<'_, Vec<Sending>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn, and all before it, are durable, with the save of this number.
    fn leave(&self, leaving: Leaving, lsn: u64) {
        let Leaving {
            turn,
            mut send,
            answers,
            notices,
            news,
            _rooms: _,
        } = leaving;
        self.durable.fetch_max(turn, Ordering::Release);
        self.links.lsns().own = lsn;
        if let Some(generations) = news {
            say_generations(&self.links.generations().borrow(), &generations);
            self.links.learn(&generations);
        }
        for (to, message) in &send {
            if let Message::Busy { id } = message {
                self.links
                    .refusals
                    .turned_away("busy", to, &format_args!("{id}"));
            } else if let Message::NotOpen { id, .. } = message {
                self.links
                    .refusals
                    .turned_away("not_open", to, &format_args!("{id}"));
            }
        }
        let own: Vec<_> = send.extract_if(.., |(to, _)| *to == self.me).collect();
        self.links.send_all(&send);
        self.give_back(send);
        for (from, message) in own {
            // When the driver has ended there is nobody to tell.
            let _ = self.back.send(Input::Message { from, message });
        }
        for (peer, frame) in answers {
            self.links.send_frame(&peer, &frame);
        }
        for notice in notices {
            match notice {
                ReplicaNotice::Rejected { from, reason } => {
                    self.links.refusals.turned_away("rejected", &from, &reason);
                }
                ReplicaNotice::Contradiction { id, against } => {
                    metrics::counter!("paxos_commit_contradictions_total").increment(1);
                    let Some(unlogged) = self.links.alarms.may_log("contradiction") else {
                        continue;
                    };
                    let against = against.map(|branch| branch.to_string());
                    tracing::error!(
                        %id,
                        against,
                        unlogged,
                        "a commit is aborted here: a client said different things to different \
                         replicas; the commit stands"
                    );
                }
                ReplicaNotice::Dial(members) => self.links.dial_also(members),
                ReplicaNotice::Removed => {
                    self.removed.send_replace(true);
                }
            }
        }
    }
}
