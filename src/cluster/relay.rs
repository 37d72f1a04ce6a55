//! A UDP relay with bad weather: it loses, delays, duplicates, reorders and cuts.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

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
    socket: Arc<UdpSocket>,
    back: JoinHandle<()>,
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
                let back = tokio::spawn(answer(inward, socket.clone(), from, shared));
                vacant.insert(Way { socket: out, back })
            }
        };
        let target = *lock(&shared.target);
        let is_cut = lock(&shared.cut_toward).holds(from);
        pass(&shared, is_cut, &way.socket, target, &buffer[..bytes]);
    }
}

/// Brings the target's answers back to one sender.
async fn answer(
    inward: Arc<UdpSocket>,
    outward: Arc<UdpSocket>,
    to: SocketAddr,
    shared: Arc<Shared>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        if let Ok((bytes, _)) = inward.recv_from(&mut buffer).await {
            let is_cut = lock(&shared.cut_back).holds(to);
            pass(&shared, is_cut, &outward, to, &buffer[..bytes]);
        }
    }
}

/// One datagram through the weather.
fn pass(shared: &Shared, is_cut: bool, by: &Arc<UdpSocket>, to: SocketAddr, datagram: &[u8]) {
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
        let delay = weather.delay + weather.jitter.mul_f64(fastrand::f64());
        if delay.is_zero() {
            // What the socket does not take is lost, as in any network.
            let _ = by.try_send_to(datagram, to);
            continue;
        }
        let (by, datagram) = (by.clone(), datagram.to_vec());
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = by.send_to(&datagram, to).await;
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding the lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `count` datagrams through a relay to something that echoes: what comes back.
    async fn echoes(weather: Weather, cut: bool, count: u8) -> Vec<u8> {
        let echo = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = Relay::start(echo.local_addr().unwrap()).await.unwrap();
        relay.set_weather(weather);
        if cut {
            relay.set_cut(Cut::Everybody);
        }
        tokio::spawn(async move {
            let mut buffer = [0; 16];
            while let Ok((bytes, from)) = echo.recv_from(&mut buffer).await {
                echo.send_to(&buffer[..bytes], from).await.unwrap();
            }
        });
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        for i in 0..count {
            client.send_to(&[i], relay.address()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut heard = Vec::new();
        let mut buffer = [0; 16];
        let patience = Duration::from_millis(500);
        while let Ok(Ok(_)) = tokio::time::timeout(patience, client.recv(&mut buffer)).await {
            heard.push(buffer[0]);
        }
        heard
    }

    #[tokio::test]
    async fn fair_weather_passes_everything() {
        let heard = echoes(Weather::default(), false, 50).await;
        assert_eq!(heard, (0..50).collect::<Vec<u8>>());
    }

    #[tokio::test]
    async fn the_first_datagram_of_a_sender_is_not_lost() {
        for _ in 0..3 {
            assert_eq!(echoes(Weather::default(), false, 1).await, [0]);
        }
    }

    #[tokio::test]
    async fn what_is_cut_does_not_come() {
        let nothing: [u8; 0] = [];
        assert_eq!(echoes(Weather::default(), true, 10).await, nothing);
    }

    #[tokio::test]
    async fn it_loses_and_doubles_and_reorders() {
        let weather = Weather {
            loss: 0.3,
            duplication: 0.3,
            jitter: Duration::from_millis(20),
            ..Weather::default()
        };
        let heard = echoes(weather, false, 200).await;
        let different: BTreeSet<u8> = heard.iter().copied().collect();
        assert!(different.len() < 200, "nothing was lost");
        assert!(heard.len() > different.len(), "nothing came twice");
        assert!(!heard.is_sorted(), "nothing was reordered");
    }

    /// A target, a relay to it, a sender.
    async fn three() -> (UdpSocket, Relay, UdpSocket) {
        let target = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = Relay::start(target.local_addr().unwrap()).await.unwrap();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        sender.connect(relay.address()).await.unwrap();
        (target, relay, sender)
    }

    /// The next datagram, and who sent it; None if none comes for a while.
    async fn next(socket: &UdpSocket) -> Option<(u8, SocketAddr)> {
        let mut buffer = [0; 16];
        let coming = socket.recv_from(&mut buffer);
        let come = tokio::time::timeout(Duration::from_millis(500), coming).await;
        let (_, from) = come.ok()?.unwrap();
        Some((buffer[0], from))
    }

    #[tokio::test]
    async fn a_cut_may_go_one_way_and_concern_one_sender() {
        let (target, relay, sender) = three().await;
        let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let one = Cut::Senders([sender.local_addr().unwrap()].into());
        relay.set_cut_back(one.clone());
        sender.send(&[1]).await.unwrap();
        let (_, from) = next(&target).await.unwrap();
        target.send_to(&[2], from).await.unwrap();
        assert_eq!(next(&sender).await, None);
        other.send_to(&[3], relay.address()).await.unwrap();
        let (_, from) = next(&target).await.unwrap();
        target.send_to(&[4], from).await.unwrap();
        assert_eq!(next(&other).await.unwrap().0, 4);

        relay.set_cut_back(Cut::Nobody);
        relay.set_cut_toward(one);
        sender.send(&[5]).await.unwrap();
        assert_eq!(next(&target).await, None);
        assert_eq!(relay.passed().cut, 2);
        assert_eq!(relay.passed().passed, 3);
    }

    #[tokio::test]
    async fn whoever_is_rebound_comes_from_another_address_and_is_answered() {
        let (target, relay, sender) = three().await;
        sender.send(&[1]).await.unwrap();
        let (_, before) = next(&target).await.unwrap();
        relay.rebind();
        sender.send(&[2]).await.unwrap();
        let (_, after) = next(&target).await.unwrap();
        assert_ne!(before, after);
        target.send_to(&[3], after).await.unwrap();
        assert_eq!(next(&sender).await.unwrap().0, 3);
    }
}
