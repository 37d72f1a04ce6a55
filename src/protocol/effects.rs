//! The only I/O vocabulary: what goes into a host, and what comes out of it.
//!
//! The driver, the simulator and the model checker all turn the same crank:
//!
//! ```text
//! input -> host.step(input, &mut effects) -> save -> (durable) -> send, notify
//! ```
//!
//! **Release is FIFO.** What a step sends and notifies may leave only when its own records *and
//! those of all earlier steps* are durable, even if the step itself saves nothing. (The
//! counter-example: a replica promises ballot 1; before the promise is on disk a duplicate of the
//! request arrives and is answered at once, since nothing changed. It crashes, forgets, accepts
//! Commit at ballot 0, and the leader of ballot 1, which counted that promise, chooses Abort.)
//! Steps go on while a save is under way, and saves may be merged. A step that saves but sends and
//! notifies nothing may be saved late, with the next one that does: nobody has been told anything.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use super::message::Message;
use super::types::Peer;

/// A deterministic state machine without clock, randomness or I/O. There are exactly three:
/// [`Replica`](super::Replica), [`Participant`](super::Participant) and
/// [`Initiator`](super::Initiator).
pub trait Host: Sized + Clone + Debug {
    /// What it is told at start and cannot change.
    type Config: Clone + Debug;
    /// What it saves. Never read back but by [`recover`](Host::recover).
    type Record: Clone + Debug + PartialEq + Eq + Hash;
    /// The timers that it sets.
    type Timer: Clone + Debug + PartialEq + Eq + Hash + Ord;
    /// What its user asks of it.
    type Command: Clone + Debug + PartialEq + Eq + Hash;
    /// What it tells its user.
    type Notice: Clone + Debug + PartialEq + Eq + Hash;

    /// Starts from what was saved, in any order; nothing was saved at the very first start.
    ///
    /// # Panics
    /// When records contradict the order in which they were saved: a store that has lost one and
    /// kept a later one has forgotten what was promised, and must not serve.
    fn recover(
        config: Self::Config,
        saved: impl IntoIterator<Item = Self::Record>,
        out: &mut Effects<Self>,
    ) -> Self;

    /// Takes one input, appends what follows from it to `out`.
    fn step(&mut self, input: Input<Self>, out: &mut Effects<Self>);
}

/// What can happen to a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input<H: Host> {
    /// A message arrived. It may be late, doubled or out of order.
    Message {
        /// Who sent it, as proven by its connection.
        from: Peer,
        /// The message.
        message: Message,
    },
    /// A connection to this peer is up. What was sent before may have been lost.
    Connected(Peer),
    /// No connection to this peer is left. (While one replaces another there is no such input.)
    /// The peer may or may not live.
    Disconnected(Peer),
    /// A timer that was set has run out.
    Timeout(H::Timer),
    /// The user asks for something.
    Command(H::Command),
}

/// What follows from steps, in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Effects<H: Host> {
    /// To be made durable before anything of this step or a later one leaves.
    pub save: Vec<H::Record>,
    /// To be sent once durable. A message to the host itself comes back as an input.
    pub send: Vec<(Peer, Message)>,
    /// To be told to the user once durable.
    pub notify: Vec<H::Notice>,
    /// Timers to set or cancel, at once.
    pub timers: Vec<TimerOp<H::Timer>>,
}

/// A change to a timer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TimerOp<T> {
    /// Let `timer` run out once, after `after` of monotonic time; replaces the one that runs.
    Set {
        /// Which.
        timer: T,
        /// How long from now.
        after: Duration,
    },
    /// Forget `timer`.
    Cancel(T),
}

impl<H: Host> Default for Effects<H> {
    fn default() -> Self {
        Effects {
            save: Vec::new(),
            send: Vec::new(),
            notify: Vec::new(),
            timers: Vec::new(),
        }
    }
}

impl<H: Host> Effects<H> {
    /// Whether nothing is left in it.
    pub fn is_empty(&self) -> bool {
        self.save.is_empty()
            && self.send.is_empty()
            && self.notify.is_empty()
            && self.timers.is_empty()
    }

    /// Empties it, and keeps its memory for the next step.
    pub fn clear(&mut self) {
        self.save.clear();
        self.send.clear();
        self.notify.clear();
        self.timers.clear();
    }

    /// Sends `message` to `peer` once durable.
    pub(crate) fn send(&mut self, peer: Peer, message: Message) {
        self.send.push((peer, message));
    }

    /// Sets `timer`.
    pub(crate) fn set(&mut self, timer: H::Timer, after: Duration) {
        self.timers.push(TimerOp::Set { timer, after });
    }
}
