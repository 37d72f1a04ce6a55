//! Settings in files.
//!
//! Paths in a file are relative to the file. Whatever is wrong is told with the file, the line and
//! the field, what was expected, and what to do.

mod address;

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::Member;
use crate::replica::Tuning;
use crate::transport::{Access, Credentials, CredentialsError, Resolver};

pub use address::{HostPort, HostPortError, SameAddress, check_distinct};

/// Why settings were refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no TOML, or has a field that is missing, unknown or of another kind.
    #[error("{path}: {error}", path = path.display())]
    Toml {
        /// Which.
        path: PathBuf,
        /// Where in it and why.
        error: toml::de::Error,
    },
    /// A field holds something that cannot be.
    #[error("{path}: {field}: expected {expected}, got {got:?}", path = path.display())]
    Field {
        /// Which file.
        path: PathBuf,
        /// Which field.
        field: String,
        /// What it should hold.
        expected: String,
        /// What it holds.
        got: String,
    },
    /// The certificate, its key or the authority.
    #[error("{path}: {error}", path = path.display())]
    Credentials {
        /// The file that names them.
        path: PathBuf,
        /// What is wrong.
        error: CredentialsError,
    },
}

/// The settings of a replica, from `replica.toml`.
#[derive(Clone, Debug)]
pub struct ReplicaSettings {
    /// The data directory.
    pub data: PathBuf,
    /// The UDP address to listen on.
    pub listen: SocketAddr,
    /// The TCP address of `/metrics` (see [`describe_metrics`](crate::replica::describe_metrics)),
    /// `/livez` and `/readyz`, if they are wanted.
    pub http: Option<SocketAddr>,
    /// Credentials, and the replicas to begin with.
    pub access: Access,
    /// What can be tuned.
    pub tuning: Tuning,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplicaFile {
    data: PathBuf,
    listen: String,
    http: Option<String>,
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    replica: Vec<MemberEntry>,
    #[serde(default)]
    tuning: TuningFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessFile {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    replica: Vec<MemberEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberEntry {
    id: u32,
    address: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TuningFile {
    generation_period_s: Option<u64>,
    generation_transactions_max: Option<u64>,
    generation_min_s: Option<u64>,
    grace_s: Option<u64>,
    undecided_max: Option<u64>,
    vote_timeout_max_s: Option<u64>,
}

impl ReplicaSettings {
    /// Reads `replica.toml`:
    ///
    /// ```toml
    /// data = "data"                 # made by `paxos-commit cluster new`, `add` or `replace`
    /// listen = "0.0.0.0:7401"       # or "[::]:7401": IPv4 and IPv6
    /// http = "127.0.0.1:9401"       # optional, only with the `http` feature; no TLS, no password
    /// authority = "ca.pem"
    /// certificate = "replica.pem"
    /// key = "replica.key"
    ///
    /// [[replica]]                   # whom to ask at first; addresses may change later
    /// id = 1
    /// address = "one.example:7401"
    ///
    /// [tuning]                      # optional, the same at every replica
    /// generation_period_s = 600               # 1 to 86400
    /// generation_transactions_max = 1000000   # 1 to 1000000000
    /// generation_min_s = 60                   # 0 to 86400
    /// grace_s = 60                            # 0 to 86400
    /// undecided_max = 100000                  # 1 to 10000000
    /// vote_timeout_max_s = 600                # 1 to 86400
    /// ```
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file: ReplicaFile = parse(path, &text_of(path)?)?;
        Ok(ReplicaSettings {
            data: beside(path, &file.data),
            listen: socket(path, "listen", &file.listen)?,
            http: file
                .http
                .map(|text| socket(path, "http", &text))
                .transpose()?,
            access: access(
                path,
                AccessFile {
                    authority: file.authority,
                    certificate: file.certificate,
                    key: file.key,
                    replica: file.replica,
                },
            )?,
            tuning: file.tuning.tuning(path)?,
        })
    }
}

/// The longest time that a setting may name.
const DAY_S: u64 = 24 * 60 * 60;

impl TuningFile {
    /// The usual, where nothing is said; refused, where it makes no sense.
    fn tuning(self, path: &Path) -> Result<Tuning, ConfigError> {
        let usual = Tuning::default();
        let within = |field: &str, given: Option<u64>, usual: u64, range: RangeInclusive<u64>| {
            let value = given.unwrap_or(usual);
            match range.contains(&value) {
                true => Ok(value),
                false => Err(ConfigError::Field {
                    path: path.to_owned(),
                    field: format!("tuning.{field}"),
                    expected: format!("{} to {}", range.start(), range.end()),
                    got: value.to_string(),
                }),
            }
        };
        let seconds = |field: &str, given, usual: Duration, range| {
            within(field, given, usual.as_secs(), range).map(Duration::from_secs)
        };
        let undecided_max = within(
            "undecided_max",
            self.undecided_max,
            usual.undecided_max as u64,
            1..=10_000_000,
        )?;
        Ok(Tuning {
            generation_period: seconds(
                "generation_period_s",
                self.generation_period_s,
                usual.generation_period,
                1..=DAY_S,
            )?,
            generation_transactions_max: within(
                "generation_transactions_max",
                self.generation_transactions_max,
                usual.generation_transactions_max,
                1..=1_000_000_000,
            )?,
            generation_min: seconds(
                "generation_min_s",
                self.generation_min_s,
                usual.generation_min,
                0..=DAY_S,
            )?,
            grace: seconds("grace_s", self.grace_s, usual.grace, 0..=DAY_S)?,
            undecided_max: usize::try_from(undecided_max).unwrap_or(usize::MAX),
            vote_timeout_max: seconds(
                "vote_timeout_max_s",
                self.vote_timeout_max_s,
                usual.vote_timeout_max,
                1..=DAY_S,
            )?,
        })
    }
}

fn socket(path: &Path, field: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    address::read_listen(text).map_err(|problem| ConfigError::Field {
        path: path.to_owned(),
        field: field.into(),
        expected: format!("an IP address and a port, like 0.0.0.0:7401 or [::]:7401 ({problem})"),
        got: text.into(),
    })
}

/// Reads what it takes to reach a cluster, as a participant, an initiator or an operator:
///
/// ```toml
/// authority = "ca.pem"
/// certificate = "ledger.pem"
/// key = "ledger.key"
///
/// [[replica]]
/// id = 1
/// address = "one.example:7401"
/// ```
///
/// # Errors
/// See [`ConfigError`].
pub fn load_access(path: &Path) -> Result<Access, ConfigError> {
    access(path, parse(path, &text_of(path)?)?)
}

fn text_of(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|error| ConfigError::File {
        path: path.to_owned(),
        error,
    })
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::Toml {
        path: path.to_owned(),
        error,
    })
}

fn access(path: &Path, file: AccessFile) -> Result<Access, ConfigError> {
    let AccessFile {
        authority,
        certificate,
        key,
        replica,
    } = file;
    let (authority, certificate, key) = (
        beside(path, &authority),
        beside(path, &certificate),
        beside(path, &key),
    );
    let credentials = Credentials::load(&authority, &certificate, &key);
    let credentials = credentials.map_err(|error| ConfigError::Credentials {
        path: path.to_owned(),
        error,
    })?;
    Ok(Access {
        credentials,
        replicas: members(path, replica)?,
        resolver: Resolver::default(),
    })
}

/// The replicas of a file.
fn members(path: &Path, entries: Vec<MemberEntry>) -> Result<Vec<Member>, ConfigError> {
    let members = entries.into_iter().map(|MemberEntry { id, address }| {
        let read = HostPort::read(&address).map_err(|error| ConfigError::Field {
            path: path.to_owned(),
            field: format!("address of replica {id}"),
            expected: format!(
                "a host and a port, like one.example:7401 ({problem})",
                problem = error.problem
            ),
            got: address,
        })?;
        Ok(Member {
            id: ReplicaId(id),
            address: read.into(),
        })
    });
    let replicas: Vec<Member> = members.collect::<Result<_, _>>()?;
    let mut ids = std::collections::BTreeSet::new();
    if let Some(twice) = replicas.iter().find(|member| !ids.insert(member.id)) {
        return Err(ConfigError::Field {
            path: path.to_owned(),
            field: "id of a [[replica]]".into(),
            expected: "one entry for each replica".into(),
            got: format!("{} twice", twice.id),
        });
    }
    if replicas.is_empty() {
        return Err(ConfigError::Field {
            path: path.to_owned(),
            field: "replica".into(),
            expected: "at least one [[replica]]".into(),
            got: "none".into(),
        });
    }
    Ok(replicas)
}

/// A path in a file is relative to the file.
fn beside(file: &Path, path: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

#[cfg(all(any(test, fuzzing), feature = "cluster", feature = "embedded"))]
/// `replica.toml` and `access.toml`, for a fuzzer: whether either can be made of this text. What
/// can be is used as it would be, but for the files that it names.
pub(crate) fn fuzz(text: &str) -> bool {
    let path = Path::new("fuzz.toml");
    let replica = parse::<ReplicaFile>(path, text).and_then(|file| {
        socket(path, "listen", &file.listen)?;
        file.tuning.tuning(path)?.check();
        members(path, file.replica)
    });
    let access = parse::<AccessFile>(path, text).and_then(|file| members(path, file.replica));
    // The messages too are made of it.
    for result in [&replica, &access] {
        if let Err(error) = result {
            assert!(error.to_string().starts_with("fuzz.toml: "));
        }
    }
    replica.is_ok() || access.is_ok()
}

#[cfg(test)]
#[cfg(feature = "cluster")]
mod tests;
