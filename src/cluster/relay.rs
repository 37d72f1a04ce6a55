//! A UDP relay with bad weather: it loses, delays, duplicates, reorders and cuts.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::protocol::paxos::ReplicaId;

/// The longest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// What becomes of datagrams.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weather {
    /// The share that is lost, 0 to 1.
    pub loss: f64,
    /// The share that comes twice, 0 to 1.
    pub duplication: f64,
    /// How long each is on its way, at least.
    pub delay: Duration,
    /// And at most so much longer, drawn for each: that reorders them.
    pub jitter: Duration,
}

/// Whose datagrams do not get through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// Nobody's.
    #[default]
    Nobody,
    /// Those of the conversations with whoever sends from these addresses.
    Senders(BTreeSet<SocketAddr>),
    /// Everybody's.
    Everybody,
}

impl Cut {
    fn holds(&self, sender: SocketAddr) -> bool {
        match self {
            Cut::Nobody => false,
            Cut::Senders(senders) => senders.contains(&sender),
            Cut::Everybody => true,
        }
    }
}

/// What became of the datagrams that came to a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Passed on, copies included.
    pub passed: u64,
    /// Lost in bad weather.
    pub lost: u64,
    /// Lost because of a cut.
    pub cut: u64,
    /// Passed on twice.
    pub doubled: u64,
}

/// Stands before one address: who sends to the relay reaches the target, and its answers come back
/// the same way.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    weather: Mutex<Weather>,
    /// How much longer the conversations of single senders take, each way.
    distances: Mutex<HashMap<SocketAddr, Duration>>,
    /// On the way to the target.
    cut_toward: Mutex<Cut>,
    /// On the way back.
    cut_back: Mutex<Cut>,
    target: Mutex<SocketAddr>,
    /// Counts how often the senders got other addresses.
    rebound: AtomicU64,
    passed: AtomicU64,
    lost: AtomicU64,
    cut: AtomicU64,
    doubled: AtomicU64,
}

impl Relay {
    /// A relay to `target`, on a free port of this machine.
    ///
    /// # Errors
    /// When no socket can be opened.
    pub async fn start(target: SocketAddr) -> io::Result<Relay> {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let address = socket.local_addr()?;
        let shared = Arc::new(Shared {
            weather: Mutex::default(),
            distances: Mutex::default(),
            cut_toward: Mutex::default(),
            cut_back: Mutex::default(),
            target: Mutex::new(target),
            rebound: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            doubled: AtomicU64::new(0),
        });
        let task = tokio::spawn(run(socket, shared.clone()));
        Ok(Relay {
            address,
            shared,
            task,
        })
    }

    /// Where to send.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The target is somewhere else from now on.
    pub fn set_target(&self, target: SocketAddr) {
        *lock(&self.shared.target) = target;
    }

    pub(super) fn remote(&self) -> Remote {
        Remote(self.shared.clone())
    }

    /// The weather from now on, in both directions.
    pub fn set_weather(&self, weather: Weather) {
        *lock(&self.shared.weather) = weather;
    }

    /// Whoever sends from this address is so far away: besides the weather, everything takes that
    /// much longer, each way.
    pub fn set_distance(&self, sender: SocketAddr, distance: Duration) {
        lock(&self.shared.distances).insert(sender, distance);
    }

    /// What does not get through from now on, in either direction.
    pub fn set_cut(&self, cut: Cut) {
        self.set_cut_back(cut.clone());
        self.set_cut_toward(cut);
    }

    /// What does not reach the target from now on, though its answers may get through.
    pub fn set_cut_toward(&self, cut: Cut) {
        *lock(&self.shared.cut_toward) = cut;
    }

    /// What of the target's answers does not get through from now on.
    pub fn set_cut_back(&self, cut: Cut) {
        *lock(&self.shared.cut_back) = cut;
    }

    /// Every sender has another address, as the target sees it, from its next datagram on: what a
    /// router does that has forgotten its table.
    pub fn rebind(&self) {
        self.shared.rebound.fetch_add(1, Relaxed);
    }

    /// What became of the datagrams until now.
    pub fn passed(&self) -> Passed {
        let Shared {
            passed,
            lost,
            cut,
            doubled,
            ..
        } = &*self.shared;
        Passed {
            passed: passed.load(Relaxed),
            lost: lost.load(Relaxed),
            cut: cut.load(Relaxed),
            doubled: doubled.load(Relaxed),
        }
    }
}

/// Moves a relay's target from elsewhere.
pub(super) struct Remote(Arc<Shared>);

impl Remote {
    pub(super) fn set_target(&self, target: SocketAddr) {
        *lock(&self.0.target) = target;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A socket for each sender, so that the target can tell them apart.
struct Way {
    toward: Road,
    back: JoinHandle<()>,
}

/// One direction. What is delayed by the same time arrives in the order in which it was sent.
struct Road {
    socket: Arc<UdpSocket>,
    delayed: mpsc::UnboundedSender<Delayed>,
}

struct Delayed {
    due: Instant,
    to: SocketAddr,
    datagram: Vec<u8>,
}

impl Road {
    fn new(socket: Arc<UdpSocket>) -> Road {
        let (delayed, mut waiting) = mpsc::unbounded_channel::<Delayed>();
        let way_out = socket.clone();
        // Ends when the road is dropped.
        tokio::spawn(async move {
            while let Some(Delayed { due, to, datagram }) = waiting.recv().await {
                sleep_until(due).await;
                let _ = way_out.send_to(&datagram, to).await;
            }
        });
        Road { socket, delayed }
    }
}

/// Who takes part in a conversation through a relay.
#[derive(Clone, Copy)]
struct Parties {
    /// Who is not the target.
    client: SocketAddr,
    /// Whom this datagram is sent to.
    to: SocketAddr,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.back.abort();
    }
}

async fn run(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut ways: HashMap<SocketAddr, Way> = HashMap::new();
    let mut rebound = 0;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // A sender that is gone shows as an error of the socket; it concerns nobody else.
        let Ok((bytes, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let rebound_now = shared.rebound.load(Relaxed);
        if rebound != rebound_now {
            rebound = rebound_now;
            ways.clear();
        }
        let way = match ways.entry(from) {
            std::collections::hash_map::Entry::Occupied(way) => way.into_mut(),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let Ok(out) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else {
                    continue;
                };
                // Until the runtime has heard that a new socket takes something, it says that it
                // takes nothing: the first datagram of each sender would be lost.
                if out.writable().await.is_err() {
                    continue;
                }
                let out = Arc::new(out);
                let (inward, shared) = (out.clone(), shared.clone());
                let back = Road::new(socket.clone());
                let back = tokio::spawn(answer(inward, back, from, shared));
                let toward = Road::new(out);
                vacant.insert(Way { toward, back })
            }
        };
        let target = *lock(&shared.target);
        let is_cut = lock(&shared.cut_toward).holds(from);
        let parties = Parties {
            client: from,
            to: target,
        };
        pass(&shared, is_cut, &way.toward, parties, &buffer[..bytes]);
    }
}

/// Brings the target's answers back to one sender.
async fn answer(inward: Arc<UdpSocket>, outward: Road, to: SocketAddr, shared: Arc<Shared>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        if let Ok((bytes, _)) = inward.recv_from(&mut buffer).await {
            let is_cut = lock(&shared.cut_back).holds(to);
            let parties = Parties { client: to, to };
            pass(&shared, is_cut, &outward, parties, &buffer[..bytes]);
        }
    }
}

/// One datagram through the weather.
fn pass(shared: &Shared, is_cut: bool, by: &Road, parties: Parties, datagram: &[u8]) {
    let Parties { client, to } = parties;
    if is_cut {
        shared.cut.fetch_add(1, Relaxed);
        return;
    }
    let weather = lock(&shared.weather).clone();
    let copies = if fastrand::f64() < weather.duplication {
        shared.doubled.fetch_add(1, Relaxed);
        2
    } else {
        1
    };
    for _ in 0..copies {
        if fastrand::f64() < weather.loss {
            shared.lost.fetch_add(1, Relaxed);
            continue;
        }
        shared.passed.fetch_add(1, Relaxed);
        let distance = lock(&shared.distances).get(&client).copied();
        let delay = weather.delay + distance.unwrap_or_default();
        if delay.is_zero() && weather.jitter.is_zero() {
            // What the socket does not take is lost, as in any network.
            let _ = by.socket.try_send_to(datagram, to);
            continue;
        }
        let datagram = datagram.to_vec();
        if weather.jitter.is_zero() {
            let due = Instant::now() + delay;
            let _ = by.delayed.send(Delayed { due, to, datagram });
            continue;
        }
        let delay = delay + weather.jitter.mul_f64(fastrand::f64());
        let socket = by.socket.clone();
        tokio::spawn(async move {
            sleep(delay).await;
            let _ = socket.send_to(&datagram, to).await;
        });
    }
}

/// Cuts replicas off, each behind its relay: at its own, and at the others' whatever comes from
/// `senders`, which is where they dial from.
pub(super) fn isolate<'r>(
    relays: impl IntoIterator<Item = (&'r ReplicaId, &'r Relay)>,
    cut_off: &BTreeSet<ReplicaId>,
    senders: &BTreeSet<SocketAddr>,
) {
    for (id, relay) in relays {
        relay.set_cut(match cut_off.contains(id) {
            true => Cut::Everybody,
            false => Cut::Senders(senders.clone()),
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding the lock")
}

#[cfg(test)]
mod tests;
