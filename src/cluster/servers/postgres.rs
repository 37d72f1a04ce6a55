//! A throw-away PostgreSQL server.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::process::ServerProcess;
use super::{Home, ServerError, find};

/// The Debian package that has the binaries.
const PACKAGE: &str = "postgresql";

/// A PostgreSQL server of its own; see the [module](super).
///
/// It forces its log to disk like any other: what it acknowledged survives [`kill`](Self::kill).
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use paxos_commit::cluster::servers::ThrowawayPostgres;
///
/// let mut server = ThrowawayPostgres::start(&[("max_prepared_transactions", "50")]).await?;
/// println!("psql '{}'", server.url("postgres"));
/// server.kill();              // without warning
/// server.restart().await?;    // on what it left
/// # Ok(())
/// # }
/// ```
pub struct ThrowawayPostgres {
    // Dropped in this order: the process ends before its folder is removed.
    process: Option<ServerProcess>,
    program: PathBuf,
    settings: Vec<(String, String)>,
    home: Home,
}

impl ThrowawayPostgres {
    /// The user, a superuser, who needs no password.
    pub const USER: &str = "postgres";

    /// Makes a data directory and starts a server on it, with these settings besides its defaults.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, or does not start.
    pub async fn start(settings: &[(&str, &str)]) -> Result<Self, ServerError> {
        let initdb = find("initdb", PACKAGE)?;
        let program = find("postgres", PACKAGE)?;
        let home = Home::create()?;
        let mut command = home.command(&initdb);
        command.arg("--pgdata").arg(home.path().join("data"));
        // The folder is closed to others, so nobody needs a password. A crash of a process loses
        // nothing that was written, so what initdb makes need not be forced to disk.
        command.args(["--username", Self::USER, "--auth", "trust", "--no-sync"]);
        command.args(["--encoding", "UTF8", "--locale", "C", "--wal-segsize", "4"]);
        home.run(command).await?;
        let mut server = ThrowawayPostgres {
            process: None,
            program,
            settings: Vec::new(),
            home,
        };
        for (name, value) in settings {
            server.set(name, value);
        }
        server.restart().await?;
        Ok(server)
    }

    /// Copies a server that runs, and starts the copy as its standby, by streaming replication. In
    /// `synchronous_standby_names` of the other server its name is `name`. The standby serves reads.
    ///
    /// It has the same settings as the other server, and then these.
    ///
    /// # Errors
    /// When the copy fails, or the standby does not start.
    pub async fn start_standby(
        &self,
        name: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self, ServerError> {
        let copy = find("pg_basebackup", PACKAGE)?;
        let home = Home::create()?;
        let (user, folder) = (Self::USER, self.home.path().display());
        let primary = format!("host={folder} user={user} application_name={name}");
        let mut command = home.command(&copy);
        command.arg("--dbname").arg(&primary);
        command.arg("--pgdata").arg(home.path().join("data"));
        command.args(["--checkpoint=fast", "--no-sync"]);
        home.run(command).await?;
        let signal = home.path().join("data/standby.signal");
        fs::write(&signal, "").map_err(|source| ServerError::Io {
            action: "write",
            path: signal,
            source,
        })?;
        let mut standby = ThrowawayPostgres {
            process: None,
            program: self.program.clone(),
            settings: self.settings.clone(),
            home,
        };
        standby.set("primary_conninfo", &primary);
        for (name, value) in settings {
            standby.set(name, value);
        }
        standby.restart().await?;
        Ok(standby)
    }

    /// A setting, from the next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(held, _)| held != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Where one of its databases is; the first one is `postgres`.
    pub fn url(&self, database: &str) -> String {
        let (user, folder) = (Self::USER, self.home.path().display());
        format!("postgresql:///{database}?user={user}&host={folder}")
    }

    /// Its data directory, log and socket are in here.
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// The process id of its main process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        Some(self.process.as_ref()?.id())
    }

    /// Kills it with SIGKILL, all its processes at once. Returns when they are gone.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops it in order: it breaks all connections, and saves what it has.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            // A "fast shutdown".
            process.stop(Signal::INT);
        }
    }

    /// Starts it on the data that it left.
    ///
    /// # Errors
    /// When it runs, or does not start.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        if self.process.is_some() {
            return Err(ServerError::Running);
        }
        let data = self.home.path().join("data");
        let mut command = self.home.command(&self.program);
        command.arg("-D").arg(&data);
        command.args(["-c", "listen_addresses="]);
        let sockets = format!("unix_socket_directories={}", self.home.path().display());
        command.args(["-c", &sockets, "-c", "fsync=on"]);
        for (name, value) in &self.settings {
            command.args(["-c", &format!("{name}={value}")]);
        }
        let mut process = self.home.start(command)?;
        let id = process.id();
        process.answers(|| is_ready(&data, id)).await?;
        self.process = Some(process);
        Ok(())
    }
}

impl Drop for ThrowawayPostgres {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            // An "immediate shutdown": it saves nothing, but takes its shared memory back, which
            // would outlive a SIGKILL.
            process.stop(Signal::QUIT);
        }
    }
}

/// Whether the server with this process id says that it serves: the file in which it says so tells
/// what `pg_ctl` waits for.
fn is_ready(data: &Path, id: u32) -> bool {
    let text = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    // What stands there from before a crash has another id.
    lines.first() == Some(&id.to_string().as_str()) && lines.get(7) == Some(&"ready")
}
