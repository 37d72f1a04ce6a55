//! Throw-away database servers: for tests, examples and benchmarks.
//!
//! Each is started from the binaries that are installed, on a new data directory below the system's
//! temporary one, and listens on a unix socket in there and nowhere else; so no port is taken and no
//! other server is disturbed. It can be killed with SIGKILL and started again on what it left. When
//! it is dropped, or when this process ends in whatever way, it is stopped and its directory removed.
//!
//! Database servers refuse to run as root: as root, they run as `nobody`.

#[cfg(feature = "mariadb")]
mod mariadb;
#[cfg(feature = "postgres")]
mod postgres;
mod process;

use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::{fs, io};

use thiserror::Error;

#[cfg(feature = "mariadb")]
pub use mariadb::ThrowawayMariadb;
#[cfg(feature = "postgres")]
pub use postgres::ThrowawayPostgres;
use process::ServerProcess;

/// The path of a unix socket has at most 107 bytes; this leaves its name as many as any of them has.
const FOLDER_BYTES_MAX: usize = 60;

/// Where Debian has the binaries of servers, besides `PATH`. A `*` stands for a version; the highest
/// is taken.
const FOLDERS: [&str; 6] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/sbin",
    "/usr/bin",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/local/pgsql/bin",
];

/// Why a throw-away server does not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// It is not installed.
    #[error("{binary} is neither in PATH nor where Debian has it: install the package {package}")]
    NotInstalled {
        /// The program.
        binary: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A server does not run as root, and there is nobody else to run it.
    #[error("a database server does not run as root, and /etc/passwd has no user {user}")]
    NoUser {
        /// Who would do.
        user: &'static str,
    },
    /// A file or a process.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program that was to make the data directory failed.
    #[error("{} failed ({status}): {output}", program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },
    /// The server ended instead of serving.
    #[error("the server ended ({status}) before it answered: {log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The server did not answer for too long.
    #[error("the server did not answer within {seconds} s: {log}")]
    Silent {
        /// How long it was waited for.
        seconds: u64,
        /// The end of its log.
        log: String,
    },
    /// It cannot be started: it runs.
    #[error("the server runs already")]
    Running,
}

/// The folder of one server, and whose it is. Removed when it is dropped.
struct Home {
    folder: tempfile::TempDir,
    user: Option<User>,
}

/// Who runs servers when root asks.
#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl Home {
    fn create() -> Result<Self, ServerError> {
        let user = User::for_servers()?;
        let system = std::env::temp_dir();
        let is_short = system.as_os_str().len() <= FOLDER_BYTES_MAX;
        let parent = if is_short { &system } else { Path::new("/tmp") };
        let failed = |action| {
            move |source| ServerError::Io {
                action,
                path: parent.to_owned(),
                source,
            }
        };
        let folder = tempfile::Builder::new()
            .prefix("throwaway-")
            .tempdir_in(parent);
        let folder = folder.map_err(failed("make a folder in"))?;
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(folder.path(), private).map_err(failed("close a folder in"))?;
        if let Some(User { uid, gid }) = user {
            let given = chown(folder.path(), Some(uid), Some(gid));
            given.map_err(failed("give away a folder in"))?;
        }
        Ok(Home { folder, user })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A program that runs as the folder's owner, in the folder.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path());
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        // The settings of whoever runs a test are not the server's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") || name == OsStr::new("MYSQL_HOME") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs a program to its end.
    async fn run(&self, command: Command) -> Result<(), ServerError> {
        let program = PathBuf::from(command.get_program());
        let output = tokio::process::Command::from(command).output().await;
        let Output {
            status,
            stdout,
            stderr,
        } = output.map_err(|source| ServerError::Io {
            action: "run",
            path: program.clone(),
            source,
        })?;
        if status.success() {
            return Ok(());
        }
        let output = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        Err(ServerError::Failed {
            program,
            status,
            output,
        })
    }

    /// Starts a server, which prints to the end of the log.
    fn start(&self, command: Command) -> Result<ServerProcess, ServerError> {
        ServerProcess::start(command, self.path())
    }
}

impl User {
    const NAME: &'static str = "nobody";

    /// Who runs servers: this process's own user, unless that is root.
    fn for_servers() -> Result<Option<Self>, ServerError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let path = Path::new("/etc/passwd");
        let users = fs::read_to_string(path).map_err(|source| ServerError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let user = users.lines().find_map(User::parse);
        user.map(Some)
            .ok_or(ServerError::NoUser { user: User::NAME })
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (fields.nth(1)?, fields.next()?);
        (name == User::NAME).then_some(User {
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
        })
    }
}

/// Where a binary is.
fn find(binary: &'static str, package: &'static str) -> Result<PathBuf, ServerError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(FOLDERS.iter().flat_map(|folder| expand(folder)));
    let places = folders.into_iter().map(|folder| folder.join(binary));
    let found = places.into_iter().find(|place| place.is_file());
    found.ok_or(ServerError::NotInstalled { binary, package })
}

/// The folders that a pattern with at most one `*` stands for: the highest version first.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((parent, rest)) = pattern.split_once("/*/") else {
        return vec![pattern.into()];
    };
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut folders: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join(rest)))
        })
        .collect();
    folders.sort_by(|a, b| b.cmp(a));
    folders.into_iter().map(|(_, folder)| folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_names_its_package() {
        let error = find("no-such-server", "postgresql")
            .unwrap_err()
            .to_string();
        assert!(error.contains("no-such-server"), "{error}");
        assert!(error.contains("install the package postgresql"), "{error}");
    }

    #[test]
    fn the_highest_version_is_found_first() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["9", "15", "13", "main"] {
            fs::create_dir_all(folder.path().join(version).join("bin")).unwrap();
        }
        let pattern = format!("{}/*/bin", folder.path().display());
        let names = expand(&pattern).into_iter().map(|found| {
            let version = found.parent().unwrap().file_name().unwrap();
            version.to_str().unwrap().to_owned()
        });
        assert_eq!(names.collect::<Vec<_>>(), ["15", "13", "9"]);
        assert_eq!(expand("/usr/sbin"), [PathBuf::from("/usr/sbin")]);
    }

    #[test]
    fn the_unprivileged_user_is_read_from_its_line() {
        let line = "nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin";
        let user = User::parse(line).unwrap();
        assert_eq!((user.uid, user.gid), (65534, 65533));
        assert!(User::parse("root:x:0:0:root:/root:/bin/bash").is_none());
        assert!(User::parse("nobody:x").is_none());
    }
}
