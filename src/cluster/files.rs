//! The files of a cluster: what `paxos-commit cluster new` makes.

mod editing;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::{HostPort, HostPortError, SameAddress, check_distinct};
use crate::protocol::paxos::{AcceptorsError, ReplicaId};
use crate::protocol::types::{Configuration, Member};
use crate::replica::init;
use crate::store::{InitError, OpenError, Store};
use crate::transport::{AUTHORITY_FILE, Authority, AuthorityError, Name, Role};

use editing::{copy_settings, is_absent, with_members};

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
/// DIR/cluster.toml              name, the replicas at the time of the last change, and those that
///                               were made to join and have not joined yet
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
    joining: Vec<Member>,
}

/// What came of telling the identities of a cluster which replicas there are.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Rewritten {
    /// The files that name the new replicas now.
    pub changed: Vec<PathBuf>,
    /// The files that could not be rewritten, and why.
    pub failed: Vec<FilesError>,
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
    /// The address of a replica is none.
    #[error(transparent)]
    Address(#[from] HostPortError),
    /// Two replicas have one address.
    #[error(transparent)]
    SameAddress(#[from] SameAddress),
    /// Certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A data directory.
    #[error(transparent)]
    Init(#[from] InitError),
    /// A replica that is not added, and runs.
    #[error(
        "the replica {replica} that runs from {data} was not added to the cluster, and cannot be: stop \
         it, and try again",
        data = data.display()
    )]
    Runs {
        /// Its id.
        replica: ReplicaId,
        /// Its data directory.
        data: PathBuf,
    },
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterFile {
    name: Name,
    replica: Vec<Member>,
    #[serde(default)]
    joining: Vec<Member>,
}

impl ClusterFiles {
    /// Makes a new cluster: its authority, and everything for its first replicas.
    ///
    /// # Errors
    /// When the replicas are not 2F+1, an address is none or stands twice, the folder is not empty, or
    /// something cannot be written.
    pub fn create(folder: &Path, name: Name, members: Vec<Member>) -> Result<Self, FilesError> {
        let genesis = Configuration::new(members.iter().cloned())?;
        check_members(&members)?;
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
            joining: Vec::new(),
        };
        for member in genesis.members() {
            files.make_replica(&member, Some(&genesis), None)?;
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
            joining: file.joining,
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

    /// The replicas that were made to join and are none of the cluster's yet, as far as it is known
    /// here.
    pub fn joining(&self) -> &[Member] {
        &self.joining
    }

    /// The replicas are these from now on: new identities are told of them, and the `access.toml` of
    /// those that were issued before is rewritten. These files have to be copied to where they are used
    /// before the last replica is gone that the old ones name.
    ///
    /// # Errors
    /// When `cluster.toml` cannot be written. A file of an identity that cannot be rewritten is told, and
    /// the others are.
    pub fn set_members(&mut self, members: Vec<Member>) -> Result<Rewritten, FilesError> {
        let is_member = |member: &Member| members.iter().any(|it| it.id == member.id);
        self.joining.retain(|member| !is_member(member));
        self.members = members;
        self.save()?;
        let mut rewritten = Rewritten::default();
        let entries = fs::read_dir(&self.folder).map_err(at(&self.folder))?;
        for entry in entries {
            let path = entry.map_err(at(&self.folder))?.path().join(ACCESS_FILE);
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                // No client's folder.
                Err(error) if is_absent(&error) => continue,
                Err(error) => {
                    rewritten.failed.push(at(&path)(error));
                    continue;
                }
            };
            let written = with_members(&path, &text, &self.members).and_then(|rewritten| {
                let is_changed = rewritten != text;
                if is_changed {
                    write_whole(&path, &rewritten)?;
                }
                Ok(is_changed)
            });
            match written {
                Ok(true) => rewritten.changed.push(path),
                Ok(false) => {}
                Err(error) => rewritten.failed.push(error),
            }
        }
        rewritten.changed.sort();
        Ok(rewritten)
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

    /// Makes everything for a replica that joins: certificate, settings, data directory. `[tuning]` and
    /// `http` are those of the replica `like`, if its settings are here. If it was made before, and has not
    /// joined yet, it stays as it is.
    ///
    /// # Errors
    /// When something cannot be written. It can be done again then.
    pub fn add_replica(
        &mut self,
        member: &Member,
        like: Option<ReplicaId>,
    ) -> Result<PathBuf, FilesError> {
        let file = self.replica_file(member.id);
        if !self.joining.contains(member) {
            self.joining.push(member.clone());
            self.save()?;
        }
        if !file.exists() {
            self.make_replica(member, None, like)?;
        }
        Ok(file)
    }

    /// A replica that was made to join will not join: its folder is removed.
    ///
    /// # Errors
    /// When it runs from there, or cannot be removed.
    pub fn forget_joining(&mut self, id: ReplicaId) -> Result<(), FilesError> {
        let Some(position) = self.joining.iter().position(|member| member.id == id) else {
            return Ok(());
        };
        let folder = self.folder.join(format!("replica-{id}"));
        let data = folder.join("data");
        if let Err(OpenError::InUse { .. }) = Store::open(&data).map(drop) {
            return Err(FilesError::Runs { replica: id, data });
        }
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(at(&folder))?;
        }
        self.joining.remove(position);
        self.save()
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
        like: Option<ReplicaId>,
    ) -> Result<(), FilesError> {
        let Member { id, address } = member;
        let listen = HostPort::read(address.as_str())?.listen();
        // In one piece: what stands there under its name is whole.
        let made = self.folder.join(format!("replica-{id}"));
        let folder = self.folder.join(format!("replica-{id}.new"));
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(at(&folder))?;
        }
        self.make_identity(&folder, Role::Replica(*id), "replica")?;
        let data = folder.join("data");
        let cluster = self.authority.cluster();
        init(&data, cluster, *id, genesis.cloned())?;
        let text = format!(
            "# Replica {id} of cluster {cluster}.\n\
             data = \"data\"\n\
             listen = \"{listen}\"\n\
             {access}",
            access = self.access_text("replica"),
        );
        let path = folder.join("replica.toml");
        fs::write(&path, text).map_err(at(&path))?;
        if let Some(like) = like {
            copy_settings(&self.replica_file(like), &path)?;
        }
        fs::rename(&folder, &made).map_err(at(&made))
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
        tables("replica", &self.members)
    }

    fn save(&self) -> Result<(), FilesError> {
        let text = format!(
            "# Kept by `paxos-commit cluster`.\nname = \"{}\"\n{}{}",
            self.authority.cluster(),
            self.members_text(),
            tables("joining", &self.joining)
        );
        write_whole(&self.folder.join(CLUSTER_FILE), &text)
    }
}

fn tables(name: &str, members: &[Member]) -> String {
    let members = members.iter().map(|Member { id, address }| {
        format!("\n[[{name}]]\nid = {id}\naddress = \"{address}\"\n")
    });
    members.collect()
}

/// Before anything is written.
fn check_members(members: &[Member]) -> Result<(), FilesError> {
    for member in members {
        HostPort::read(member.address.as_str())?;
    }
    Ok(check_distinct(members)?)
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
mod tests;
