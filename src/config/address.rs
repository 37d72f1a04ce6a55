//! Addresses as people write them: of replicas, and of what this process listens on.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{ADDRESS_BYTES_MAX, Address, Member};

/// The longest part of a host name between two dots, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// The address of a replica, `HOST:PORT`, as the other processes dial it. The host is a name, an IPv4
/// address or an IPv6 address in brackets.
///
/// ```
/// use paxos_commit::config::HostPort;
///
/// let address: HostPort = "One.example:7401".parse()?;
/// assert_eq!(address.to_string(), "one.example:7401");
/// assert!("http://one.example:7401".parse::<HostPort>().is_err());
/// # Ok::<(), paxos_commit::config::HostPortError>(())
/// ```
///
/// Parsing refuses what no process can dial: a scheme, a path, port 0, no port, IPv6 without brackets,
/// and addresses that stand for no machine (`0.0.0.0`, `[::]`, multicast). [`Display`](fmt::Display)
/// writes one spelling for all that mean the same by their text. Two names of one machine stay
/// different: only a resolver knows better.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Host {
    Ip(IpAddr),
    /// In lower case.
    Name(String),
}

/// A text that is not the address of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "expected HOST:PORT, like one.example:7401, 192.0.2.1:7401 or [2001:db8::1]:7401, got {got:?}: \
     {problem}"
)]
pub struct HostPortError {
    /// The text.
    pub got: String,
    /// What is wrong with it, and what to do.
    pub problem: String,
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let address = HostPort::read(text)?;
        if let Host::Ip(ip) = address.host
            && (ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST))
        {
            return Err(wrong(
                text,
                format!(
                    "{ip} is the address of no machine: give the one at which other processes reach \
                     this replica"
                ),
            ));
        }
        Ok(address)
    }
}

impl HostPort {
    /// Reads an address that is in use: what older versions took stays readable, as long as it can be
    /// dialed at all. (Linux dials `0.0.0.0`, and reaches itself.)
    pub(crate) fn read(text: &str) -> Result<Self, HostPortError> {
        let problem = |problem: String| wrong(text, problem);
        check_form(text).map_err(problem)?;
        let (host, port) = split(text).map_err(problem)?;
        let host = read_host(host).map_err(problem)?;
        let port = read_port(port).map_err(problem)?;
        let address = HostPort { host, port };
        match address.to_string().len() {
            ..=ADDRESS_BYTES_MAX => Ok(address),
            bytes => Err(problem(format!(
                "it has {bytes} bytes, and an address has at most {ADDRESS_BYTES_MAX}"
            ))),
        }
    }

    /// Where a replica with this address listens: on loopback if the address is there, since no other
    /// machine dials it; otherwise on every address of the machine. That is IPv4 for an IPv4 address,
    /// and both families for IPv6 and for a name, which may stand for either.
    pub fn listen(&self) -> SocketAddr {
        let ip = match self.host {
            Host::Ip(ip) if ip.is_loopback() => ip,
            Host::Ip(IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
            Host::Ip(IpAddr::V6(_)) | Host::Name(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(ip, self.port)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl From<HostPort> for Address {
    fn from(address: HostPort) -> Address {
        let text = address.to_string();
        text.parse().expect("its length was checked")
    }
}

fn wrong(got: &str, problem: String) -> HostPortError {
    HostPortError {
        got: got.into(),
        problem,
    }
}

/// What may be wrong before there is a host and a port.
fn check_form(text: &str) -> Result<(), String> {
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("leave out \"{scheme}://\""));
    }
    if let Some(at) = text.find(['/', '?', '#']) {
        return Err(format!("leave out {:?}", &text[at..]));
    }
    if text.contains('@') {
        return Err("leave out the part up to the @".into());
    }
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Err(format!(
            "an IPv6 address needs brackets and a port, like [{ip}]:7401"
        ));
    }
    Ok(())
}

fn split(text: &str) -> Result<(&str, &str), String> {
    let no_port = || format!("add the port, like {text}:7401");
    if let Some(inside) = text.strip_prefix('[') {
        let (host, rest) = inside.split_once(']').ok_or("a ] is missing")?;
        let port = rest.strip_prefix(':').ok_or_else(no_port)?;
        return Ok((&text[..host.len() + 2], port));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(no_port)?;
    if host.contains(':') {
        return Err("an IPv6 address needs brackets, like [2001:db8::1]:7401".into());
    }
    Ok((host, port))
}

fn read_host(host: &str) -> Result<Host, String> {
    if let Some(inside) = host.strip_prefix('[') {
        let inside = inside.trim_end_matches(']');
        if let Some((_, zone)) = inside.split_once('%') {
            return Err(format!(
                "leave out the zone %{zone}: it means something on one machine only"
            ));
        }
        let ip = inside.parse::<Ipv6Addr>();
        let ip = ip.map_err(|_| format!("{inside:?} in brackets is not an IPv6 address"))?;
        return Ok(Host::Ip(ip.to_canonical()));
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    check_name(host)?;
    Ok(Host::Name(host.to_ascii_lowercase()))
}

/// RFC 1123, and underscores, which container networks use.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the host is missing before the port".into());
    }
    let labels = || name.strip_suffix('.').unwrap_or(name).split('.');
    if let Some(other) = name
        .chars()
        .find(|char| !char.is_ascii_alphanumeric() && !"-_.".contains(*char))
    {
        return Err(format!(
            "a host name has letters, digits, hyphens, underscores and dots, not {other:?}"
        ));
    }
    if labels().any(|label| label.is_empty() || label.len() > LABEL_BYTES_MAX) {
        return Err(format!(
            "between the dots of a host name are 1 to {LABEL_BYTES_MAX} bytes"
        ));
    }
    // The C library would read it as an IPv4 address of another kind.
    let last = labels().next_back().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("an IPv4 address has four numbers from 0 to 255".into());
    }
    Ok(())
}

/// Digits only: `parse` would take a plus.
fn read_port(port: &str) -> Result<u16, String> {
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(0) => Err("port 0 cannot be dialed: give the port at which the replica listens".into()),
        Ok(port) if is_number => Ok(port),
        Ok(_) | Err(_) => Err("the port is a number from 1 to 65535".into()),
    }
}

/// Reads an address of this machine to listen on: an IP address and a port.
///
/// # Errors
/// What is wrong, and what to do.
pub(crate) fn read_listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err("with port 0 it would listen at another port after each start".into()),
            _ => Ok(address),
        };
    }
    match HostPort::read(text) {
        Ok(_) => Err(
            "a name is no address of this machine: give an IP address, or 0.0.0.0 or [::] for all \
             of them"
                .into(),
        ),
        Err(error) => Err(error.problem),
    }
}

/// Two replicas with one address: only one of them can listen there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "expected an address of its own for each replica, got {address} for replicas {first} and {second}"
)]
pub struct SameAddress {
    /// The address.
    pub address: String,
    /// A replica.
    pub first: ReplicaId,
    /// Another one.
    pub second: ReplicaId,
}

/// Fails if two replicas have the same address, in whatever spelling.
///
/// # Errors
/// See [`SameAddress`].
pub fn check_distinct(members: &[Member]) -> Result<(), SameAddress> {
    let spelled = |member: &Member| {
        let read = HostPort::read(member.address.as_str());
        read.map_or_else(|_| member.address.to_string(), |read| read.to_string())
    };
    let mut seen = std::collections::BTreeMap::new();
    for member in members {
        let address = spelled(member);
        if let Some(first) = seen.insert(address.clone(), member.id) {
            return Err(SameAddress {
                address,
                first,
                second: member.id,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
