//! What is wrong with the network, at the relays that every path leads through.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use paxos_commit::cluster::{Cut, Relay, Weather};

/// One thing that is wrong. Names are those of processes; a relay stands before each replica.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Trouble {
    /// The weather before a replica.
    Weather { replica: String, weather: Weather },
    /// What `from` sends to `to` does not come; answers do.
    OneWay { from: String, to: String },
    /// What `to` answers to `from` does not come; questions do.
    Unheard { from: String, to: String },
    /// Nobody hears this process, and it hears nobody.
    Isolated { name: String },
    /// Those in the set hear each other, and so do all others; nothing passes between the two.
    Halves { one: BTreeSet<String> },
    /// This process sees only these replicas.
    Sees {
        name: String,
        replicas: BTreeSet<String>,
    },
}

impl Trouble {
    /// Whether what `from` sends to the replica `to` is cut, and what comes back.
    fn cuts(&self, from: &str, to: &str) -> (bool, bool) {
        match self {
            Trouble::Weather { .. } => (false, false),
            Trouble::OneWay {
                from: one,
                to: other,
            } => (one == from && other == to, false),
            Trouble::Unheard {
                from: one,
                to: other,
            } => (false, one == from && other == to),
            Trouble::Isolated { name } => {
                let cut = name == from || name == to;
                (cut, cut)
            }
            Trouble::Halves { one } => {
                let cut = one.contains(from) != one.contains(to);
                (cut, cut)
            }
            Trouble::Sees { name, replicas } => {
                let cut = name == from && !replicas.contains(to);
                (cut, cut)
            }
        }
    }
}

/// Makes the relays what the troubles say. `senders` says from where each process sends.
pub(crate) fn apply(
    relays: &BTreeMap<String, Relay>,
    troubles: &[Trouble],
    senders: &BTreeMap<String, BTreeSet<SocketAddr>>,
) {
    for (to, relay) in relays {
        let (mut toward, mut back) = (BTreeSet::new(), BTreeSet::new());
        for (from, addresses) in senders {
            let mut cuts = (false, false);
            for trouble in troubles {
                let (there, here) = trouble.cuts(from, to);
                cuts = (cuts.0 | there, cuts.1 | here);
            }
            if cuts.0 {
                toward.extend(addresses);
            }
            if cuts.1 {
                back.extend(addresses);
            }
        }
        relay.set_cut_toward(Cut::Senders(toward));
        relay.set_cut_back(Cut::Senders(back));
        let weather = troubles.iter().rev().find_map(|trouble| match trouble {
            Trouble::Weather { replica, weather } if replica == to => Some(weather.clone()),
            _ => None,
        });
        relay.set_weather(weather.unwrap_or_default());
    }
}

/// From where a process sends on this machine: its UDP sockets, as the kernel lists them.
pub(crate) fn udp_addresses(process: u32) -> BTreeSet<SocketAddr> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return BTreeSet::new();
    };
    let links = descriptors
        .flatten()
        .map(|entry| fs::read_link(entry.path()));
    let sockets: BTreeSet<String> = links
        .flatten()
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(fs::read_to_string);
    let lines = tables.iter().flatten().flat_map(|table| table.lines());
    lines
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let local = fields.get(1).filter(|_| sockets.contains(fields[9]))?;
            let (host, port) = local.split_once(':')?;
            let port = u16::from_str_radix(port, 16).ok()?;
            // An address of four bytes, little-endian; what is bound to none sends from the first.
            let host = u32::from_str_radix(host, 16).ok().map(u32::swap_bytes);
            let host = host.filter(|host| *host != 0).map(Ipv4Addr::from);
            Some(SocketAddr::from((
                host.unwrap_or(Ipv4Addr::LOCALHOST),
                port,
            )))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_process_is_known_by_its_sockets() {
        let any = UdpSocket::bind("0.0.0.0:0").unwrap();
        let one = UdpSocket::bind("127.9.8.7:0").unwrap();
        let found = udp_addresses(std::process::id());
        let port = any.local_addr().unwrap().port();
        assert!(found.contains(&SocketAddr::from(([127, 0, 0, 1], port))));
        assert!(found.contains(&one.local_addr().unwrap()));
    }

    #[test]
    fn troubles_cut_what_they_say() {
        let name = |name: &str| name.to_owned();
        let one_way = Trouble::OneWay {
            from: name("a"),
            to: name("b"),
        };
        assert_eq!(one_way.cuts("a", "b"), (true, false));
        assert_eq!(one_way.cuts("b", "a"), (false, false));
        let unheard = Trouble::Unheard {
            from: name("a"),
            to: name("b"),
        };
        assert_eq!(unheard.cuts("a", "b"), (false, true));
        let isolated = Trouble::Isolated { name: name("a") };
        assert_eq!(isolated.cuts("a", "b"), (true, true));
        assert_eq!(isolated.cuts("b", "a"), (true, true));
        assert_eq!(isolated.cuts("b", "c"), (false, false));
        let halves = Trouble::Halves {
            one: [name("a"), name("b")].into(),
        };
        assert_eq!(halves.cuts("a", "b"), (false, false));
        assert_eq!(halves.cuts("c", "b"), (true, true));
        let sees = Trouble::Sees {
            name: name("a"),
            replicas: [name("b")].into(),
        };
        assert_eq!(sees.cuts("a", "b"), (false, false));
        assert_eq!(sees.cuts("a", "c"), (true, true));
    }
}
