//! The loop that turns the crank: inputs, steps, then what follows from them.
//!
//! One driver runs one host, in one task. In a turn it takes whatever has come, steps the host for
//! each, and hands all effects to its [`Shell`] at once; the shell saves them, if the host saves,
//! and lets the rest leave when that is durable. Turns go on while a save is under way.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use crate::protocol::message::Message;
use crate::protocol::types::Peer;
use crate::protocol::{Effects, Host, Input, TimerOp};
use crate::transport::Inbound;

/// The most events of one kind that one turn takes; of messages a few more, since they come in
/// batches.
const TURN_MAX: usize = 512;

/// What surrounds one host.
pub(crate) trait Shell: Send + 'static {
    /// The host.
    type Host: Host<Timer: Send, Record: Send, Notice: Send, Command: Send> + Send;
    /// What its user asks of it.
    type Call: Send;

    /// A message is about to be stepped.
    fn before(&mut self, host: &mut Self::Host, message: &Message, out: &mut Effects<Self::Host>);

    /// The user asks for something.
    fn call(&mut self, host: &mut Self::Host, call: Self::Call, out: &mut Effects<Self::Host>);

    /// Something came from the network that is none of the host's affair.
    fn other(&mut self, host: &Self::Host, inbound: Other);

    /// A turn is over. What is in `out` must be saved, then sent and notified; it is left empty.
    /// `rooms` are dropped when nothing of the turn's messages is held any more.
    fn release(
        &mut self,
        host: &mut Self::Host,
        out: &mut Effects<Self::Host>,
        rooms: Vec<OwnedSemaphorePermit>,
    );
}

/// What comes from the network and goes past the host.
pub(crate) enum Other {
    /// See [`Inbound::Lsn`].
    Lsn {
        replica: crate::protocol::paxos::ReplicaId,
        lsn: u64,
    },
    /// See [`Inbound::Query`].
    Query {
        from: Peer,
        query: crate::wire::Query,
    },
}

/// Runs one host.
pub(crate) struct Driver<S: Shell> {
    host: S::Host,
    shell: S,
    inbound: mpsc::Receiver<Inbound>,
    calls: mpsc::Receiver<S::Call>,
    /// Messages of the host to itself, and what else its shell brings back.
    back: mpsc::UnboundedReceiver<Input<S::Host>>,
    timers: Timers<<S::Host as Host>::Timer>,
    /// The newest connection of each peer.
    links: HashMap<Peer, u64>,
    out: Effects<S::Host>,
    /// The memory that this turn's messages take.
    rooms: Vec<OwnedSemaphorePermit>,
}

impl<S: Shell> Driver<S>
where
    Input<S::Host>: Send,
{
    /// Takes a host that was just recovered, with the effects of that.
    pub(crate) fn new(
        host: S::Host,
        shell: S,
        effects: Effects<S::Host>,
        inbound: mpsc::Receiver<Inbound>,
        calls: mpsc::Receiver<S::Call>,
        back: mpsc::UnboundedReceiver<Input<S::Host>>,
    ) -> Self {
        Driver {
            host,
            shell,
            inbound,
            calls,
            back,
            timers: Timers::default(),
            links: HashMap::new(),
            out: effects,
            rooms: Vec::new(),
        }
    }

    /// Turns until every user has gone.
    pub(crate) async fn run(mut self) {
        let mut inbound = Vec::with_capacity(TURN_MAX);
        let mut calls = Vec::with_capacity(TURN_MAX);
        let mut back = Vec::with_capacity(TURN_MAX);
        loop {
            self.end_turn();
            let due = self.timers.next();
            tokio::select! {
                first = self.inbound.recv() => match first {
                    Some(first) => inbound.push(first),
                    None => return,
                },
                count = self.calls.recv_many(&mut calls, TURN_MAX) => {
                    if count == 0 {
                        return;
                    }
                }
                // The shell holds the other end.
                _ = self.back.recv_many(&mut back, TURN_MAX) => {}
                () = wait_until(due) => {}
            }
            // Whoever is about to say something says it first. A turn costs its save and its packets
            // whether it is of one event or of many; when nobody else has anything to do, this takes
            // a microsecond.
            yield_now().await;
            fill(&mut back, || self.back.try_recv().ok());
            let mut count: usize = inbound.iter().map(Inbound::count).sum();
            while count < TURN_MAX
                && let Ok(event) = self.inbound.try_recv()
            {
                count += event.count();
                inbound.push(event);
            }
            fill(&mut calls, || self.calls.try_recv().ok());
            for input in back.drain(..) {
                self.step(input);
            }
            for event in inbound.drain(..) {
                self.take(event);
            }
            for call in calls.drain(..) {
                self.shell.call(&mut self.host, call, &mut self.out);
                self.set_timers();
            }
            while let Some(timer) = self.timers.pop_due(Instant::now()) {
                self.step(Input::Timeout(timer));
            }
        }
    }

    fn take(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Messages(batch) => {
                self.rooms.extend(batch.room);
                for message in batch.messages {
                    let from = batch.from.clone();
                    self.step(Input::Message { from, message });
                }
            }
            Inbound::Connected { peer, link } => {
                let newest = self.links.entry(peer.clone()).or_default();
                *newest = link.max(*newest);
                self.step(Input::Connected(peer));
            }
            Inbound::Disconnected { peer, link } => {
                // Not if a newer connection took its place meanwhile.
                if self.links.get(&peer) == Some(&link) {
                    self.links.remove(&peer);
                    self.step(Input::Disconnected(peer));
                }
            }
            Inbound::Lsn { replica, lsn } => {
                self.shell.other(&self.host, Other::Lsn { replica, lsn });
            }
            Inbound::Query { from, query } => {
                self.shell.other(&self.host, Other::Query { from, query });
            }
            // Only operators are answered, and they have no host.
            Inbound::Answer { .. } => {}
        }
    }

    fn step(&mut self, input: Input<S::Host>) {
        if let Input::Message { message, .. } = &input {
            self.shell.before(&mut self.host, message, &mut self.out);
        }
        self.host.step(input, &mut self.out);
        self.set_timers();
    }

    /// Timers are set at once: what they do is released in order like everything else.
    fn set_timers(&mut self) {
        if self.out.timers.is_empty() {
            return;
        }
        let now = Instant::now();
        for op in self.out.timers.drain(..) {
            match op {
                TimerOp::Set { timer, after } => self.timers.set(timer, now + after),
                TimerOp::Cancel(timer) => self.timers.cancel(&timer),
            }
        }
    }

    fn end_turn(&mut self) {
        self.set_timers();
        let rooms = std::mem::take(&mut self.rooms);
        self.shell.release(&mut self.host, &mut self.out, rooms);
        debug_assert!(self.out.is_empty(), "the shell takes everything");
    }
}

/// Adds what waits to the events that a turn has taken so far.
fn fill<T>(taken: &mut Vec<T>, next: impl FnMut() -> Option<T>) {
    let room = TURN_MAX.saturating_sub(taken.len());
    taken.extend(std::iter::from_fn(next).take(room));
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The timers of one host.
struct Timers<T> {
    order: BTreeSet<(Instant, T)>,
    due: BTreeMap<T, Instant>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Timers {
            order: BTreeSet::new(),
            due: BTreeMap::new(),
        }
    }
}

impl<T: Ord + Clone> Timers<T> {
    fn set(&mut self, timer: T, due: Instant) {
        self.cancel(&timer);
        self.due.insert(timer.clone(), due);
        self.order.insert((due, timer));
    }

    fn cancel(&mut self, timer: &T) {
        if let Some((timer, due)) = self.due.remove_entry(timer) {
            self.order.remove(&(due, timer));
        }
    }

    fn next(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    fn pop_due(&mut self, now: Instant) -> Option<T> {
        let (due, _) = self.order.first()?;
        if *due > now {
            return None;
        }
        let (_, timer) = self.order.pop_first()?;
        self.due.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timers_run_out_in_order_and_the_last_setting_counts() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.set("b", at(2));
        timers.set("a", at(1));
        timers.set("c", at(3));
        timers.set("a", at(5));
        timers.cancel(&"c");
        timers.cancel(&"never set");
        assert_eq!(timers.next(), Some(at(2)));
        assert_eq!(timers.pop_due(at(1)), None);
        assert_eq!(timers.pop_due(at(9)), Some("b"));
        assert_eq!(timers.pop_due(at(9)), Some("a"));
        assert_eq!(timers.pop_due(at(9)), None);
        assert!(timers.due.is_empty() && timers.next().is_none());
    }
}
