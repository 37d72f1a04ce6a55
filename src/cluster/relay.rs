//! A UDP relay with bad weather: it loses, delays, duplicates, reorders and cuts.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
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

/// Stands before one address: who sends to the relay reaches the target, and its answers come back
/// the same way.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    weather: Mutex<Weather>,
    /// Nothing gets through.
    all_cut: AtomicBool,
    /// Whoever sends from here is not heard, nor answered.
    cut: Mutex<BTreeSet<SocketAddr>>,
    target: Mutex<SocketAddr>,
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
            all_cut: AtomicBool::new(false),
            cut: Mutex::default(),
            target: Mutex::new(target),
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

    /// Whether nothing at all gets through.
    pub fn set_all_cut(&self, cut: bool) {
        self.shared.all_cut.store(cut, Relaxed);
    }

    /// Whoever sends from these addresses gets nothing through from now on.
    pub fn set_cut(&self, senders: impl IntoIterator<Item = SocketAddr>) {
        *lock(&self.shared.cut) = senders.into_iter().collect();
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
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // A sender that is gone shows as an error of the socket; it concerns nobody else.
        let Ok((bytes, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
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
        pass(&shared, from, &way.socket, target, &buffer[..bytes]);
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
            pass(&shared, to, &outward, to, &buffer[..bytes]);
        }
    }
}

/// One datagram of the conversation with `sender`, through the weather.
fn pass(shared: &Shared, sender: SocketAddr, by: &Arc<UdpSocket>, to: SocketAddr, datagram: &[u8]) {
    let weather = lock(&shared.weather).clone();
    if shared.all_cut.load(Relaxed) || lock(&shared.cut).contains(&sender) {
        return;
    }
    let copies = if fastrand::f64() < weather.duplication {
        2
    } else {
        1
    };
    for _ in 0..copies {
        if fastrand::f64() < weather.loss {
            continue;
        }
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
        relay.set_all_cut(cut);
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
}
