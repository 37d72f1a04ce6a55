//! The files of a cluster: what `paxos-commit cluster new` makes.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::protocol::paxos::{AcceptorsError, ReplicaId};
use crate::protocol::types::{Configuration, Member};
use crate::replica::init;
use crate::store::InitError;
use crate::transport::{AUTHORITY_FILE, Authority, AuthorityError, Name, Role};

/// The folder of the authority.
const AUTHORITY_FOLDER: &str = "authority";

/// What an identity needs to reach the cluster.
const ACCESS_FILE: &str = "access.toml";

/// What must be known of a cluster to make more files for it.
const CLUSTER_FILE: &str = "cluster.toml";

/// A cluster's files: the authority, and a folder for each identity, ready to be copied to where it
/// runs.
///
/// ```text
/// DIR/cluster.toml              name, and the replicas at the time of the last change
/// DIR/authority/ca.pem, ca.key  keep the key away from the machines that run the cluster
/// DIR/replica-1/replica.toml    settings; beside it certificates and the data directory
/// DIR/operator-NAME/access.toml for `paxos-commit status`, `txn` and `cluster`
/// DIR/participant-NAME/access.toml
/// ```
#[derive(Debug)]
pub struct ClusterFiles {
    folder: PathBuf,
    authority: Authority,
    members: Vec<Member>,
}

/// What can go wrong with a cluster's files.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FilesError {
    /// A file or folder.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The folder holds something.
    #[error("{path}: expected a new or empty folder", path = .0.display())]
    NotEmpty(PathBuf),
    /// `cluster.toml` is damaged.
    #[error("{path}: {error}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and why.
        error: String,
    },
    /// The replicas make no configuration.
    #[error(transparent)]
    Members(#[from] AcceptorsError),
    /// Certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A data directory.
    #[error(transparent)]
    Init(#[from] InitError),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterFile {
    name: Name,
    replica: Vec<Member>,
}

impl ClusterFiles {
    /// Makes a new cluster: its authority, and everything for its first replicas.
    ///
    /// # Errors
    /// When the folder is not empty, the replicas are not 2F+1, or something cannot be written.
    pub fn create(folder: &Path, name: Name, members: Vec<Member>) -> Result<Self, FilesError> {
        let genesis = Configuration::new(members.iter().cloned())?;
        make_folder(folder)?;
        let mut entries = fs::read_dir(folder).map_err(at(folder))?;
        if entries.next().is_some() {
            return Err(FilesError::NotEmpty(folder.to_owned()));
        }
        let authority = Authority::new(name)?;
        let authority_folder = folder.join(AUTHORITY_FOLDER);
        make_folder(&authority_folder)?;
        authority.save(&authority_folder)?;
        let files = ClusterFiles {
            folder: folder.to_owned(),
            authority,
            members,
        };
        for member in genesis.members() {
            files.make_replica(&member, Some(&genesis))?;
        }
        files.save()?;
        Ok(files)
    }

    /// Opens what [`create`](Self::create) has made.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn open(folder: &Path) -> Result<Self, FilesError> {
        let path = folder.join(CLUSTER_FILE);
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        let file: ClusterFile = toml::from_str(&text).map_err(|error| FilesError::Damaged {
            path,
            error: error.to_string(),
        })?;
        Ok(ClusterFiles {
            folder: folder.to_owned(),
            authority: Authority::load(&folder.join(AUTHORITY_FOLDER), file.name)?,
            members: file.replica,
        })
    }

    /// The authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The replicas at the time of the last change.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The replicas are these from now on: new identities are told of them, and the `access.toml` of
    /// those that were issued before is written anew. Returns where those are. They have to be copied
    /// to where they are used before the last replica is gone that the old ones name.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn set_members(&mut self, members: Vec<Member>) -> Result<Vec<PathBuf>, FilesError> {
        self.members = members;
        self.save()?;
        let mut changed = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(at(&self.folder))? {
            let path = entry.map_err(at(&self.folder))?.path().join(ACCESS_FILE);
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            // What stands above the replicas may have been changed by hand.
            let head = text.split("[[replica]]").next().unwrap_or_default();
            let text = format!("{}\n{}", head.trim_end(), self.members_text());
            write_whole(&path, &text)?;
            changed.push(path);
        }
        changed.sort();
        Ok(changed)
    }

    /// The settings file of a replica.
    pub fn replica_file(&self, id: ReplicaId) -> PathBuf {
        self.folder
            .join(format!("replica-{id}"))
            .join("replica.toml")
    }

    /// The replica listens there from its next start on, whatever the others dial: something stands
    /// before it.
    ///
    /// # Errors
    /// When its settings cannot be read or written.
    pub fn set_listen(&self, id: ReplicaId, place: SocketAddr) -> Result<(), FilesError> {
        let path = self.replica_file(id);
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        let lines = text
            .lines()
            .map(|line| match line.starts_with("listen = ") {
                true => format!("listen = \"{place}\"\n"),
                false => format!("{line}\n"),
            });
        write_whole(&path, &lines.collect::<String>())
    }

    /// Makes everything for a replica that joins: certificate, settings, data directory.
    ///
    /// # Errors
    /// When its folder is there already, or something cannot be written.
    pub fn add_replica(&self, member: &Member) -> Result<PathBuf, FilesError> {
        self.make_replica(member, None)?;
        Ok(self.replica_file(member.id))
    }

    /// Issues an identity for a client: a folder with certificate, key and `access.toml`. Returns
    /// the path of the latter.
    ///
    /// # Errors
    /// When it is there already, or something cannot be written.
    pub fn issue(&self, role: Role) -> Result<PathBuf, FilesError> {
        let (folder, file) = self.places(&role);
        self.make_identity(&folder, role, file)?;
        let text = format!(
            "# What it takes to reach cluster {name}.\n{access}",
            name = self.authority.cluster(),
            access = self.access_text(file),
        );
        let path = folder.join(ACCESS_FILE);
        fs::write(&path, text).map_err(at(&path))?;
        Ok(path)
    }

    /// The `access.toml` of an identity that was issued before, if it was.
    pub fn issued(&self, role: &Role) -> Option<PathBuf> {
        let (folder, _) = self.places(role);
        Some(folder.join(ACCESS_FILE)).filter(|path| path.exists())
    }

    /// The folder of an identity, and what its files are called.
    fn places(&self, role: &Role) -> (PathBuf, &'static str) {
        let (folder, file) = match role {
            Role::Replica(id) => (format!("replica-{id}"), "replica"),
            Role::Participant(name) => (format!("participant-{name}"), "participant"),
            Role::Initiator(name) => (format!("initiator-{name}"), "initiator"),
            Role::Operator(name) => (format!("operator-{name}"), "operator"),
        };
        (self.folder.join(folder), file)
    }

    fn make_replica(
        &self,
        member: &Member,
        genesis: Option<&Configuration>,
    ) -> Result<(), FilesError> {
        let Member { id, address } = member;
        let folder = self.folder.join(format!("replica-{id}"));
        self.make_identity(&folder, Role::Replica(*id), "replica")?;
        let data = folder.join("data");
        let cluster = self.authority.cluster();
        init(&data, cluster, *id, genesis.cloned())?;
        let port = address
            .as_str()
            .rsplit_once(':')
            .map_or("0", |(_, port)| port);
        let listen = match address.as_str().parse::<SocketAddr>() {
            // Nobody else reaches such an address, so nobody else need be heard.
            Ok(address) if address.ip().is_loopback() => address.to_string(),
            Ok(_) | Err(_) => format!("0.0.0.0:{port}"),
        };
        let text = format!(
            "# Replica {id} of cluster {cluster}.\n\
             data = \"data\"\n\
             listen = \"{listen}\"\n\
             {access}",
            access = self.access_text("replica"),
        );
        let path = folder.join("replica.toml");
        fs::write(&path, text).map_err(at(&path))
    }

    fn make_identity(&self, folder: &Path, role: Role, file: &str) -> Result<(), FilesError> {
        make_folder(folder)?;
        let issued = self.authority.issue(role)?;
        issued.save(folder, file)?;
        let path = folder.join(AUTHORITY_FILE);
        fs::write(&path, self.authority.certificate()).map_err(at(&path))
    }

    fn access_text(&self, file: &str) -> String {
        let members = self.members_text();
        format!(
            "authority = \"{AUTHORITY_FILE}\"\n\
             certificate = \"{file}.pem\"\n\
             key = \"{file}.key\"\n{members}"
        )
    }

    fn members_text(&self) -> String {
        let members = self.members.iter().map(|Member { id, address }| {
            format!("\n[[replica]]\nid = {id}\naddress = \"{address}\"\n")
        });
        members.collect()
    }

    fn save(&self) -> Result<(), FilesError> {
        let text = format!(
            "# Kept by `paxos-commit cluster`.\nname = \"{}\"\n{}",
            self.authority.cluster(),
            self.members_text()
        );
        write_whole(&self.folder.join(CLUSTER_FILE), &text)
    }
}

/// In one piece: a crash leaves the old one.
fn write_whole(path: &Path, text: &str) -> Result<(), FilesError> {
    let draft = path.with_extension("toml.new");
    fs::write(&draft, text).map_err(at(&draft))?;
    fs::rename(&draft, path).map_err(at(path))
}

#[cfg(all(any(test, fuzzing), feature = "cluster", feature = "embedded"))]
/// `cluster.toml`, for a fuzzer: whether a cluster can be made of it.
pub(crate) fn fuzz(text: &str) -> bool {
    match toml::from_str::<ClusterFile>(text) {
        Ok(file) => Configuration::new(file.replica).is_ok(),
        Err(_) => false,
    }
}

fn make_folder(folder: &Path) -> Result<(), FilesError> {
    fs::create_dir_all(folder).map_err(at(folder))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    let path = path.to_owned();
    move |error| FilesError::File { path, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_access;

    fn member(id: u32) -> Member {
        Member {
            id: ReplicaId(id),
            address: format!("host{id}:7401").parse().unwrap(),
        }
    }

    #[test]
    fn identities_are_told_of_a_change_and_keep_what_was_changed_by_hand() {
        let folder = tempfile::tempdir().unwrap();
        let members = (1..=3).map(member).collect();
        let name = "c".parse().unwrap();
        let mut files = ClusterFiles::create(folder.path(), name, members).unwrap();
        let ledger = files.issue(Role::Participant("ledger".parse().unwrap()));
        let ledger = ledger.unwrap();
        let shop = files
            .issue(Role::Initiator("shop".parse().unwrap()))
            .unwrap();
        // Somebody keeps the key elsewhere.
        let elsewhere = folder.path().join("elsewhere.key");
        fs::rename(ledger.with_file_name("participant.key"), &elsewhere).unwrap();
        let text = fs::read_to_string(&ledger).unwrap();
        fs::write(&ledger, text.replace("participant.key", "../elsewhere.key")).unwrap();

        let after: Vec<Member> = [2, 3, 4].map(member).into();
        let mut changed = vec![ledger.clone(), shop.clone()];
        changed.sort();
        assert_eq!(files.set_members(after.clone()).unwrap(), changed);
        for path in [ledger, shop] {
            assert_eq!(load_access(&path).unwrap().replicas, after);
        }
        let opened = ClusterFiles::open(folder.path()).unwrap();
        assert_eq!(opened.members(), after);
    }
}
